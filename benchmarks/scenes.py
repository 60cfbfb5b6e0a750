"""Milliseconds of a processor per built-in scene, on one thread, as in a worker of a build."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from clearfuse.synth.execute.tasks import limit_threads
from clearfuse.synth.scenes import make_scene, scene_pair
from clearfuse.synth.seeds import seed_of

SCENES = 32
WANTED = 150


def milliseconds(make: Callable[[int], object]) -> np.ndarray:
    """The faster of two runs for each scene."""
    out: list[float] = []
    for number in range(SCENES):
        runs: list[float] = []
        for _ in range(2):
            began = time.process_time()
            make(number)
            runs.append(time.process_time() - began)
        out.append(1000 * min(runs))
    return np.array(out)


def main() -> None:
    """Print the table."""
    limit_threads()
    scene_pair("mff", 0)
    print(f"{'640x480':<12}{'median ms':>10}{'worst ms':>10}{f'over {WANTED}':>10}")
    makers: dict[str, Callable[[int], object]] = {"a scene": lambda i: make_scene(seed_of("bench", i))}
    for task in ("vif", "mef", "mff"):
        makers[task] = lambda i, task=task: scene_pair(task, seed_of("scene", task, f"train-{i:06d}"))
    for name, make in makers.items():
        times = milliseconds(make)
        print(f"{name:<12}{np.median(times):>10.0f}{times.max():>10.0f}{(times > WANTED).sum():>10}")


if __name__ == "__main__":
    main()

"""Milliseconds an operator takes on one thread, beside albumentations in the same run where it has a like one.

A ratio above 1: ours is faster. Ours are timed in their own space (linear light or code values), without conversion.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import cv2
import numpy as np

from synth import color
from synth.operators import OPERATORS
from synth.operators.base import LINEAR_STAGES, Scene
from synth.scenes import scene_pair
from synth.seeds import generator

SIZES = ((640, 480), (1280, 1024))
SEVERITY = 0.5


def peers() -> dict[str, Any]:
    """albumentations' nearest transforms; their outputs are simpler models of the same thing."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations as A

    return {
        "haze": A.RandomFog(p=1),
        "rain": A.RandomRain(p=1),
        "snow": A.RandomSnow(p=1, method="texture"),
        "motion_blur": A.MotionBlur(blur_limit=(21, 21), p=1),
        "gaussian_blur": A.GaussianBlur(sigma_limit=(2.25, 2.25), blur_limit=0, p=1),
        "gaussian_noise": A.GaussNoise(std_range=(0.1, 0.1), p=1),
        "downsample": A.Downscale(scale_range=(0.36, 0.36), p=1),
        "jpeg": A.ImageCompression(quality_range=(42, 42), p=1),
    }


def best_of(call: Callable[[], Any], repeats: int = 7) -> float:
    """Milliseconds of the fastest of several runs: the least disturbed by the rest of the machine."""
    call()
    times: list[float] = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return 1000 * min(times)


def main() -> None:
    """Print the table."""
    cv2.setNumThreads(1)
    others = peers()
    print(f"{'operator':<16}{'size':>12}{'ms':>9}{'peer ms':>9}{'ratio':>7}")
    for width, height in SIZES:
        pair = scene_pair("vif", 1, (width, height))
        for name, cls in OPERATORS.items():
            infrared = cls.modalities == frozenset({"infrared"})
            stored = pair.b if infrared else pair.a
            linear = cls.stage in LINEAR_STAGES and not infrared
            image = color.code_to_linear(stored) if linear else color.code_to_float(stored)
            scene = Scene("infrared" if infrared else "visible", pair.depth)
            op = cls.draw(generator(3), SEVERITY)
            ours = best_of(lambda op=op, image=image, scene=scene: op(image, generator(4), scene))
            line = f"{name:<16}{f'{width}x{height}':>12}{ours:>9.2f}"
            if name in others:
                theirs = best_of(lambda peer=others[name], image=pair.a: peer(image=image))
                line += f"{theirs:>9.2f}{theirs / ours:>7.2f}"
            print(line)
        one = np.ascontiguousarray(pair.a)
        there = best_of(partial(color.code_to_linear, one))
        back = best_of(partial(color.linear_to_srgb, color.code_to_linear(one)))
        print(f"{'to linear, back':<16}{f'{width}x{height}':>12}{there:>9.2f}{back:>9.2f}")


if __name__ == "__main__":
    main()

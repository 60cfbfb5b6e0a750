"""Throughput of a build by executor and workers, relative to encoding only.

Samples per second without start-up: the difference between a build of all pairs and one of a few, each the fastest of
three rounds, in which the rows alternate, so that the load of other programs affects all of them. The reference is one
worker that only encodes the members of the same samples; at 100 % of it all of a worker's time is spent in the codec.
The time to start is shown beside it: Ray needs it once per build where there is no cluster to join.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from build import FEW, PAIRS, make_pairs

from clearfuse.synth.builder.run import build
from clearfuse.synth.execute import tasks
from clearfuse.synth.shards.codecs import CODECS
from clearfuse.synth.shards.sample import encode_sample, read_samples

SIZE, VARIANTS, CODEC = (640, 480), 2, "webp"
ROUNDS = 3
ROWS = (("serial", 1), ("processes", 1), ("processes", 2), ("ray", 1), ("ray", 2))


def timed(out: Path, data: str, executor: str, workers: int) -> tuple[float, int]:
    """Seconds of a build, and its samples."""
    began = time.perf_counter()
    report = build(
        "vif", data=[data], out=str(out), n="3", variants=VARIANTS, shard_size=4,
        workers=workers, executor=executor, codec=CODEC, max_rejects=0.0,
    )  # fmt: skip
    return time.perf_counter() - began, report.samples


def fastest(root: Path, data: dict[int, str]) -> dict[tuple[str, int, int], tuple[float, int]]:
    """(executor, workers, pairs) -> the least seconds of all rounds, and the samples."""
    found: dict[tuple[str, int, int], tuple[float, int]] = {}
    for turn in range(ROUNDS):
        for executor, workers in ROWS:
            for pairs in (FEW, PAIRS):
                name = f"{executor}-{workers}-{pairs}-{turn}"
                os.environ["CLEARFUSE_CACHE"] = str(root / f"cache-{name}")
                one = timed(root / name, data[pairs], executor, workers)
                found[executor, workers, pairs] = min(one, found.get((executor, workers, pairs), one))
    return found


def floor(folder: Path) -> float:
    """Samples per second that one worker encodes."""
    tasks.limit_threads()
    spent, count = 0.0, 0
    for shard in sorted(folder.glob("*.tar"))[:16]:
        for sample in read_samples(shard):
            began = time.perf_counter()
            encode_sample(sample, CODECS[CODEC])
            spent += time.perf_counter() - began
            count += 1
    return count / spent


def main() -> None:
    """Print the table."""
    os.environ.setdefault("RAY_ADDRESS", "local")
    heads = ("workers", "samples/s", "of floor", "speed-up", "start-up s")
    print(f"{'executor':>12}" + "".join(f"{head:>12}" for head in heads))
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        found = fastest(root, make_pairs(root, *SIZE))
        least = max(floor(root / f"serial-1-{PAIRS}-{turn}") for turn in range(ROUNDS))
        first = 0.0
        for executor, workers in ROWS:
            (few, fewer), (spent, count) = (found[executor, workers, pairs] for pairs in (FEW, PAIRS))
            rate = (count - fewer) / (spent - few)
            first = first or rate
            share = f"{rate / (workers * least):.0%}"
            cells = (str(workers), f"{rate:.2f}", share, f"{rate / first:.2f}", f"{few - fewer / rate:.1f}")
            print(f"{executor:>12}" + "".join(f"{cell:>12}" for cell in cells), flush=True)
        print(f"{'encode only':>12}{1:>12}{least:>12.2f}{'100%':>12}   ({SIZE[0]}x{SIZE[1]}, n = 3, lossless {CODEC})")


if __name__ == "__main__":
    main()

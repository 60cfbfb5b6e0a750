"""Throughput of a build by executor and workers, against the floor of encoding alone.

Samples a second, start-up left out: the difference between a build of all pairs and one of a few, each the fastest of
three rounds, in which the rows take turns, so that another program's load falls on none alone. The floor is one worker
that encodes the members of the same samples and does nothing else; at 100 % of it a worker's time goes into the codec
alone. What starting takes stands beside it: Ray pays it once a build, where it has no cluster to join.
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
    """(executor, workers, pairs) -> the fewest seconds of all rounds, and the samples."""
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
    """Samples a second that one worker encodes."""
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

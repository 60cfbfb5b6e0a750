"""Evaluation at scale: samples per second, memory and the report's digest, by number of samples and of processes.

    python benchmarks/evaluation.py [--samples 2000 20000] [--workers 1 2] [--records 100000 1000000] [--kill 600]
    python benchmarks/evaluation.py --shards DIR... --against CHECKOUT [--workers 2] [--rounds 2]

The samples are copies of a tiny built-in pair; the metric is PSNR, the methods are those of the pyramid fuser, so that
reading, storing and summing are measured. Beyond 64 shards of 1,024 samples, shards are hard links to these, so that a
million samples take 2 GB of disk. records: only the statistics, of synthetic records read from disk. Memory is the
largest resident set of a separate process. kill: send SIGKILL to the evaluation and its workers each time it has run
for that many seconds, and resume.

against: no table, but `train eval SHARDS --model none` (classical restoration, the pyramid, its upper bound; the usual
metrics) of this tree and of another checkout of the project by turns, with the seconds of processor time (all
processes) and of wall time of each run, their ratios, and the largest difference of a value in both report.csv.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from clearfuse.synth.builder.run import build
from clearfuse.synth.files.jsonstream import dumps
from clearfuse.synth.seeds import generator
from clearfuse.synth.shards.codecs import CODECS
from clearfuse.synth.shards.sample import Sample, encode_sample, read_samples
from clearfuse.synth.shards.tar import write_shard

SHARD = 1024
DISTINCT = 64
"""Shards that are written; further ones are links to them."""


def tiny(folder: Path) -> Sample:
    """A sample of 64x64 pixels, cut from a built-in scene."""
    build("vif", out=str(folder / "one"), n="1", limit=1, executor="serial", workers=1)
    sample = next(iter(read_samples(next((folder / "one").glob("*.tar")))))
    images = {name: np.ascontiguousarray(image[64:128, 64:128]) for name, image in sample.images.items()}
    return Sample(sample.key, images, None, sample.prompt, sample.meta.model_copy(update={"depth": None}))


def many(folder: Path, sample: Sample, count: int) -> Path:
    """Shards with ``count`` copies, each with its own key and pair."""
    out = folder / f"many-{count}"
    out.mkdir()
    members = encode_sample(sample, CODECS["webp"])

    def copies(start: int, stop: int) -> Iterator[tuple[str, dict[str, bytes]]]:
        for i in range(start, stop):
            yield f"{i:09d}", {**members, "json": dumps({**sample.meta.to_json(), "pair": f"{i}"})}

    for number, start in enumerate(range(0, count, SHARD)):
        path = out / f"vif-test-{number:06d}.tar"
        if number >= DISTINCT and start + SHARD <= count:
            path.hardlink_to(out / f"vif-test-{number % DISTINCT:06d}.tar")
        else:
            write_shard(path, copies(start, min(start + SHARD, count)))
    return out


PEAK = """
def PEAK():
    # Not getrusage's: that starts from what the process had which started this one.
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))
"""

SCORED = """
import resource
from clearfuse.train.evaluation.methods.fusers import METHODS
from clearfuse.train.evaluation.evaluate import evaluate_shards
evaluate_shards([{shards!r}], {out!r}, metrics="PSNR", methods=list(METHODS.values()), examples=0, workers={workers})
print(PEAK(), resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""

SUMMED = """
from pathlib import Path
from clearfuse.train.evaluation.aggregate import aggregate
from clearfuse.train.evaluation.samples import Portion
from clearfuse.train.evaluation.scoring import Method, Record
from clearfuse.train.evaluation.summary import Evaluation
from clearfuse.train.metrics import METRICS
names = ("PSNR", "SSIM", "VIF", "Qabf")
def parts():
    with open({path!r}, "rb") as file:
        part = []
        for line in file:
            part.append(Record.parse(line, 4))
            if len(part) == 32:
                yield part
                part = []
methods = tuple(Method(name, str) for name in ("a", "b", "c", "d"))
done = Evaluation(methods, tuple(METRICS[name] for name in names), (Portion(Path("x.tar"), 1, 1),))
aggregate(done, parts)
assert done.samples == {count}
print(PEAK(), 0)
"""


def measured(code: str, kill: float | None = None) -> tuple[float, float, float, int]:
    """Seconds, megabytes of the process and of its largest child, and the number of kills."""
    began, kills = time.perf_counter(), 0
    while True:
        ran = subprocess.Popen(
            [sys.executable, "-c", PEAK + code], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            said, _ = ran.communicate(timeout=kill)
        except subprocess.TimeoutExpired:
            os.killpg(ran.pid, signal.SIGKILL)
            ran.wait()
            kills += 1
            continue
        assert ran.returncode == 0
        own, child = map(float, said.split()[-2:])
        return time.perf_counter() - began, own, child, kills


def digest_of(folder: Path) -> str:
    """A digest of all files of a report."""
    whole = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        with path.open("rb") as file:
            whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()[:8]


def written(path: Path, count: int) -> None:
    """Write a file of synthetic records."""
    from clearfuse.train.evaluation.scoring import Record

    rng = generator(1)
    with path.open("wb") as file:
        for i in range(count):
            steps = tuple((op, "a", 0.5) for op in ("haze", "rain", "jpeg")[: 1 + i % 3])
            values = rng.random((4, 4))
            pair = ("x.tar", f"{i:09d}", "msrs", f"p{i // 3}", "vif", 1 + i % 3, steps, "pyramid", False)
            file.write(Record(*pair, values, (False,) * 4).line())


def evaluated(checkout: Path, shards: list[str], out: Path, workers: int) -> tuple[float, float]:
    """Seconds of processor time of all processes and of wall time of an evaluation by a checkout's code."""
    now = (checkout / "src").is_dir()
    command = [*(("clearfuse", "train") if now else ("train",)), "eval", *shards, "--model", "none", "--fuser", "none"]
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src" if now else checkout), "OMP_NUM_THREADS": "1"}
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", *command, "--examples", "0", "--workers", str(workers), "--out", str(out)],
        # There, since `python -m train` takes what lies in the current folder first.
        cwd=checkout, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return spent, time.perf_counter() - began


def difference(reports: list[Path]) -> float:
    """The largest difference of a metric's value between two report.csv with the same samples and methods."""
    both: list[dict[tuple[str, ...], dict[str, str]]] = []
    for report in reports:
        with (report / "report.csv").open(newline="") as file:
            rows = csv.DictReader(file)
            both.append({(row["shard"], row["key"], row["method"].partition(" (")[0]): row for row in rows})
    assert both[0].keys() == both[1].keys()
    names = ("PSNR", "SSIM", "VIF", "Qabf")
    pairs = [(float(both[0][key][name]), float(both[1][key][name])) for key in both[0] for name in names]
    return max(abs(x - y) if x != y else 0.0 for x, y in pairs)  # infinite both: equal


def compare(here: Path, other: Path, shards: list[str], workers: int, rounds: int, folder: Path) -> None:
    """Print the seconds of both checkouts by turns, and the ratios."""
    for number in range(rounds):
        reports = [folder / f"{name}-{number}" for name in ("here", "other")]
        (own, wall), (others, others_wall) = (
            evaluated(checkout, shards, out, workers) for checkout, out in zip((here, other), reports, strict=True)
        )
        print(
            f"{workers} workers: processor {own:.1f} s here, {others:.1f} s there, {others / own:.2f} times; wall "
            f"{wall:.1f} and {others_wall:.1f} s, {others_wall / wall:.2f} times; largest difference of a value "
            f"{difference(reports):.2g}",
            flush=True,
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="*", default=[1000, 4000])
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--records", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--kill", type=float, help="seconds after which an evaluation is killed and resumed")
    parser.add_argument("--shards", nargs="+", help="with --against: shards, or folders of shards")
    parser.add_argument("--against", type=Path, help="another checkout of the project")
    parser.add_argument("--rounds", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.against:
            here = Path(__file__).resolve().parent.parent
            for workers in args.workers:
                shards = [str(Path(one).resolve()) for one in args.shards or []]
                compare(here, args.against.resolve(), shards, workers, args.rounds, folder)
            return
        sample = tiny(folder) if args.samples else None
        for count in args.samples:
            assert sample is not None
            shards = many(folder, sample, count)
            for workers in args.workers:
                out = folder / f"report-{count}-{workers}"
                code = SCORED.format(shards=str(shards), out=str(out), workers=workers)
                spent, own, child, kills = measured(code, args.kill)
                digest = digest_of(out)
                print(
                    f"{count:8d} samples, {workers} workers: {spent:7.1f} s, {count / spent:6.0f}/s, "
                    f"{own:5.0f} MB, a worker {child:5.0f} MB, report {digest}"
                    + (f", killed {kills} times" if kills else ""),
                    flush=True,
                )
        for count in args.records:
            path = folder / "records.jsonl"
            written(path, count)
            spent, own, _, _ = measured(SUMMED.format(path=str(path), count=count // 32 * 32))
            print(f"{count:8d} records summed: {spent:7.1f} s, {own:5.0f} MB", flush=True)


if __name__ == "__main__":
    main()

"""What is learned in equal processor time: rows of options of ``train fit`` on the same shards, by the same test.

    python benchmarks/trial.py SHARDS ... --test SHARDS ... --work DIR [--minutes 20] [--rows small,wide] [--limit 60]
    python benchmarks/trial.py SHARDS ... --test SHARDS ... --work DIR --rows mine --row 'mine=--preset small --lr 5e-4'

A row's time a step is measured on a dozen steps; it then trains for as many as fit in the minutes, its learning rate
falling over them. Processor time is that of the run and of what decodes and degrades for it (``--workers 0``: in one
process). A row that is there is not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from clearfuse.synth.console import note
from clearfuse.train.evaluation.evaluate import evaluate_shards
from clearfuse.train.evaluation.methods.choose import methods_of

ROWS: dict[str, str] = {
    "tiny-reg": "--preset tiny-reg",
    "small": "--preset small",
    "nafnet": "--preset nafnet",
    "wide": "--preset small --set config.width=32 --set config.heads=8",
    "deep": "--preset small --set config.depth=6",
    "mse": "--preset small --set 'objective.measure=\"mse\"'",
    "charbonnier": "--preset small --set 'objective.measure=\"mse\"' --set objective.pixel=1 "
    "--set 'objective.pixels={charbonnier=1}'",
    "log+ssim": "--preset small --set objective.pixel=1 --set 'objective.pixels={ssim=0.5}'",
    "log+frequency": "--preset small --set objective.pixel=1 --set 'objective.pixels={frequency=5}'",
    "ema-0.99": "--preset small --set schedule.ema=0.99",
    "lr-2e-3": "--preset small --lr 2e-3",
    "lr-5e-4": "--preset small --lr 5e-4",
    "crop-64": "--preset small --crop 64 --batch 64",
    "crop-192": "--preset small --crop 192 --batch 8",
    "repeats-1": "--preset small --set schedule.repeats=1",
    "bf16": "--preset small --precision bf16",
    "no-prompts": "--preset small --text none",
}
PROBES = (2, 14)
"""Steps of the two runs that tell start and step apart."""


def fit(shards: Sequence[str], out: Path, steps: int, options: Sequence[str]) -> float:
    """Train; the seconds of processor time that it took, its loaders' included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    often = ["--validate-every", str(steps), "--checkpoint-every", str(steps), "--tracker", "none"]
    usual = ["--workers", "0", "--device", "cpu", *options, "--steps", str(steps)]
    command = [sys.executable, "-m", "clearfuse.train", "fit", *shards, "--out", str(out), *often, *usual]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def trained(shards: Sequence[str], out: Path, minutes: float, options: Sequence[str]) -> dict[str, float]:
    """Train a row for the minutes; what it took, kept in ``trial.json`` beside the run."""
    kept = out / "trial.json"
    if kept.is_file():
        return json.loads(kept.read_text())
    spent: list[float] = []
    for steps in PROBES:
        probe = out.with_name(f"{out.name}-probe")
        spent.append(fit(shards, probe, steps, options))
        shutil.rmtree(probe)
    step = max((spent[1] - spent[0]) / (PROBES[1] - PROBES[0]), 1e-3)
    start = max(spent[0] - PROBES[0] * step, 0)
    steps = max(int((60 * minutes - start) / step), 1)
    note(f"{out.name}: {step:.2f} s a step, {steps} steps")
    taken = fit(shards, out, steps, options)
    facts = {"steps": steps, "seconds": taken, "step": step}
    kept.write_text(json.dumps(facts))
    return facts


def main() -> None:
    """Train what is missing, score all, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--test", nargs="+", required=True, help="shards that are scored")
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--minutes", type=float, default=20, help="of processor time, a row")
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--row", action="append", default=[], metavar="NAME=OPTIONS", help="another row")
    parser.add_argument("--common", default="", help="options of train fit for all rows, such as recipes")
    parser.add_argument("--limit", type=int, help="samples that are scored")
    options = parser.parse_args()
    rows = ROWS | dict(item.split("=", 1) for item in options.row)
    facts: dict[str, dict[str, float]] = {}
    for name in options.rows.split(","):
        given = [*shlex.split(options.common), *shlex.split(rows[name])]
        facts[name] = trained(options.shards, options.work / name, options.minutes, given)
    methods, _ = methods_of([str(options.work / name) for name in facts], fusers=["none"])
    done = evaluate_shards(
        options.test, str(options.work / "report"), metrics="PSNR,SSIM", methods=methods, limit=options.limit,
        examples=0, note=note,
    )  # fmt: skip
    tasks = [task for task, _ in done.ordered("task")]
    print(f"{'':<22}{'steps':>8}{'minutes':>9}{'PSNR':>8}{'SSIM':>8}{''.join(f'{task:>8}' for task in tasks)}")
    for number, method in enumerate(done.methods):
        own = facts.get(method.name)
        cost = f"{own['steps']:>8.0f}{own['seconds'] / 60:>9.1f}" if own else f"{'':>17}"
        whole = done.groups["overall"]["all"]
        means = f"{whole.stat(number, 0).mean:>8.2f}{whole.stat(number, 1).mean:>8.3f}"
        by_task = "".join(f"{done.groups['task'][task].stat(number, 0).mean:>8.2f}" for task in tasks)
        print(f"{method.name:<22}{cost}{means}{by_task}")


if __name__ == "__main__":
    main()

"""A model beside pipelines on degraded pairs, and what it must hold, by task, number of degradations and degradation.

    python benchmarks/shipped.py SHARDS ... --out report [--model small] [--sdnet DIR] [--limit N] [--clean 20]

Runs ``train eval`` on the shards (the same command goes on where it was stopped; its report stays in ``--out``): the
model with and without the prompts, SDNet on the degraded pair and after classical restoration (``--sdnet``: see
``sdnet.py``), classical restoration that is told the steps, then the pyramid, the pyramid alone, and on the clean pair.
Then ``--clean`` pairs a task are fused as they are, and the PSNR to the pyramid's image is said.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from sdnet import OnDegraded, SDNet

from clearfuse.synth.console import note
from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.shards.sample import read_samples
from clearfuse.synth.types import TASKS
from clearfuse.train.data.find import find_local_shards
from clearfuse.train.evaluation.evaluate import evaluate_shards
from clearfuse.train.evaluation.methods.choose import methods_of
from clearfuse.train.evaluation.methods.classical import ClassicalThenFused
from clearfuse.train.evaluation.samples import Portion
from clearfuse.train.evaluation.scoring import Method
from clearfuse.train.metrics import METRICS
from clearfuse.train.metrics.fidelity import psnr
from clearfuse.train.pipeline.fusion import FusionPipeline

NOTHING, CLASSICAL, BOUND = "pyramid on degraded", "classical + pyramid", "pyramid on clean"
MEASURED = ("PSNR", "SSIM", "VIF", "Qabf", "BRISQUE")
Rows = list[dict[str, str]]


def scored(shards: list[str], out: Path, options: argparse.Namespace) -> Rows:
    """The lines of report.csv, once the methods are scored."""
    chosen, _ = methods_of([options.model], fusers=["none"], unprompted=True)

    def methods(portions: Sequence[Portion]) -> list[Method]:
        sdnet = options.sdnet and SDNet(options.sdnet)
        more = [Method("SDNet on degraded", OnDegraded(sdnet))] if sdnet else []
        more += [Method("classical + SDNet", ClassicalThenFused(sdnet))] if sdnet else []
        return [*chosen(portions), *more]

    metrics = [name for name in MEASURED if not METRICS[name].missing()]
    evaluate_shards(
        shards, str(out), metrics=",".join(metrics), methods=methods, limit=options.limit, workers=options.workers,
        progress=lambda done, total: None if done % 10 else note(f"{done} of {total}"), note=note,
    )  # fmt: skip
    with (out / "report.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def mean(rows: Rows, metric: str, method: str) -> float:
    """The mean over a method's finite values."""
    values = [float(row[metric]) for row in rows if row["method"] == method and row[metric]]
    return fmean(finite) if (finite := [value for value in values if math.isfinite(value)]) else math.nan


def grouped(rows: Rows, *keys: str) -> dict[tuple[str, ...], Rows]:
    """The rows by the values of columns; of ``op``, by each degradation that a sample has."""
    found: dict[tuple[str, ...], Rows] = defaultdict(list)
    for row in rows:
        ops = {step.partition("[")[0] for step in row["steps"].split("+")} if "op" in keys else {""}
        for op in ops:
            found[tuple(op if key == "op" else row[key] for key in keys)].append(row)
    return dict(sorted(found.items()))


def table(title: str, groups: dict[tuple[str, ...], Rows], metrics: Sequence[str], methods: Sequence[str]) -> None:
    """Print the means, a line a group and method."""
    print(f"\n{title}\n{'':<28}{'':<26}{''.join(f'{metric:>10}' for metric in metrics)}{'samples':>9}")
    for name, rows in groups.items():
        for number, method in enumerate(methods):
            count = sum(row["method"] == method for row in rows)
            cells = "".join(f"{mean(rows, metric, method):>10.4g}" for metric in metrics)
            print(f"{' '.join(name) if number == 0 else '':<28}{method:<26}{cells}{count if number == 0 else '':>9}")


def claims(rows: Rows, ours: str, metrics: Sequence[str]) -> None:
    """Print what the model must hold, with the figures."""
    tasks = grouped(rows, "task")
    methods = [name for name in dict.fromkeys(row["method"] for row in rows) if name != BOUND]
    gains = {
        other: {task: mean(group, "PSNR", ours) - mean(group, "PSNR", other) for (task,), group in tasks.items()}
        for other in (NOTHING, CLASSICAL)
    }
    print("\nClaims")
    for (task,), group in tasks.items():
        means = {metric: {name: mean(group, metric, name) for name in methods} for metric in metrics}
        best = {
            metric: (max if METRICS[metric].direction == "higher" else min)(named, key=lambda name, of=named: of[name])
            for metric, named in means.items()
        }
        first = sum(name == ours for name in best.values())
        print(f"{task}: first in {first} of {len(metrics)} metrics" + "".join(f"; {m} {n}" for m, n in best.items()))
    for other, least in ((NOTHING, 3.0), (CLASSICAL, 1.5)):
        said = ", ".join(f"{task} {gain:+.2f}" for task, gain in gains[other].items())
        print(f"over {other}, PSNR: mean of tasks {fmean(gains[other].values()):+.2f} dB (wanted {least:+.1f}); {said}")
    print(f"least over {CLASSICAL} in a task: {min(gains[CLASSICAL].values()):+.2f} dB (wanted +0.8)")
    losses = {
        " ".join(name): mean(group, "PSNR", ours) - mean(group, "PSNR", NOTHING)
        for name, group in grouped(rows, "task", "op").items()
    }
    below = {name: f"{gain:+.2f}" for name, gain in losses.items() if gain < -0.1}
    print(f"more than 0.1 dB below doing nothing: {below or 'nowhere'}")
    for name in methods:
        by_n = {key: mean(group, "PSNR", name) for (key,), group in grouped(rows, "n").items()}
        first, *_, last = by_n.values()
        print(
            f"n = {', '.join(by_n)}: {name:<26}{' '.join(f'{x:6.2f}' for x in by_n.values())}  falls {first - last:.2f}"
        )


def clean_pairs(shards: list[str], model: str, most: int) -> None:
    """Print the PSNR between the model's and the pyramid's image of clean pairs, by task."""
    pipeline, found = FusionPipeline.from_pretrained(model), defaultdict[str, dict[str, float]](dict)
    for path in find_local_shards(shards):
        for sample in read_samples(path):
            task, name, images = sample.meta.task, f"{sample.meta.dataset}/{sample.meta.pair}", sample.images
            if name in found[task] or len(found[task]) >= most:
                continue
            a, b = images["clean_a"], images["clean_b"]
            pair = (pipeline(a, b, task=task, prompt=""), PyramidFuser()(a, b, task))
            found[task][name] = psnr(*(np.broadcast_to(x, (*a.shape[:2], 3)).astype(np.float32) for x in pair))
    print("\nClean pairs, PSNR to the pyramid's image (wanted over 35 dB)")
    for task in (task for task in TASKS if found[task]):
        values = sorted(found[task].values())
        over = sum(value > 35 for value in values)
        print(f"{task}: mean {fmean(values):.2f}, least {values[0]:.2f}, {over} of {len(values)} over 35 dB")


def main() -> None:
    """The tables and the claims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", nargs="+")
    parser.add_argument("--out", type=Path, required=True, help="folder of the report")
    parser.add_argument("--model", default="clearfuse-small")
    parser.add_argument("--sdnet", type=Path, help="folder of SDNet's weights")
    parser.add_argument("--limit", type=int, help="samples of all shards")
    parser.add_argument("--clean", type=int, default=20, help="clean pairs a task")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    rows = scored(options.shards, options.out, options)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    metrics = [name for name in MEASURED if name in rows[0]]
    table("By task", grouped(rows, "task"), metrics, methods)
    table("By task and number of degradations", grouped(rows, "task", "n"), metrics[:1], methods)
    table("By task and degradation", grouped(rows, "task", "op"), metrics[:1], [methods[0], CLASSICAL, NOTHING])
    claims(rows, methods[0], metrics)
    clean_pairs(options.shards, options.model, options.clean)


if __name__ == "__main__":
    main()

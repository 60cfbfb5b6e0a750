"""Quality of samplers against their number of network calls, on a tiny flow model and held-out pairs.

    python benchmarks/samplers.py [--model DIR] [--preset tiny-fm] [--fit 300] [--pairs 12] [--side 96] [--set A.B=C]

Without --model the preset is first trained for --fit steps on built-in scenes. All samplers start from the same noise.
The distance of their images, in grey levels, is from those of 100 midpoint steps (200 calls); PSNR is against the
ground truth. The last lines give the calls that each sampler needs to come as close as 100 Euler steps. The distance of
stochastic samplers does not converge to 0. For a bridge (--preset tiny-i2sb) the reference images are those of 100
corrected steps, and the target is 100 plain ones.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from overfit import psnr_of
from torch import Tensor

from clearfuse.synth.builder.run import build
from clearfuse.train.data.batch import Batch
from clearfuse.train.data.corpus import index
from clearfuse.train.data.loader import batches
from clearfuse.train.data.samples import Samples
from clearfuse.train.objectives.base import PathObjective
from clearfuse.train.objectives.samplers import SAMPLERS
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.runs.options import RunOptions
from clearfuse.train.runs.settings import Settings
from clearfuse.train.training.trainer import fit

STEPS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 25, 33, 50)
TASKS = ("vif", "mef", "mff")


def fitted(folder: Path, preset: str, steps: int, sets: list[str]) -> Path:
    """Train a run on built-in scenes of all tasks."""
    settings = Settings.of(preset, sets=sets, steps=steps, crop=64)
    shards = [str(folder / task) for task in TASKS]
    run_options = RunOptions(validate_every=steps, checkpoint_every=steps, trackers=("none",))
    fit(shards, str(folder / "run"), settings, run_options=run_options, device="cpu", note=print)
    return folder / "run"


def held_out(folder: Path, pairs: int, side: int, guess: str) -> Batch:
    """Centre crops of held-out pairs of all tasks."""
    corpus = index([str(folder / task) for task in TASKS])
    data = Samples(corpus, side=side, training=False, guess=guess)
    places = [i * len(data) // pairs for i in range(pairs)] if pairs < len(data) else list(range(len(data)))
    (batch,) = batches(data, [places])
    assert isinstance(batch, Batch)
    return batch


def runs(path: str) -> Iterator[tuple[str, int, int]]:
    """(sampler, steps, calls) of the table."""
    for name, row in SAMPLERS.items():
        for steps in STEPS:
            if row.path == path and row.evaluations(steps) <= max(STEPS):
                yield name, steps, row.evaluations(steps)


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model")
    parser.add_argument("--preset", default="tiny-fm")
    parser.add_argument("--fit", type=int, default=300)
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--set", action="append", default=[], dest="sets")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for task in TASKS:
            common = {"out": str(folder / task), "executor": "serial", "workers": 1}
            build(task, split="train,val", limit=24, **common)
        model = Path(asked.model) if asked.model else fitted(folder, asked.preset, asked.fit, asked.sets)
        assembly = FusionPipeline.from_pretrained(model).assembly
        batch = held_out(folder, asked.pairs, asked.side, assembly.design.guess)

    objective = assembly.design.objective
    if not isinstance(objective, PathObjective):
        raise SystemExit(f"{model}: a {objective.kind} has no sampler")
    path = SAMPLERS[objective.sampler].path
    finest, usual = ("midpoint", "euler") if path == "flow" else ("i2sb-heun", "i2sb")

    def pictures(sampler: str, steps: int) -> Tensor:
        way = dataclasses.replace(objective, sampler=sampler, steps=steps)
        rng = torch.Generator().manual_seed(0)
        return assembly.fuse(batch.a, batch.b, batch.prompts, rng, way, batch.guess).clamp(-1, 1)

    def score(made: Tensor, exact: Tensor) -> tuple[float, float]:
        return 127.5 * float((made - exact).square().mean().sqrt()), float(psnr_of(made, batch.gt).mean())

    exact = pictures(finest, 100)
    goal, decibels = score(pictures(usual, 100), exact)
    print(f"{'sampler':<12}{'steps':>6}{'calls':>6}{'distance':>10}{'PSNR':>8}")
    print(f"{usual:<12}{100:>6}{100:>6}{goal:>10.3f}{decibels:>8.2f}", flush=True)
    reached: dict[str, int] = {}
    for sampler, steps, calls in runs(path):
        distance, decibels = score(pictures(sampler, steps), exact)
        print(f"{sampler:<12}{steps:>6}{calls:>6}{distance:>10.3f}{decibels:>8.2f}", flush=True)
        if distance <= goal:
            reached.setdefault(sampler, calls)
    for sampler, row in SAMPLERS.items():
        if row.path == path:
            said = f"{reached[sampler]} calls" if sampler in reached else f"not in {max(STEPS)} calls"
            print(f"as near as 100 steps of {usual}: {sampler}: {said}")


if __name__ == "__main__":
    main()

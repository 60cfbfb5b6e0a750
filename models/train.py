"""Train a shipped model by its page in ``manifests/runs/``: build the data, fit, write ``models/NAME/``.

    python models/train.py clearfuse-small --data /data --work /scratch/small

Each stage goes on where it was stopped: builds by their receipts, the run by its checkpoints. The same page, data and
versions give the same batches. ``make model NAME=clearfuse-small DATA=/data WORK=/scratch/small`` is the same.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from clearfuse import build
from clearfuse.synth import console
from clearfuse.synth.files.resources import read_toml
from clearfuse.synth.files.schema import Schema, StrictModel, validate
from clearfuse.synth.types import Task, UserError
from clearfuse.train.cli.defaults import run_fit
from clearfuse.train.cli.options import FitOptions
from clearfuse.train.pipeline.fusion import DESIGN, WEIGHTS
from clearfuse.train.runs.logs import LOG
from clearfuse.train.runs.record import RUN
from clearfuse.train.training.progress import show_progress
from clearfuse.train.weights.tensors import read_tensors, write_tensors

ROOT = Path(__file__).resolve().parent.parent


class BuildEntry(StrictModel):
    """One lean build of clean pairs."""

    name: Annotated[str, Field(pattern=r"^[\w-]+$")]
    """Its folder below --work."""
    task: Task
    """vif, mef or mff."""
    data: list[str] = []  # noqa: RUF012
    """Sets and their folders below --data, as ``msrs=vif/MSRS``; none: the built-in scenes."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Its share of the samples, beside the other builds'."""
    options: dict[str, Any] = {}  # noqa: RUF012
    """Other options of ``synth build``."""


class RunPage(StrictModel):
    """What ``manifests/runs/NAME.toml`` holds."""

    schema_: Schema
    build: Annotated[list[BuildEntry], Field(min_length=1)]
    """The data, degraded as they are read."""
    fit: dict[str, Any]
    """Options of ``train fit``."""


def main() -> int:
    """Build, fit, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a page of manifests/runs/")
    parser.add_argument("--data", required=True, type=Path, help="the folder that the page's data lie in")
    parser.add_argument("--work", required=True, type=Path, help="a folder for shards and checkpoints")
    parser.add_argument("--out", default=ROOT / "models", type=Path, help="where the model's folder goes")
    chosen = parser.parse_args()
    try:
        train(chosen.name, chosen.data, chosen.work, chosen.out)
    except UserError as error:
        print(f"models/train.py: error: {error}", file=sys.stderr)
        return 2
    return 0


def train(name: str, data: Path, work: Path, out: Path) -> None:
    """All stages; ``work`` keeps shards and checkpoints."""
    path = ROOT / "manifests/runs" / f"{name}.toml"
    page = validate(RunPage, read_toml(path), str(path))
    for one in page.build:
        sets = [f"{key}={data / folder}" for key, _, folder in (item.partition("=") for item in one.data)]
        report = build(one.task, data=sets, out=str(work / one.name), lean=True, say=console.note, **one.options)
        console.note(f"{one.name}: {report.samples} clean pairs")
    options = {
        "shards": [str(work / one.name) for one in page.build],
        "mix": ",".join(f"{one.weight:g}" for one in page.build),
        "out": str(work / "run"),
        **page.fit,
    }
    with show_progress() as progress:
        done = run_fit(validate(FitOptions, options, f"{path}: fit"), progress, console.note)
    console.note(done.line())
    publish(work / "run", out / name)


def publish(run: Path, folder: Path) -> None:
    """Write a run's model as it ships: the design, the weights in fp16, and the run's record and log beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors, _ = read_tensors(run / WEIGHTS)
    write_tensors(folder / WEIGHTS, {key: tensor.half() for key, tensor in tensors.items()}, {"format": "pt"})
    shutil.copyfile(run / DESIGN, folder / DESIGN)
    for file in (RUN, LOG):
        shutil.copyfile(run / file, folder / file)


if __name__ == "__main__":
    sys.exit(main())

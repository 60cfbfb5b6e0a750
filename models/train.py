"""Train a shipped model by its page in ``manifests/runs/``: build the data, fit, write ``models/NAME/``.

    python models/train.py clearfuse-small --data /data --work /scratch/small

Each stage goes on where it was stopped: builds by their receipts, runs by their checkpoints. The same page, data and
versions give the same batches. ``make model NAME=clearfuse-small DATA=/data WORK=/scratch/small`` is the same, and
draws ``docs/models/NAME.svg``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from clearfuse import build
from clearfuse.synth import console
from clearfuse.synth.files.jsonstream import write_json
from clearfuse.synth.files.schema import validate
from clearfuse.synth.files.storage import landing
from clearfuse.synth.types import UserError
from clearfuse.train.cli.defaults import run_fit
from clearfuse.train.cli.options import FitOptions
from clearfuse.train.designs.folder import DESIGN, WEIGHTS
from clearfuse.train.runs.logs import LOG
from clearfuse.train.runs.manifest import read_run_manifest
from clearfuse.train.runs.record import RUN, read_record
from clearfuse.train.training.progress import show_progress
from clearfuse.train.weights.tensors import read_tensors, write_tensors

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Build, fit, publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="a page of manifests/runs/")
    parser.add_argument("--data", required=True, type=Path, help="the folder that the page's data lie in")
    parser.add_argument("--work", required=True, type=Path, help="a folder for shards and checkpoints")
    parser.add_argument("--out", default=ROOT / "models", type=Path, help="where the model's folder goes")
    chosen = parser.parse_args()
    try:
        train(ROOT / "manifests/runs" / f"{chosen.name}.toml", chosen.data, chosen.work, chosen.out / chosen.name)
    except UserError as error:
        print(f"models/train.py: error: {error}", file=sys.stderr)
        return 2
    return 0


def train(path: Path, data: Path, work: Path, out: Path) -> None:
    """Build the data of a page and fit its stages; ``work`` keeps shards and checkpoints, ``out`` gets the model."""
    page = read_run_manifest(path)
    usual = {
        "shards": [str(work / one.name) for one in page.build],
        "mix": ",".join(f"{one.weight:g}" for one in page.build),
    }
    runs = [work / f"run-{number}" for number in range(1, len(page.fit) + 1)]
    stages: list[FitOptions] = []  # all are checked before work begins
    for run, before, stage in zip(runs, [None, *runs], page.stages(), strict=False):
        start = {} if before is None else {"init": str(before)}
        stages.append(validate(FitOptions, {**usual, "out": str(run), **stage, **start}, f"{path}: fit"))
    for one in page.build:
        sets = [f"{key}={data / folder}" for key, _, folder in (item.partition("=") for item in one.data)]
        report = build(one.task, data=sets, out=str(work / one.name), lean=True, say=console.note, **one.options)
        console.note(f"{one.name}: {report.samples} clean pairs")
    for options in stages:
        with show_progress() as progress:
            done = run_fit(options, progress, console.note)
        console.note(done.line())
    publish(runs, out)


def publish(runs: Sequence[Path], folder: Path) -> None:
    """Write the last run's model as it ships: the design, the weights in fp16, its record, and the log of all runs."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors, _ = read_tensors(runs[-1] / WEIGHTS)
    write_tensors(folder / WEIGHTS, {key: tensor.half() for key, tensor in tensors.items()}, {"format": "pt"})
    shutil.copyfile(runs[-1] / DESIGN, folder / DESIGN)
    record = read_record(runs[-1]).to_json()
    if record["settings"]["init"] is not None:  # by its name: where it lay on this machine is nobody's business
        record["settings"]["init"] = Path(record["settings"]["init"]).name
    write_json(folder / RUN, record)
    with landing(folder / LOG) as file:
        file.writelines(f"{line}\n".encode() for line in joined_log(runs))


def joined_log(runs: Sequence[Path]) -> Iterator[str]:
    """The lines of the runs' logs, the steps counted on."""
    done = 0
    for run in runs:
        step = 0
        for line in (run / LOG).read_text().splitlines():
            values = json.loads(line)
            step = values["step"]
            yield json.dumps({**values, "step": done + step})
        done += step


if __name__ == "__main__":
    sys.exit(main())

"""Run folders: what a run was asked, what it logged, and how it is found and stopped.

``run.json`` (settings, data), what ``train.logs`` writes, ``checkpoints/``, and the pipeline: the averaged weights with
the lowest validation loss so far.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clearfuse.synth.files.folders import LOCK, check_folder, difference, folder_lock, remove_temporary
from clearfuse.synth.files.jsonstream import write_json
from clearfuse.synth.files.schema import validate
from clearfuse.synth.files.storage import TEMPORARY
from clearfuse.synth.operators import OPERATORS
from clearfuse.synth.plugins import require_same
from clearfuse.synth.tables import plugins_of
from clearfuse.synth.types import SCHEMA, UserError, WorkIncomplete
from clearfuse.train.data.corpus import BEFORE, Corpus, shards_changed
from clearfuse.train.data.degrade import Degraders, degraders_record
from clearfuse.train.designs.presets import PRESETS
from clearfuse.train.runs.logs import LOG, PICTURES, SPEED
from clearfuse.train.runs.record import RUN, RunRecord, read_record
from clearfuse.train.runs.settings import Settings
from clearfuse.train.runs.trackers import BOARD, IDENTITY

NONFINITE = "nonfinite.jsonl"
"""The samples of each step that was not finite, a line a step."""
LONGER = ("steps", "warmup")
"""Settings that may change where a run goes on past its steps: a short run's warm-up follows from them."""
FREE = ("recompute",)
"""Settings that may change when a run goes on: they decide none of its numbers."""


def run_record(settings: Settings, corpus: Corpus, degraders: Degraders | None = None) -> RunRecord:
    """What ``run.json`` is to hold."""
    design = settings.design()
    facts: dict[str, Any] = {"loss_unit": design.objective.unit.name}
    drawn = plugins_of(
        (PRESETS, [settings.preset]), *((OPERATORS, each.recipe.operators) for each in (degraders or {}).values())
    )
    facts["plugins"] = [*design.plugins(), *(one for one in drawn if one not in design.plugins())]
    facts |= {"degrade": degraders_record(degraders or {}), "shards": corpus.fingerprint()}
    return validate(RunRecord, {"schema": SCHEMA, "settings": settings.model_dump(), **facts}, RUN)


@contextmanager
def run_folder(folder: Path, record: RunRecord, overwrite: bool, shards: Sequence[Path] = ()) -> Iterator[int | None]:
    """Make a run's folder, or find that it is this very run's; nobody else trains in it meanwhile.

    A run may go on past its steps: gives their number so far, None where it does not. What a killed run left half
    written is removed. Raises UserError where the folder is something else's, the run's settings or data were others,
    or another process is at it.
    """
    check_folder(folder)
    if not (folder / RUN).exists():
        if folder.exists() and any(not (TEMPORARY.match(path.name) or path.name == LOCK) for path in folder.iterdir()):
            raise UserError(f"--out {folder}: holds other files and no {RUN}; choose an empty folder")
        folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder, "run"):
        before = None
        if overwrite:
            _clear(folder)
        elif (folder / RUN).exists():
            before = _same(folder, record, shards)
        for one in (folder, folder / PICTURES):
            remove_temporary(one)
        if before is not None or not (folder / RUN).exists():
            write_json(folder / RUN, record.to_json())
        yield before


def _same(folder: Path, record: RunRecord, shards: Sequence[Path]) -> int | None:
    """The steps of a run that now is to have more; None where they stay. Raises UserError where it is another run."""
    try:
        held = read_record(folder)
    except UserError as error:
        raise UserError(f"{error}; --overwrite starts anew") from None
    settings, wanted = {**BEFORE, **held.given()}, record.settings.model_dump()
    longer = record.settings.steps > held.settings.steps
    for name in {**settings, **wanted}:
        before, now = settings.get(name), wanted.get(name)
        if before != now and name not in FREE and not (longer and name in LONGER):
            raise UserError(
                f"{folder}: a run with {name} {before}, not {now}; go on with {before}, choose another --out, "
                "or start anew with --overwrite"
            )
    if held.plugins != record.plugins:
        require_same(held.plugins, f"{folder}: a run")
        raise UserError(f"{folder}: a run without these plugins; choose another --out, or start anew with --overwrite")
    if (change := shards_changed(held.shards, record.shards, shards)) is not None:
        raise UserError(
            f"{folder}: a run on other shards: {change}; choose another --out, or start anew with --overwrite"
        )
    for change in difference(held.degrade, record.degrade):
        raise UserError(
            f"{folder}: a run with other degradations: {change}; choose another --out, or start anew with --overwrite"
        )
    return held.settings.steps if longer else None


def append_line(path: Path, data: Mapping[str, Any]) -> None:
    """One more line of JSON, on the disk. Raises WorkIncomplete where it can't be written."""
    try:
        with path.open("a") as file:
            file.write(json.dumps(data, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise WorkIncomplete(f"{path}: can't be written: {error}") from None


def _clear(folder: Path) -> None:
    """Remove a run's own files and no other."""
    for name in ("checkpoints", BOARD, PICTURES, "wandb"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in (LOG, SPEED, IDENTITY, "pipeline.json", "model.safetensors", NONFINITE, RUN):
        (folder / name).unlink(missing_ok=True)


def the_only_run(root: Path = Path("runs")) -> Path | None:
    """The one run below ``runs/``, None where there is none. Raises UserError with the list where there are several."""
    found = sorted(path.parent for path in root.glob("*/model.safetensors"))
    if len(found) > 1:
        listed = ", ".join(map(str, found))
        raise UserError(f"--model: name a run's folder or a hub id; runs with a model under {root}/: {listed}")
    return found[0] if found else None

"""Where a run's curves are shown: TensorBoard, Weights & Biases, Trackio, through the trackers of accelerate."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from clearfuse.synth import console
from clearfuse.synth.files.jsonstream import write_json
from clearfuse.synth.types import UserError, unknown

PROJECT = "clearfuse"
"""What runs are listed under; ``WANDB_PROJECT`` says it otherwise."""
IDENTITY = "tracking.json"
"""In the run's folder: by which name a service knows it, so that a run that goes on is the same one there."""
BOARD = "tensorboard"


class Tracker:
    """A run's curves in one service: one of accelerate's trackers, which needs no Accelerator once there is a state.

    A service that fails as the run goes on, a network that is gone, is said and left out: the run is worth more.
    """

    def __init__(self, tracker: Any, name: str) -> None:
        self._tracker, self._name, self._lost = tracker, name, False
        with _alone(), contextlib.redirect_stdout(sys.stderr):  # standard output is the result's
            from accelerate.state import PartialState

            PartialState(cpu=True)
            tracker.main_process_only = False
            try:
                tracker.start()
            except Exception as error:  # a stranger's service fails in its own ways: no network, no login
                raise UserError(f"--tracker {name}: {_said(error)}") from error

    def log(self, values: Mapping[str, float | str], step: int) -> None:
        """Numbers of a step, or words."""
        with self._trying():
            self._tracker.log(dict(values), step=step)

    def picture(self, name: str, image: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """A picture of a step."""
        with self._trying():
            if self._name == "tensorboard":
                self._tracker.log_images({name: image[None]}, step=step, dataformats="NHWC")
            elif self._name == "wandb":
                self._tracker.log_images({name: [image]}, step=step)
            else:  # accelerate has no pictures for it
                self._tracker.log({name: importlib.import_module("trackio").Image(image)}, step=step)

    def finish(self) -> None:
        """The end."""
        with contextlib.redirect_stdout(sys.stderr), self._trying():
            if self._name == "trackio":  # accelerate ends the run alone, which trackio then ends again as Python exits
                importlib.import_module("trackio").finish()
            else:
                self._tracker.finish()

    @contextlib.contextmanager
    def _trying(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self._name == "tensorboard":  # it writes beside the log: what stops it stops that too
                raise
            if not self._lost:
                console.note(f"{self._name}: {_said(error)}; the run goes on, its log is whole")
            self._lost = True


def _said(error: Exception) -> str:
    """The first line of an error."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _tensorboard(folder: Path, record: Mapping[str, Any], step: int) -> Tracker:
    """TensorBoard, in the run's folder; what a killed run logged after ``step`` is purged."""
    from accelerate.tracking import TensorBoardTracker

    tracker = Tracker(TensorBoardTracker(BOARD, str(folder), purge_step=step + 1), "tensorboard")
    if step == 0:
        text = json.dumps(record, indent=1, ensure_ascii=False)
        tracker.log({"settings": "\n".join(f"    {line}" for line in text.splitlines())}, 0)
    return tracker


def _wandb(folder: Path, record: Mapping[str, Any], step: int) -> Tracker:
    """Weights & Biases. What a killed run logged after ``step`` stays there and is not taken again: it is the same."""
    from accelerate.tracking import WandBTracker

    project = os.environ.get("WANDB_PROJECT", PROJECT)
    options = {"name": folder.name, "id": identity(folder), "dir": str(folder), "config": dict(record)}
    return Tracker(WandBTracker(project, resume="allow", **options), "wandb")


def _trackio(folder: Path, record: Mapping[str, Any], step: int) -> Tracker:
    """Trackio. What a killed run logged after ``step`` is there twice, the same."""
    from accelerate.tracking import TrackioTracker

    name = f"{folder.name}-{identity(folder)}"
    return Tracker(TrackioTracker(PROJECT, name=name, resume="allow", config=dict(record)), "trackio")


TRACKERS = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}
NONE = "none"


def choose_trackers(names: Sequence[str]) -> tuple[str, ...]:
    """The trackers of ``--tracker``, each once; ``none`` stands alone.

    Raises UserError where there is no such tracker, or its package is missing.
    """
    chosen = tuple(dict.fromkeys(names))
    for name in chosen:
        if name not in (*TRACKERS, NONE):
            raise unknown("tracker", name, (*TRACKERS, NONE))
        if name not in (NONE, "tensorboard") and importlib.util.find_spec(name) is None:
            raise UserError(f"--tracker {name}: not installed; pip install {name}")
    if NONE in chosen and len(chosen) > 1:
        raise UserError(f"--tracker none: stands alone, not beside {', '.join(n for n in chosen if n != NONE)}")
    return tuple(name for name in chosen if name != NONE)


def start_trackers(names: Sequence[str], folder: Path, record: Mapping[str, Any], step: int) -> list[Tracker]:
    """The trackers of a run that has done ``step`` steps; ``record`` is what it was asked. Raises UserError."""
    return [TRACKERS[name](folder, record, step) for name in names]


def identity(folder: Path) -> str:
    """By what a service tells the run in this folder from others of its name; made when first asked for."""
    path = folder / IDENTITY
    if not path.exists():
        write_json(path, {"id": secrets.token_hex(4)})
    return str(json.loads(path.read_bytes())["id"])


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """An environment without a launcher's variables: at their sight accelerate's state starts process groups and sets
    the number of threads, which are the trainer's. Only the first process tracks.
    """
    held = {name: os.environ.pop(name) for name in _LAUNCHED if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(held)


_LAUNCHED = ("LOCAL_RANK", "RANK", "WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")

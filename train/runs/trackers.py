"""Where a run's curves are shown: TensorBoard, Weights & Biases, Trackio, each through its own package."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import os
import secrets
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from clearfuse.synth import console
from clearfuse.synth.files.jsonstream import write_json
from clearfuse.synth.types import UserError, check_name

PROJECT = "clearfuse"
"""What runs are listed under; ``WANDB_PROJECT`` says it otherwise."""
IDENTITY = "tracking.json"
"""In the run's folder: by which name a service knows it, so that a run that goes on is the same one there."""
BOARD = "tensorboard"


class Tracker(ABC):
    """A run's curves in one place.

    Made of the run's folder, ``record``, what the run was asked, and the ``step`` it has done: it goes on from there.
    """

    @abstractmethod
    def __init__(self, folder: Path, record: Mapping[str, Any], step: int) -> None:
        """Begin or go on. Raises UserError where that fails."""

    @abstractmethod
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of a step."""

    @abstractmethod
    def picture(self, name: str, image: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """A picture of a step."""

    @abstractmethod
    def finish(self) -> None:
        """The end."""


class TensorBoard(Tracker):
    """TensorBoard, in the run's folder; what a killed run logged after its last checkpoint is purged.

    It writes beside the log: what stops it stops the log too, so its errors are raised.
    """

    def __init__(self, folder: Path, record: Mapping[str, Any], step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / BOARD), purge_step=step + 1)
        if step == 0:
            text = json.dumps(record, indent=1, ensure_ascii=False)
            self._writer.add_text("settings", "\n".join(f"    {line}" for line in text.splitlines()), 0)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of a step, on the disk: no checkpoint is ahead of them."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def picture(self, name: str, image: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """A picture of a step."""
        self._writer.add_image(name, image, step, dataformats="HWC")

    def finish(self) -> None:
        """The end."""
        self._writer.close()


class Service(Tracker):
    """A package with ``init``, ``Image`` and ``finish``, whose run has ``log``: wandb, and those that copy its API.

    One that fails as the run goes on, a network that is gone, is said once and left out: the run is worth more.
    """

    name: str

    def __init__(self, folder: Path, record: Mapping[str, Any], step: int) -> None:
        self._failed = False
        with contextlib.redirect_stdout(sys.stderr):  # standard output is the result's
            try:
                self._package = importlib.import_module(self.name)
                self._run = self._package.init(config=dict(record), resume="allow", **self.options(folder))
            except Exception as error:  # a service fails in its own ways: no network, no login
                raise UserError(f"--tracker {self.name}: {_first_line(error)}") from error

    @abstractmethod
    def options(self, folder: Path) -> dict[str, Any]:
        """What ``init`` is told of the run in this folder."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of a step."""
        with self._tolerant():
            self._run.log(dict(values), step=step)

    def picture(self, name: str, image: UInt8[np.ndarray, "h w 3"], step: int) -> None:
        """A picture of a step."""
        with self._tolerant():
            self._run.log({name: self._package.Image(image)}, step=step)

    def finish(self) -> None:
        """The end."""
        with contextlib.redirect_stdout(sys.stderr), self._tolerant():
            self._package.finish()

    @contextlib.contextmanager
    def _tolerant(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not self._failed:
                console.note(f"{self.name}: {_first_line(error)}; the run goes on, its log is whole")
            self._failed = True


class Wandb(Service):
    """Weights & Biases. What a killed run logged after its checkpoint stays and is not taken again: it is the same."""

    name = "wandb"

    def options(self, folder: Path) -> dict[str, Any]:
        """Project, name and id of the run."""
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        return {"project": project, "name": folder.name, "id": identity(folder), "dir": str(folder)}


class Trackio(Service):
    """Trackio. What a killed run logged after its checkpoint is there twice, the same."""

    name = "trackio"

    def options(self, folder: Path) -> dict[str, Any]:
        """Project and name of the run, which is also how it is found again."""
        return {"project": PROJECT, "name": f"{folder.name}-{identity(folder)}"}


def _first_line(error: Exception) -> str:
    """The first line of an error."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


TRACKERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": Wandb, "trackio": Trackio}
NONE = "none"


def choose_trackers(names: Sequence[str]) -> tuple[str, ...]:
    """The trackers of ``--tracker``, each once; ``none`` stands alone.

    Raises UserError where there is no such tracker, or its package is missing.
    """
    chosen = tuple(dict.fromkeys(names))
    for name in chosen:
        check_name("tracker", name, (*TRACKERS, NONE))
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

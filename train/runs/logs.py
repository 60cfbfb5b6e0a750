"""What a run writes down as it goes: ``log.jsonl``, ``speed.jsonl``, pictures, and the trackers' curves."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from jaxtyping import UInt8
from pydantic import BaseModel, ConfigDict, Field

from clearfuse.synth.files.schema import validate
from clearfuse.synth.files.storage import landing
from clearfuse.synth.types import WorkIncomplete
from clearfuse.train.runs.trackers import start_trackers

LOG, SPEED, PICTURES = "log.jsonl", "speed.jsonl", "samples"


class NoLog(AbstractContextManager["NoLog"]):
    """What the processes but the first write: nothing."""

    def write(self, step: int, kind: str, values: Mapping[str, float], speed: Mapping[str, float]) -> None:
        """Values of a step, which are the same in every run alike, and its speed, which is not."""

    def picture(self, step: int, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Samples as they are at a step."""

    def flush(self) -> None:
        """To the disk, so that no checkpoint is ahead of the log."""

    def __exit__(self, *error: object) -> None:
        """The end."""


class Log(NoLog):
    """The log of a run that has done ``step`` steps; lines after them, of a run that was killed, are cut off.

    trackers: names of ``runs.trackers``; record: what the run was asked, for them. Raises UserError where a tracker
    can't start, WorkIncomplete where something can't be written.
    """

    def __init__(
        self,
        folder: Path,
        step: int,
        trackers: Sequence[str] = ("tensorboard",),
        record: Mapping[str, Any] | None = None,
    ) -> None:
        self._folder = folder
        self._trackers = start_trackers(trackers, folder, record or {}, step)
        with _writing(folder / LOG):
            self._values, self._speed = _cut(folder / LOG, step), _cut(folder / SPEED, step)

    def write(self, step: int, kind: str, values: Mapping[str, float], speed: Mapping[str, float]) -> None:
        """Values to ``log.jsonl``, speed to ``speed.jsonl``, both to the trackers, named ``kind/name``."""
        with _writing(self._folder / LOG):
            self._values.write(json.dumps({"step": step, "kind": kind, **values}) + "\n")
            if speed:
                self._speed.write(json.dumps({"step": step, **speed}) + "\n")
            named = {f"{kind}/{name}": value for name, value in {**values, **speed}.items()}
            for tracker in self._trackers:
                tracker.log(named, step)

    def picture(self, step: int, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """``samples/step-N.png``, and to the trackers."""
        from PIL import Image

        path = self._folder / PICTURES / f"step-{step:07d}.png"
        with _writing(path):
            path.parent.mkdir(exist_ok=True)
            with landing(path) as file:
                Image.fromarray(image).save(file, "PNG")
            for tracker in self._trackers:
                tracker.picture(PICTURES, image, step)

    def flush(self) -> None:
        """To the disk, so that no checkpoint is ahead of the log."""
        with _writing(self._folder / LOG):
            for file in (self._speed, self._values):
                file.flush()
                os.fsync(file.fileno())

    def __exit__(self, *error: object) -> None:
        """Close all; where the run ends by an error, that one is what is said."""
        with suppress(OSError, WorkIncomplete) if error[0] else _writing(self._folder / LOG):
            for file in (self._values, self._speed):
                file.close()
            for tracker in self._trackers:
                tracker.finish()


class LogLine(BaseModel):
    """A line of ``log.jsonl`` or ``speed.jsonl``: a step, and what was measured then, infinite or no number too."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, float]  # type: ignore[assignment]

    step: int = Field(ge=0)
    kind: str = "speed"

    @property
    def values(self) -> dict[str, float]:
        """What was measured, by name."""
        return self.__pydantic_extra__


def read_lines(path: Path) -> Iterator[LogLine]:
    """The whole lines of a log; the last may be cut short, by a kill or as the run goes on. Raises UserError."""
    for number, line in enumerate(_lines(path), 1):
        yield validate(LogLine, line, f"{path}: line {number}")


def _cut(path: Path, step: int) -> TextIO:
    """A log without the lines after a step, open at its end."""
    kept = [line for line, read in zip(_lines(path), read_lines(path), strict=True) if read.step <= step]
    with landing(path) as file:
        file.writelines(kept)
    return path.open("a")


def _lines(path: Path) -> Iterator[bytes]:
    if path.exists():
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WorkIncomplete(f"{path} can't be written: {error.strerror or error}") from None

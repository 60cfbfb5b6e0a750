"""Checkpoints: the whole state of training in safetensors and JSON; no pickle.

``checkpoints/step-0000250/`` holds ``rank-000.safetensors`` (of each process the part of every tensor that it has) and
``state.json``. It is made under another name and gets its own last: it is there whole, or not at all. Any number of
processes reads what any other number wrote.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, RootModel
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from clearfuse.synth.files.checkpoints import check_weights
from clearfuse.synth.files.jsonstream import write_json
from clearfuse.synth.files.schema import Schema, StrictModel, validate
from clearfuse.synth.files.storage import read_small, sync_folder
from clearfuse.synth.types import SCHEMA, UserError, WorkIncomplete
from clearfuse.train.training.optim import CautiousAdamW
from clearfuse.train.training.parallel import local_shard
from clearfuse.train.training.ranks import Ranks
from clearfuse.train.weights.tensors import write_tensors

NAME = re.compile(r"step-(\d{7})\Z")
STATE = "state.json"
MOMENTS = ("exp_avg", "exp_avg_sq")
NUMBERS = ("step", "best", "best_step", "best_psnr", "skipped")


Number = Annotated[int, Field(ge=0)]


class State(StrictModel):
    """What ``state.json`` holds."""

    schema_: Schema
    step: Number
    best: float | None
    """The lowest validation loss so far."""
    best_step: Number | None
    best_psnr: float | None = None
    """Of the fused crops then, dB."""
    skipped: Number
    """Steps in a row that were not finite, and were passed over."""
    updates: Number
    """Steps that the optimizer took."""
    files: Annotated[int, Field(ge=1, le=1000)]
    """Files of tensors."""
    tensors: dict[str, list[Number]]
    """The shape of each tensor."""


class Starts(RootModel[dict[str, Number]]):
    """The row at which each tensor's part in a file begins."""


@dataclass
class Training:
    """What changes while a run goes on.

    best: the lowest validation loss so far, after ``best_step``; best_psnr: the PSNR then, dB. skipped: steps in a row
    that were not finite, and were passed over.
    """

    weights: dict[str, nn.Parameter]
    shadow: dict[str, nn.Parameter]
    optimizer: CautiousAdamW
    step: int = 0
    best: float | None = None
    best_step: int | None = None
    best_psnr: float | None = None
    skipped: int = 0

    def tensors(self) -> Iterator[tuple[str, Tensor]]:
        """All tensors by name."""
        for name, parameter in self.weights.items():
            yield f"weights.{name}", parameter
            yield f"shadow.{name}", self.shadow[name]
            for moment in MOMENTS:
                yield f"{moment}.{name}", self.optimizer.state[parameter][moment]


def save(folder: Path, state: Training, ranks: Ranks, keep: int = 2) -> Path:
    """Write the checkpoint of this step, then remove all but the latest ``keep`` and the best. All processes call it.

    Copies of the weights that are the same in all processes are written by the first. Raises WorkIncomplete where it
    can't be written; those before are then whole.
    """
    path, making = folder / f"step-{state.step:07d}", folder / f".tmp-step-{state.step:07d}"
    parts: dict[str, tuple[Tensor, int]] = {name: local_shard(tensor) for name, tensor in state.tensors()}
    shared_out = any(len(part) < len(tensor) for (part, _), (_, tensor) in _paired(parts, state))
    try:
        if ranks.main:
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir(parents=True)
        ranks.wait()
        if ranks.main or shared_out:
            starts = {name: start for name, (_, start) in parts.items()}
            own = {name: part for name, (part, _) in parts.items()}
            write_tensors(making / f"rank-{ranks.rank:03d}.safetensors", own, {"starts": json.dumps(starts)})
        ranks.wait()
        if ranks.main:
            shapes = {name: list(tensor.shape) for name, tensor in state.tensors()}
            numbers = {name: getattr(state, name) for name in NUMBERS}
            more = {"updates": state.optimizer.updates, "files": ranks.world if shared_out else 1}
            write_json(making / STATE, {"schema": SCHEMA, **numbers, **more, "tensors": shapes})
            _replace(making, path)
    except OSError as error:
        raise WorkIncomplete(f"{path}: can't be written: {error}; what was there before is whole") from None
    finally:
        if ranks.main:
            shutil.rmtree(making, ignore_errors=True)
    if ranks.main:
        tidy(folder, state, keep)
    ranks.wait()
    return path


def _paired(parts: Mapping[str, tuple[Tensor, int]], state: Training) -> Iterator[tuple[Any, Any]]:
    """Parts beside their tensors, of those with rows."""
    pairs = zip(parts.values(), state.tensors(), strict=True)
    return ((part, whole) for part, whole in pairs if whole[1].ndim)


def _replace(making: Path, path: Path) -> None:
    """The folder under its own name, on the disk."""
    if path.exists():
        _remove(path)
    sync_folder(making)
    making.rename(path)
    sync_folder(path.parent)


def tidy(folder: Path, state: Training, keep: int) -> None:
    """Remove what is neither of the latest nor the best, and what kills left half made."""
    stay = {path.name for path in found(folder)[-keep:]}
    stay |= {f"step-{state.best_step:07d}"} if state.best_step is not None else set()
    for old in found(folder):
        if old.name not in stay:
            _remove(old)
    for left in folder.glob(".tmp-*"):
        shutil.rmtree(left, ignore_errors=True)


def _remove(path: Path) -> None:
    """First it loses its name, so that it is never there in part."""
    gone = path.with_name(f".tmp-{secrets.token_hex(4)}-{path.name}")
    path.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def found(folder: Path) -> list[Path]:
    """The checkpoints of a run, the latest last."""
    return sorted(path for path in folder.glob("step-*") if NAME.match(path.name) and path.is_dir())


def load_checkpoint(path: Path, state: Training) -> None:
    """Set the training to a checkpoint's. Raises UserError where it is of another model, or not whole."""
    held = validate(State, read_small(path / STATE), str(path / STATE))
    files = [path / f"rank-{number:03d}.safetensors" for number in range(held.files)]
    if {name: list(tensor.shape) for name, tensor in state.tensors()} != held.tensors:
        raise UserError(f"{path}: holds the weights of another model than this run's")
    with ExitStack() as stack, torch.no_grad():
        parts = [_Part(file, stack) for file in files]
        for name, tensor in state.tensors():
            mine, start = local_shard(tensor)
            for part in parts:
                part.copy(name, mine, start)
    for name in NUMBERS:
        setattr(state, name, getattr(held, name))
    state.optimizer.set_updates(held.updates)


class _Part:
    """One process's file of a checkpoint."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self.path = path
        try:
            self.file: Any = stack.enter_context(safe_open(path, "pt"))
        except (OSError, SafetensorError) as error:
            raise UserError(f"{path}: is no whole safetensors file: {error}") from None
        metadata = self.file.metadata() or {}
        self.starts = validate(Starts, metadata.get("starts", "").encode(), f"{path}: starts").root

    def copy(self, name: str, mine: Tensor, start: int) -> None:
        """Those rows of a tensor that are in this file and in ``mine``, which starts at a row of the whole.

        Raises UserError where they can't be weights: see ``check_weights``.
        """
        try:
            held, first = self.file.get_slice(name), self.starts[name]
        except (SafetensorError, KeyError, TypeError):
            raise UserError(f"{self.path}: {name} is missing") from None
        if [*held.get_shape()[1:]] != [*mine.shape[1:]] or len(held.get_shape()) != mine.ndim:
            raise UserError(f"{self.path}: {name} is {held.get_shape()}, not rows of {list(mine.shape)}")
        if not mine.ndim:
            rows, into = self.file.get_tensor(name), mine
        else:
            low, high = max(first, start), min(first + held.get_shape()[0], start + len(mine))
            if low >= high:
                return
            rows, into = held[low - first : high - first], mine[low - start : high - start]
        check_weights({name: rows}, self.path, {name: mine.dtype})
        into.copy_(rows)

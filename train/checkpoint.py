"""Checkpoints: one safetensors file each, all that a run needs to go on as if it had never stopped.

Weights, their moving average, both moments of AdamW; the state, as JSON, in the file's own metadata. A file lands by
rename.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from synth.types import UserError, WorkIncomplete

NAME = re.compile(r"step-(\d{7})\.safetensors\Z")
MOMENTS = ("exp_avg", "exp_avg_sq")
KEPT = 2
"""The latest checkpoints that stay."""


@dataclass
class Training:
    """What changes while a run goes on."""

    weights: dict[str, nn.Parameter]
    shadow: dict[str, nn.Parameter]
    optimizer: torch.optim.AdamW
    step: int = 0
    best: float | None = None  # the lowest validation loss so far


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """A safetensors file that is there whole or not at all. Raises WorkIncomplete where it can't be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    held = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # safetensors makes files that nobody else may read
        save_file(held, temporary, dict(metadata))
        temporary.chmod(mode)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise WorkIncomplete(f"{path}: can't be written: {error}; what was there before is whole") from None
    finally:
        temporary.unlink(missing_ok=True)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata of a safetensors file. Raises UserError where it is none."""
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(f"{path}: is no whole safetensors file: {error}") from None


def save(folder: Path, state: Training) -> Path:
    """Write the checkpoint of this step, then remove all but the latest few."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in state.weights.items():
        tensors[f"weights.{name}"] = parameter
        tensors[f"shadow.{name}"] = state.shadow[name]
        for moment in MOMENTS:
            tensors[f"{moment}.{name}"] = state.optimizer.state[parameter][moment]
    path = folder / f"step-{state.step:07d}.safetensors"
    write_tensors(path, tensors, {"state": json.dumps({"step": state.step, "best": state.best})})
    for old in found(folder)[:-KEPT]:
        old.unlink(missing_ok=True)
    return path


def found(folder: Path) -> list[Path]:
    """The checkpoints of a run, the latest last."""
    return sorted(path for path in folder.glob("step-*.safetensors") if NAME.match(path.name))


def load(path: Path, state: Training) -> None:
    """Set the training to a checkpoint's. Raises UserError where it is of another model."""
    tensors, metadata = read_tensors(path)
    wanted = {f"{kind}.{name}": p for name, p in state.weights.items() for kind in ("weights", "shadow", *MOMENTS)}
    if wanted.keys() != tensors.keys() or any(tensors[name].shape != p.shape for name, p in wanted.items()):
        raise UserError(f"{path}: holds the weights of another model than this run's")
    held: dict[str, Any] = json.loads(metadata["state"])
    state.step, state.best = held["step"], held["best"]
    with torch.no_grad():
        for name, parameter in state.weights.items():
            parameter.copy_(tensors[f"weights.{name}"])
            state.shadow[name].copy_(tensors[f"shadow.{name}"])
            moments = {moment: tensors[f"{moment}.{name}"].to(parameter.device) for moment in MOMENTS}
            state.optimizer.state[parameter] = {"step": torch.tensor(float(state.step)), **moments}

"""A rule that derives a network's weights from their names, for conformance tests without a checkpoint."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn


def ruled(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the same names and shapes, every float tensor drawn from a seed of its name."""
    return {name: rule(name, entry) for name, entry in state.items()}


def rule(name: str, entry: Tensor) -> Tensor:
    if not entry.is_floating_point() or name.endswith("attn_mask"):
        return entry.clone()
    shape = tuple(entry.shape)
    n = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var"):
        n = 1 + 0.1 * np.abs(n)
    elif name.endswith(".weight") and len(shape) == 1:
        n = 1 + 0.1 * n
    elif len(shape) >= 2:
        n = n / np.sqrt(np.prod(shape[1:]))
    else:
        n = 0.05 * n
    return torch.from_numpy(np.asarray(n, np.float32))


def made(network: nn.Module) -> nn.Module:
    """The network with the rule's weights, in evaluation mode."""
    network.load_state_dict(ruled(network.state_dict()), strict=True)
    return network.eval()


def entries(network: nn.Module) -> list[tuple[str, list[int]]]:
    """Names and shapes of the state dict, in order."""
    return [(name, list(entry.shape)) for name, entry in network.state_dict().items()]


def published(folder: Path, name: str) -> list[tuple[str, list[int]]]:
    """Names and shapes of the official checkpoint, in order."""
    return list(json.loads((folder / f"{name}_state_dict.json").read_text()).items())


def vectors(folder: Path, name: str) -> dict[str, Tensor]:
    """Inputs and outputs of the official network with the rule's weights."""
    with np.load(folder / f"{name}.npz") as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}

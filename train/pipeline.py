"""A fitted model as users have it: two images and a prompt in, one image out.

A folder holds ``pipeline.json`` (the design) and ``model.safetensors`` (the weights); a run of ``train fit`` is one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from synth.shards import write_json
from synth.types import TASKS, UserError, unknown
from train.checkpoint import read_tensors, write_tensors
from train.data import to_tensor
from train.design import Assembly, Design
from train.objectives import Objective, Regression
from train.text import plain_request

DESIGN, WEIGHTS = "pipeline.json", "model.safetensors"
TILE, OVERLAP = 1024, 128
"""Pixels: larger images are fused in tiles of this side, which overlap and fade into each other."""


class FusionPipeline:
    """``FusionPipeline.from_pretrained(dir_or_hub_id)(a, b, task="vif", prompt="remove the haze")``."""

    def __init__(self, assembly: Assembly) -> None:
        self.assembly = assembly.eval()

    @property
    def design(self) -> Design:
        """What the model is."""
        return self.assembly.design

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.assembly.parameters())).device

    def to(self, device: str | torch.device) -> FusionPipeline:
        """Move the weights."""
        self.assembly.to(device)
        return self

    @staticmethod
    def from_pretrained(name: str | Path, device: str | torch.device = "cpu", revision: str | None = None):
        """The pipeline of a folder (a run is one) or of a repository on the Hugging Face hub.

        Raises UserError where there is none, or its weights are of another design.
        """
        folder = Path(name) if Path(name).exists() else _from_hub(str(name), revision)
        if not (folder / DESIGN).is_file():
            raise UserError(f"{name}: no model here: {DESIGN} is missing")
        if not (folder / WEIGHTS).is_file():
            raise UserError(f"{name}: no weights yet: {WEIGHTS} is missing; train fit writes it with each checkpoint")
        try:
            data = json.loads((folder / DESIGN).read_bytes())
        except ValueError as error:
            raise UserError(f"{folder / DESIGN}: {error}") from None
        assembly = Assembly(Design.from_json(data, str(folder / DESIGN)), torch.Generator())
        tensors, _ = read_tensors(folder / WEIGHTS)
        try:
            assembly.load_state_dict(tensors)
        except RuntimeError as error:
            said = " ".join(str(error).split())[:200]
            raise UserError(f"{folder / WEIGHTS}: weights of another design than {DESIGN}'s: {said}") from None
        return FusionPipeline(assembly.to(device))

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the pipeline into a folder."""
        save(self.assembly, Path(folder), self.assembly.state_dict())

    def __call__(
        self,
        a: np.ndarray,
        b: np.ndarray,
        *,
        task: str,
        prompt: str | None = None,
        seed: int = 0,
        steps: int | None = None,
        sampler: str | None = None,
        guidance: float | None = None,
    ) -> UInt8[np.ndarray, "h w 3"]:
        """The fused image of a pair of any size, uint8 ``(h, w)`` or ``(h, w, c)``; one channel is grey.

        prompt: what to do; None asks for the task's fusion alone. seed: of a flow model's noise. steps, sampler and
        guidance (how strongly the prompt is followed, 1 as it was learned): of a flow model, instead of its design's.
        Raises UserError where the sizes differ or an option is of no use.
        """
        if task not in TASKS:
            raise unknown("task", task, TASKS)
        if a.shape[:2] != b.shape[:2]:
            sizes = (f"{x.shape[1]}x{x.shape[0]}" for x in (a, b))
            raise UserError("the two images differ in size: {} and {}".format(*sizes))
        objective = self._objective(steps=steps, sampler=sampler, guidance=guidance)
        words = plain_request(task) if prompt is None else prompt
        images = [_coloured(a), _coloured(b)]
        if self.assembly.prior is not None:
            grey = [x if x.ndim == 3 else x[..., None] for x in (a, b)]
            images.append(_coloured(self.assembly.prior(*grey, task)))
        given = [to_tensor([x]).to(self.device) for x in images]

        def fuse(parts: Sequence[Tensor], number: int) -> Tensor:
            x, y, *prior = parts
            rng = torch.Generator().manual_seed(seed + number)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                return self.assembly.fuse(x, y, [words], rng, objective, *prior).float()

        fused = tiled(fuse, given, tile=TILE, overlap=OVERLAP)
        return ((fused[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()

    def _objective(self, **asked: int | float | str | None) -> Objective:
        """The design's, with the sampling asked for."""
        own = self.design.objective
        given = {name: value for name, value in asked.items() if value is not None}
        if not given:
            return own
        if isinstance(own, Regression):
            raise UserError(f"--{next(iter(given))}: the model is a regression, which has no steps and no sampler")
        try:
            return dataclasses.replace(own, **given)
        except ValueError as error:
            raise UserError(str(error)) from None


def save(assembly: Assembly, folder: Path, weights: dict[str, Any]) -> None:
    """Write a pipeline: the design, then the weights, each by rename."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / DESIGN, assembly.design.to_json())
    write_tensors(folder / WEIGHTS, weights, {"format": "pt"})


def _from_hub(name: str, revision: str | None) -> Path:
    """The local copy of a repository on the hub."""
    if name.count("/") != 1 or name.startswith((".", "/")):
        raise UserError(f"{name}: no such folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[DESIGN, WEIGHTS]))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        said = str(error).strip().splitlines()[0]
        raise UserError(f"{name}: no such folder, and the Hugging Face hub has none either: {said}") from None


def _coloured(image: np.ndarray) -> np.ndarray:
    image = image[..., None] if image.ndim == 2 else image
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise ValueError(f"an image is uint8 (h, w), (h, w, 1) or (h, w, 3), not {image.dtype} {image.shape}")
    return np.repeat(image, 3, 2) if image.shape[2] == 1 else image


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin along a side: evenly, each ``overlap`` or more into the one before, the last at the end."""
    if length <= tile:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def tiled(
    fuse: Callable[[Sequence[Tensor], int], Tensor],
    images: Sequence[Float[Tensor, "1 3 H W"]],
    *,
    tile: int,
    overlap: int,
) -> Float[Tensor, "1 3 H W"]:
    """``fuse`` on the whole, or on overlapping tiles whose weights rise linearly from their borders."""
    like = images[0]
    height, width = like.shape[2:]
    if max(height, width) <= tile:
        return fuse(images, 0)
    total, weight = torch.zeros_like(like), torch.zeros_like(like[:, :1])
    for number, (y, x) in enumerate(_places(height, width, tile, overlap)):
        box = (slice(None), slice(None), slice(y, y + tile), slice(x, x + tile))
        part = fuse([image[box] for image in images], number)
        w = _ramp(part.shape[2], overlap, like)[:, None] * _ramp(part.shape[3], overlap, like)[None]
        total[box] += part * w
        weight[box] += w
    return total / weight


def _places(height: int, width: int, tile: int, overlap: int) -> Iterator[tuple[int, int]]:
    return ((y, x) for y in starts(height, tile, overlap) for x in starts(width, tile, overlap))


def _ramp(length: int, overlap: int, like: Tensor) -> Float[Tensor, " length"]:
    """1 in the middle, falling to 1 / (overlap + 1) at either end."""
    place = torch.arange(1, length + 1, device=like.device, dtype=like.dtype)
    return torch.minimum(place, place.flip(0)).clamp(max=overlap + 1) / (overlap + 1)

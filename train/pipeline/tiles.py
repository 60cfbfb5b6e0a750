"""Large latents in overlapping tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

TILE, OVERLAP = 2048, 128
"""Pixels: larger images are fused in tiles of this side, which overlap and fade into each other."""


def starts(length: int, tile: int, overlap: int, multiple: int = 1) -> list[int]:
    """Where tiles begin along a side of ``length`` pixels: at multiples, evenly, at least ``overlap`` into each other.

    multiple: pixels of a latent cell, of which ``tile`` and ``overlap`` are multiples too; the last tile ends with the
    side, up to a cell shorter than the others.
    """
    if length <= tile:
        return [0]
    last = -(-(length - tile) // multiple) * multiple
    count = -(-last // (tile - overlap)) + 1
    return [i * last // (count - 1) // multiple * multiple for i in range(count)]


def tiled(
    fuse: Callable[[Sequence[Tensor], int, int], Tensor],
    images: Sequence[Float[Tensor, "1 3 H W"]],
    *,
    tile: int,
    overlap: int,
    multiple: int = 1,
) -> Float[Tensor, "1 3 H W"]:
    """``fuse(parts, top, left)`` of the whole, or of overlapping tiles, whose weights fall towards their borders."""
    like = images[0]
    height, width = like.shape[2:]
    if max(height, width) <= tile:
        return fuse(images, 0, 0)
    total, weight = torch.zeros_like(like), torch.zeros_like(like[:, :1])
    for y in starts(height, tile, overlap, multiple):
        for x in starts(width, tile, overlap, multiple):
            box = (slice(None), slice(None), slice(y, y + tile), slice(x, x + tile))
            part = fuse([image[box] for image in images], y, x)
            w = _ramp(part.shape[2], overlap, like)[:, None] * _ramp(part.shape[3], overlap, like)[None]
            total[box] += part * w
            weight[box] += w
    return total / weight


def _ramp(length: int, overlap: int, like: Tensor) -> Float[Tensor, " length"]:
    """1 in the middle, falling to 1 / (overlap + 1) at either end."""
    place = torch.arange(1, length + 1, device=like.device, dtype=like.dtype)
    return torch.minimum(place, place.flip(0)).clamp(max=overlap + 1) / (overlap + 1)

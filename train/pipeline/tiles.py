"""Large latents in overlapping tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

TILE, OVERLAP = 1024, 128
"""Pixels: larger images are fused in tiles of this side, which overlap and fade into each other."""


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

"""Tiling: large images are processed in overlapping tiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

TILE, OVERLAP = 2048, 128
"""Side and overlap of tiles in pixels, for images larger than a tile; overlaps are blended linearly."""


def starts(length: int, tile: int, overlap: int, multiple: int = 1) -> list[int]:
    """Start positions of evenly spaced tiles along a side, overlapping by at least ``overlap``, up to its end.

    multiple: pixels of an image token's side, at whose multiples tiles start. ``tile`` and ``overlap`` are multiples of
    it too; the last tile ends with the side, up to a token shorter than the others.
    """
    if length <= tile:
        return [0]
    last = -(-(length - tile) // multiple) * multiple
    count = -(-last // (tile - overlap)) + 1
    return [i * last // (count - 1) // multiple * multiple for i in range(count)]


def fuse_tiled(
    fuse: Callable[[Sequence[Tensor], int, int], Tensor],
    images: Sequence[Float[Tensor, "1 3 H W"]],
    *,
    tile: int,
    overlap: int,
    multiple: int = 1,
) -> Float[Tensor, "1 3 H W"]:
    """Apply ``fuse`` to the whole images if they fit in a tile, else to overlapping tiles, blended by linear ramps.

    fuse(images, top, left): the fused tile of the same size; top, left: its place in the whole, pixels.
    """
    first = images[0]
    height, width = first.shape[2:]
    if max(height, width) <= tile:
        return fuse(images, 0, 0)
    total, weight = torch.zeros_like(first), torch.zeros_like(first[:, :1])
    for top in starts(height, tile, overlap, multiple):
        for left in starts(width, tile, overlap, multiple):
            region = (slice(None), slice(None), slice(top, top + tile), slice(left, left + tile))
            part = fuse([image[region] for image in images], top, left)
            ramp = _ramp(part.shape[2], overlap, first)[:, None] * _ramp(part.shape[3], overlap, first)[None]
            total[region] += part * ramp
            weight[region] += ramp
    return total / weight


def _ramp(length: int, overlap: int, like: Tensor) -> Float[Tensor, " length"]:
    """Blending weights: 1 in the middle, falling linearly to 1 / (overlap + 1) at both ends."""
    distance = torch.arange(1, length + 1, device=like.device, dtype=like.dtype)
    return torch.minimum(distance, distance.flip(0)).clamp(max=overlap + 1) / (overlap + 1)

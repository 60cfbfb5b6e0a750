"""Tiling: large images are processed in overlapping tiles."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from clearfuse.synth.fusers.pyramid.region import Region, full_region

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
    fuse: Callable[[Region], Float[Tensor, "1 3 h w"]],
    size: tuple[int, int],
    *,
    tile: int,
    overlap: int,
    multiple: int = 1,
) -> Float[Tensor, "1 3 H W"]:
    """Apply ``fuse`` to the whole of an image of ``size`` if it fits in a tile, else to tiles, blended by linear ramps.

    fuse(region): the fused tile. The inputs are cut, converted and moved a tile at a time: of a large image no second
    copy in floating point is held.
    """
    height, width = size
    if max(height, width) <= tile:
        return fuse(full_region(size))
    total = weight = None
    for top in starts(height, tile, overlap, multiple):
        for left in starts(width, tile, overlap, multiple):
            rows, columns = slice(top, min(top + tile, height)), slice(left, min(left + tile, width))
            part = fuse((rows, columns))
            if total is None or weight is None:
                total, weight = part.new_zeros((1, 3, *size)), part.new_zeros((1, 1, *size))
            ramp = _ramp(part.shape[2], overlap, part)[:, None] * _ramp(part.shape[3], overlap, part)[None]
            total[:, :, rows, columns] += part * ramp
            weight[:, :, rows, columns] += ramp
    assert total is not None and weight is not None
    return total.div_(weight)


def _ramp(length: int, overlap: int, like: Tensor) -> Float[Tensor, " length"]:
    """Blending weights: 1 in the middle, falling linearly to 1 / (overlap + 1) at both ends."""
    distance = torch.arange(1, length + 1, device=like.device, dtype=like.dtype)
    return torch.minimum(distance, distance.flip(0)).clamp(max=overlap + 1) / (overlap + 1)

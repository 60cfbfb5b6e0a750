"""Tiling: large images are processed in overlapping tiles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

TILE, OVERLAP = 1024, 128
"""Side and overlap of tiles in pixels, for images larger than a tile; overlaps are blended linearly."""


def starts(length: int, tile: int, overlap: int) -> list[int]:
    """Start positions of evenly spaced tiles along a side, overlapping by at least ``overlap``, up to its end."""
    if length <= tile:
        return [0]
    count = -(-(length - overlap) // (tile - overlap))
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def fuse_tiled(
    fuse: Callable[[Sequence[Tensor], int], Tensor],
    images: Sequence[Float[Tensor, "1 3 H W"]],
    *,
    tile: int,
    overlap: int,
) -> Float[Tensor, "1 3 H W"]:
    """Apply ``fuse`` to the whole images if they fit in a tile, else to overlapping tiles, blended by linear ramps.

    fuse(images, number): the fused tile of the same size; number: of the tile, in raster order.
    """
    first = images[0]
    height, width = first.shape[2:]
    if max(height, width) <= tile:
        return fuse(images, 0)
    total, weight = torch.zeros_like(first), torch.zeros_like(first[:, :1])
    for number, (y, x) in enumerate(_tile_corners(height, width, tile, overlap)):
        region = (slice(None), slice(None), slice(y, y + tile), slice(x, x + tile))
        part = fuse([image[region] for image in images], number)
        ramp = _ramp(part.shape[2], overlap, first)[:, None] * _ramp(part.shape[3], overlap, first)[None]
        total[region] += part * ramp
        weight[region] += ramp
    return total / weight


def _tile_corners(height: int, width: int, tile: int, overlap: int) -> Iterator[tuple[int, int]]:
    return ((y, x) for y in starts(height, tile, overlap) for x in starts(width, tile, overlap))


def _ramp(length: int, overlap: int, like: Tensor) -> Float[Tensor, " length"]:
    """Blending weights: 1 in the middle, falling linearly to 1 / (overlap + 1) at both ends."""
    distance = torch.arange(1, length + 1, device=like.device, dtype=like.dtype)
    return torch.minimum(distance, distance.flip(0)).clamp(max=overlap + 1) / (overlap + 1)

"""Tiled inference on large images: overlapping tiles of equal size, blended smoothly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

GRID = 8
"""Tiles start at multiples of this, so that windows and pooling are aligned as in the whole image."""

RAMP = 32
"""Pixels over which neighbouring tiles are blended, in the middle of their overlap."""


@dataclass(frozen=True)
class Side:
    """The tiles along one side of the image: their starts and their common length, in pixels."""

    starts: tuple[int, ...]
    length: int

    @staticmethod
    def of(n: int, tile: int, overlap: int) -> Side:
        """The fewest tiles of at most about ``tile`` pixels that cover ``n`` with that overlap, at multiples of 8."""
        if n <= tile:
            return Side((0,), n)
        count = -(-(n - overlap) // (tile - overlap))
        length = -(-(n + (count - 1) * overlap) // count)
        length += (n - length) % GRID  # so that the last one also starts at a multiple
        steps = (n - length) // GRID
        return Side(tuple(GRID * ((i * steps + (count - 1) // 2) // (count - 1)) for i in range(count)), length)

    def seams(self) -> list[int]:
        """The middles of the overlaps, multiples of 8."""
        ends = (start + self.length for start in self.starts[:-1])
        return [(end + start) // 2 // GRID * GRID for end, start in zip(ends, self.starts[1:], strict=True)]

    def cores(self) -> list[tuple[int, int]]:
        """The range of each tile up to its seams, in its own pixels: together they cover the side exactly once."""
        cuts = [0, *self.seams(), self.starts[-1] + self.length]
        return [(low - start, high - start) for start, low, high in zip(self.starts, cuts, cuts[1:], strict=False)]

    def weights(self, i: int) -> Float[Tensor, " n"]:
        """The blending weights of tile i; those of all tiles sum to one."""
        share, at = torch.ones(self.length), torch.arange(self.length) + self.starts[i] + 0.5
        seams = self.seams()
        if i > 0:
            share *= smoothstep((at - seams[i - 1]) / RAMP + 0.5)
        if i < len(seams):
            share *= 1 - smoothstep((at - seams[i]) / RAMP + 0.5)
        return share


def smoothstep(t: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """0 below 0, 1 above 1, t²(3 − 2t) between."""
    t = t.clamp(0, 1)
    return t * t * (3 - 2 * t)


@dataclass(frozen=True)
class Tiles:
    """The tiles of an image."""

    rows: Side
    columns: Side

    @staticmethod
    def of(height: int, width: int, tile: int, overlap: int) -> Tiles:
        """Tiles of at most about ``tile`` pixels per side, overlapping by at least ``overlap``. Raises ValueError."""
        if overlap < RAMP + 2 * GRID or tile < 2 * overlap:
            raise ValueError(f"tile {tile}, overlap {overlap}: need an overlap of {RAMP + 2 * GRID} to half a tile")
        return Tiles(Side.of(height, tile, overlap), Side.of(width, tile, overlap))

    def batches(self, size: int) -> Iterator[list[tuple[int, int]]]:
        """The tiles as (row, column), up to ``size`` at a time."""
        tiles = [(i, j) for i in range(len(self.rows.starts)) for j in range(len(self.columns.starts))]
        for first in range(0, len(tiles), size):
            yield tiles[first : first + size]

    def cut(self, image: Float[Tensor, "1 c H W"], at: list[tuple[int, int]]) -> Float[Tensor, "B c h w"]:
        """The given tiles of an image, as a batch."""
        (h, w), rows, columns = (self.rows.length, self.columns.length), self.rows.starts, self.columns.starts
        return torch.cat([image[:, :, rows[i] : rows[i] + h, columns[j] : columns[j] + w] for i, j in at])

    def core(self, at: tuple[int, int], height: int, width: int) -> tuple[slice, slice]:
        """The part up to the seams of a tile's feature map of ``height`` by ``width``, at 1, 1/2, 1/4 or 1/8."""
        parts: list[slice] = []
        for side, k, size in ((self.rows, at[0], height), (self.columns, at[1], width)):
            scale = round(side.length / size)
            low, high = side.cores()[k]
            parts.append(slice(low // scale, size if k == len(side.starts) - 1 else high // scale))
        return parts[0], parts[1]


def run_tiled(
    run: Callable[[Tensor, Tensor], Tensor],
    a: Float[Tensor, "1 c H W"],
    b: Float[Tensor, "1 c H W"],
    tiles: Tiles,
    batch: int = 1,
) -> Float[Tensor, "1 c H W"]:
    """Apply ``run`` to the tiles of both images and blend the results."""
    out = torch.zeros_like(a)
    h, w = tiles.rows.length, tiles.columns.length
    for at in tiles.batches(batch):
        fused = run(tiles.cut(a, at), tiles.cut(b, at))
        for (i, j), tile in zip(at, fused, strict=True):
            share = tiles.rows.weights(i)[:, None] * tiles.columns.weights(j)[None, :]
            y, x = tiles.rows.starts[i], tiles.columns.starts[j]
            out[0, :, y : y + h, x : x + w] += tile * share.to(tile.device)
    return out

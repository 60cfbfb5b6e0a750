"""Large images in tiles: equal tiles that overlap, blended smoothly where they meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

GRID = 8
"""Tiles begin at multiples of it: the windows and the pooling of a tile fall where the whole image's would."""

RAMP = 32
"""Pixels over which one tile hands over to the next, in the middle of their overlap."""


@dataclass(frozen=True)
class Side:
    """The tiles along one side: where they begin, and their one length."""

    starts: tuple[int, ...]
    length: int

    @staticmethod
    def of(n: int, tile: int, overlap: int) -> Side:
        """As few tiles of at most about ``tile`` as cover ``n`` with that overlap; they begin at multiples of 8."""
        if n <= tile:
            return Side((0,), n)
        count = -(-(n - overlap) // (tile - overlap))
        length = -(-(n + (count - 1) * overlap) // count)
        length += (n - length) % GRID  # so that the last one too begins at a multiple
        steps = (n - length) // GRID
        return Side(tuple(GRID * ((i * steps + (count - 1) // 2) // (count - 1)) for i in range(count)), length)

    def seams(self) -> list[int]:
        """The middles of the overlaps, multiples of 8."""
        ends = (start + self.length for start in self.starts[:-1])
        return [(end + start) // 2 // GRID * GRID for end, start in zip(ends, self.starts[1:], strict=True)]

    def cores(self) -> list[tuple[int, int]]:
        """From where to where each tile is nearest, in its own pixels: together they cover the side once."""
        cuts = [0, *self.seams(), self.starts[-1] + self.length]
        return [(low - start, high - start) for start, low, high in zip(self.starts, cuts, cuts[1:], strict=False)]

    def weights(self, i: int) -> Float[Tensor, " n"]:
        """The share of tile i at each of its pixels; all tiles' shares add to one."""
        share, at = torch.ones(self.length), torch.arange(self.length) + self.starts[i] + 0.5
        seams = self.seams()
        if i > 0:
            share *= rising((at - seams[i - 1]) / RAMP + 0.5)
        if i < len(seams):
            share *= 1 - rising((at - seams[i]) / RAMP + 0.5)
        return share


def rising(t: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
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
        """Tiles of at most about ``tile`` pixels a side, over ``overlap`` pixels at least."""
        if overlap < RAMP + 2 * GRID or tile < 2 * overlap:
            raise ValueError(f"tile {tile}, overlap {overlap}: need an overlap of {RAMP + 2 * GRID} to half a tile")
        return Tiles(Side.of(height, tile, overlap), Side.of(width, tile, overlap))

    def batches(self, size: int) -> Iterator[list[tuple[int, int]]]:
        """The tiles by row and column, up to ``size`` at a time."""
        every = [(i, j) for i in range(len(self.rows.starts)) for j in range(len(self.columns.starts))]
        for first in range(0, len(every), size):
            yield every[first : first + size]

    def cut(self, image: Float[Tensor, "1 c H W"], at: list[tuple[int, int]]) -> Float[Tensor, "B c h w"]:
        """Some tiles of an image."""
        (h, w), rows, columns = (self.rows.length, self.columns.length), self.rows.starts, self.columns.starts
        return torch.cat([image[:, :, rows[i] : rows[i] + h, columns[j] : columns[j] + w] for i, j in at])

    def core(self, at: tuple[int, int], height: int, width: int) -> tuple[slice, slice]:
        """A tile's own part of a map of ``height`` by ``width`` that lies over it, at 1, 1/2, 1/4 or 1/8."""
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
    """``run`` over tiles of both images, put together."""
    out = torch.zeros_like(a)
    h, w = tiles.rows.length, tiles.columns.length
    for at in tiles.batches(batch):
        fused = run(tiles.cut(a, at), tiles.cut(b, at))
        for (i, j), tile in zip(at, fused, strict=True):
            share = tiles.rows.weights(i)[:, None] * tiles.columns.weights(j)[None, :]
            y, x = tiles.rows.starts[i], tiles.columns.starts[j]
            out[0, :, y : y + h, x : x + w] += tile * share.to(tile.device)
    return out

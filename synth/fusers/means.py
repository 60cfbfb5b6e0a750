"""The one thing in DeFuse that is not local, made local: each split attention reads a mean over the whole image.

Tiles that each took their own mean would differ from the whole image, and from each other at their seams. So the means
are found first: the tiles are run, and each layer's sum over the tiles' own parts gives the image's mean. A layer's
sum is exact where the layers before it had exact means, so a second run on the first one's means mends what the
first one's own means did to later layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from clearfuse.synth.fusers.defuse import SplitAttention, mean
from clearfuse.synth.fusers.tiles import Tiles

RUNS = 2
"""Runs over the tiles that find the means, before the one that fuses."""


class SharedMeans:
    """In place of the mean of each split attention, in the order in which a forward pass calls them."""

    def __init__(self, tiles: Tiles) -> None:
        self.tiles = tiles
        self.known: list[Tensor] = []
        self.sums: list[Tensor] = []
        self.areas: list[int] = []
        self.begin([])

    def begin(self, at: list[tuple[int, int]]) -> None:
        """Before a forward pass over these tiles, whose own parts are summed up; none: the means are only used."""
        self.at, self.call = at, 0

    def end_run(self) -> None:
        """After a run over all tiles: its means are the next one's."""
        self.known = [total / area for total, area in zip(self.sums, self.areas, strict=True)]
        self.sums, self.areas = [], []

    def __call__(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "_ C 1 1"]:
        call, self.call = self.call, self.call + 1
        if call == len(self.sums):
            self.sums.append(torch.zeros_like(x[:1, :, :1, :1], dtype=torch.float64))
            self.areas.append(0)
        for tile, at in zip(x, self.at, strict=False):
            part = tile[(slice(None), *self.tiles.core(at, *x.shape[2:]))]
            self.sums[call] += part.sum((1, 2), dtype=torch.float64).reshape(1, -1, 1, 1)
            self.areas[call] += part.shape[1] * part.shape[2]
        return self.known[call].to(x.dtype) if self.known else mean(x)


@contextmanager
def shared_means(model: nn.Module, tiles: Tiles, batch: int, a: Tensor, b: Tensor) -> Iterator[None]:
    """Within it, a network's split attentions use the means over the whole images a and b, found by ``RUNS`` runs."""
    layers = [layer for layer in model.modules() if isinstance(layer, SplitAttention)]
    means = SharedMeans(tiles)
    for layer in layers:
        layer.pool = means
    if not layers:
        yield
        return
    try:
        for _ in range(RUNS):
            for at in tiles.batches(batch):
                means.begin(at)
                model(tiles.cut(a, at), tiles.cut(b, at))
            means.end_run()
        handle = model.register_forward_pre_hook(lambda *_: means.begin([]))
        yield
        handle.remove()
    finally:
        for layer in layers:
            layer.pool = mean

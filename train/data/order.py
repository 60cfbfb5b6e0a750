"""The order of samples: which sample is at a position of the run, computed for any position without the earlier ones.

Sources are interleaved in proportion to their weights, and batches in proportion to the samples of their shape, evenly:
up to any position each count is within a few of its share. Within a pool, the samples of one source and shape, each
sample comes once per epoch, in an order that is shuffled anew each epoch. Where each comes several times an epoch, its
repeats are ``GAP`` batches of its shape apart: gradients of the same few pictures one after another would add up in the
optimizer's momentum to those of one small batch at many times the learning rate.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from clearfuse.synth.seeds import seed_of

GAP = 16
"""Batches of its shape from one repeat of a sample to the next: more than AdamW's momentum of 0.9 remembers."""
ROUNDS = 6
"""Rounds of the Feistel network; four suffice for a pseudorandom permutation (Luby and Rackoff, 1988)."""

_WORD = (1 << 64) - 1


def permute(index: int, count: int, keys: Sequence[int]) -> int:
    """The image of ``index`` under a permutation of ``range(count)``: a Feistel network with cycle walking.

    keys: 64 bits for each round. Time and memory do not grow with count.
    """
    half = max(((count - 1).bit_length() + 1) // 2, 1)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        index = left << half | right
        if index < count:
            return index


def unpermute(index: int, count: int, keys: Sequence[int]) -> int:
    """The inverse of ``permute``: the rounds in reverse order."""
    half = max(((count - 1).bit_length() + 1) // 2, 1)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for key in reversed(keys):
            left, right = right ^ (_mix(left ^ key) & mask), left
        index = left << half | right
        if index < count:
            return index


def _mix(x: int) -> int:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014)."""
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & _WORD
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & _WORD
    return x ^ x >> 31


@lru_cache(maxsize=1 << 13)
def _keys(*parts: int | str) -> tuple[int, ...]:
    return tuple(seed_of("order", *parts, number) * 0x9E3779B97F4A7C15 & _WORD for number in range(ROUNDS))


class Interleave:
    """An infinite sequence of kinds in proportion to their weights, with random access.

    The first kind takes its share of all indices, the second its share of the rest, and so on. A kind with the share α
    takes index n where ⌊(n + 1) α + θ⌋ > ⌊n α + θ⌋; of the indices before n it then has ⌊n α + θ⌋. θ depends on seed.
    """

    def __init__(self, weights: Sequence[Fraction], seed: int) -> None:
        positive = [(kind, weight) for kind, weight in enumerate(weights) if weight > 0]
        rest = sum(weight for _, weight in positive)
        self._splits: list[tuple[int, int, int, int]] = []
        for kind, weight in positive:
            share = weight / rest
            offset = Fraction(seed_of("interleave", seed, kind) >> 33, 1 << 20)
            denominator = share.denominator * offset.denominator
            self._splits.append((kind, int(share * denominator), int(offset * denominator), denominator))
            rest -= weight

    def at(self, index: int) -> tuple[int, int]:
        """The kind at an index, and the number of earlier occurrences of that kind."""
        for kind, step, offset, denominator in self._splits:
            before = (index * step + offset) // denominator
            if (index * step + step + offset) // denominator > before:
                return kind, before
            index -= before
        raise ValueError("no kind has a weight above 0")

    def index(self, kind: int, before: int) -> int:
        """The index of the occurrence of a kind that has ``before`` earlier ones: the inverse of ``at``.

        There α (n + 1) + θ reaches ``before`` + 1; the n-th index that a share leaves over is ⌊(n + θ) / (1 − α)⌋.
        """
        kinds = [kind for kind, *_ in self._splits]
        depth = kinds.index(kind)
        _, step, offset, denominator = self._splits[depth]
        index = -((offset - (before + 1) * denominator) // step) - 1
        for _, step, offset, denominator in reversed(self._splits[:depth]):
            index = (index * denominator + offset) // (denominator - step)
        return index


@dataclass(frozen=True)
class Pick:
    """The sample at a position: its row, the number of its shape, and its epoch, one for each repeat."""

    row: int
    shape: int
    epoch: int


class Order:
    """Maps positions to ``Pick``. Positions k·batch to (k + 1)·batch are batch k, all of the same shape.

    source, shape: numbers for each row; weights: relative, of the sources; 0 for a source without rows. repeats: how
    often a sample comes in an epoch, ``GAP`` batches of its shape apart. drawn: the rows with a weight above 0.

    Position q among those of its shape is repeat q mod R, R the number of repeats, and repeat r takes the samples of
    repeat 0 r · delay later; a run starts as if repeats had begun before it, so that each batch has as many new samples
    as any other. Where R divides the batch, so that all repeats of a sample are whole numbers of GAP batches apart, one
    of GAP's divisors of data-loader processes decodes it once.
    """

    def __init__(
        self,
        source: np.ndarray,
        shape: np.ndarray,
        weights: Sequence[Fraction],
        batch: int,
        seed: int,
        repeats: int = 1,
    ) -> None:
        self.batch, self.seed, self.repeats = batch, seed, repeats
        self.delay = -(-GAP * batch // repeats) if repeats > 1 else 0
        self.source, self.shape = source, shape
        sizes = np.bincount(source, minlength=len(weights))
        pools = [Fraction(0)] * (int(shape.max()) + 1)
        within = [[Fraction(0)] * len(weights) for _ in pools]
        self._rows: dict[tuple[int, int], np.ndarray] = {}
        for number, weight in enumerate(weights):
            if not weight:
                continue
            for kind in np.unique(shape[source == number]).tolist():
                rows = np.flatnonzero((source == number) & (shape == kind))
                self._rows[number, kind] = rows
                within[kind][number] = weight * len(rows) / int(sizes[number])
                pools[kind] += within[kind][number]
        self.drawn = np.concatenate(list(self._rows.values()))
        self._shapes = Interleave(pools, seed_of("shapes", seed))
        self._sources = [Interleave(shares, seed_of("sources", seed, kind)) for kind, shares in enumerate(within)]

    def at(self, position: int) -> Pick:
        """The sample at a position."""
        batch, slot = divmod(position, self.batch)
        shape, before = self._shapes.at(batch)
        number, repeat = divmod(before * self.batch + slot, self.repeats)
        source, drawn = self._sources[shape].at(number + (self.repeats - 1 - repeat) * self.delay)
        rows = self._rows[source, shape]
        visit, index = divmod(drawn, len(rows))
        row = int(rows[permute(index, len(rows), _keys(self.seed, source, shape, visit))])
        return Pick(row, shape, visit * self.repeats + repeat)

    def position_of(self, row: int, epoch: int) -> int:
        """The position of a row in an epoch, negative if that would be before the run; its source must have a weight
        above 0.
        """
        visit, repeat = divmod(epoch, self.repeats)
        source, shape = int(self.source[row]), int(self.shape[row])
        rows = self._rows[source, shape]
        index = unpermute(int(np.searchsorted(rows, row)), len(rows), _keys(self.seed, source, shape, visit))
        number = self._sources[shape].index(source, visit * len(rows) + index)
        number -= (self.repeats - 1 - repeat) * self.delay
        if number < 0:
            return -1
        before, slot = divmod(number * self.repeats + repeat, self.batch)
        return self._shapes.index(shape, before) * self.batch + slot

    def repeats_ahead(self) -> int:
        """The number of later repeats, at most, of the samples that have come: what a cache of their crops holds."""
        return (self.delay + 1) * self.repeats * (self.repeats - 1) // 2 * len(self._sources)


@dataclass(frozen=True)
class RankBatches:
    """The positions of one rank in the run's batches ``first`` to ``last`` of ``size`` samples: an equal part of each.

    world: the number of ranks, which divides size.
    """

    first: int
    last: int
    size: int
    rank: int = 0
    world: int = 1

    def __iter__(self) -> Iterator[range]:
        part = self.size // self.world
        for batch in range(self.first, self.last):
            start = batch * self.size + self.rank * part
            yield range(start, start + part)

    def assigned(self, number: int, workers: int, position: int) -> bool:
        """Whether worker ``number`` of this rank's data loader gets a position: torch assigns batches in turn."""
        batch, index = divmod(position, self.size)
        in_batch = self.first <= batch < self.last and (batch - self.first) % workers == number
        return in_batch and index // (self.size // self.world) == self.rank

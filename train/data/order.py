"""The order of samples: which one stands at a position of the run, for any position, without those before it.

Sources are drawn in proportion to their weights and batches in proportion to what each shape has to fill them, evenly:
at every position each count is within a few of its share. In each pool, the samples of one source that fit one shape,
each comes once an epoch, in an order of that epoch's own, or several times in a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

import numpy as np

from clearfuse.synth.seeds import seed_of

ROUNDS = 6
"""Of the Feistel network; four already make it a pseudorandom permutation (Luby and Rackoff, 1988)."""

_WORD = (1 << 64) - 1


def permuted(index: int, count: int, keys: Sequence[int]) -> int:
    """Where a permutation of ``count`` puts ``index``: a Feistel network on the next power of four, walked into range.

    keys: one a round, of 64 bits. Time and memory do not grow with count.
    """
    half = max(((count - 1).bit_length() + 1) // 2, 1)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        index = left << half | right
        if index < count:
            return index


def unpermuted(index: int, count: int, keys: Sequence[int]) -> int:
    """What ``permuted`` puts at ``index``: its rounds backwards."""
    half = max(((count - 1).bit_length() + 1) // 2, 1)
    mask = (1 << half) - 1
    while True:
        left, right = index >> half, index & mask
        for key in reversed(keys):
            left, right = right ^ (_mixed(left ^ key) & mask), left
        index = left << half | right
        if index < count:
            return index


def _mixed(x: int) -> int:
    """The finaliser of splitmix64 (Steele, Lea and Flood, 2014)."""
    x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & _WORD
    x = ((x ^ x >> 27) * 0x94D049BB133111EB) & _WORD
    return x ^ x >> 31


@lru_cache(maxsize=1 << 13)
def _keys(*parts: int | str) -> tuple[int, ...]:
    return tuple(seed_of("order", *parts, number) * 0x9E3779B97F4A7C15 & _WORD for number in range(ROUNDS))


class Interleave:
    """An endless sequence of kinds, each in proportion to its weight, of which any place can be asked for.

    The first kind takes its share of all places, the second its share of what is left, and so on. A share α takes place
    n where ⌊(n + 1) α + θ⌋ > ⌊n α + θ⌋: ⌊n α + θ⌋ of the places before n are its own, an exact count. θ by seed.
    """

    def __init__(self, weights: Sequence[Fraction], seed: int) -> None:
        kept = [(kind, weight) for kind, weight in enumerate(weights) if weight > 0]
        left = sum(weight for _, weight in kept)
        self._splits: list[tuple[int, int, int, int]] = []
        for kind, weight in kept:
            share = weight / left
            offset = Fraction(seed_of("interleave", seed, kind) >> 33, 1 << 20)
            denominator = share.denominator * offset.denominator
            self._splits.append((kind, int(share * denominator), int(offset * denominator), denominator))
            left -= weight

    def at(self, place: int) -> tuple[int, int]:
        """The kind at a place, and how many of that kind come before it."""
        for kind, step, offset, denominator in self._splits:
            before = (place * step + offset) // denominator
            if (place * step + step + offset) // denominator > before:
                return kind, before
            place -= before
        raise ValueError("no kind has a weight above 0")

    def place(self, kind: int, before: int) -> int:
        """The place of a kind that has ``before`` of it before it.

        α (n + 1) + θ reaches ``before`` + 1 there; the n-th place that a share leaves is place ⌊(n + θ) / (1 − α)⌋.
        """
        kinds = [kept for kept, *_ in self._splits]
        depth = kinds.index(kind)
        _, step, offset, denominator = self._splits[depth]
        place = -((offset - (before + 1) * denominator) // step) - 1
        for _, step, offset, denominator in reversed(self._splits[:depth]):
            place = (place * denominator + offset) // (denominator - step)
        return place


@dataclass(frozen=True)
class Pick:
    """What stands at a position: the row of a sample, its shape's number, and how often it came before (its epoch)."""

    row: int
    shape: int
    epoch: int


class Order:
    """Position -> ``Pick``. Positions k·batch to (k + 1)·batch are batch k, all of one shape.

    source, shape: of each row, numbers; weights: of the sources, in proportion; a source without rows must have 0.
    repeats: times that a sample comes in a row, of which batch is a multiple. drawn: the rows that come at all.
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
        self.groups, self.seed, self.repeats = batch // repeats, seed, repeats
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
        self._sources = [Interleave(part, seed_of("sources", seed, kind)) for kind, part in enumerate(within)]

    def at(self, position: int) -> Pick:
        """The sample at a position."""
        group, repeat = divmod(position, self.repeats)
        number, place = divmod(group, self.groups)
        shape, before = self._shapes.at(number)
        source, drawn = self._sources[shape].at(before * self.groups + place)
        rows = self._rows[source, shape]
        visit, index = divmod(drawn, len(rows))
        row = int(rows[permuted(index, len(rows), _keys(self.seed, source, shape, visit))])
        return Pick(row, shape, visit * self.repeats + repeat)

    def where(self, row: int, epoch: int) -> int:
        """The position at which a row, of a source that has a weight, comes after it came ``epoch`` times."""
        visit, repeat = divmod(epoch, self.repeats)
        source, shape = int(self.source[row]), int(self.shape[row])
        rows = self._rows[source, shape]
        index = unpermuted(int(np.searchsorted(rows, row)), len(rows), _keys(self.seed, source, shape, visit))
        before, place = divmod(self._sources[shape].place(source, visit * len(rows) + index), self.groups)
        return (self._shapes.place(shape, before) * self.groups + place) * self.repeats + repeat


@dataclass(frozen=True)
class RankBatches:
    """Positions of the run's batches ``first`` to ``last``, of ``size`` samples: the equal part of each that one of
    ``world`` trainers takes.
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

    def asks(self, number: int, workers: int, position: int) -> bool:
        """Whether loader process ``number`` is asked for a position: torch gives batches out in turn."""
        batch, place = divmod(position, self.size)
        here = self.first <= batch < self.last and (batch - self.first) % workers == number
        return here and place // (self.size // self.world) == self.rank

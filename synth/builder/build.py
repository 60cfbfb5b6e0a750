"""A build as a value: which sample goes to which shard, and the settings whose digest names it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from clearfuse.synth.builder.pack import (
    Packer,
    SampleTask,
    ShardTask,
)
from clearfuse.synth.datasets.pairs import Pairs
from clearfuse.synth.files.storage import Location
from clearfuse.synth.samples.prepare import Spec
from clearfuse.synth.seeds import seed_of
from clearfuse.synth.shards.tar import SHARD, shard_name

SHARDS, SAMPLES = 10**6, 10**9
"""What the names of shards and the keys of samples can number, a split."""


@dataclass(frozen=True)
class Build:
    """A resolved build: everything that a worker needs, and nothing that does not decide bytes but the folder."""

    out: Location
    spec: Spec
    pairs: Pairs
    split: str
    shard_size: int
    variants: int
    codec: str
    settings: Mapping[str, Any]
    digest: str
    _last: dict[tuple[int, str | None], np.ndarray] = field(
        default_factory=dict[tuple[int, "str | None"], np.ndarray], compare=False, repr=False
    )

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits, in the order of their shards."""
        return tuple(self.split.split(","))

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Pairs by split."""
        return {split: self.pairs.count(split) for split in self.splits}

    def shards_per_variant(self, split: str) -> int:
        """Every variant of a split fills its own shards."""
        return -(-self.sizes[split] // self.shard_size)

    @property
    def shard_count(self) -> int:
        """Shards of all splits and variants."""
        return self.variants * sum(map(self.shards_per_variant, self.splits))

    def locate(self, shard: int) -> tuple[str, int]:
        """The split of a shard, and its number there: the one its name has."""
        for split in self.splits:
            count = self.variants * self.shards_per_variant(split)
            if shard < count:
                return split, shard
            shard -= count
        raise IndexError(shard)

    def find(self, name: str) -> int | None:
        """The shard of a tar or receipt of that name, None where it is none of this build: what ``locate`` undoes."""
        if (matched := SHARD.match(name)) is None or matched[1] != self.spec.task:
            return None
        first, number = 0, int(matched[3])
        for split in self.splits:
            count = self.variants * self.shards_per_variant(split)
            if matched[2] == split:
                return first + number if number < count else None
            first += count
        return None

    @property
    def sample_count(self) -> int:
        """Samples of all variants, before rejects."""
        return len(self.pairs) * self.variants

    @property
    def packer(self) -> Packer:
        """What workers need of the build."""
        return Packer(self.out, self.spec, self.codec, self.settings, self.digest)

    def path(self, shard: int) -> Location:
        """Where a shard lands."""
        return self.out / shard_name(self.spec.task, *self.locate(shard))

    def shard_samples(self, shard: int) -> int:
        """The samples of a shard, counted."""
        split, number = self.locate(shard)
        part = number % self.shards_per_variant(split)
        return min(self.shard_size, self.sizes[split] - part * self.shard_size)

    def task(self, shard: int) -> ShardTask:
        """The work of a shard: the plan is variant-major, and keys keep their place whatever is rejected."""
        split, number = self.locate(shard)
        variant, first = number // self.shards_per_variant(split), number * self.shard_size
        drawn = self.pairs.take(self.rows(shard))
        samples = tuple(SampleTask(first + i, variant, ref) for i, ref in enumerate(drawn))
        return ShardTask(shard_name(self.spec.task, split, number), samples)

    def rows(self, shard: int) -> np.ndarray:
        """The numbers of the pairs of a shard's samples, in order."""
        split, number = self.locate(shard)
        variant, part = divmod(number, self.shards_per_variant(split))
        return self._ordered(variant, split)[part * self.shard_size : (part + 1) * self.shard_size]

    def order(self, variant: int, split: str | None = None) -> Pairs:
        """The pairs of a split, or of all, in a variant's order: by a hash of (seed, pair, variant)."""
        return self.pairs.take(self._ordered(variant, split))

    def _ordered(self, variant: int, split: str | None) -> np.ndarray:
        """The numbers of the pairs in a variant's order.

        The last one asked for is kept: shards come by variant, and all orders together are the whole plan.
        """
        if (variant, split) not in self._last:
            self._last.clear()
            mine = np.arange(len(self.pairs)) if split is None else self.pairs.rows_of(split)
            names = self.pairs.take(mine).names()
            hashes = (seed_of(self.spec.seed, self.spec.task, *name, variant, "order", 0) for name in names)
            order = np.argsort(np.fromiter(hashes, np.int64, len(mine)), kind="stable")
            self._last[variant, split] = mine[order]
        return self._last[variant, split]

"""What is evaluated: the samples of shards, counted before work begins, and cut into parts that processes take."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from clearfuse.synth.plugins import warn_changed
from clearfuse.synth.shards.receipts import read_receipt, sample_offsets
from clearfuse.synth.shards.sample import Sample, decode_sample
from clearfuse.synth.shards.tar import read_members, receipt_path
from clearfuse.synth.types import UserError
from clearfuse.train.data.find import find_local_shards, shard_content

PART = 32
"""Samples that a process takes at once at most, and that are lost where one is killed."""
PARTS = 64
"""Parts that a small evaluation has at least, so that its processes end together and it says how far it is."""


@dataclass(frozen=True)
class Portion:
    """The first ``take`` of a shard's ``total`` samples. real: they have no clean side and no ground truth."""

    path: Path
    take: int
    total: int
    real: bool = False

    @property
    def truth(self) -> bool:
        """Whether they have a ground truth."""
        return not self.real

    def part(self, number: int, start: int, stop: int) -> Part:
        """Some of its samples."""
        return Part(number, self.path, start, stop)

    def content(self) -> tuple[Any, ...]:
        """What decides its samples, besides its name and how many are taken."""
        return tuple(shard_content(self.path))


@dataclass(frozen=True)
class Part:
    """Samples ``start`` to ``stop`` of a portion: the unit that is scored, kept and taken up again."""

    number: int
    path: Path
    start: int
    stop: int

    @property
    def samples(self) -> int:
        """How many."""
        return self.stop - self.start

    def read(self) -> Iterator[Sample]:
        """The samples, decoded, by their places in the tar. Raises ValueError where one is damaged."""
        facts = self.path.stat()
        starts = starts_of(self.path, facts.st_size, facts.st_mtime_ns)
        if len(starts) < self.stop:
            raise ValueError(f"holds {len(starts)} samples, {self.stop} when the work began")
        with self.path.open("rb") as file:
            for key, members in islice(read_members(file, starts[self.start]), self.samples):
                yield decode_sample(key, members)


@lru_cache(maxsize=1)
def starts_of(path: Path, size: int, mtime_ns: int) -> list[int]:
    """Where a shard's samples begin, read once for all its parts, which a process takes one after another.

    size, mtime_ns: so that another file of that name is read anew. Raises ValueError where it is damaged.
    """
    return list(sample_offsets(path).values())


def plan_portions(paths: Sequence[str], limit: int | None = None) -> tuple[Portion, ...]:
    """The shards and how many samples of each: all, or ``limit`` spread evenly over them.

    Reads headers only. Raises UserError, before work begins, where there are no samples, a shard is cut short, a plugin
    that it was made with is not loaded, or some shards are of real pairs and others not, whose numbers have other
    meanings.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: must be at least 1")
    found = list({path.resolve(): path for path in find_local_shards(paths)}.values())
    for path in found:
        warn_changed(_plugins_of(path), path.name)
    counted = [count_samples(path) for path in found]
    totals, real = [total for total, _ in counted], [is_real for total, is_real in counted if total]
    if not sum(totals):
        raise UserError(f"{', '.join(paths)}: no samples in these shards")
    if any(real) and not all(real):
        one = next(path for path, (total, is_real) in zip(found, counted, strict=True) if total and is_real)
        raise UserError(f"{one}: its pairs are real, without ground truth, those of other shards not: score them apart")
    takes = spread(sum(totals) if limit is None else limit, totals)
    return tuple(Portion(p, take, *of) for p, take, of in zip(found, takes, counted, strict=True) if take)


def _plugins_of(shard: Path) -> Sequence[Any]:
    """The plugins that a shard was made with, as its receipt has them; what else is wrong with one, verify tells."""
    try:
        return read_receipt(receipt_path(shard)).settings.get("plugins", ()) if receipt_path(shard).is_file() else ()
    except UserError:
        return ()


def cut(portions: Sequence[Portion]) -> Iterator[Part]:
    """The parts of all portions, in order. The cut is the same for any number of processes."""
    number = 0
    size = max(min(PART, sum(portion.take for portion in portions) // PARTS), 1)
    for portion in portions:
        for start in range(0, portion.take, size):
            yield portion.part(number, start, min(start + size, portion.take))
            number += 1


def count_samples(path: Path) -> tuple[int, bool]:
    """Samples of a tar, from its receipt or its headers, and whether its pairs are real.

    Raises UserError where it is no tar, cut short, or lean.
    """
    try:
        count = len(sample_offsets(path))
        with path.open("rb") as file:
            _, first = next(read_members(file), ("", {}))
    except ValueError as error:
        raise UserError(f"{path}: {error}; see synth verify") from None
    held = {name.partition(".")[0] for name in first}
    if "clean_a" in held and not held & {"a", "b", "txt"}:
        raise UserError(f"{path}: is lean, without degraded images to score: build it without --lean")
    return count, {"a", "b"} <= held and not held & {"clean_a", "clean_b", "gt"}


def spread(wanted: int, totals: Sequence[int]) -> list[int]:
    """``wanted`` shared out evenly over places that hold ``totals``, earlier ones first; all where there are fewer."""
    takes = [0] * len(totals)
    left = min(wanted, sum(totals))
    while left:
        open_ = [i for i, total in enumerate(totals) if takes[i] < total]
        each = max(left // len(open_), 1)
        for i in open_[:left]:
            more = min(each, totals[i] - takes[i], left)
            takes[i] += more
            left -= more
    return takes

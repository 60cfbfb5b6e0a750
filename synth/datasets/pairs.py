"""Pairs in columns: a million of them in a tenth of a gigabyte, a ``PairRef`` only while somebody looks at one.

Texts are numpy's ``StringDType``: 16 bytes each, and their length where they are longer than 15.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import numpy as np

from clearfuse.synth.datasets.manifest import SPLITS
from clearfuse.synth.types import DEGRADED, PairRef, Target, Task

TEXT = np.dtypes.StringDType()
"""The type of a column of texts."""
RUN = 4096
"""Pairs that are looked at together."""


def texts(values: Iterable[str]) -> np.ndarray:
    """A column of texts."""
    return np.array(list(values), dtype=TEXT)


@dataclass(frozen=True)
class Files:
    """A column of files below ``root``: the number of each one's folder (-1: no file), its name, and its bytes.

    folders: below the root, each with its last slash, or "".
    """

    root: str
    folders: np.ndarray
    folder: np.ndarray
    name: np.ndarray
    size: np.ndarray

    def __len__(self) -> int:
        return len(self.folder)

    def take(self, rows: np.ndarray) -> Files:
        """The files of these rows; none where a row is -1."""
        if not len(self):
            none = np.full(len(rows), -1, np.int32)
            return Files(self.root, self.folders, none, np.full(len(rows), "", TEXT), np.zeros(len(rows), np.int64))
        folder = np.where(rows >= 0, self.folder[rows], -1).astype(np.int32)
        return Files(self.root, self.folders, folder, self.name[rows], self.size[rows])

    def path(self, row: int) -> str:
        """A file's path or URL."""
        return f"{self.root}{self.folders[self.folder[row]]}{self.name[row]}"

    def where(self, rows: np.ndarray) -> list[str | None]:
        """The paths or URLs of some rows, None where there is no file."""
        folder = self.folder[rows]
        if not len(self.folders):
            return [None] * len(rows)
        named = zip(folder.tolist(), self.folders[folder].tolist(), self.name[rows].tolist(), strict=True)
        return [f"{self.root}{below}{name}" if number >= 0 else None for number, below, name in named]

    def paths(self) -> list[str]:
        """The paths or URLs of all that are there."""
        return [path for path in self.where(np.arange(len(self))) if path is not None]


@dataclass(frozen=True)
class Table:
    """The pairs of one data set. splits: numbers in ``SPLITS``; known: numbers in ``degradations``."""

    task: Task
    dataset: str
    keys: np.ndarray
    scenes: np.ndarray
    splits: np.ndarray
    sources: Mapping[str, Files]
    known: np.ndarray
    degradations: Sequence[tuple[tuple[str, Target], ...]] = ((),)
    real: bool = False

    def __len__(self) -> int:
        return len(self.keys)

    @cached_property
    def given(self) -> np.ndarray:
        """Which pairs come degraded: see ``PairRef.given``."""
        out = np.full(len(self), self.real)
        for image in DEGRADED:
            if image in self.sources:
                out |= self.sources[image].folder >= 0
        return out

    def refs(self, rows: np.ndarray) -> Iterator[PairRef]:
        """Pairs, one at a time."""
        names = list(SPLITS)
        columns = (self.keys, self.scenes, self.splits, self.known)
        paths = [files.where(rows) for files in self.sources.values()]
        for key, scene, split, known, *mine in zip(*(c[rows].tolist() for c in columns), *paths, strict=True):
            sources = {image: path for image, path in zip(self.sources, mine, strict=True) if path is not None}
            yield PairRef(
                self.task, self.dataset, key, scene, names[split], sources, self.degradations[known], self.real
            )

    def records(self, rows: np.ndarray) -> Iterator[list[Any]]:
        """What the digest covers of pairs: the key, bytes by image, and what is known of a pair that comes degraded."""
        keys, known = self.keys[rows].tolist(), self.known[rows].tolist()
        columns = [(image, f.folder[rows].tolist(), f.size[rows].tolist()) for image, f in self.sources.items()]
        degraded = self.real or any(image in self.sources for image in DEGRADED)
        for at, key in enumerate(keys):
            sizes = {image: size[at] for image, folder, size in columns if folder[at] >= 0}
            yield [key, sizes, self.degradations[known[at]]] if degraded else [key, sizes]


class Pairs(Sequence[PairRef]):
    """Pairs of one or more data sets, in some order: tables, and the rows that are taken of them."""

    def __init__(self, tables: Sequence[Table], rows: np.ndarray | None = None) -> None:
        self.tables = tuple(tables)
        self._starts = np.cumsum([0, *map(len, self.tables)])
        self._rows = np.arange(self._starts[-1]) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> PairRef: ...
    @overload
    def __getitem__(self, at: slice) -> Pairs: ...
    def __getitem__(self, at: int | slice) -> PairRef | Pairs:
        if isinstance(at, slice):
            return Pairs(self.tables, self._rows[at])
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        return next(iter(self.take(np.array([at]))))

    def __iter__(self) -> Iterator[PairRef]:
        for table, rows in self._runs():
            yield from table.refs(rows)

    def _runs(self) -> Iterator[tuple[Table, np.ndarray]]:
        """Pairs that follow each other and are of one table: it, and its rows."""
        for start in range(0, len(self), RUN):
            rows = self._rows[start : start + RUN]
            of = np.searchsorted(self._starts, rows, side="right") - 1
            for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(of)) + 1):
                number = int(of[run[0]])
                yield self.tables[number], rows[run] - self._starts[number]

    def take(self, which: np.ndarray) -> Pairs:
        """Some of them, by numbers or a mask."""
        return Pairs(self.tables, self._rows[which])

    @staticmethod
    def joined(parts: Iterable[Pairs]) -> Pairs:
        """One after the other."""
        tables: list[Table] = []
        rows: list[np.ndarray] = [np.zeros(0, np.int64)]
        before = 0
        for part in parts:
            tables += part.tables
            rows.append(part._rows + before)
            before += int(part._starts[-1])
        return Pairs(tables, np.concatenate(rows))

    def _column(self, columns: Iterable[np.ndarray], none: np.ndarray) -> np.ndarray:
        return np.concatenate([none, *columns])[self._rows]

    @cached_property
    def splits(self) -> np.ndarray:
        """The number of each one's split in ``SPLITS``."""
        return self._column((table.splits for table in self.tables), np.zeros(0, np.int8))

    @cached_property
    def given(self) -> np.ndarray:
        """Which come degraded: see ``PairRef.given``."""
        return self._column((table.given for table in self.tables), np.zeros(0, np.bool_))

    @cached_property
    def sets(self) -> np.ndarray:
        """The number of each one's table."""
        return np.searchsorted(self._starts, self._rows, side="right") - 1

    @property
    def scenes(self) -> np.ndarray:
        """The scene of each."""
        return self._column((table.scenes for table in self.tables), texts(()))

    @cached_property
    def by_dataset(self) -> dict[str, Pairs]:
        """Those of each data set that has any, by its name, sorted."""
        numbers: dict[str, list[int]] = {}
        for number in np.unique(self.sets):
            numbers.setdefault(self.tables[number].dataset, []).append(int(number))
        return {name: self.take(np.isin(self.sets, numbers[name])) for name in sorted(numbers)}

    @property
    def real(self) -> bool:
        """Whether any has no clean side."""
        return any(self.tables[i].real for i in np.unique(self.sets))

    def count(self, split: str) -> int:
        """How many are of a split."""
        return len(self.rows_of(split))

    def rows_of(self, split: str) -> np.ndarray:
        """The numbers of those of a split."""
        return np.flatnonzero(self.splits == list(SPLITS).index(split))

    def of_split(self, split: str) -> Pairs:
        """Those of a split."""
        return self.take(self.rows_of(split))

    def having(self, image: str) -> int:
        """How many have a file of that image."""
        return sum(
            int((table.sources[image].folder[rows] >= 0).sum())
            for table, rows in self._runs()
            if image in table.sources
        )

    def names(self) -> Iterator[tuple[str, str]]:
        """(data set, key) of each."""
        for table, rows in self._runs():
            yield from ((table.dataset, key) for key in table.keys[rows].tolist())

    def records(self) -> Iterator[list[Any]]:
        """What the digest covers of each."""
        for table, rows in self._runs():
            yield from table.records(rows)

    def degradations(self) -> set[tuple[tuple[str, Target], ...]]:
        """All that is known of those that come degraded."""
        found: set[tuple[tuple[str, Target], ...]] = set()
        for table, rows in self._runs():
            found |= {table.degradations[i] for i in np.unique(table.known[rows])}
        return found

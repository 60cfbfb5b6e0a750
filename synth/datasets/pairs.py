"""Pairs stored in columns: a million of them take a tenth of a gigabyte; ``PairRef`` objects are created on access.

Strings are of numpy's ``StringDType``: 16 bytes each, plus their length where they are longer than 15.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, overload

import numpy as np

from clearfuse.synth.datasets.manifest import SPLITS
from clearfuse.synth.types import DEGRADED, PairRef, Target, Task

TEXT = np.dtypes.StringDType()
"""The dtype of a column of strings."""
RUN = 4096
"""Pairs processed at a time."""


def texts(values: Iterable[str]) -> np.ndarray:
    """A column of strings."""
    return np.array(list(values), dtype=TEXT)


@dataclass(frozen=True)
class Files:
    """A column of files below ``root``: for each the index of its folder (-1: no file), its name and its size in bytes.

    folders: relative to the root, each with a trailing slash, or "".
    """

    root: str
    folders: np.ndarray
    folder: np.ndarray
    name: np.ndarray
    size: np.ndarray

    def __len__(self) -> int:
        return len(self.folder)

    def take(self, rows: np.ndarray) -> Files:
        """The files of these rows; no file where a row is -1."""
        if not len(self):
            none = np.full(len(rows), -1, np.int32)
            return Files(self.root, self.folders, none, np.full(len(rows), "", TEXT), np.zeros(len(rows), np.int64))
        folder = np.where(rows >= 0, self.folder[rows], -1).astype(np.int32)
        return Files(self.root, self.folders, folder, self.name[rows], self.size[rows])

    def path(self, row: int) -> str:
        """The path or URL of a file."""
        return f"{self.root}{self.folders[self.folder[row]]}{self.name[row]}"

    def where(self, rows: np.ndarray) -> list[str | None]:
        """The paths or URLs of these rows, None where there is no file."""
        folder = self.folder[rows]
        if not len(self.folders):
            return [None] * len(rows)
        columns = zip(folder.tolist(), self.folders[folder].tolist(), self.name[rows].tolist(), strict=True)
        return [f"{self.root}{subfolder}{name}" if number >= 0 else None for number, subfolder, name in columns]

    def paths(self) -> list[str]:
        """The paths or URLs of all existing files."""
        return [path for path in self.where(np.arange(len(self))) if path is not None]


@dataclass(frozen=True)
class Table:
    """The pairs of one data set, in columns. splits: indices into ``SPLITS``; known: indices into ``degradations``."""

    task: Task
    dataset: str
    keys: np.ndarray
    scenes: np.ndarray
    splits: np.ndarray
    sources: Mapping[str, Files]
    known: np.ndarray
    degradations: Sequence[tuple[tuple[str, Target], ...]] = ((),)
    real: bool = False
    scale: int | None = None

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def single(self) -> bool:
        """Whether its pairs are made of single pictures."""
        return "gt" in self.sources and "a" not in self.sources

    @cached_property
    def predegraded(self) -> np.ndarray:
        """Mask of the pairs whose degraded images the data set provides: see ``PairRef.predegraded``."""
        out = np.full(len(self), self.real)
        for image in DEGRADED:
            if image in self.sources:
                out |= self.sources[image].folder >= 0
        return out

    def refs(self, rows: np.ndarray) -> Iterator[PairRef]:
        """Iterate over the pairs of these rows."""
        names = list(SPLITS)
        columns = (self.keys, self.scenes, self.splits, self.known)
        paths = [files.where(rows) for files in self.sources.values()]
        for key, scene, split, known, *row_paths in zip(*(c[rows].tolist() for c in columns), *paths, strict=True):
            sources = {image: path for image, path in zip(self.sources, row_paths, strict=True) if path is not None}
            yield PairRef(
                self.task, self.dataset, key, scene, names[split], sources, self.degradations[known], self.real,
                self.scale,
            )  # fmt: skip

    def records(self, rows: np.ndarray) -> Iterator[list[Any]]:
        """The pairs' part of a build's digest: key, file sizes by image, and known degradation where provided."""
        keys, known = self.keys[rows].tolist(), self.known[rows].tolist()
        columns = [(image, f.folder[rows].tolist(), f.size[rows].tolist()) for image, f in self.sources.items()]
        degraded = self.real or any(image in self.sources for image in DEGRADED)
        for at, key in enumerate(keys):
            sizes = {image: size[at] for image, folder, size in columns if folder[at] >= 0}
            yield [key, sizes, self.degradations[known[at]]] if degraded else [key, sizes]


class Pairs(Sequence[PairRef]):
    """A sequence of pairs of one or more data sets: tables, and the selected rows in order."""

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
        """Runs of consecutive pairs of one table: the table and its rows."""
        for start in range(0, len(self), RUN):
            rows = self._rows[start : start + RUN]
            if len(self.tables) == 1:
                yield self.tables[0], rows
                continue
            tables = np.searchsorted(self._starts, rows, side="right") - 1
            for run in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(tables)) + 1):
                number = int(tables[run[0]])
                yield self.tables[number], rows[run] - self._starts[number]

    def take(self, which: np.ndarray) -> Pairs:
        """A selection, by indices or a mask."""
        return Pairs(self.tables, self._rows[which])

    @staticmethod
    def joined(parts: Iterable[Pairs]) -> Pairs:
        """The concatenation of several sequences."""
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
        """The index into ``SPLITS`` of each pair's split."""
        return self._column((table.splits for table in self.tables), np.zeros(0, np.int8))

    @cached_property
    def predegraded(self) -> np.ndarray:
        """Mask of the pairs whose degraded images the data set provides: see ``PairRef.predegraded``."""
        return self._column((table.predegraded for table in self.tables), np.zeros(0, np.bool_))

    @cached_property
    def sets(self) -> np.ndarray:
        """The index of each pair's table."""
        return np.searchsorted(self._starts, self._rows, side="right") - 1

    @property
    def keys(self) -> np.ndarray:
        """The key of each pair."""
        return self._column((table.keys for table in self.tables), texts(()))

    @property
    def scenes(self) -> np.ndarray:
        """The scene of each pair."""
        return self._column((table.scenes for table in self.tables), texts(()))

    @cached_property
    def by_dataset(self) -> dict[str, Pairs]:
        """The pairs of each data set that has any, sorted by its name."""
        numbers: dict[str, list[int]] = {}
        for number in np.unique(self.sets):
            numbers.setdefault(self.tables[number].dataset, []).append(int(number))
        return {name: self.take(np.isin(self.sets, numbers[name])) for name in sorted(numbers)}

    @property
    def task(self) -> Task:
        """The task of the pairs of one data set."""
        return self.tables[self.sets[0]].task

    @property
    def scale(self) -> int | None:
        """The largest scale of the tables, see ``types.Scale``; None where none has any."""
        return max((scale for i in np.unique(self.sets) if (scale := self.tables[i].scale)), default=None)

    @property
    def real(self) -> bool:
        """Whether any pair is real, without clean images."""
        return any(self.tables[i].real for i in np.unique(self.sets))

    @property
    def single(self) -> bool:
        """Whether any pair is made of a single picture."""
        return any(self.tables[i].single for i in np.unique(self.sets))

    def count(self, split: str) -> int:
        """The number of pairs in a split."""
        return len(self.rows_of(split))

    def rows_of(self, split: str) -> np.ndarray:
        """The indices of the pairs in a split."""
        return np.flatnonzero(self.splits == list(SPLITS).index(split))

    def of_split(self, split: str) -> Pairs:
        """The pairs in a split."""
        return self.take(self.rows_of(split))

    def in_split(self, split: str) -> Pairs:
        """These pairs as pairs of a split, whatever split they are in."""
        number = list(SPLITS).index(split)
        tables = (replace(table, splits=np.full_like(table.splits, number)) for table in self.tables)
        return Pairs(tuple(tables), self._rows)

    def having(self, image: str) -> int:
        """The number of pairs with a file of that image."""
        return sum(
            int((table.sources[image].folder[rows] >= 0).sum())
            for table, rows in self._runs()
            if image in table.sources
        )

    def names(self) -> Iterator[tuple[str, str]]:
        """(data set, key) of each pair."""
        for table, rows in self._runs():
            yield from ((table.dataset, key) for key in table.keys[rows].tolist())

    def records(self) -> Iterator[list[Any]]:
        """Each pair's part of a build's digest."""
        for table, rows in self._runs():
            yield from table.records(rows)

    def degradations(self) -> set[tuple[tuple[str, Target], ...]]:
        """The different known degradations."""
        found: set[tuple[tuple[str, Target], ...]] = set()
        for table, rows in self._runs():
            found |= {table.degradations[i] for i in np.unique(table.known[rows])}
        return found

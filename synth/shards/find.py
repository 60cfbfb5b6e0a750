"""Finding shards: folders and tars, here or at a store."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np

from clearfuse.synth.datasets.pairs import RUN, texts
from clearfuse.synth.files import storage
from clearfuse.synth.files.remote import Remote
from clearfuse.synth.files.storage import Location
from clearfuse.synth.types import UserError


class Shards(Sequence[Location]):
    """Tars: a folder's are held by their names alone, in some 40 bytes each."""

    def __init__(self, parts: Sequence[tuple[Location, np.ndarray]]) -> None:
        self._parts = parts
        self._starts = [0, *itertools.accumulate(len(names) for _, names in parts)]

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, at: int) -> Location: ...
    @overload
    def __getitem__(self, at: slice) -> list[Location]: ...
    def __getitem__(self, at: int | slice) -> Location | list[Location]:
        numbers = range(len(self))[at]
        if isinstance(numbers, range):
            return [self[number] for number in numbers]
        part = bisect_right(self._starts, numbers) - 1
        folder, names = self._parts[part]
        return folder / str(names[numbers - self._starts[part]])


def _tars(folder: Location) -> np.ndarray:
    """The names of the tars in a folder, sorted."""
    named = (name for name, _ in storage.files(folder) if name.endswith(".tar"))
    runs = [texts(())]
    while len(some := texts(itertools.islice(named, RUN))):
        runs.append(some)
    names = np.concatenate(runs)
    return names[np.argsort(names, kind="stable")]


def find_shards(paths: Sequence[str]) -> tuple[Shards, list[Location]]:
    """(shards, folders) of a command line of folders and tars, local or URLs. Raises UserError where there are none."""
    found: list[tuple[Location, np.ndarray]] = []
    folders: list[Location] = []
    for text in paths:
        path = storage.locate(text)
        if path.is_dir():
            folders.append(path)
            here = _tars(path)
            if not len(here) and not (path / "dataset.json").exists():
                raise UserError(f"{path}: no shards in this folder")
            found.append((path, here))
        elif path.is_file():
            found.append((path.parent, texts([path.name])))
        else:
            raise UserError(f"{path}: no such file or folder")
    return Shards(found), folders


def find_local_shards(paths: Sequence[str]) -> list[Path]:
    """The shards of a command line, for readers of local files. Raises UserError where one is a URL."""
    local: list[Path] = []
    for path in find_shards(paths)[0]:
        if isinstance(path, Remote):
            raise UserError(f"{path}: must be a local shard or folder: copy it first")
        local.append(path)
    return local

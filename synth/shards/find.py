"""Finding shards, for every command: folders, tars, patterns, braces and URLs, each argument a source.

shards/vif   'shards/*/vif-train-*.tar'   shards/vif-train-{000000..000012}.tar   s3://bucket/shards   hf://...
"""

from __future__ import annotations

import difflib
import glob
import itertools
import os
import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np

from clearfuse.synth.datasets.pairs import RUN, texts
from clearfuse.synth.files import storage
from clearfuse.synth.files.remote import Remote, open_store, reaching
from clearfuse.synth.files.storage import Location
from clearfuse.synth.shards.receipts import missing_shards
from clearfuse.synth.types import UserError

_MAGIC = re.compile(r"[*?\[]")
_BRACES = re.compile(r"\{[^{}]*(\.\.|,)[^{}]*\}")


class Shards(Sequence[Location]):
    """Tars: a folder's are held by their names alone, in some 40 bytes each."""

    def __init__(self, parts: Sequence[tuple[Location, np.ndarray]]) -> None:
        self.parts = parts
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
        folder, names = self.parts[part]
        return folder / str(names[numbers - self._starts[part]])


@dataclass(frozen=True)
class ShardSource:
    """What one argument names: its shards, in order, and the folders that they were found in as a whole."""

    text: str
    shards: Shards
    folders: tuple[Location, ...]


def find_sources(paths: Sequence[str], *, whole: bool = True) -> list[ShardSource]:
    """What a command line names, a source an argument. A shard that several arguments name belongs to the first.

    Raises UserError where an argument names no shard and no finished build, and, if ``whole``, where a shard is gone
    from a folder that is named as a whole.
    """
    seen: dict[Location, list[np.ndarray]] = {}
    found: list[ShardSource] = []
    for text in paths:
        parts: list[tuple[Location, np.ndarray]] = []
        folders: list[Location] = []
        for path in (path for one in expanded(text) for path in _matches(one)):
            folder, names = _held(path)
            if folder is path:
                folders.append(path)
                if whole:
                    _check_whole(path, names)
            before = seen.setdefault(folder if isinstance(folder, Remote) else folder.resolve(), [])
            new = names[~np.isin(names, np.concatenate(before))] if before else names
            before.append(new)
            parts.append((folder, new))
        found.append(ShardSource(text, Shards(parts), tuple(folders)))
    return found


def find_shards(paths: Sequence[str], *, whole: bool = True) -> tuple[Shards, list[Location]]:
    """(shards, folders) of a whole command line: see ``find_sources``."""
    sources = find_sources(paths, whole=whole)
    return Shards([part for one in sources for part in one.shards.parts]), [f for one in sources for f in one.folders]


def _held(path: Location) -> tuple[Location, np.ndarray]:
    """(folder, names of its tars) that a path names: the folder itself, or that of a single tar."""
    if path.is_dir():
        names = _tars(path)
        if not len(names) and not (path / "dataset.json").exists():
            raise UserError(f"{path}: no shards in this folder")
        return path, names
    if path.is_file():
        if path.name.startswith(".tmp-"):
            raise UserError(f"{path}: is what a killed build left, no shard; remove it")
        return path.parent, texts([path.name])
    if isinstance(path, Path):
        _check_kind(path)
    raise UserError(f"{path}: no such file or folder{_nearest(path)}")


def _tars(folder: Location) -> np.ndarray:
    """The names of the tars in a folder, sorted; one that begins with a dot has not landed."""
    if isinstance(folder, Path):
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".tar") and not entry.name.startswith(".") and not entry.is_file():
                    _check_kind(Path(entry))
    named = (name for name, _ in storage.files(folder) if name.endswith(".tar") and not name.startswith("."))
    runs = [texts(())]
    while len(some := texts(itertools.islice(named, RUN))):
        runs.append(some)
    names = np.concatenate(runs)
    return names[np.argsort(names, kind="stable")]


def _check_whole(folder: Location, names: np.ndarray) -> None:
    """Raise UserError where shards are gone from a folder: a copy that stopped is not a smaller set."""
    missing = missing_shards(folder, map(str, names))
    if (first := next(missing, None)) is not None:
        more = f", and {others} more" if (others := sum(1 for _ in missing)) else ""
        raise UserError(
            f"{folder / first}: is gone{more}; copy or build it again, or name the shards that are there: "
            f"'{folder / '*.tar'}'"
        )


def _check_kind(path: Path) -> None:
    """Refuse what is there and is neither file nor folder, without opening it: a pipe would be waited for."""
    if path.is_symlink() and not path.exists():
        raise UserError(f"{path}: is a link to {os.readlink(path)}, which is not there")
    if path.exists() and not path.is_dir():
        raise UserError(f"{path}: is a pipe or a device, no shard")


def _nearest(path: Location) -> str:
    """The nearest name beside a path that is not there, as the end of a line."""
    beside: list[str] = []
    with suppress(OSError, UserError):
        beside = list(path.parent.entries()) if isinstance(path, Remote) else os.listdir(path.parent)
    near = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.7)
    return f": did you mean '{near[0]}'?" if near else ""


def expanded(text: str) -> list[str]:
    """An argument with ``{000..012}`` and ``{a,b}`` written out, as webdataset has them, unless it is a file's name."""
    if not _BRACES.search(text) or os.path.exists(text):
        return [text]
    from braceexpand import braceexpand

    try:
        return list(braceexpand(text))
    except ValueError:
        raise UserError(f"{text}: its braces are not balanced; they are like shard-{{000000..000012}}.tar") from None


def _matches(text: str) -> Iterator[Location]:
    """The tars and folders of a pattern; what is no pattern is itself."""
    path = storage.locate(text)
    query = text.startswith(("http://", "https://"))  # there ? begins a query
    if not _MAGIC.search(text.partition("?")[0] if query else text) or (isinstance(path, Path) and path.exists()):
        return iter([path])
    if isinstance(path, Remote):
        with reaching(text):
            store, inside = open_store(text)
            names = sorted(str(name) for name in store.glob(inside))
        protocol = text.partition("://")[0]
        found: list[Location] = [Remote(name if "://" in name else f"{protocol}://{name}") for name in names]
    else:
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    found = [one for one in found if not one.name.startswith(".") and (one.suffix == ".tar" or one.is_dir())]
    if not found:
        raise UserError(f"{text}: matches no shard and no folder")
    return iter(found)

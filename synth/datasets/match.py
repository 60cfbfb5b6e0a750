"""What of a folder's files a manifest's templates take, in columns, and which of them belong together.

A folder may hold millions of files: names are looked at a few thousand at a time, and what is kept of one is its key,
its name and its size.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clearfuse.synth.datasets.fingerprints import brightness
from clearfuse.synth.datasets.manifest import Manifest, natural
from clearfuse.synth.datasets.pairs import Files, texts
from clearfuse.synth.files import storage
from clearfuse.synth.files.remote import Remote
from clearfuse.synth.files.storage import Listed, Location
from clearfuse.synth.types import UserError

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})


@dataclass(frozen=True)
class Side:
    """The images that a template took. at: where each belongs, see ``PairPlaces``; keys as written; frames."""

    at: np.ndarray
    keys: np.ndarray
    frames: np.ndarray
    files: Files


class PairPlaces:
    """Where a file belongs, as a text: a character for the folders of its split and part, then its key as compared.

    They are in the order of (split's folder, part's folder, key), and 14 letters of a key take no memory of their own.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._fold = manifest.ignore_case
        folders = [("", *map(self._compared, names.values())) for names in (manifest.splits, manifest.parts)]
        self._listed = sorted({(split, part) for split in folders[0] for part in folders[1]})
        self._marks = {place: chr(number + 1) for number, place in enumerate(self._listed)}

    def _compared(self, text: str) -> str:
        return text.casefold() if self._fold else text

    def mark(self, split: str, part: str) -> str:
        """What the places of a split's and a part's folder begin with."""
        return self._marks[self._compared(split), self._compared(part)]

    def compared(self, keys: list[str]) -> list[str]:
        """Keys as places have them."""
        return [key.casefold() for key in keys] if self._fold else keys

    @property
    def marks(self) -> list[str]:
        """What places begin with, in order."""
        return list(self._marks.values())

    def folders(self, at: str) -> tuple[str, str]:
        """The folders of split and part that a place is in."""
        return self._listed[ord(at[0]) - 1]


class Sought(NamedTuple):
    """An image of a pair: its name, and the templates that say where its files are."""

    image: str
    patterns: tuple[re.Pattern[str], ...]


@dataclass
class _Columns:
    """What a template has taken so far: arrays of a few thousand."""

    at: list[np.ndarray] = field(default_factory=lambda: [texts(())])
    keys: list[np.ndarray] = field(default_factory=lambda: [texts(())])
    frames: list[np.ndarray] = field(default_factory=lambda: [texts(())])
    folder: list[np.ndarray] = field(default_factory=lambda: [np.zeros(0, np.int32)])
    name: list[np.ndarray] = field(default_factory=lambda: [texts(())])
    size: list[np.ndarray] = field(default_factory=lambda: [np.zeros(0, np.int64)])


def match(manifest: Manifest, root: Location, sought: Sequence[Sought]) -> tuple[dict[str, Side], int]:
    """The images below a folder that templates take, by image, and how many other files there are."""
    places, inside = PairPlaces(manifest), _own_name(manifest, root)
    columns = {one.image: _Columns() for one in sought}
    folders: list[str] = []
    ignored = 0
    for listed in storage.scan(root):
        rows = _usable(listed)
        taken: set[int] = set()
        for one in sought:
            taken |= _take(manifest, places, one, listed, rows, inside, columns[one.image], len(folders))
        ignored += len(listed.names) - len(taken)
        if taken:
            folders.append(listed.folder)
    below = str(root / "x")[:-1]
    named = texts(folders)
    return {image: _side(one, below, named) for image, one in columns.items()}, ignored


def _own_name(manifest: Manifest, root: Location) -> str:
    """The folder's own name and a slash, where a folder of a split or a part may be given itself; else ""."""
    own = root.name if isinstance(root, Remote) else Path(os.path.abspath(root)).name
    known = {folder.casefold() for folder in (*manifest.splits.values(), *manifest.parts.values())}
    return f"{own}/" if own.casefold() in known else ""


def _usable(listed: Listed) -> list[int]:
    """Which files may be images: not undecodable names, dangling links, or pipes."""
    if not listed.folder.isprintable():
        return []
    return [
        row
        for row, name in enumerate(listed.names)
        if listed.sizes[row] >= 0 and name[name.rfind(".") :].lower() in EXTENSIONS and name.isprintable()
    ]


def _take(
    manifest: Manifest,
    places: PairPlaces,
    sought: Sought,
    listed: Listed,
    rows: Sequence[int],
    inside: str,
    columns: _Columns,
    folder: int,
) -> set[int]:
    """Add the files that a template takes to its columns; the rows of those."""
    leads = (listed.folder, inside + listed.folder) if inside else (listed.folder,)
    taken: set[int] = set()
    left = rows
    for pattern in sought.patterns:
        for lead in leads:
            found = [(row, hit) for row in left if (hit := pattern.match(lead + listed.names[row])) is not None]
            if not found:
                continue
            left = [] if len(left) == len(found) else sorted(set(left) - {row for row, _ in found})
            if manifest.exclude:
                found = [(row, hit) for row, hit in found if hit["key"].casefold() not in manifest.exclude]
            _add(manifest, places, sought.image, listed, found, columns)
            columns.folder.append(np.full(len(found), folder, np.int32))
            taken.update(row for row, _ in found)
    return taken


def _add(
    manifest: Manifest,
    places: PairPlaces,
    image: str,
    listed: Listed,
    found: Sequence[tuple[int, re.Match[str]]],
    columns: _Columns,
) -> None:
    """The files that one template takes in one folder: their columns, but for the folder's."""
    groups = found[0][1].re.groupindex if found else {}
    keys = [hit["key"] for _, hit in found]
    of = [[hit[name] for _, hit in found] if name in groups else [""] * len(found) for name in ("split", "part")]
    marks = {one: places.mark(*one) for one in set(zip(*of, strict=True))}
    at = [marks[one] + key for one, key in zip(zip(*of, strict=True), places.compared(keys), strict=True)]
    columns.at.append(texts(at))
    if image in ("a", "frames"):  # which say the pair's key
        leads = {folder.casefold(): f"{name}-" for name, folder in manifest.parts.items()} | {"": ""}
        columns.keys.append(texts(leads[part.casefold()] + key for part, key in zip(of[1], keys, strict=True)))
    if image == "frames":
        columns.frames.append(texts(hit["frame"] for _, hit in found))
    columns.name.append(texts(listed.names[row] for row, _ in found))
    columns.size.append(np.array([listed.sizes[row] for row, _ in found], np.int64))


def _side(columns: _Columns, root: str, folders: np.ndarray) -> Side:
    joined: list[np.ndarray] = []
    for parts in (columns.at, columns.keys, columns.frames, columns.folder, columns.name, columns.size):
        joined.append(np.concatenate(parts))
        parts.clear()
    at, keys, frames, folder, name, size = joined
    return Side(at, keys, frames, Files(root, folders, folder, name, size))


@dataclass(frozen=True)
class Together:
    """Files by where they belong. places: each place once, in order; rows: by image, a place's files as row numbers.

    The files of place i are ``rows[image][starts[image][i] : starts[image][i + 1]]``, by path.
    """

    places: np.ndarray
    rows: Mapping[str, np.ndarray]
    starts: Mapping[str, np.ndarray]

    def first(self, image: str) -> np.ndarray:
        """The row of each place's first file of an image; -1 where it has none."""
        starts = self.starts[image]
        there = np.diff(starts) > 0
        out = np.full(len(self.places), -1, np.int64)
        out[there] = self.rows[image][starts[:-1][there]]
        return out


def together(sides: Mapping[str, Side]) -> Together:
    """All places of all images, and which files belong to each."""
    every = np.concatenate([side.at for side in sides.values()])
    order = np.argsort(every, kind="stable")
    ordered = every[order]
    new = np.ones(len(every), np.bool_)
    new[1:] = ordered[1:] != ordered[:-1]
    places = ordered[new]
    del ordered, every
    number = np.empty(len(order), np.int32)
    number[order] = np.cumsum(new, dtype=np.int32) - 1
    del order, new
    rows: dict[str, np.ndarray] = {}
    starts: dict[str, np.ndarray] = {}
    before = 0
    for image, side in sides.items():
        mine = number[before : before + len(side.at)]
        before += len(side.at)
        counts = np.bincount(mine, minlength=len(places))
        rows[image] = _by_path(side, np.argsort(mine, kind="stable"), counts)
        starts[image] = np.concatenate([[0], np.cumsum(counts)])
    return Together(places, rows, starts)


def _by_path(side: Side, rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Rows that are ordered by place, the files of each place by path: their order in a listing is the system's."""
    starts = np.cumsum(counts) - counts
    for place in np.flatnonzero(counts > 1):
        at = slice(starts[place], starts[place] + counts[place])
        rows[at] = sorted(rows[at], key=lambda row: side.files.path(int(row)))
    return rows


def several(sides: Mapping[str, Side], found: Together) -> Iterator[tuple[str, int, list[int]]]:
    """(image, place, rows) of the places that hold more than one file of an image."""
    for image in sides:
        starts = found.starts[image]
        for place in np.flatnonzero(np.diff(starts) > 1):
            yield image, int(place), found.rows[image][starts[place] : starts[place + 1]].tolist()


def check_single(sides: Mapping[str, Side], found: Together, roots: Mapping[str, Location]) -> None:
    """One file an image; one file a frame of a sequence. Raises UserError naming two."""
    for image, _, rows in several(sides, found):
        seen: dict[str, str] = {}
        for row in rows:
            side = sides[image]
            name = side.frames[row].casefold() if image == "frames" else ""
            path = side.files.path(row)
            if name in seen:
                raise UserError(
                    f"{roots[image]}: two files for one image: {Path(seen[name]).name} and {Path(path).name}"
                )
            seen[name] = path


PAIRINGS = ("extreme", "adjacent", "all")
"""Which exposures of a sequence make a pair: see ``frame_pairs``."""


class Frame(NamedTuple):
    """A frame of a sequence: its own name, and its file's row."""

    name: str
    row: int


@dataclass(frozen=True)
class Drawn:
    """What can be paired. keys: of each pair; scene_keys: what names its scene; place: where it belongs, a number.

    rows: its file of each image, or -1. Several pairs of a sequence have one place.
    """

    keys: np.ndarray
    scene_keys: np.ndarray
    place: np.ndarray
    rows: Mapping[str, np.ndarray]


def pair_up(
    manifest: Manifest, sides: Mapping[str, Side], found: Together, small: Mapping[str, np.ndarray], pairing: str
) -> tuple[Drawn, tuple[str, ...]]:
    """What can be paired, and the paths of what has no partner."""
    if manifest.sequence:
        return _pair_frames(sides, found, small, pairing)
    needed = [image for image in sides if image != "gt"]
    first = {image: found.first(image) for image in sides}
    whole = np.all([first[image] >= 0 for image in needed], axis=0)
    single = [sides[image].files.path(int(row)) for image in needed for row in first[image][~whole] if row >= 0]
    keys = sides["a"].keys[first["a"][whole]]
    rows = {image: first[image][whole] for image in [*needed, *(["gt"] if "gt" in sides else [])]}
    return Drawn(keys, keys, np.flatnonzero(whole), rows), tuple(sorted(single))


def _pair_frames(
    sides: Mapping[str, Side], found: Together, small: Mapping[str, np.ndarray], pairing: str
) -> tuple[Drawn, tuple[str, ...]]:
    frames, starts = sides["frames"], found.starts["frames"]
    truth = found.first("gt") if "gt" in sides else None
    keys: list[str] = []
    heads: list[str] = []
    place: list[int] = []
    rows: dict[str, list[int]] = {"a": [], "b": []}
    alone: list[str] = []
    for number in np.flatnonzero(np.diff(starts)):
        here = found.rows["frames"][starts[number] : starts[number + 1]].tolist()
        paths = {row: frames.files.path(row) for row in here}
        light = {row: brightness(small[path]) for row, path in paths.items() if path in small}
        ordered = sorted(
            (Frame(frames.frames[row], row) for row in light), key=lambda one: (light[one.row], natural(one.name))
        )
        alone += [paths[row] for row in here if row not in light or len(ordered) < 2]
        if len(ordered) > 1:
            head = frames.keys[ordered[0].row]
            for key, a, b in frame_pairs(head, ordered, pairing):
                keys.append(key)
                heads.append(head)
                place.append(int(number))
                rows["a"].append(a)
                rows["b"].append(b)
    at = np.array(place, np.int64)
    drawn = {image: np.array(held, np.int64) for image, held in rows.items()}
    drawn |= {} if truth is None else {"gt": truth[at]}
    return Drawn(texts(keys), texts(heads), at, drawn), tuple(sorted(alone))


def frame_pairs(key: str, ordered: Sequence[Frame], pairing: str) -> Iterator[tuple[str, int, int]]:
    """(key, row of a, row of b) of the pairs of a sequence that is ordered dark to bright: a is the darker.

    extreme: the first and the last, under the scene's own key; adjacent: neighbours; all: every two, the frames' names
    behind the key.
    """
    if pairing == "extreme":
        yield key, ordered[0].row, ordered[-1].row
        return
    two = itertools.pairwise(ordered) if pairing == "adjacent" else itertools.combinations(ordered, 2)
    for a, b in two:
        yield f"{key}_{a.name}_{b.name}", a.row, b.row

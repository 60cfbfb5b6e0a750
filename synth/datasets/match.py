"""Matching of a folder's files to a manifest's templates, and grouping of the matches into pairs.

A folder may hold millions of files: names are processed a few thousand at a time, and of a file only its key, name and
size are kept, in columns.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clearfuse.synth.datasets.fingerprints import brightness
from clearfuse.synth.datasets.manifest import Manifest, natural, template_regex
from clearfuse.synth.datasets.pairs import Files, texts
from clearfuse.synth.files import archives, storage
from clearfuse.synth.files.pictures import EXTENSIONS
from clearfuse.synth.files.remote import Remote
from clearfuse.synth.files.storage import Listed, Location
from clearfuse.synth.types import BOXES, PROMPTS, SIDECARS, UserError

KEY = "{key}"
TEXTS = (BOXES, PROMPTS)
"""What is in text files."""


def key_template(pattern: str) -> str:
    """A user's pattern of names, such as ``{key}-A``, as a template: an extension is any, where it says none.

    Raises UserError where ``{key}`` is not in it once.
    """
    if pattern.count(KEY) != 1:
        raise UserError(f"pattern {pattern}: must have {KEY} once, such as '{{key}}-A'")
    return pattern if Path(pattern).suffix.lower() in EXTENSIONS else f"{pattern}.*"


def key_pattern(pattern: str) -> re.Pattern[str]:
    """The names that a user's pattern means, the key as group ``key``: see ``key_template``."""
    return template_regex(key_template(pattern), (), False)


def split_pattern(location: str) -> tuple[str, str]:
    """(folder, pattern of the names in it) of ``DIR/{key}-A``; the pattern is empty where there is none."""
    if KEY not in location:
        return location, ""
    folder, _, _ = location[: location.index("{")].rpartition("/")
    return folder or ".", location[len(folder) + 1 if folder else 0 :]


@dataclass(frozen=True)
class Side:
    """The files of one image of the pair. at: their places, see ``PairPlaces``. keys: as written. frames: names."""

    at: np.ndarray
    keys: np.ndarray
    frames: np.ndarray
    files: Files


class PairPlaces:
    """Places, strings by which files are grouped: a character for the folders of split and part, then the key.

    They sort by (split's folder, part's folder, key); with up to 14 letters of a key they fit in numpy's 16 bytes. Keys
    are case-folded where the manifest ignores case.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._fold = manifest.ignore_case
        folders = [("", *map(self._compared, names.values())) for names in (manifest.splits, manifest.parts)]
        self._listed = sorted({(split, part) for split in folders[0] for part in folders[1]})
        self._marks = {place: chr(number + 1) for number, place in enumerate(self._listed)}

    def _compared(self, text: str) -> str:
        return text.casefold() if self._fold else text

    def mark(self, split: str, part: str) -> str:
        """The first character of the places in the folders of a split and a part."""
        return self._marks[self._compared(split), self._compared(part)]

    def compared(self, keys: list[str]) -> list[str]:
        """Keys in the form used in places."""
        return [key.casefold() for key in keys] if self._fold else keys

    @property
    def marks(self) -> list[str]:
        """All first characters, in order."""
        return list(self._marks.values())

    def folders(self, at: str) -> tuple[str, str]:
        """The folders of the split and the part of a place."""
        return self._listed[ord(at[0]) - 1]


class ImagePatterns(NamedTuple):
    """An image of the pair to search for: its name and the patterns of its files' paths."""

    image: str
    patterns: tuple[re.Pattern[str], ...]


@dataclass
class _Columns:
    """The matches so far, as lists of arrays of a few thousand."""

    at: list[np.ndarray] = field(default_factory=lambda: [texts(())])
    keys: list[np.ndarray] = field(default_factory=lambda: [texts(())])
    frames: list[np.ndarray] = field(default_factory=lambda: [texts(())])
    folder: list[np.ndarray] = field(default_factory=lambda: [np.zeros(0, np.int32)])
    name: list[np.ndarray] = field(default_factory=lambda: [texts(())])
    size: list[np.ndarray] = field(default_factory=lambda: [np.zeros(0, np.int64)])


def match(manifest: Manifest, root: Location, images: Sequence[ImagePatterns]) -> tuple[dict[str, Side], int]:
    """The files below a folder that match the templates, by image, and the number of other files."""
    places, inside = PairPlaces(manifest), _root_prefix(manifest, root)
    columns = {image.image: _Columns() for image in images}
    folders: list[str] = []
    ignored = 0
    for listed in archives.scan(root) if manifest.archives else storage.scan(root):
        pictures = _usable(listed, EXTENSIONS)
        written = _usable(listed, {".txt", ".xml"}) if any(image.image in TEXTS for image in images) else []
        matched: set[int] = set()
        for image in images:
            rows = written if image.image in TEXTS else pictures
            matched |= _match_rows(manifest, places, image, listed, rows, inside, columns[image.image], len(folders))
        ignored += len(listed.names) - len(matched)
        if matched:
            folders.append(listed.folder)
    below = str(root / "x")[:-1]
    named = texts(folders)
    return {name: _concatenate(parts, below, named) for name, parts in columns.items()}, ignored


def _root_prefix(manifest: Manifest, root: Location) -> str:
    """The root's name and a slash, where the root is itself the folder of a split or a part; else ""."""
    name = root.name if isinstance(root, Remote) else Path(os.path.abspath(root)).name
    known = {folder.casefold() for folder in (*manifest.splits.values(), *manifest.parts.values())}
    return f"{name}/" if name.casefold() in known else ""


def _usable(listed: Listed, endings: Collection[str]) -> list[int]:
    """The rows of files with these extensions, without undecodable names, dangling links and pipes."""
    if not listed.folder.isprintable():
        return []
    return [
        row
        for row, name in enumerate(listed.names)
        if listed.sizes[row] >= 0 and name[name.rfind(".") :].lower() in endings and name.isprintable()
    ]


def _match_rows(
    manifest: Manifest,
    places: PairPlaces,
    image: ImagePatterns,
    listed: Listed,
    rows: Sequence[int],
    inside: str,
    columns: _Columns,
    folder: int,
) -> set[int]:
    """Append the files that match an image's patterns to its columns; returns their rows."""
    leads = (listed.folder, inside + listed.folder) if inside else (listed.folder,)
    matched_rows: set[int] = set()
    remaining = rows
    for pattern in image.patterns:
        for lead in leads:
            found = [(row, hit) for row in remaining if (hit := pattern.match(lead + listed.names[row])) is not None]
            if not found:
                continue
            remaining = [] if len(remaining) == len(found) else sorted(set(remaining) - {row for row, _ in found})
            if manifest.exclude and "key" in pattern.groupindex:
                found = [(row, hit) for row, hit in found if hit["key"].casefold() not in manifest.exclude]
            _append(manifest, places, image.image, listed, found, columns)
            columns.folder.append(np.full(len(found), folder, np.int32))
            matched_rows.update(row for row, _ in found)
    return matched_rows


def _append(
    manifest: Manifest,
    places: PairPlaces,
    image: str,
    listed: Listed,
    found: Sequence[tuple[int, re.Match[str]]],
    columns: _Columns,
) -> None:
    """Append the files of one folder that match one pattern to the columns, except ``folder``."""
    groups = found[0][1].re.groupindex if found else {}
    keys = [hit["key"] if "key" in groups else "" for _, hit in found]
    if manifest.video and "frame" in groups:
        keys = [f"{key}/{hit['frame']}" for key, (_, hit) in zip(keys, found, strict=True)]
    of = [[hit[name] for _, hit in found] if name in groups else [""] * len(found) for name in ("split", "part")]
    marks = {one: places.mark(*one) for one in set(zip(*of, strict=True))}
    at = [marks[one] + key for one, key in zip(zip(*of, strict=True), places.compared(keys), strict=True)]
    columns.at.append(texts(at))
    if image == manifest.leading:
        leads = {folder.casefold(): f"{name}-" for name, folder in manifest.parts.items()} | {"": ""}
        columns.keys.append(texts(leads[part.casefold()] + key for part, key in zip(of[1], keys, strict=True)))
    if image == "frames":
        columns.frames.append(texts(hit["frame"] for _, hit in found))
    columns.name.append(texts(listed.names[row] for row, _ in found))
    columns.size.append(np.array([listed.sizes[row] for row, _ in found], np.int64))


def _concatenate(columns: _Columns, root: str, folders: np.ndarray) -> Side:
    joined: list[np.ndarray] = []
    for parts in (columns.at, columns.keys, columns.frames, columns.folder, columns.name, columns.size):
        joined.append(np.concatenate(parts))
        parts.clear()
    at, keys, frames, folder, name, size = joined
    return Side(at, keys, frames, Files(root, folders, folder, name, size))


@dataclass(frozen=True)
class Grouped:
    """Files grouped by place. places: unique and sorted. rows, starts: by image, the groups of files, by path.

    The files of place i are ``rows[image][starts[image][i] : starts[image][i + 1]]``.
    """

    places: np.ndarray
    rows: Mapping[str, np.ndarray]
    starts: Mapping[str, np.ndarray]

    def first(self, image: str) -> np.ndarray:
        """The row of the first file of an image at each place; -1 where there is none."""
        starts = self.starts[image]
        present = np.diff(starts) > 0
        out = np.full(len(self.places), -1, np.int64)
        out[present] = self.rows[image][starts[:-1][present]]
        return out


def group_by_place(sides: Mapping[str, Side]) -> Grouped:
    """Group the files of all images by place."""
    all_places = np.concatenate([side.at for side in sides.values()])
    order = np.argsort(all_places, kind="stable")
    ordered = all_places[order]
    new = np.ones(len(all_places), np.bool_)
    new[1:] = ordered[1:] != ordered[:-1]
    places = ordered[new]
    del ordered, all_places
    number = np.empty(len(order), np.int32)
    number[order] = np.cumsum(new, dtype=np.int32) - 1
    del order, new
    rows: dict[str, np.ndarray] = {}
    starts: dict[str, np.ndarray] = {}
    before = 0
    for image, side in sides.items():
        numbers_of_image = number[before : before + len(side.at)]
        before += len(side.at)
        counts = np.bincount(numbers_of_image, minlength=len(places))
        rows[image] = _by_path(side, np.argsort(numbers_of_image, kind="stable"), counts)
        starts[image] = np.concatenate([[0], np.cumsum(counts)])
    return Grouped(places, rows, starts)


def _by_path(side: Side, rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Sort the rows of each place by path, since the order of a listing depends on the file system."""
    starts = np.cumsum(counts) - counts
    for place in np.flatnonzero(counts > 1):
        at = slice(starts[place], starts[place] + counts[place])
        rows[at] = sorted(rows[at], key=lambda row: side.files.path(int(row)))
    return rows


def repeated(sides: Mapping[str, Side], found: Grouped) -> Iterator[tuple[str, int, list[int]]]:
    """(image, place, rows) of the places with more than one file of an image."""
    for image in sides:
        starts = found.starts[image]
        for place in np.flatnonzero(np.diff(starts) > 1):
            yield image, int(place), found.rows[image][starts[place] : starts[place + 1]].tolist()


def check_single(sides: Mapping[str, Side], found: Grouped, roots: Mapping[str, Location]) -> None:
    """Raise UserError, naming two files, where an image of a pair or a frame of a sequence has several."""
    for image, _, rows in repeated(sides, found):
        seen: dict[str, str] = {}
        for row in rows:
            side = sides[image]
            name = side.frames[row].casefold() if image == "frames" else ""
            path = side.files.path(row)
            if name in seen:
                names = " and ".join(one.removeprefix(side.files.root) for one in (seen[name], path))
                raise UserError(f"{roots[image]}: two files for one image: {names}")
            seen[name] = path


PAIRINGS = ("extreme", "adjacent", "all")
"""Which exposures of a sequence form pairs: see ``frame_pairs``."""


class Frame(NamedTuple):
    """A frame of a sequence: its name, and the row of its file."""

    name: str
    row: int


@dataclass(frozen=True)
class PairColumns:
    """The pairs, in columns. scene_keys: the keys that determine their scenes. place: indices of their places.

    rows: by image, the row of its file, or -1. All pairs of a sequence have the same place.
    """

    keys: np.ndarray
    scene_keys: np.ndarray
    place: np.ndarray
    rows: Mapping[str, np.ndarray]


def pair_up(
    manifest: Manifest, sides: Mapping[str, Side], found: Grouped, small: Mapping[str, np.ndarray], pairing: str
) -> tuple[PairColumns, tuple[str, ...]]:
    """The pairs, and the paths of images without a partner."""
    if manifest.sequence:
        return _pair_frames(sides, found, small, pairing)
    optional = [image for image in sides if image in SIDECARS or (image == "gt" and not manifest.single)]
    needed = [image for image in sides if image not in optional]
    first = {image: found.first(image) for image in sides}
    complete = np.all([first[image] >= 0 for image in needed], axis=0)
    unpaired = [sides[image].files.path(int(row)) for image in needed for row in first[image][~complete] if row >= 0]
    keys = sides[manifest.leading].keys[first[manifest.leading][complete]]
    rows = {image: first[image][complete] for image in [*needed, *optional]}
    if PROMPTS in rows and KEY not in manifest.prompts[0]:
        rows[PROMPTS] = _of_folders(found, first[PROMPTS], np.flatnonzero(complete))
    for image in (image for image in optional if manifest.own_splits and image in SIDECARS):
        if all(KEY in template and "{split}" not in template for template in manifest.templates[image]):
            rows[image] = _of_any_split(PairPlaces(manifest), found, first[image], np.flatnonzero(complete))
    scene_keys = texts(key.rpartition("/")[0] for key in keys.tolist()) if manifest.video else keys
    return PairColumns(keys, scene_keys, np.flatnonzero(complete), rows), tuple(sorted(unpaired))


def _of_any_split(places: PairPlaces, found: Grouped, first: np.ndarray, of: np.ndarray) -> np.ndarray:
    """The row of the file of each pair's part and key, in a folder of all splits; -1 where there is none."""

    def name(at: int) -> tuple[str, str]:
        return places.folders(str(found.places[at]))[1], str(found.places[at])[1:]

    alone = {name(int(at)): int(first[at]) for at in np.flatnonzero(first >= 0)}
    return np.array([alone.get(name(int(at)), -1) for at in of], np.int64)


def _of_folders(found: Grouped, first: np.ndarray, places: np.ndarray) -> np.ndarray:
    """The row of the file of each pair's split and part, which has no key; -1 where there is none."""
    alone = {str(found.places[at]): int(first[at]) for at in np.flatnonzero(first >= 0)}
    return np.array([alone.get(str(found.places[at])[0], -1) for at in places], np.int64)


def _pair_frames(
    sides: Mapping[str, Side], found: Grouped, small: Mapping[str, np.ndarray], pairing: str
) -> tuple[PairColumns, tuple[str, ...]]:
    frames, starts = sides["frames"], found.starts["frames"]
    truth = found.first("gt") if "gt" in sides else None
    keys: list[str] = []
    scene_keys: list[str] = []
    place: list[int] = []
    rows: dict[str, list[int]] = {"a": [], "b": []}
    unpaired: list[str] = []
    for number in np.flatnonzero(np.diff(starts)):
        group = found.rows["frames"][starts[number] : starts[number + 1]].tolist()
        paths = {row: frames.files.path(row) for row in group}
        light = {row: brightness(small[path]) for row, path in paths.items() if path in small}
        ordered = sorted(
            (Frame(frames.frames[row], row) for row in light), key=lambda frame: (light[frame.row], natural(frame.name))
        )
        unpaired += [paths[row] for row in group if row not in light or len(ordered) < 2]
        if len(ordered) > 1:
            scene_key = frames.keys[ordered[0].row]
            for key, a, b in frame_pairs(scene_key, ordered, pairing):
                keys.append(key)
                scene_keys.append(scene_key)
                place.append(int(number))
                rows["a"].append(a)
                rows["b"].append(b)
    at = np.array(place, np.int64)
    drawn = {image: np.array(image_rows, np.int64) for image, image_rows in rows.items()}
    drawn |= {} if truth is None else {"gt": truth[at]}
    return PairColumns(texts(keys), texts(scene_keys), at, drawn), tuple(sorted(unpaired))


def frame_pairs(key: str, ordered: Sequence[Frame], pairing: str) -> Iterator[tuple[str, int, int]]:
    """(key, row of a, row of b) of the pairs of a sequence ordered from dark to bright; a is the darker frame.

    extreme: the first and the last, with the scene's key; adjacent: neighbours; all: every combination, with the
    frames' names appended to the key.
    """
    if pairing == "extreme":
        yield key, ordered[0].row, ordered[-1].row
        return
    two = itertools.pairwise(ordered) if pairing == "adjacent" else itertools.combinations(ordered, 2)
    for a, b in two:
        yield f"{key}_{a.name}_{b.name}", a.row, b.row

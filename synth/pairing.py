"""Which files make a pair: those of one place, or frames of one sequence."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from synth.fingerprints import brightness
from synth.manifest import Manifest, natural
from synth.matching import Side, Together
from synth.table import texts

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

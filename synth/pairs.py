"""Clean pairs: what a data set's folder holds of the layouts in its manifest, and decoding."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from synth import color, storage
from synth.decode import decode
from synth.fingerprints import Known, brightness, known_scene, thumbnails
from synth.manifest import SPLITS, Manifest, natural
from synth.manifest import load_manifest as load_manifest
from synth.manifest import template_regex as template_regex
from synth.remote import Remote
from synth.seeds import unit_hash
from synth.storage import Location
from synth.types import DEGRADED, MODALITIES, BadPair, PairRef, Task, UserError, unknown

PAIRINGS = ("extreme", "adjacent", "all")
"""Which exposures of a sequence make a pair: see ``frame_pairs``."""

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})

_EDGES = (np.cumsum(list(SPLITS.values())) / sum(SPLITS.values())).tolist()
"""Where the splits end in [0, 1]."""

At = tuple[str, str, str]
"""Where a file belongs: its split's folder, its part's folder and its key, as compared."""


class File(NamedTuple):
    """An image of a data set: its pair's key as written, the frame of a sequence, and the path."""

    key: str
    frame: str
    path: str


class Group(NamedTuple):
    """The pairs of one scene: the folders of split and part ("" where none is), its key, (key, sources) a pair."""

    split: str
    part: str
    key: str
    pairs: tuple[tuple[str, dict[str, str]], ...]


@dataclass(frozen=True)
class Found:
    """What a folder holds: its pairs in natural order, and what was left out.

    splits: pairs by split, whichever were asked for; scenes: pairs and sequences of all splits.
    """

    pairs: tuple[PairRef, ...]
    ignored: int
    unpaired: tuple[str, ...]
    splits: Mapping[str, int]
    scenes: int = 0


@dataclass(frozen=True)
class CleanPair:
    """A decoded clean pair: uint8 ``(h, w, c)``, with the sha256 of each source. depth: metres along the ray.

    sensor: by image, what was done to a file that is not 8 bit, upright and without alpha: see ``decode.Decoded``.
    degraded: of a pair that comes degraded, its a, b or both; one that is absent is the clean one. A real pair has no
    clean side: its a and b are the degraded images.
    """

    a: np.ndarray
    b: np.ndarray
    gt: np.ndarray | None
    depth: np.ndarray | None
    sha256: Mapping[str, str]
    sensor: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, "Mapping[str, Any]"])
    degraded: Mapping[str, np.ndarray] = field(default_factory=dict[str, np.ndarray])


def scene_split(scene: str) -> str:
    """The split of a scene of a set without splits: by hash, in the paper's proportions, the same in every build."""
    return list(SPLITS)[bisect_right(_EDGES, unit_hash("split", scene))]


def own_task(manifest: Manifest, other: Task = "vif") -> Task:
    """The task of a set; ``other`` for one that is for any."""
    task: Task
    for task in MODALITIES:
        if task == manifest.task:
            return task
    return other


def find_pairs(manifest: Manifest, location: str, task: Task, split: str, pairs: str = "extreme") -> Found:
    """The pairs of a split below a folder.

    location: the data set's folder, a path or a URL, or for ``folder`` ``DIR_A,DIR_B[,DIR_GT]``. pairs: which
    exposures of a sequence make a pair: extreme, adjacent or all. Raises UserError where the folder is missing, the set
    is for another task, has no such split, or nothing matches its layout.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if manifest.own_splits and split not in manifest.splits and manifest.task in (task, "any"):
        raise UserError(f"data set '{manifest.name}' has no split '{split}': it has {', '.join(manifest.splits)}")
    found = find_all(manifest, location, task, pairs)
    here = tuple(ref for ref in found.pairs if ref.split == split)
    if not here:
        has = ", ".join(f"{n} {name}" for name, n in found.splits.items())
        hint = "; real pairs are for evaluation: --split test" if manifest.real and found.splits["test"] else ""
        raise UserError(f"--data {manifest.name}={location}: no pair in split '{split}': {has}{hint}")
    return replace(found, pairs=here)


def find_all(manifest: Manifest, location: str, task: Task, pairs: str = "extreme") -> Found:
    """The pairs of every split below a folder: see ``find_pairs``."""
    if manifest.task not in (task, "any"):
        raise UserError(f"data set '{manifest.name}' is for {manifest.task}, not for {task}")
    if pairs not in PAIRINGS:
        raise unknown("pairing", pairs, PAIRINGS)
    roots = _roots(manifest, location)
    files = {root: storage.walk_files(root) for root, _ in roots.values()}
    left = {root: set(names) for root, names in files.items()}
    sides: dict[str, dict[At, list[File]]] = {}
    for image, (root, templates) in roots.items():
        patterns = [manifest.pattern(template) for template in templates]
        sides[image] = _match(manifest, files[root], root, patterns, left[root])
        _check_single(root, image, sides[image])
    clean = [side for image, side in sides.items() if image not in DEGRADED]
    looked_at = clean if manifest.like else [sides.get("frames", {})]
    paths = [file.path for side in looked_at for group in side.values() for file in group]
    small = thumbnails(paths, location)
    complete, unpaired = _pair_up(manifest, sides, small, pairs)
    if not complete:
        raise UserError(f"--data {manifest.name}={location}: no pair found: expected {manifest.expected} below it")
    counts = dict.fromkeys(manifest.splits if manifest.own_splits else SPLITS, 0)
    folders = {folder.casefold(): name for name, folder in manifest.splits.items()}
    refs: list[PairRef] = []
    for group in complete:
        scene, known = _scene(manifest, group, small)
        own = folders.get(group.split.casefold()) or known or ("test" if manifest.real else scene_split(scene))
        counts[own] += len(group.pairs)
        known_of = manifest.degradation_of(group.part)
        refs += [
            PairRef(task, manifest.name, key, scene, own, sources, known_of, manifest.real)
            for key, sources in group.pairs
        ]
    refs.sort(key=lambda ref: natural(ref.key))
    return Found(tuple(refs), sum(map(len, left.values())), unpaired, counts, len(complete))


def _roots(manifest: Manifest, location: str) -> dict[str, tuple[Location, tuple[str, ...]]]:
    images = manifest.templates
    if manifest.name == "folder":
        parts = [part for part in location.split(",") if part]
        if len(parts) not in (2, 3):
            raise UserError(f"--data folder={location}: must be folder=DIR_A,DIR_B or folder=DIR_A,DIR_B,DIR_GT")
        if len({_real_path(storage.locate(part)) for part in parts}) < len(parts):
            raise UserError(f"--data folder={location}: the same folder is named twice")
        roots = dict(zip(images, parts, strict=False))
    else:
        roots = dict.fromkeys(images, location)
    places = {root: storage.locate(root) for root in roots.values()}
    for root, place in places.items():
        if not place.is_dir():
            raise UserError(f"--data {manifest.name}={location}: folder {root} does not exist")
    return {image: (places[root], images[image]) for image, root in roots.items()}


def _real_path(place: Location) -> Location:
    return place if isinstance(place, Remote) else place.resolve()


def _match(
    manifest: Manifest, files: Sequence[str], root: Location, patterns: Sequence[re.Pattern[str]], left: set[str]
) -> dict[At, list[File]]:
    """The images that a template takes, by where they belong; they leave ``left``.

    A folder of a split or a part may be given itself: its own name counts as the first piece of a path too.
    """
    own = root.name if isinstance(root, Remote) else Path(os.path.abspath(root)).name
    inside = own.casefold() in {f.casefold() for f in (*manifest.splits.values(), *manifest.parts.values())}
    parts = {folder.casefold(): f"{name}-" for name, folder in manifest.parts.items()} | {"": ""}
    matched: dict[At, list[File]] = {}
    above = str(root / "x")[:-1]  # a join by pathlib costs more than all the rest
    for name in files:
        if os.path.splitext(name)[1].lower() not in EXTENSIONS or not name.isprintable():
            continue  # also undecodable names: left, and counted as ignored
        names = (name, f"{own}/{name}") if inside else (name,)
        match = next((m for pattern in patterns for one in names if (m := pattern.match(one))), None)
        if match is None or not (isinstance(root, Remote) or os.path.isfile(above + name)):  # dangling links, pipes
            continue
        groups = match.groupdict()
        if groups["key"].casefold() in manifest.exclude:
            continue
        part = groups.get("part") or ""
        at = (groups.get("split") or "", part, groups["key"])
        if manifest.ignore_case:
            at = (at[0].casefold(), at[1].casefold(), at[2].casefold())
        key = parts[part.casefold()] + groups["key"]
        matched.setdefault(at, []).append(File(key, groups.get("frame") or "", above + name))
        left.discard(name)
    return matched


def _check_single(root: Location, image: str, side: Mapping[At, Sequence[File]]) -> None:
    """One file an image; one file a frame of a sequence."""
    for files in side.values():
        seen: dict[str, str] = {}
        for file in files:
            name = file.frame.casefold() if image == "frames" else ""
            if name in seen:
                raise UserError(f"{root}: two files for one image: {Path(seen[name]).name} and {Path(file.path).name}")
            seen[name] = file.path


def _pair_up(
    manifest: Manifest, sides: Mapping[str, Mapping[At, list[File]]], small: Mapping[str, np.ndarray], pairing: str
) -> tuple[list[Group], tuple[str, ...]]:
    """What can be paired, a scene's pairs together, and the paths of what has no partner."""
    truth = {at: files[0].path for at, files in sides.get("gt", {}).items()}
    if not manifest.sequence:
        needed = {image: side for image, side in sides.items() if image != "gt"}
        whole = set.intersection(*(set(side) for side in needed.values()))
        single = [files[0].path for side in needed.values() for at, files in side.items() if at not in whole]
        groups: list[Group] = []
        for at in sorted(whole):
            sources = {image: side[at][0].path for image, side in needed.items()}
            sources |= {"gt": truth[at]} if at in truth else {}
            key = sides["a"][at][0].key
            groups.append(Group(at[0], at[1], key, ((key, sources),)))
        return groups, tuple(sorted(single))
    groups, alone = [], list[str]()
    for at, files in sorted(sides["frames"].items()):
        light = {file: brightness(small[file.path]) for file in files if file.path in small}
        ordered = sorted(light, key=lambda file: (light[file], natural(file.frame)))
        alone += [file.path for file in files if file not in light or len(ordered) < 2]
        if len(ordered) > 1:
            made = [
                (key, sources | ({"gt": truth[at]} if at in truth else {}))
                for key, sources in frame_pairs(ordered, pairing)
            ]
            groups.append(Group(at[0], at[1], ordered[0].key, tuple(made)))
    return groups, tuple(sorted(alone))


def frame_pairs(ordered: Sequence[File], pairing: str) -> list[tuple[str, dict[str, str]]]:
    """(key, sources) of the pairs of a sequence that is ordered dark to bright: a is the darker, b the brighter.

    extreme: the first and the last, under the scene's own key; adjacent: neighbours; all: every two, the frames' names
    behind the key.
    """
    if pairing == "extreme":
        return [(ordered[0].key, {"a": ordered[0].path, "b": ordered[-1].path})]
    two = itertools.pairwise(ordered) if pairing == "adjacent" else itertools.combinations(ordered, 2)
    return [(f"{a.key}_{a.frame}_{b.frame}", {"a": a.path, "b": b.path}) for a, b in two]


def _scene(manifest: Manifest, group: Group, small: Mapping[str, np.ndarray]) -> Known:
    """The scene of a group: by its pictures where they may be another set's, else by its key."""
    if manifest.like:
        clean = [path for _, sources in group.pairs for image, path in sources.items() if image not in DEGRADED]
        paths = list(dict.fromkeys(clean))
        known = known_scene([small[path] for path in paths if path in small], manifest.like)
        if known is not None:
            return known
    return Known(manifest.scene_of(group.key), None)


def builtin_pairs(task: Task, split: str, count: int = 32) -> tuple[PairRef, ...]:
    """The first ``count`` built-in scenes of a split; the key is the seed, so splits never share a scene."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    keys = [f"{split}-{i:06d}" for i in range(count)]
    return tuple(PairRef(task, "scenes", key, key, split) for key in keys)


def read_image(path: str) -> tuple[np.ndarray, str]:
    """A visible picture: (h, w, c) uint8 with c = 1 or 3, upright, and the sha256 of the file; see ``decode``."""
    decoded = decode(path)
    return decoded.image, decoded.sha256


def as_grey(image: np.ndarray) -> np.ndarray:
    """One channel: an infrared frame that is stored with three."""
    if image.shape[2] == 1:
        return image
    if np.array_equal(image[..., 0], image[..., 1]) and np.array_equal(image[..., 0], image[..., 2]):
        return np.ascontiguousarray(image[..., :1])
    return color.to_uint8(color.luma(color.code_to_float(image)))[..., None]


def read_pair(ref: PairRef) -> CleanPair:
    """Decode a pair, or make it where it is built in. Raises BadPair with the reason."""
    if not ref.sources:
        return _make_builtin(ref)
    images: dict[str, np.ndarray] = {}
    hashes: dict[str, str] = {}
    sensor: dict[str, Mapping[str, Any]] = {}
    for image, path in ref.sources.items():
        of = image.removeprefix("degraded_")
        modality = "visible" if of == "gt" else MODALITIES[ref.task][of]  # type: ignore[index]
        decoded = decode(path, modality)
        images[image] = as_grey(decoded.image) if modality == "infrared" else decoded.image
        hashes[image] = decoded.sha256
        if decoded.sensor:
            sensor[image] = decoded.sensor
    sizes = {image: f"{x.shape[1]}x{x.shape[0]}" for image, x in images.items()}
    if len(set(sizes.values())) > 1:
        raise BadPair("sizes differ: " + ", ".join(f"{image} {size}" for image, size in sizes.items()))
    _same_channels(images)
    degraded = {image.removeprefix("degraded_"): images[image] for image in DEGRADED if image in images}
    return CleanPair(images["a"], images["b"], images.get("gt"), None, hashes, sensor, degraded)


def _same_channels(images: dict[str, np.ndarray]) -> None:
    """A grey clean image beside a coloured degraded one, or the other way round, gets three equal channels."""
    for image in DEGRADED:
        clean = image.removeprefix("degraded_")
        if image in images and images[image].shape != images[clean].shape:
            for name in (image, clean):
                images[name] = np.repeat(images[name], 3, 2) if images[name].shape[2] == 1 else images[name]


def _make_builtin(ref: PairRef) -> CleanPair:
    from synth.scenes import scene_pair
    from synth.seeds import seed_of

    made = scene_pair(ref.task, seed_of("scene", ref.task, ref.key))
    images = {"a": made.a, "b": made.b} | ({"gt": made.gt} if made.gt is not None else {})
    hashes = {name: hashlib.sha256(x.tobytes()).hexdigest() for name, x in images.items()}
    return CleanPair(made.a, made.b, made.gt, made.depth, hashes)

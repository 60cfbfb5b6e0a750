"""Clean pairs: what a data set's folder holds of the layouts in its manifest, and decoding."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from synth import color, storage
from synth.decode import decode
from synth.fingerprints import Known, known_scene, thumbnails
from synth.manifest import SPLITS, Manifest, natural
from synth.manifest import load_manifest as load_manifest
from synth.manifest import template_regex as template_regex
from synth.matching import Places, Side, Sought, Together, check_single, match, together
from synth.pairing import PAIRINGS, Drawn, pair_up
from synth.remote import Remote
from synth.seeds import unit_hash
from synth.storage import Location
from synth.table import RUN, TEXT, Files, Pairs, Table, texts
from synth.types import DEGRADED, MODALITIES, BadPair, PairRef, Task, UserError, unknown

_EDGES = (np.cumsum(list(SPLITS.values())) / sum(SPLITS.values())).tolist()
"""Where the splits end in [0, 1]."""


@dataclass(frozen=True)
class Found:
    """What a folder holds: its pairs in natural order, and what was left out.

    splits: pairs by split, whichever were asked for; scenes: pairs and sequences of all splits.
    """

    pairs: Pairs
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
    check_split(manifest, task, split)
    found = find_all(manifest, location, task, pairs)
    return replace(found, pairs=of_split(manifest, location, found, split))


def check_split(manifest: Manifest, task: Task, split: str) -> None:
    """Raise UserError where there is no such split, or the set says its own and has none of that name."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if manifest.own_splits and split not in manifest.splits and manifest.task in (task, "any"):
        raise UserError(f"data set '{manifest.name}' has no split '{split}': it has {', '.join(manifest.splits)}")


def of_split(manifest: Manifest, location: str, found: Found, split: str) -> Pairs:
    """Those of the pairs found that are of a split. Raises UserError where there are none."""
    here = found.pairs.of_split(split)
    if not here:
        has = ", ".join(f"{n} {name}" for name, n in found.splits.items())
        hint = "; real pairs are for evaluation: --split test" if manifest.real and found.splits["test"] else ""
        raise UserError(f"--data {manifest.name}={location}: no pair in split '{split}': {has}{hint}")
    return here


def find_all(manifest: Manifest, location: str, task: Task, pairs: str = "extreme") -> Found:
    """The pairs of every split below a folder: see ``find_pairs``."""
    if manifest.task not in (task, "any"):
        raise UserError(f"data set '{manifest.name}' is for {manifest.task}, not for {task}")
    if pairs not in PAIRINGS:
        raise unknown("pairing", pairs, PAIRINGS)
    roots = _roots(manifest, location)
    sides: dict[str, Side] = {}
    ignored = 0
    for root in dict.fromkeys(root for root, _ in roots.values()):
        sought = [
            Sought(image, tuple(manifest.pattern(template) for template in templates))
            for image, (at, templates) in roots.items()
            if at == root
        ]
        taken, others = match(manifest, root, sought)
        sides |= taken
        ignored += others
    sides = {image: sides[image] for image in roots}
    found = together(sides)
    check_single(sides, found, {image: root for image, (root, _) in roots.items()})
    looked_at = [image for image in sides if image not in DEGRADED] if manifest.like else ["frames"]
    paths = [path for image in looked_at if image in sides for path in sides[image].files.paths()]
    small = thumbnails(paths, location)
    drawn, unpaired = pair_up(manifest, sides, found, small, pairs)
    if not len(drawn.keys):
        raise UserError(f"--data {manifest.name}={location}: no pair found: expected {manifest.expected} below it")
    scenes = len(np.unique(drawn.place))
    table = _table(manifest, task, sides, found, drawn, small)
    splits = manifest.splits if manifest.own_splits else SPLITS
    counts = {split: int((table.splits == list(SPLITS).index(split)).sum()) for split in splits}
    return Found(Pairs((table,)), ignored, unpaired, counts, scenes)


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


def _table(
    manifest: Manifest,
    task: Task,
    sides: Mapping[str, Side],
    found: Together,
    drawn: Drawn,
    small: Mapping[str, np.ndarray],
) -> Table:
    """The pairs in natural order, with the scene and the split of each."""
    order = np.argsort(natural_column(drawn.keys), kind="stable")
    keys, place = drawn.keys[order], drawn.place[order]
    files = {
        image: sides["frames" if manifest.sequence and image != "gt" else image].files.take(rows[order])
        for image, rows in drawn.rows.items()
    }
    known = _known(manifest, place, files, small)
    plain = not known and manifest.scene == "{key}" and not manifest.sequence
    scenes = keys if plain else _scenes(manifest, drawn.scene_keys[order], place, known)
    places, bounds = _marked(manifest, found)
    of = np.searchsorted(bounds, place, side="right") - 1
    splits = _splits(manifest, places, of, place, scenes, known)
    by_part = [manifest.degradation_of(places.folders(mark)[1]) for mark in places.marks]
    listed = list(dict.fromkeys(by_part))
    degraded = np.array([listed.index(one) for one in by_part], np.int16)[of]
    return Table(task, manifest.name, keys, scenes, splits, files, degraded, listed, manifest.real)


def _marked(manifest: Manifest, found: Together) -> tuple[Places, np.ndarray]:
    """Where the places of each folder of a split and a part begin among those found."""
    places = Places(manifest)
    return places, np.array([bisect_left(found.places, mark) for mark in places.marks])  # type: ignore[arg-type]


def _scenes(manifest: Manifest, heads: np.ndarray, place: np.ndarray, known: Mapping[int, Known]) -> np.ndarray:
    """The scene of each pair, by its key or by its pictures."""
    runs = [texts(())]
    for at in range(0, len(heads), RUN):
        both = zip(heads[at : at + RUN].tolist(), place[at : at + RUN].tolist(), strict=True)
        runs.append(texts(known[n].scene if n in known else manifest.scene_of(head) for head, n in both))
    return np.concatenate(runs)


def _splits(
    manifest: Manifest,
    places: Places,
    of: np.ndarray,
    place: np.ndarray,
    scenes: np.ndarray,
    known: Mapping[int, Known],
) -> np.ndarray:
    """The split of each pair, a number: by its folder, by the set that has its scene, or by hash. of: its mark."""
    numbers = {split: number for number, split in enumerate(SPLITS)}
    folders = {folder.casefold(): numbers[name] for name, folder in manifest.splits.items()}
    splits = np.array([folders.get(places.folders(mark)[0].casefold(), -1) for mark in places.marks], np.int8)[of]
    open_ = np.flatnonzero(splits < 0)
    for at in range(0, len(open_), RUN):
        rows = open_[at : at + RUN]
        for row, scene, number in zip(rows.tolist(), scenes[rows].tolist(), place[rows].tolist(), strict=True):
            own = known[number].split if number in known else None
            splits[row] = numbers[own or ("test" if manifest.real else scene_split(scene))]
    return splits


def natural_column(keys: np.ndarray) -> np.ndarray:
    """What orders a column of keys naturally."""
    runs = [texts(map(natural, keys[at : at + RUN].tolist())) for at in range(0, len(keys), RUN)]
    return np.concatenate([texts(()), *runs])


def _known(
    manifest: Manifest, place: np.ndarray, files: Mapping[str, Files], small: Mapping[str, np.ndarray]
) -> dict[int, Known]:
    """Of the places whose pictures may be another set's: the scene that they show there."""
    if not manifest.like:
        return {}
    rows: dict[int, list[int]] = {}
    for row, number in enumerate(place.tolist()):
        rows.setdefault(number, []).append(row)
    found: dict[int, Known] = {}
    for number, mine in rows.items():
        held = [(of, row) for row in mine for image, of in files.items() if image not in DEGRADED]
        clean = [of.path(row) for of, row in held if of.folder[row] >= 0]
        known = known_scene([small[path] for path in dict.fromkeys(clean) if path in small], manifest.like)
        if known is not None:
            found[number] = known
    return found


def builtin_pairs(task: Task, split: str, count: int = 32) -> Pairs:
    """The first ``count`` built-in scenes of a split; the key is the seed, so splits never share a scene."""
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    runs = [
        np.array([f"{split}-{i:06d}" for i in range(at, min(at + RUN, count))], TEXT) for at in range(0, count, RUN)
    ]
    keys = np.concatenate([texts(()), *runs])
    splits = np.full(count, list(SPLITS).index(split), np.int8)
    return Pairs((Table(task, "scenes", keys, keys, splits, {}, np.zeros(count, np.int16)),))


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

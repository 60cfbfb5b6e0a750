"""Search for the pairs of a data set in a folder, by the layouts in its manifest."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from clearfuse.synth.datasets.fingerprints import Known, known_scene, thumbnails
from clearfuse.synth.datasets.manifest import SPLITS, Manifest, natural
from clearfuse.synth.datasets.manifest import load_manifest as load_manifest
from clearfuse.synth.datasets.manifest import template_regex as template_regex
from clearfuse.synth.datasets.match import (
    PAIRINGS,
    Grouped,
    ImagePatterns,
    PairColumns,
    PairPlaces,
    Side,
    check_single,
    group_by_place,
    key_template,
    match,
    pair_up,
    split_pattern,
)
from clearfuse.synth.datasets.pairs import RUN, TEXT, Files, Pairs, Table, texts
from clearfuse.synth.files import storage
from clearfuse.synth.files.pictures import EXTENSIONS
from clearfuse.synth.files.remote import Remote
from clearfuse.synth.files.storage import Location
from clearfuse.synth.seeds import unit_hash
from clearfuse.synth.types import BOXES, DEGRADED, LABELS, MODALITIES, SIDECARS, Task, UserError, check_name

_EDGES = (np.cumsum(list(SPLITS.values())) / sum(SPLITS.values())).tolist()
"""Upper ends of the splits in [0, 1]."""


@dataclass(frozen=True)
class FoundPairs:
    """The pairs found in a folder, in natural order, and what was left out.

    ignored: number of other files. unpaired: paths of images without a partner. splits: number of pairs by split, for
    all splits. scenes: number of pairs and sequences of all splits.
    """

    pairs: Pairs
    ignored: int
    unpaired: tuple[str, ...]
    splits: Mapping[str, int]
    scenes: int = 0


def scene_split(scene: str) -> str:
    """The split of a scene where the data set has none: by hash, in the paper's proportions, equal in every build."""
    return list(SPLITS)[bisect_right(_EDGES, unit_hash("split", scene))]


def own_task(manifest: Manifest, other: Task = "vif") -> Task:
    """The task of a data set; ``other`` where it is for any task, or mef where that is none of single pictures."""
    task: Task
    if manifest.single and other == "vif":
        return "mef"
    for task in MODALITIES:
        if task == manifest.task:
            return task
    return other


def check_split(manifest: Manifest, task: Task, split: str) -> None:
    """Raise UserError for an unknown split, or one that a data set with splits of its own lacks."""
    check_name("split", split, SPLITS)
    if manifest.own_splits and split not in manifest.splits and manifest.task in (task, "any"):
        raise UserError(f"data set '{manifest.name}' has no split '{split}': it has {', '.join(manifest.splits)}")


def of_split(manifest: Manifest, location: str, found: FoundPairs, split: str, advice: str = "") -> Pairs:
    """The pairs of a split among those found. UserError where there are none, with advice where splits are drawn."""
    selected = found.pairs.of_split(split)
    if not selected:
        counts = ", ".join(f"{n} {name}" for name, n in found.splits.items())
        hint = "" if manifest.own_splits else advice
        hint = "; real pairs are for evaluation: --split test" if manifest.real and found.splits["test"] else hint
        raise UserError(f"--data {manifest.name}={location}: no pair in split '{split}': {counts}{hint}")
    return selected


def find_all(
    manifest: Manifest, location: str, task: Task, pairs: str = "extreme", *, labels: bool = False
) -> FoundPairs:
    """The pairs of every split below a folder.

    location: the data set's folder, a path or a URL, or for ``folder`` ``DIR_A,DIR_B[,DIR_GT]``. pairs: which
    exposures of a sequence make a pair: extreme, adjacent or all. labels: whether label maps and boxes are looked
    for. Raises UserError where the folder is missing, the set is for another task, or nothing matches its layout.
    """
    if manifest.task not in (task, "any"):
        raise UserError(f"data set '{manifest.name}' is for {manifest.task}, not for {task}")
    if manifest.single and task == "vif":
        raise UserError(
            f"--data {manifest.name}={location}: is for mef and mff, not for vif: a picture has no infrared side"
        )
    check_name("pairing", pairs, PAIRINGS)
    roots = _roots(manifest, location, labels)
    sides: dict[str, Side] = {}
    ignored = 0
    for root in dict.fromkeys(root for root, _ in roots.values()):
        sought = [
            ImagePatterns(image, tuple(manifest.pattern(template) for template in templates))
            for image, (at, templates) in roots.items()
            if at == root
        ]
        matched, unmatched = match(manifest, root, sought)
        sides |= matched
        ignored += unmatched
    sides = {image: sides[image] for image in roots}
    found = group_by_place(sides)
    check_single(sides, found, {image: root for image, (root, _) in roots.items()})
    compared = [image for image in sides if image not in (*DEGRADED, *SIDECARS)] if manifest.like else ["frames"]
    paths = [path for image in compared if image in sides for path in sides[image].files.paths()]
    infrared = sides["b"].files.paths() if MODALITIES[task]["b"] == "infrared" and "b" in sides else ()
    thumbs = thumbnails(paths, location, set(infrared).intersection(paths), manifest.scale)
    columns, unpaired = pair_up(manifest, sides, found, thumbs, pairs)
    if not len(columns.keys):
        there = "; ".join(f"{root} has {_some_names(root)}" for root in dict.fromkeys(at for at, _ in roots.values()))
        expected = manifest.expected
        if manifest.name == "folder":
            expected = " and ".join(dict.fromkeys(templates[0] for _, templates in roots.values()))
        raise UserError(
            f"--data {manifest.name}={location}: no pair found: expected {expected} below it; "
            f"{there}; images end in {', '.join(sorted(EXTENSIONS))}"
        )
    scenes = len(np.unique(columns.place))
    table = _table(manifest, task, sides, found, columns, thumbs)
    if labels and manifest.annotations:
        table = _annotated(manifest, storage.locate(location), table)
    splits = manifest.splits if manifest.own_splits else SPLITS
    counts = {split: int((table.splits == list(SPLITS).index(split)).sum()) for split in splits}
    return FoundPairs(Pairs((table,)), ignored, unpaired, counts, scenes)


def _some_names(root: Location, most: int = 3) -> str:
    """The first names below a folder, for a message."""
    for listed in storage.scan(root):
        if listed.names:
            names = sorted(f"{listed.folder}{name}" for name in listed.names)
            shown = [name if name.isprintable() else ascii(name) for name in names[:most]]
            return ", ".join(shown) + (", ..." if len(names) > most else "")
    return "no file"


def _roots(manifest: Manifest, location: str, labels: bool) -> dict[str, tuple[Location, list[str]]]:
    images = {
        image: templates for image, templates in manifest.templates.items() if labels or image not in (LABELS, BOXES)
    }
    if manifest.name == "folder":
        parts = [split_pattern(part) for part in location.split(",") if part]
        if len(parts) not in (2, 3):
            raise UserError(f"--data folder={location}: must be folder=DIR_A,DIR_B or folder=DIR_A,DIR_B,DIR_GT")
        if len({(_real_path(storage.locate(part)), pattern) for part, pattern in parts}) < len(parts):
            raise UserError(f"--data folder={location}: the same folder is named twice")
        roots = {image: part for image, (part, _) in zip(images, parts, strict=False)}
        images |= {image: [key_template(own)] for image, (_, own) in zip(images, parts, strict=False) if own}
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
    found: Grouped,
    drawn: PairColumns,
    small: Mapping[str, np.ndarray],
) -> Table:
    """The pairs in natural order, with their scenes and splits."""
    order = np.argsort(natural_column(drawn.keys), kind="stable")
    keys, place = drawn.keys[order], drawn.place[order]
    files = {
        image: sides["frames" if manifest.sequence and image != "gt" else image].files.take(rows[order])
        for image, rows in drawn.rows.items()
    }
    known = _known(manifest, place, files, small)
    plain = not known and manifest.scene == "{key}" and not manifest.sequence
    scenes = keys if plain else _scenes(manifest, drawn.scene_keys[order], place, known)
    places, bounds = _group_bounds(manifest, found)
    group = np.searchsorted(bounds, place, side="right") - 1
    splits = _splits(manifest, places, group, place, scenes, known)
    by_part = [manifest.degradation_of(places.folders(mark)[1]) for mark in places.marks]
    degradations = list(dict.fromkeys(by_part))
    degraded = np.array([degradations.index(one) for one in by_part], np.int16)[group]
    return Table(
        task, manifest.name, keys, scenes, splits, files, degraded, degradations, manifest.real, manifest.scale
    )


def _annotated(manifest: Manifest, root: Location, table: Table) -> Table:
    """The table with the file of annotations of each pair's split, where it is there."""
    names = [manifest.annotations.replace("{split}", manifest.splits.get(split, "")) for split in SPLITS]  # type: ignore[arg-type]
    folders, files = zip(*(name.rpartition("/")[::2] for name in names), strict=True)
    sizes = [storage.size(root / name) if (root / name).is_file() else -1 for name in names]
    there = np.array(sizes)[table.splits] >= 0
    column = Files(
        str(root / "x")[:-1],
        texts(f"{folder}/" if folder else "" for folder in folders),
        np.where(there, table.splits, -1).astype(np.int32),
        texts(files)[table.splits],
        np.array(sizes, np.int64)[table.splits],
    )
    return replace(table, sources={**table.sources, LABELS: column})


def _group_bounds(manifest: Manifest, found: Grouped) -> tuple[PairPlaces, np.ndarray]:
    """The groups of places, and the index at which each group starts among those found."""
    places = PairPlaces(manifest)
    return places, np.array([bisect_left(found.places, mark) for mark in places.marks])  # type: ignore[arg-type]


def _scenes(manifest: Manifest, heads: np.ndarray, place: np.ndarray, known: Mapping[int, Known]) -> np.ndarray:
    """The scene of each pair, by its key or, where known from another data set, by its images."""
    runs = [texts(())]
    for at in range(0, len(heads), RUN):
        both = zip(heads[at : at + RUN].tolist(), place[at : at + RUN].tolist(), strict=True)
        runs.append(texts(known[n].scene if n in known else manifest.scene_of(head) for head, n in both))
    return np.concatenate(runs)


def _splits(
    manifest: Manifest,
    places: PairPlaces,
    of: np.ndarray,
    place: np.ndarray,
    scenes: np.ndarray,
    known: Mapping[int, Known],
) -> np.ndarray:
    """The index of each pair's split: by its folder, by the data set with the same scene, or by hash. of: its group."""
    numbers = {split: number for number, split in enumerate(SPLITS)}
    folders = {folder.casefold(): numbers[name] for name, folder in manifest.splits.items()}
    splits = np.array([folders.get(places.folders(mark)[0].casefold(), -1) for mark in places.marks], np.int8)[of]
    undecided = np.flatnonzero(splits < 0)
    for at in range(0, len(undecided), RUN):
        rows = undecided[at : at + RUN]
        for row, scene, number in zip(rows.tolist(), scenes[rows].tolist(), place[rows].tolist(), strict=True):
            known_split = known[number].split if number in known else None
            splits[row] = numbers[known_split or ("test" if manifest.real else scene_split(scene))]
    return splits


def natural_column(keys: np.ndarray) -> np.ndarray:
    """Sort keys for the natural order of a column of keys."""
    runs = [texts(map(natural, keys[at : at + RUN].tolist())) for at in range(0, len(keys), RUN)]
    return np.concatenate([texts(()), *runs])


def _known(
    manifest: Manifest, place: np.ndarray, files: Mapping[str, Files], small: Mapping[str, np.ndarray]
) -> dict[int, Known]:
    """The scenes of other data sets that images show, by place."""
    if not manifest.like:
        return {}
    rows: dict[int, list[int]] = {}
    for row, number in enumerate(place.tolist()):
        rows.setdefault(number, []).append(row)
    found: dict[int, Known] = {}
    for number, rows_of_place in rows.items():
        compared = [of for image, of in files.items() if image not in (*DEGRADED, *SIDECARS)]
        columns = [(of, row) for row in rows_of_place for of in compared]
        clean = [of.path(row) for of, row in columns if of.folder[row] >= 0]
        known = known_scene([small[path] for path in dict.fromkeys(clean) if path in small], manifest.like)
        if known is not None:
            found[number] = known
    return found


def builtin_pairs(task: Task, split: str, count: int = 32) -> Pairs:
    """The first ``count`` built-in scenes of a split. The key, with the split, is the seed: splits share no scene."""
    check_name("split", split, SPLITS)
    runs = [
        np.array([f"{split}-{i:06d}" for i in range(at, min(at + RUN, count))], TEXT) for at in range(0, count, RUN)
    ]
    keys = np.concatenate([texts(()), *runs])
    splits = np.full(count, list(SPLITS).index(split), np.int8)
    return Pairs((Table(task, "scenes", keys, keys, splits, {}, np.zeros(count, np.int16)),))

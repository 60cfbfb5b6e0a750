"""Checks of a data set's folder: readable files, sizes, modalities, registration, and duplicates across splits."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clearfuse.synth.datasets.find import FoundPairs, find_all, own_task
from clearfuse.synth.datasets.fingerprints import FLAT, SAME, distances, fingerprint, thumbnails, to_hex
from clearfuse.synth.datasets.manifest import Manifest, load_manifest
from clearfuse.synth.datasets.read import modality_of, read_image, read_sidecars
from clearfuse.synth.datasets.registration import displacement
from clearfuse.synth.files.remote import StoreError
from clearfuse.synth.types import MODALITIES, SIDECARS, BadPair, PairRef, Task, UserError

Progress = Callable[[int, int], None]

COLOURED, GREY = 2.0, 0.5
"""Thresholds on the mean spread of the channels, in code values: above, an image is coloured; below, grey."""

DARKER = 1.0
"""Code values by which the under-exposed image may be brighter than the over-exposed one."""


@dataclass(frozen=True)
class Problem:
    """A problem of a data set: the pair, the failed check, and details.

    check: unreadable (can't be decoded), partner (missing), size (images of a pair differ), modality (a coloured
    infrared or a grey visible image), exposure (the under-exposed image is the brighter one), registration (images of
    a pair are displaced), duplicate (an image in two splits, or nearly so).
    """

    dataset: str
    pair: str
    check: str
    detail: str


@dataclass
class CheckReport:
    """The facts of the checked data sets, and the problems found."""

    sets: dict[str, dict[str, Any]] = field(default_factory=dict[str, "dict[str, Any]"])
    problems: list[Problem] = field(default_factory=list[Problem])

    def to_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        return {"ok": not self.problems, "sets": self.sets, "problems": [asdict(problem) for problem in self.problems]}


@dataclass(frozen=True)
class _PairResult:
    """The result for a pair: its problems, and the sha256 of its files by image."""

    problems: list[Problem]
    sha256: Mapping[str, str]


def check_sets(
    sets: Mapping[str, str], task: Task = "vif", progress: Progress = lambda done, total: None
) -> CheckReport:
    """Check the folders of data sets. task: that of ``folder``, which is for any. UserError for a bad folder.

    All files of all pairs are decoded; of sequences the extreme pair, and the other frames as thumbnails.
    """
    report = CheckReport()
    refs: list[tuple[PairRef, Manifest]] = []
    thumbs: dict[str, np.ndarray] = {}
    for name, location in sets.items():
        manifest = load_manifest(name)
        if manifest.builtin:
            raise UserError(f"{name}={location}: '{name}' is built in: there is no folder to check")
        found = find_all(manifest, location, own_task(manifest, task), labels=True)
        beside = {image: found.pairs.having(image) for image in SIDECARS if image in manifest.templates}
        report.sets[name] = {
            "pairs": len(found.pairs),
            "splits": dict(found.splits),
            "expected": dict(manifest.counts),
            "ignored": found.ignored,
            **beside,
        }
        report.problems += _unpaired(name, found, location)
        refs += [(ref, manifest) for ref in found.pairs]
        thumbs |= _thumbnails(found, location)
    results: list[_PairResult] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for result in pool.map(lambda item: _check_pair(*item), refs):
            results.append(result)
            report.problems += result.problems
            progress(len(results), len(refs))
    report.problems += duplicates([ref for ref, _ in refs], [result.sha256 for result in results], thumbs)
    return report


def _thumbnails(found: FoundPairs, location: str) -> dict[str, np.ndarray]:
    kinds = {path: modality_of(ref, image) for ref in found.pairs for image, path in pictures(ref).items()}
    infrared = {path for path, kind in kinds.items() if kind == "infrared"}
    return thumbnails(list(kinds), location, infrared, found.pairs.scale)


def _unpaired(name: str, found: FoundPairs, location: str) -> list[Problem]:
    """Problems for images without a partner; those that can't be decoded are reported as unreadable."""
    decoded = thumbnails(found.unpaired, location, found.unpaired)  # whatever they show: stretched, any range will do
    return [
        Problem(name, Path(path).stem, *(("partner", path) if path in decoded else ("unreadable", path)))
        for path in found.unpaired
    ]


def _check_pair(ref: PairRef, manifest: Manifest) -> _PairResult:
    """Decode a pair and check it."""
    images: dict[str, np.ndarray] = {}
    hashes: dict[str, str] = {}
    problems: list[Problem] = []
    for name, path in pictures(ref).items():
        try:
            images[name], hashes[name] = read_image(path, modality_of(ref, name), ref.scale)
        except StoreError:
            raise
        except (BadPair, OSError) as error:
            problems.append(Problem(ref.dataset, ref.key, "unreadable", f"{name}: {error}"))
    try:
        hashes |= read_sidecars(ref, next(iter(images.values())).shape[:2]).sha256 if images else {}
    except (BadPair, OSError) as error:
        problems.append(Problem(ref.dataset, ref.key, "unreadable", str(error)))
    checks = [_size] if problems or ref.single else [_size, _modality, _exposure, _registration]
    for check in checks:
        finding = check(ref, manifest, images)
        if finding is not None:
            problems.append(Problem(ref.dataset, ref.key, *finding))
            break  # later checks would report the same cause
    return _PairResult(problems, hashes)


def pictures(ref: PairRef) -> dict[str, str]:
    """The paths of a pair's pictures, by image: without what stands beside them."""
    return {image: path for image, path in ref.sources.items() if image not in SIDECARS}


Finding = tuple[str, str] | None


def _size(ref: PairRef, manifest: Manifest, images: Mapping[str, np.ndarray]) -> Finding:
    sizes = {name: f"{image.shape[1]}x{image.shape[0]}" for name, image in images.items()}
    if len(set(sizes.values())) < 2:
        return None
    return "size", ", ".join(f"{name} {size}" for name, size in sizes.items())


def spread(image: np.ndarray) -> float:
    """Mean difference of the largest and the smallest channel, in code values; 0 for one channel."""
    return float((image.max(axis=2) - image.min(axis=2)).mean())


def _modality(ref: PairRef, manifest: Manifest, images: Mapping[str, np.ndarray]) -> Finding:
    if MODALITIES[ref.task]["b"] != "infrared":
        return None
    grey_a, coloured_b = spread(images["a"]) < GREY, spread(images["b"]) > COLOURED
    if grey_a and coloured_b:
        return "modality", f"visible and infrared are swapped: b is coloured (spread {spread(images['b']):.1f}), a grey"
    if coloured_b:
        return "modality", f"b is coloured (spread {spread(images['b']):.1f}): no infrared image"
    if grey_a and not manifest.grey:
        return "modality", "a is grey: no visible image of a colour camera"
    return None


def _exposure(ref: PairRef, manifest: Manifest, images: Mapping[str, np.ndarray]) -> Finding:
    a, b = float(images["a"].mean()), float(images["b"].mean())
    if ref.task != "mef" or a <= b + DARKER:
        return None
    return "exposure", f"a, the under-exposed one, has mean {a:.0f}, b {b:.0f}"


def _registration(ref: PairRef, manifest: Manifest, images: Mapping[str, np.ndarray]) -> Finding:
    moved = displacement(images["a"], images["b"])
    if moved is None:
        return None
    return "registration", f"b is displaced by ({moved[0]:+d}, {moved[1]:+d}) pixels"


def duplicates(
    refs: Sequence[PairRef], hashes: Sequence[Mapping[str, str]], small: Mapping[str, np.ndarray]
) -> list[Problem]:
    """Problems for images that are in two splits: identical files, or nearly equal fingerprints.

    hashes: sha256 by image, for each pair. small: thumbnails by path. Infrared images, which have little texture, are
    compared by bytes only.
    """
    seen: dict[tuple[int, int], str] = {}
    by_hash: dict[str, list[int]] = {}
    for i, of in enumerate(hashes):
        for name in ("a", "b", "gt") if refs[i].single else ("a", "b"):
            for j in by_hash.get(of.get(name, ""), []) if name in of else []:
                if refs[i].split != refs[j].split:
                    seen.setdefault((j, i), "the same file as {}")
            if name in of:
                by_hash.setdefault(of[name], []).append(i)
    for i, j, distance in _near_duplicates(refs, small):
        seen.setdefault((i, j), f"nearly {{}} ({100 * distance:.0f} % of the fingerprint differ)")
    problems: list[Problem] = []
    for (i, j), kind in sorted(seen.items()):
        first, second = refs[i], refs[j]
        detail = f"in {first.split} is {kind.format(f'{second.name} in {second.split}')}"
        problems.append(Problem(first.dataset, first.key, "duplicate", detail))
    return problems


def _near_duplicates(
    refs: Sequence[PairRef], small: Mapping[str, np.ndarray], chunk: int = 1024
) -> Iterator[tuple[int, int, float]]:
    """(i, j, distance) of pairs in different splits whose visible images have nearly the same fingerprint."""
    owners: list[int] = []
    prints: list[np.ndarray] = []
    for i, ref in enumerate(refs):
        for name in _visible(ref):
            thumb = small.get(ref.sources[name])
            if thumb is not None and thumb.std() > FLAT:
                owners.append(i)
                prints.append(fingerprint(thumb))
    if not prints:
        return
    table, owner = np.array(prints), np.array(owners)
    splits = np.array([refs[i].split for i in owners])
    for start in range(0, len(table), chunk):
        distance = distances(table[start : start + chunk], table)
        near = (distance <= SAME) & (splits[start : start + chunk, None] != splits[None])
        for row, column in np.argwhere(near):
            i, j = int(owner[start + row]), int(owner[column])
            if i < j:
                yield i, j, float(distance[row, column])


def _visible(ref: PairRef) -> list[str]:
    """The visible images of a pair by name, or its single picture."""
    if ref.single:
        return ["gt"]
    return [image for image, modality in MODALITIES[ref.task].items() if modality == "visible"]


def fingerprint_lines(name: str, location: str) -> list[str]:
    """A data set's table for ``manifests/fingerprints.toml``: a line per pair with its images' fingerprints."""
    manifest = load_manifest(name)
    found = find_all(manifest, location, own_task(manifest))
    small = _thumbnails(found, location)
    lines = [f"[{name}]"]
    for ref in found.pairs:
        prints = [to_hex(fingerprint(small[ref.sources[n]])) for n in _visible(ref) if ref.sources[n] in small]
        key = f"{ref.split}/{ref.key}" if manifest.own_splits else ref.key
        lines.append(f'"{key}" = [' + ", ".join(f'"{text}"' for text in prints) + "]")
    return lines


def describe(report: CheckReport) -> str:
    """The report as text: a table of problems, a line per data set, and the total."""
    rows = [("set", "pair", "check", "what"), *((p.dataset, p.pair, p.check, p.detail) for p in report.problems)]
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines: list[str] = []
    if report.problems:
        lines = ["  ".join([*(f"{row[i]:<{widths[i]}}" for i in range(3)), row[3]]) for row in rows]
    for name, facts in report.sets.items():
        parts = ", ".join(f"{count} {split}" for split, count in facts["splits"].items() if count)
        expected = ", ".join(f"{count} {split}" for split, count in facts["expected"].items())
        lines.append(
            f"{name}: {facts['pairs']} pairs ({parts})"
            + (f", published: {expected}" if expected else "")
            + (f", {facts['ignored']} other files ignored" if facts["ignored"] else "")
        )
    counts = Counter(problem.check for problem in report.problems)
    total = f"{len(report.problems)} problem{'s' if len(report.problems) > 1 else ''}: "
    lines.append(total + ", ".join(f"{count} {check}" for check, count in counts.items()) if counts else "ok")
    return "\n".join(lines)

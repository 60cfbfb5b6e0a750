"""Whether a data set's folder is fit for use: readable, of one size, of the right modality, apart, and registered."""

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
from clearfuse.synth.datasets.read import read_image
from clearfuse.synth.datasets.registration import displacement
from clearfuse.synth.files.remote import StoreError
from clearfuse.synth.types import MODALITIES, BadPair, PairRef, Task, UserError

Progress = Callable[[int, int], None]

COLOURED, GREY = 2.0, 0.5
"""Mean spread of the channels, in code values: more is a colour picture, less a grey one (a thermal JPEG has 0)."""

DARKER = 1.0
"""Code values by which the under-exposed image may be brighter than the over-exposed one."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what was checked, and what it is.

    check: unreadable (can't be decoded), partner (missing), size (images of a pair differ), modality (a coloured
    infrared or a grey visible image), exposure (the under-exposed image is the brighter one), registration (images of
    a pair are displaced), duplicate (one picture in two splits, or nearly).
    """

    dataset: str
    pair: str
    check: str
    detail: str


@dataclass
class CheckReport:
    """What was looked at, by set, and what is wrong with it."""

    sets: dict[str, dict[str, Any]] = field(default_factory=dict[str, "dict[str, Any]"])
    problems: list[Problem] = field(default_factory=list[Problem])

    def to_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        return {"ok": not self.problems, "sets": self.sets, "problems": [asdict(one) for one in self.problems]}


@dataclass(frozen=True)
class _Looked:
    """A pair that was decoded: its problems, and the hashes of its files."""

    problems: list[Problem]
    sha256: Mapping[str, str]


def check_sets(
    sets: Mapping[str, str], task: Task = "vif", progress: Progress = lambda done, total: None
) -> CheckReport:
    """Check folders by data set. task: for ``folder``, whose own is any. Raises UserError where one can't be looked at.

    Every file of every pair is decoded whole; of sequences the extreme pair, and the other frames as thumbnails.
    """
    report = CheckReport()
    refs: list[tuple[PairRef, Manifest]] = []
    small: dict[str, np.ndarray] = {}
    for name, location in sets.items():
        manifest = load_manifest(name)
        if manifest.builtin:
            raise UserError(f"{name}={location}: '{name}' is built in: there is no folder to check")
        found = find_all(manifest, location, own_task(manifest, task))
        report.sets[name] = {
            "pairs": len(found.pairs),
            "splits": dict(found.splits),
            "expected": dict(manifest.counts),
            "ignored": found.ignored,
        }
        report.problems += _alone(name, found, location)
        refs += [(ref, manifest) for ref in found.pairs]
        small |= thumbnails([path for ref in found.pairs for path in ref.sources.values()], location)
    looked: list[_Looked] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for one in pool.map(lambda item: _look(*item), refs):
            looked.append(one)
            report.problems += one.problems
            progress(len(looked), len(refs))
    report.problems += duplicates([ref for ref, _ in refs], [one.sha256 for one in looked], small)
    return report


def _alone(name: str, found: FoundPairs, location: str) -> list[Problem]:
    """Images without a partner; frames that are no pictures are named as such."""
    decoded = thumbnails(found.unpaired, location)
    return [
        Problem(name, Path(path).stem, *(("partner", path) if path in decoded else ("unreadable", path)))
        for path in found.unpaired
    ]


def _look(ref: PairRef, manifest: Manifest) -> _Looked:
    """Decode a pair, whole, and check it by itself."""
    images: dict[str, np.ndarray] = {}
    hashes: dict[str, str] = {}
    problems: list[Problem] = []
    for name, path in ref.sources.items():
        try:
            images[name], hashes[name] = read_image(path)
        except StoreError:
            raise
        except (BadPair, OSError) as error:
            problems.append(Problem(ref.dataset, ref.key, "unreadable", f"{name}: {error}"))
    checks = [_size] if problems else [_size, _modality, _exposure, _registration]
    for check in checks:
        said = check(ref, manifest, images)
        if said is not None:
            problems.append(Problem(ref.dataset, ref.key, *said))
            break  # what follows would only say it again
    return _Looked(problems, hashes)


Said = tuple[str, str] | None


def _size(ref: PairRef, manifest: Manifest, images: Mapping[str, np.ndarray]) -> Said:
    sizes = {name: f"{image.shape[1]}x{image.shape[0]}" for name, image in images.items()}
    if len(set(sizes.values())) < 2:
        return None
    return "size", ", ".join(f"{name} {size}" for name, size in sizes.items())


def spread(image: np.ndarray) -> float:
    """Mean difference of the largest and the smallest channel, in code values; 0 for one channel."""
    return float((image.max(axis=2) - image.min(axis=2)).mean())


def _modality(ref: PairRef, manifest: Manifest, images: Mapping[str, np.ndarray]) -> Said:
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


def _exposure(ref: PairRef, manifest: Manifest, images: Mapping[str, np.ndarray]) -> Said:
    a, b = float(images["a"].mean()), float(images["b"].mean())
    if ref.task != "mef" or a <= b + DARKER:
        return None
    return "exposure", f"a, the under-exposed one, has mean {a:.0f}, b {b:.0f}"


def _registration(ref: PairRef, manifest: Manifest, images: Mapping[str, np.ndarray]) -> Said:
    moved = displacement(images["a"], images["b"])
    if moved is None:
        return None
    return "registration", f"b is displaced by ({moved[0]:+d}, {moved[1]:+d}) pixels"


def duplicates(
    refs: Sequence[PairRef], hashes: Sequence[Mapping[str, str]], small: Mapping[str, np.ndarray]
) -> list[Problem]:
    """A picture that lies in two splits, of these pairs: byte for byte, or by its fingerprint.

    hashes: sha256 by image of each pair. small: thumbnails by path. Infrared frames have no texture to go by, and go
    by bytes alone.
    """
    seen: dict[tuple[int, int], str] = {}
    by_hash: dict[str, list[int]] = {}
    for i, of in enumerate(hashes):
        for name in ("a", "b"):
            for j in by_hash.get(of.get(name, ""), []) if name in of else []:
                if refs[i].split != refs[j].split:
                    seen.setdefault((j, i), "the same file as {}")
            if name in of:
                by_hash.setdefault(of[name], []).append(i)
    for i, j, apart in _alike(refs, small):
        seen.setdefault((i, j), f"nearly {{}} ({100 * apart:.0f} % of the fingerprint differ)")
    problems: list[Problem] = []
    for (i, j), how in sorted(seen.items()):
        one, two = refs[i], refs[j]
        said = f"in {one.split} is {how.format(f'{two.name} in {two.split}')}"
        problems.append(Problem(one.dataset, one.key, "duplicate", said))
    return problems


def _alike(
    refs: Sequence[PairRef], small: Mapping[str, np.ndarray], chunk: int = 1024
) -> Iterator[tuple[int, int, float]]:
    """(i, j, distance) of pairs in different splits whose visible images have nearly one fingerprint."""
    owners: list[int] = []
    prints: list[np.ndarray] = []
    for i, ref in enumerate(refs):
        for name, modality in MODALITIES[ref.task].items():
            one = small.get(ref.sources[name])
            if modality == "visible" and one is not None and one.std() > FLAT:
                owners.append(i)
                prints.append(fingerprint(one))
    if not prints:
        return
    table, owner = np.array(prints), np.array(owners)
    splits = np.array([refs[i].split for i in owners])
    for start in range(0, len(table), chunk):
        apart = distances(table[start : start + chunk], table)
        near = (apart <= SAME) & (splits[start : start + chunk, None] != splits[None])
        for row, column in np.argwhere(near):
            i, j = int(owner[start + row]), int(owner[column])
            if i < j:
                yield i, j, float(apart[row, column])


def fingerprint_lines(name: str, location: str) -> list[str]:
    """A set's table in ``manifests/fingerprints.toml``: a line a pair, with its visible images' fingerprints."""
    manifest = load_manifest(name)
    found = find_all(manifest, location, own_task(manifest))
    small = thumbnails([path for ref in found.pairs for path in ref.sources.values()], location)
    lines = [f"[{name}]"]
    for ref in found.pairs:
        names = [image for image, modality in MODALITIES[ref.task].items() if modality == "visible"]
        prints = [to_hex(fingerprint(small[ref.sources[n]])) for n in names if ref.sources[n] in small]
        key = f"{ref.split}/{ref.key}" if manifest.own_splits else ref.key
        lines.append(f'"{key}" = [' + ", ".join(f'"{text}"' for text in prints) + "]")
    return lines


def describe(report: CheckReport) -> str:
    """The report as one table, with a line a set and the sum below."""
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

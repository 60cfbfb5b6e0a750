"""The files of a benchmark's sets: which pairs are chosen, and whether the files are those that were hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from clearfuse.bench.page import BenchmarkFile, SetEntry
from clearfuse.synth.datasets.find import find_all
from clearfuse.synth.datasets.manifest import SPLITS
from clearfuse.synth.datasets.select import folders
from clearfuse.synth.seeds import seed_of
from clearfuse.synth.types import PairRef, UserError

Hashes = dict[str, dict[str, str]]
"""sha256 by pair and image."""


def folders_of(page: BenchmarkFile, data: tuple[str, ...]) -> dict[str, str]:
    """The folders by set's name, of ``--data NAME=DIR``. Raises UserError for a set that the benchmark has not."""
    found = folders(data, "--data ")
    names = {entry.name for entry in page.sets if not entry.manifest.builtin}
    for name in found:
        if name not in names:
            has = f"its sets are {', '.join(sorted(names))}" if names else "it needs no data"
            raise UserError(f"--data {name}={found[name]}: {page.name} has no set '{name}': {has}")
    return found


def pairs_of(entry: SetEntry, location: str) -> list[PairRef]:
    """The pairs that the benchmark may use, best first: nearest to the test split, in an order by hash.

    Of a set with its own splits those of the entry's; else test before val before train of those that builds draw.
    """
    manifest = entry.manifest
    found = find_all(manifest, location, entry.task)
    pairs = list(found.pairs.of_split(entry.split) if manifest.own_splits else found.pairs)
    if not pairs:
        raise UserError(f"--data {entry.name}={location}: no pair in split '{entry.split}'")
    order = list(SPLITS)
    return sorted(pairs, key=lambda ref: (-order.index(ref.split), seed_of("limit", ref.dataset, ref.key)))


def hash_files(pairs: list[PairRef]) -> Hashes:
    """The sha256 of each file of the pairs."""
    return {ref.key: {image: _sha256(path) for image, path in ref.sources.items()} for ref in pairs}


def choose_pairs(entry: SetEntry, location: str) -> Hashes:
    """The hashes of the pairs that a page without any takes: ``pairs`` of them, the best first."""
    return hash_files(pairs_of(entry, location)[: entry.pairs])


def wrong_files(entry: SetEntry, location: str, wanted: Mapping[str, Mapping[str, str]]) -> list[str]:
    """A line for each of the wanted files that is missing, or is another one."""
    there = {ref.key: ref for ref in pairs_of(entry, location)}
    lines: list[str] = []
    for key, hashes in wanted.items():
        if key not in there:
            lines.append(f"{entry.key}: no pair '{key}' in {location}")
            continue
        for image, sha256 in hashes.items():
            path = there[key].sources.get(image)
            if path is None:
                lines.append(f"{entry.key}: pair '{key}' has no {image} in {location}")
            elif (found := _sha256(path)) != sha256:
                lines.append(
                    f"{entry.key}: {path} is another file: sha256 {found[:12]}…, the benchmark's {sha256[:12]}…"
                )
    return lines


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

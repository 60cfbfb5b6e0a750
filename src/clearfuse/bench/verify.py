"""Compare a built benchmark with its page: a line for each shard, set or version that is not the benchmark's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from clearfuse.bench.page import FOLDER, BenchmarkFile, Part, load_page
from clearfuse.synth.builder.settings import versions
from clearfuse.synth.console import plural
from clearfuse.synth.files.folders import difference
from clearfuse.synth.files.resources import resource_names
from clearfuse.synth.files.schema import Schema, StrictModel, validate
from clearfuse.synth.files.storage import read_small
from clearfuse.synth.shards.receipts import read_receipt
from clearfuse.synth.shards.records import Receipt, Sha256
from clearfuse.synth.shards.tar import receipt_path
from clearfuse.synth.types import UserError

RECORD = "benchmark.json"


class BuiltRecord(StrictModel):
    """``benchmark.json``: which benchmark a folder holds."""

    schema_: Schema
    benchmark: str
    """Its page's name."""
    definition: Sha256
    """The hash of what its page says is built."""


def read_record(folder: Path, page: BenchmarkFile | None = None) -> BuiltRecord | None:
    """A folder's record of its benchmark, None where there is none.

    Raises UserError where it holds another benchmark than the page's, or the benchmark as another version had it.
    """
    path = folder / RECORD
    if not path.is_file():
        return None
    record = validate(BuiltRecord, read_small(path), str(path))
    if page is not None and record.benchmark != page.name:
        raise UserError(f"{folder} holds the benchmark '{record.benchmark}', not '{page.name}'")
    if page is not None and record.definition != page.definition:
        raise UserError(f"{folder} holds another '{page.name}' than {page.path}: their pages or recipes differ")
    return record


def page_of(folder: str, named: str | None) -> BenchmarkFile:
    """The page of a built benchmark: the named one, else that which the folder says it is. Raises UserError."""
    place = Path(folder)
    record = read_record(place)
    if record is None:
        raise UserError(f"{folder}: no {RECORD}: no benchmark was built there; see clearfuse bench build")
    if named is None and record.benchmark not in resource_names(FOLDER):
        raise UserError(f"{folder} holds '{record.benchmark}', which does not ship: name its page by --page FILE")
    page = load_page(named or record.benchmark)
    read_record(place, page)
    return page


def versions_here(page: BenchmarkFile) -> list[str]:
    """A line where this installation has other versions than those that decided the hashed bytes."""
    if not page.versions:
        return []
    here = versions(page.codec, torch="torch" in page.versions)
    changed = list(difference(page.versions, here))
    return [f"another version: {', '.join(changed)}: shards may differ"] if changed else []


def missing_sets(page: BenchmarkFile, folder: Path) -> list[str]:
    """A line for each set of the page that has hashes, and of which nothing is in the folder."""
    lines: list[str] = []
    for entry in page.sets:
        parts = page.parts(entry)
        if parts and not any((folder / part.folder).is_dir() for part in parts):
            lines.append(
                f"{entry.key}: is missing, all {plural(len(parts), 'part')}: build it with --data {entry.name}=DIR"
            )
    return lines


def built_parts(page: BenchmarkFile, folder: Path) -> list[Part]:
    """The parts of the sets of which something is in the folder."""
    found: list[Part] = []
    for entry in page.sets:
        parts = page.parts(entry)
        if any((folder / part.folder).is_dir() for part in parts):
            found += parts
    return found


def compare(page: BenchmarkFile, folder: Path, parts: Iterable[Part]) -> list[str]:
    """Compare the shards of parts with the page: a line for each that differs; those of other versions in one line."""
    lines: list[str] = []
    other: dict[str, list[str]] = {}
    for part in parts:
        for name in part.shards:
            why, versions_differ = _compare_shard(page, folder, name)
            if versions_differ:
                other.setdefault(why, []).append(name)
            elif why:
                lines.append(f"{name}: {why}")
    lines += [
        f"another version: {why}: {plural(len(names), 'shard')} came out differently, such as {names[0]}"
        for why, names in other.items()
    ]
    return lines


def _compare_shard(page: BenchmarkFile, folder: Path, name: str) -> tuple[str, bool]:
    """What is wrong with a shard, empty where nothing is, and whether it is that other versions made it."""
    path = folder / name
    if not path.is_file():
        return "is missing: run bench build again", False
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    wanted = page.shards.get(name)
    if wanted is None:
        return "has no digest in the page yet: bench build --write-digests adds it", False
    if sha256 == wanted.sha256:
        return "", False
    try:
        receipt = read_receipt(receipt_path(path))
    except UserError as error:
        return str(error), False
    if receipt.sha256 != sha256:
        return "its bytes are not those of its receipt: remove it and run bench build again", False
    changed = _changed(page.versions, receipt)
    if changed:
        return changed, True
    return (
        f"sha256 {sha256[:12]}…, the benchmark's {wanted.sha256[:12]}…, with the same versions: "
        "made by other code, without bench build, or on no x86-64 processor"
    ), False


def _changed(wanted: Mapping[str, str], receipt: Receipt) -> str:
    """The versions in which a shard's build differs from the page's, as ``numpy was 2.1, is 2.2``."""
    made: dict[str, Any] = dict(receipt.settings.get("versions", {}))
    return ", ".join(difference(dict(wanted), made))


def unhashed_sets(page: BenchmarkFile) -> list[str]:
    """A line for each set of the page that has no hashes yet."""
    named = [entry.key for entry in page.sets if not page.keys(entry)]
    return [f"{key}: has no hashes in {page.name} yet: nothing to compare with" for key in named]


def verify_benchmark(page: BenchmarkFile, folder: str) -> list[str]:
    """All problems of a built benchmark, a line each: what is missing, and what is not the page's."""
    place = Path(folder)
    return [*compare(page, place, built_parts(page, place)), *missing_sets(page, place)]

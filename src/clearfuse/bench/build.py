"""Build a benchmark: each part is a ``synth build`` of its own, and parts are shared out among processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from clearfuse.bench.baseline import baseline
from clearfuse.bench.digests import write_digests
from clearfuse.bench.files import Hashes, choose_pairs, folders_of, wrong_files
from clearfuse.bench.page import BenchmarkFile, Part, SetEntry, ShardDigest
from clearfuse.bench.verify import RECORD, compare, read_record, versions_here
from clearfuse.synth.builder.run import build
from clearfuse.synth.console import plural
from clearfuse.synth.execute.run import run_tasks
from clearfuse.synth.execute.tasks import Watch
from clearfuse.synth.files.folders import make_folder
from clearfuse.synth.files.jsonstream import write_json
from clearfuse.synth.shards.receipts import read_receipt
from clearfuse.synth.shards.tar import receipt_path
from clearfuse.synth.types import UserError, WorkIncomplete

Say = Callable[[str], None]
Progress = Callable[[int, int], None]


class Made(NamedTuple):
    """The outcome of a part: its samples and rejects, or why it failed."""

    samples: int = 0
    rejected: int = 0
    failure: str = ""


@dataclass
class BuildResult:
    """What was built. missing: sets without a folder; unhashed: sets without hashes; problems: see ``bench verify``."""

    out: str
    parts: int = 0
    shards: int = 0
    samples: int = 0
    rejected: int = 0
    missing: list[str] = field(default_factory=list[str])
    unhashed: list[str] = field(default_factory=list[str])
    problems: list[str] = field(default_factory=list[str])
    written: bool = False


@dataclass(frozen=True)
class Job:
    """What every worker needs."""

    out: Path
    folders: Mapping[str, str]


def build_benchmark(
    page: BenchmarkFile,
    data: tuple[str, ...],
    out: str,
    *,
    workers: int,
    write: bool = False,
    progress: Progress = lambda done, total: None,
    say: Say = lambda line: None,
) -> BuildResult:
    """Build the parts whose sets are given, and compare them with the page. The same call goes on after a kill.

    data: ``NAME=DIR``. write: choose the pairs of given sets that have no hashes, and write what came out to the page.
    Raises UserError before work begins where a file is not the benchmark's, each named by ``say``, and WorkIncomplete
    where a part fails.
    """
    given = folders_of(page, data)
    folder = Path(out)
    page, chosen = _with_files(page, given, write, say)
    read_record(folder, page)
    result = BuildResult(out)
    entries: list[SetEntry] = []
    for entry in page.sets:
        if not entry.manifest.builtin and entry.name not in given:
            result.missing.append(entry.key)
            get = f"; get it: {entry.manifest.url}" if entry.manifest.url else ""
            say(f"missing: {entry.key}: not given by --data {entry.name}=DIR{get}")
        elif not page.keys(entry):
            result.unhashed.append(entry.key)
            say(f"missing: {entry.key}: has no hashes in {page.name} yet: --write-digests takes pairs of your copy")
        else:
            entries.append(entry)
    if not entries:
        raise UserError(f"{page.name}: none of its sets can be built: name one by --data, such as msrs=/data/MSRS")
    for line in versions_here(page):
        say(f"warning: {line}")
    parts = [part for entry in entries for part in page.parts(entry)]
    make_folder(folder)
    write_json(folder / RECORD, {"schema": 1, "benchmark": page.name, "definition": page.definition})
    build_parts(parts, Job(folder, given), workers, result, progress)
    if write:
        page = _write(page, folder, parts, chosen)
        result.written = True
    result.problems = compare(page, folder, parts)
    return result


def _with_files(
    page: BenchmarkFile, given: Mapping[str, str], write: bool, say: Say
) -> tuple[BenchmarkFile, dict[str, Hashes]]:
    """The page with the hashes of sets that had none, where they are to be written, and these; other files checked."""
    chosen: dict[str, Hashes] = {}
    wrong: list[str] = []
    for entry in page.sets:
        if entry.name not in given:
            continue
        if entry.key in page.files:
            wrong += wrong_files(entry, given[entry.name], page.files[entry.key])
        elif write:
            chosen[entry.key] = choose_pairs(entry, given[entry.name])
    if wrong:
        for line in wrong:
            say(f"problem: {line}")
        raise UserError(
            f"{plural(len(wrong), 'file')} that differ from those of {page.name}: {wrong[0]}; nothing was built"
        )
    if not chosen:
        return page, chosen
    filled = page.model_copy(update={"files": {**page.files, **chosen}})
    filled._name, filled._path = page.name, page.path
    return filled, chosen


def build_parts(parts: list[Part], job: Job, workers: int, result: BuildResult, progress: Progress) -> None:
    """Build the parts, in processes of the baseline, one worker too. Raises WorkIncomplete naming one that fails."""
    watch = Watch(None, lambda part: part.folder, lambda part, why: Made(failure=why))
    progress(0, len(parts))
    failed: list[str] = []
    with baseline():
        made = run_tasks(_build_part, job, parts, workers=workers, executor="processes", watch=watch)
        for done, (part, one) in enumerate(zip(parts, made, strict=True), 1):
            result.parts, result.shards = result.parts + 1, result.shards + part.variants
            result.samples, result.rejected = result.samples + one.samples, result.rejected + one.rejected
            failed += [f"{part.folder}: {one.failure}"] if one.failure else []
            progress(done, len(parts))
    if failed:
        raise WorkIncomplete(f"{len(failed)} of {len(parts)} parts failed: {failed[0]}; run the same command to go on")


def _build_part(job: Job, part: Part) -> Made:
    """A part, by ``synth build`` in this process."""
    location = None if part.entry.manifest.builtin else job.folders[part.entry.name]
    options: dict[str, Any] = part.options(location)
    try:
        report = build(options.pop("task"), out=str(job.out / part.folder), executor="serial", **options)
    except (UserError, WorkIncomplete) as error:
        return Made(failure=str(error))
    return Made(report.samples, report.rejected)


def _write(page: BenchmarkFile, folder: Path, parts: list[Part], chosen: dict[str, Hashes]) -> BenchmarkFile:
    """Write the hashes of what was built to the page."""
    receipts = {name: read_receipt(receipt_path(folder / name)) for part in parts for name in part.shards}
    versions = next(iter(receipts.values())).settings["versions"]
    shards = {name: ShardDigest(sha256=one.sha256, samples=one.samples) for name, one in receipts.items()}
    return write_digests(page, versions, chosen, shards)

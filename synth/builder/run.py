"""A build: settings resolved once, work as a function of (build, shard), resume by receipts."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clearfuse.synth.builder.build import SAMPLES, SHARDS, Build
from clearfuse.synth.builder.card import write_card, write_dataset
from clearfuse.synth.builder.options import Options
from clearfuse.synth.builder.pack import (
    Rendered,
    pack_shard,
    render_sample,
    write,
)
from clearfuse.synth.builder.resolve import Resolved, resolve
from clearfuse.synth.builder.resume import (
    check_finished,
    clear,
    done_shards,
    folder_state,
    own_receipts,
    read_receipts,
)
from clearfuse.synth.datasets.match import split_pattern
from clearfuse.synth.datasets.pairs import Pairs
from clearfuse.synth.depth.choice import split_unit
from clearfuse.synth.execute.run import connect_workers, run_tasks
from clearfuse.synth.execute.tasks import Needs, Watch
from clearfuse.synth.files import cache, storage
from clearfuse.synth.files.folders import folder_lock, make_folder, remove_temporary
from clearfuse.synth.files.jsonstream import dumps
from clearfuse.synth.files.schema import check_options
from clearfuse.synth.files.storage import Location
from clearfuse.synth.samples.prepare import BATCH, PreparedCounts, Spec, on_gpu, prepare_batch
from clearfuse.synth.shards.receipts import Receipts, write_error
from clearfuse.synth.types import BuildTask, PairRef, UserError, WorkIncomplete

Say = Callable[[str], None]
Progress = Callable[[int, int], None]

FED = 64
"""Workers that one process keeps busy where it writes their samples to shards itself."""

WAITING = SHARDS
"""Shards that may be done before their turn: all, since what is kept of one is a line at most."""

SHOWN = 10_000
"""Rejects that a report lists."""


@dataclass
class BuildReport:
    """What a build did. rejects: the first ``SHOWN`` of them; the receipts have all."""

    out: str
    samples: int = 0
    shards: int = 0
    resumed: int = 0
    made: PreparedCounts = field(default_factory=PreparedCounts)
    rejected: int = 0
    rejects: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    failed: dict[str, str] = field(default_factory=dict[str, str])


def plan_build(options: Options) -> tuple[Build, Resolved]:
    """Resolve every choice of a build, once, before work begins. Raises UserError for a user's mistake."""
    found = resolve(options)
    out = storage.locate(options.out or f"shards/{options.task}")
    build = Build(
        out=out,
        spec=found.spec,
        pairs=found.pairs,
        split=found.settings["split"],
        shard_size=options.shard_size,
        variants=options.variants,
        codec=options.codec,
        settings=found.settings,
        digest=hashlib.sha256(dumps(found.settings)).hexdigest(),
    )
    _check_names(build)
    return build, found


def _check_names(build: Build) -> None:
    """Refuse more shards than six digits number, or samples than nine: their order by name would be another."""
    for split in build.splits:
        shards, size = build.variants * build.shards_per_variant(split), build.shard_size
        if shards > SHARDS:
            raise UserError(
                f"--shard-size {size} --variants {build.variants}: {shards} shards in {split}, at most {SHARDS}: "
                "take larger shards, fewer variants, or several builds with other seeds"
            )
        if shards * size > SAMPLES:
            raise UserError(
                f"--shard-size {size}: {shards} shards of it number samples past {SAMPLES}: take smaller ones"
            )


@contextmanager
def at_work(build: Build, options: Options) -> Iterator[Options]:
    """The output checked and the executor ready, before any work; the options with the workers that there are.

    What is refused leaves no folder behind that was not there.
    """
    made = make_folder(build.out)
    needs = Needs(tuple(build.settings["versions"]), tuple(_folders(build, options)))
    try:
        with connect_workers(options.executor, options.workers, needs) as workers:
            yield options.model_copy(update={"workers": workers})
    except UserError:
        with suppress(OSError):  # not empty
            for folder in made:
                folder.rmdir()
        raise


def _folders(build: Build, options: Options) -> Iterator[str]:
    """What every worker must see: the output and the inputs that are no URLs."""
    maps = split_unit(options.depth)[0] if options.depth.startswith(("maps=", "inverse=")) else ""
    given = [str(build.out), options.prompts or "", maps]
    given += [split_pattern(part)[0] for item in options.data for part in item.partition("=")[2].split(",")]
    return (os.path.abspath(part) for part in given if part and "://" not in part)


def prepare_pairs(build: Build, options: Options, progress: Progress) -> PreparedCounts:
    """Make the ground truth and the depth that the missing shards need and the cache does not hold, once a pair.

    Where a build keeps nothing (one variant, no network) there is nothing to do: a sample's own worker is as fast.
    """
    made = PreparedCounts()
    cache.check(writes=build.spec.keep)
    if not build.spec.keep:
        return made
    refs = _needed(build, overwrite=options.overwrite)
    if not refs:
        return made
    batches = (list(refs[i : i + BATCH]) for i in range(0, len(refs), BATCH))
    executor = "serial" if on_gpu(build.spec) else options.executor
    workers = min(options.workers or os.cpu_count() or 1, -(-len(refs) // BATCH))
    # What cannot be made here cannot be made there: its samples say so.
    watch = Watch(options.timeout or None, lambda batch: batch[0].name, lambda batch, why: PreparedCounts())
    progress(0, len(refs))
    results = run_tasks(_prepare_work, build.spec, batches, workers=workers, executor=executor, watch=watch)
    for done, one in enumerate(results, 1):
        made.truths, made.depths = made.truths + one.truths, made.depths + one.depths
        progress(min(done * BATCH, len(refs)), len(refs))
    return made


def _needed(build: Build, *, overwrite: bool) -> Pairs:
    """The pairs of the shards that are not there, each once."""
    there = np.zeros(build.shard_count, np.bool_) if overwrite else folder_state(build).receipts
    wanted = np.zeros(len(build.pairs), np.bool_)
    for shard in np.flatnonzero(~there).tolist():
        if wanted.all():
            break
        wanted[build.rows(shard)] = True
    return build.pairs.take(wanted)


def _prepare_work(spec: Spec, refs: Sequence[PairRef]) -> PreparedCounts:
    return prepare_batch(spec, refs)


def run_build(build: Build, options: Options, progress: Progress) -> BuildReport:
    """Render what is not yet done, then write ``dataset.json`` and the card. Bytes depend on the build alone."""
    make_folder(build.out)
    with folder_lock(build.out):
        if options.overwrite:
            clear(build.out)
        remove_temporary(build.out)
        held = folder_state(build)
        workers = options.workers or os.cpu_count() or 1
        read = functools.partial(read_receipts, workers=workers, executor=options.executor)
        done = done_shards(build, held, more=f"variants than --variants {build.variants}", read=read)
        check_finished(build, held, extend=options.extend)
        report = BuildReport(str(build.out), resumed=sum(done))
        count = sum(build.shard_samples(shard) for shard, there in enumerate(done) if there)
        progress(count, build.sample_count)
        for shard, failure in _render(build, done, options):
            count += build.shard_samples(shard)
            progress(count, build.sample_count)
            if failure is not None:
                report.failed[build.path(shard).name] = failure
        remove_temporary(build.out)  # of workers that died on the way
        if not report.failed:
            receipts = own_receipts(build, SHOWN, read=read)
            report.rejects = [reject.model_dump() for reject in receipts.shown]
            report.samples = receipts.samples.total()
            report.shards = len(receipts)
            report.rejected = receipts.rejects.total()
            _finish(build, receipts)
    return report


def build(
    task: BuildTask, *, progress: Progress = lambda done, total: None, say: Say = lambda line: None, **options: Any
) -> BuildReport:
    """Build shards: ``build("vif", n="3", data=["msrs=/data/MSRS"], out="shards/vif")``.

    options: the fields of ``Options``, named as on the command line. Raises UserError where an option is wrong, before
    anything is written, and WorkIncomplete where shards failed or rejects exceed ``max_rejects``; what was finished
    stays, and the same call goes on.
    """
    chosen = check_options(Options, {"task": task, **options})
    planned, found = plan_build(chosen)
    for note in found.notes:
        say(note)
    with at_work(planned, chosen) as chosen:
        made = prepare_pairs(planned, chosen, lambda done, total: None)
        report = run_build(planned, chosen, progress)
    report.made = made
    check_report(report, planned, chosen)
    return report


def check_report(report: BuildReport, build: Build, options: Options) -> None:
    """Raise WorkIncomplete where shards failed or too many pairs were rejected, naming them."""
    if report.failed:
        name, reason = next(iter(report.failed.items()))
        raise WorkIncomplete(
            f"{len(report.failed)} of {build.shard_count} shards failed: {name}: {reason}; "
            "run the same command to go on"
        )
    if report.rejected > options.max_rejects * build.sample_count:
        first = report.rejects[0]
        raise WorkIncomplete(
            f"{report.rejected} of {build.sample_count} samples rejected, over --max-rejects {options.max_rejects:g}: "
            f"{first['dataset']}/{first['pair']}: {first['reason']}; all are in {report.out}/*.json"
        )


def _finish(build: Build, receipts: Receipts) -> None:
    """The index, then the card; a finished build is left as it is, so that an edited card stays."""
    index = build.out / "dataset.json"
    before = _hashed(index) if index.is_file() else None
    try:
        write_dataset(build, receipts)
        if _hashed(index) != before or not (build.out / "README.md").exists():
            write_card(build, receipts)
    except OSError as error:
        raise write_error(index, error) from None


def _hashed(path: Location) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _render(build: Build, done: Sequence[int], options: Options) -> Iterator[tuple[int, str | None]]:
    """(shard, failure) as shards land: whole shards a worker, or a shard's samples where shards are few."""
    workers = options.workers or os.cpu_count() or 1
    missing = (shard for shard, there in enumerate(done) if not there)
    enough = min(workers, FED)
    few = list(itertools.islice(missing, enough))
    how: dict[str, Any] = {"workers": workers, "executor": options.executor}
    limit = options.timeout or None
    if len(few) == enough or options.executor == "serial":
        pending, again = itertools.tee(itertools.chain(few, missing))
        watch = Watch(limit, lambda task: task.name, lambda task, why: why)
        tasks = map(build.task, pending)
        results = run_tasks(pack_shard, build.packer, tasks, **how, watch=watch, waiting=WAITING)
        yield from zip(again, results, strict=True)
        return
    shared = [build.task(shard) for shard in few]
    watch = Watch(limit, lambda one: one.ref.name, lambda one, why: Rendered(one, failure=f"{one.ref.name}: {why}"))
    samples = (one for task in shared for one in task.samples)
    rendered = run_tasks(render_sample, build.packer, samples, **how, watch=watch)
    for shard, task in zip(few, shared, strict=True):
        yield shard, write(build.packer, task, rendered)

"""A build: settings resolved once, work as a function of (build, shard), resume by receipts."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from synth import cache, codecs, execute, shards, storage
from synth.card import write_card, write_dataset
from synth.prepare import BATCH, Made, Spec, on_gpu, prepare, prepare_batch
from synth.render import render
from synth.resolve import Options, Resolved, resolve
from synth.resume import alone, clear, done_shards, make_folder, own_receipts, remove_temporary
from synth.seeds import seed_of
from synth.shards import receipt_path, shard_name
from synth.storage import Location
from synth.types import SCHEMA, BadPair, PairRef, Task, UserError, WorkIncomplete, unknown

Say = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Build:
    """A resolved build: everything that a worker needs, and nothing that does not decide bytes but the folder."""

    out: Location
    spec: Spec
    pairs: tuple[PairRef, ...]
    split: str
    shard_size: int
    variants: int
    codec: str
    settings: Mapping[str, Any]
    digest: str
    _orders: dict[tuple[int, str | None], list[PairRef]] = field(
        default_factory=dict[tuple[int, "str | None"], list[PairRef]], compare=False, repr=False
    )

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits, in the order of their shards."""
        return tuple(self.split.split(","))

    def shards_per_variant(self, split: str) -> int:
        """Every variant of a split fills its own shards."""
        return -(-len(self.order(0, split)) // self.shard_size)

    @property
    def shard_count(self) -> int:
        """Shards of all splits and variants."""
        return self.variants * sum(map(self.shards_per_variant, self.splits))

    def locate(self, shard: int) -> tuple[str, int]:
        """The split of a shard, and its number there: the one its name has."""
        for split in self.splits:
            count = self.variants * self.shards_per_variant(split)
            if shard < count:
                return split, shard
            shard -= count
        raise IndexError(shard)

    @property
    def sample_count(self) -> int:
        """Samples of all variants, before rejects."""
        return len(self.pairs) * self.variants

    def path(self, shard: int) -> Location:
        """Where a shard lands."""
        return self.out / shard_name(self.spec.task, *self.locate(shard))

    def samples(self, shard: int) -> list[SampleTask]:
        """The samples of a shard: the plan is variant-major, and keys keep their place whatever is rejected."""
        split, number = self.locate(shard)
        variant, part = divmod(number, self.shards_per_variant(split))
        drawn = self.order(variant, split)[part * self.shard_size : (part + 1) * self.shard_size]
        return [SampleTask(number * self.shard_size + i, variant, ref) for i, ref in enumerate(drawn)]

    def order(self, variant: int, split: str | None = None) -> list[PairRef]:
        """The pairs of a split, or of all, in a variant's order: by a hash of (seed, pair, variant)."""
        if (variant, split) not in self._orders:
            seed = self.spec.seed
            self._orders[variant, split] = sorted(
                (ref for ref in self.pairs if split in (None, ref.split)),
                key=lambda ref: seed_of(seed, ref.dataset, ref.key, variant, "order", 0),
            )
        return self._orders[variant, split]


@dataclass(frozen=True)
class SampleTask:
    """One sample to render."""

    index: int
    variant: int
    ref: PairRef


@dataclass
class BuildReport:
    """What a build did."""

    out: str
    samples: int = 0
    shards: int = 0
    resumed: int = 0
    made: Made = field(default_factory=Made)
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
        digest=hashlib.sha256(shards.dumps(found.settings)).hexdigest(),
    )
    return build, found


def prepare_pairs(build: Build, options: Options, progress: Progress) -> Made:
    """Make the ground truth and the depth that the missing shards need and the cache does not hold, once a pair.

    Where a build keeps nothing (one variant, no network) there is nothing to do: a sample's own worker is as fast.
    """
    made = Made()
    cache.check(writes=build.spec.keep)
    if not build.spec.keep:
        return made
    held = {} if options.overwrite else storage.listing(build.out)
    missing = [s for s in range(build.shard_count) if receipt_path(build.path(s)).name not in held]
    if not missing:
        return made
    refs = list({(ref.dataset, ref.key): ref for s in missing for ref in (t.ref for t in build.samples(s))}.values())
    batches = [refs[i : i + BATCH] for i in range(0, len(refs), BATCH)]
    workers = min(options.workers or os.cpu_count() or 1, len(batches))
    executor = "serial" if on_gpu(build.spec) else options.executor
    progress(0, len(refs))
    count = 0
    for batch, one in zip(
        batches, execute.run(_prepare_work, build.spec, batches, workers=workers, executor=executor), strict=True
    ):
        made.truths, made.depths = made.truths + one.truths, made.depths + one.depths
        count += len(batch)
        progress(count, len(refs))
    return made


def _prepare_work(spec: Spec, refs: Sequence[PairRef]) -> Made:
    return prepare_batch(spec, refs)


def run_build(build: Build, options: Options, progress: Progress) -> BuildReport:
    """Render what is not yet done, then write ``dataset.json`` and the card. Bytes depend on the build alone."""
    make_folder(build.out)
    with alone(build.out):
        if options.overwrite:
            clear(build.out)
        remove_temporary(build.out)
        done = done_shards(build, extend=options.extend)
        report = BuildReport(str(build.out), resumed=len(done))
        pending = [s for s in range(build.shard_count) if s not in done]
        count = sum(len(build.samples(s)) for s in done)
        progress(count, build.sample_count)
        for shard, size, failure in _render(build, pending, options):
            count += size
            progress(count, build.sample_count)
            if failure is not None:
                report.failed[build.path(shard).name] = failure
        if not report.failed:
            receipts = own_receipts(build)
            report.samples = sum(r["samples"] for r in receipts)
            report.shards = len(receipts)
            report.rejects = [reject for r in receipts for reject in r["rejects"]]
            _finish(build, receipts)
    return report


def build(
    task: Task, *, progress: Progress = lambda done, total: None, say: Say = lambda line: None, **options: Any
) -> BuildReport:
    """Build shards: ``build("vif", n="3", data=["msrs=/data/MSRS"], out="shards/vif")``.

    options: the fields of ``Options``, named as on the command line. Raises UserError where an option is wrong, before
    anything is written, and WorkIncomplete where shards failed or rejects exceed ``max_rejects``; what was finished
    stays, and the same call goes on.
    """
    chosen = as_options(task, options)
    planned, found = plan_build(chosen)
    for note in found.notes:
        say(note)
    made = prepare_pairs(planned, chosen, lambda done, total: None)
    report = run_build(planned, chosen, progress)
    report.made = made
    check_report(report, planned, chosen)
    return report


def as_options(task: Task, options: Mapping[str, Any]) -> Options:
    """Options from a caller's keywords, with the types that the command line gives: a wrong one is named."""
    known = {field.name: field for field in dataclasses.fields(Options)}
    for name in options:
        if name not in known:
            raise unknown("option", name, known)
    values: dict[str, Any] = {}
    for name, value in options.items():
        if name in ("data", "sets"):
            values[name] = (value,) if isinstance(value, str) else tuple(value or ())
        elif name in ("out", "n", "recipe", "prompts", "licence"):
            values[name] = None if value is None else str(value)
        else:
            default = known[name].default
            kinds = (
                (int, type(None)) if default is None else (int, float) if isinstance(default, float) else type(default)
            )
            if not isinstance(value, kinds) or (isinstance(value, bool) and not isinstance(default, bool)):
                raise UserError(f"{name} = {value!r}: must be like {1 if default is None else default!r}")
            values[name] = value
    return Options(task, **values)


def check_report(report: BuildReport, build: Build, options: Options) -> None:
    """Raise WorkIncomplete where shards failed or too many pairs were rejected, naming them."""
    if report.failed:
        name, reason = next(iter(report.failed.items()))
        raise WorkIncomplete(
            f"{len(report.failed)} of {build.shard_count} shards failed: {name}: {reason}; "
            "run the same command to go on"
        )
    rejected = len(report.rejects)
    if rejected > options.max_rejects * build.sample_count:
        first = report.rejects[0]
        raise WorkIncomplete(
            f"{rejected} of {build.sample_count} samples rejected, over --max-rejects {options.max_rejects:g}: "
            f"{first['dataset']}/{first['pair']}: {first['reason']}; all are in {report.out}/*.json"
        )


def _finish(build: Build, receipts: Sequence[Mapping[str, Any]]) -> None:
    """The index, then the card; a finished build is left as it is, so that an edited card stays."""
    index = build.out / "dataset.json"
    before = index.read_bytes() if index.is_file() else None
    try:
        write_dataset(build, receipts)
        if index.read_bytes() != before or not (build.out / "README.md").exists():
            write_card(build, receipts)
    except OSError as error:
        raise _unwritten(index, error) from None


def _unwritten(path: Location, error: OSError) -> WorkIncomplete:
    return WorkIncomplete(f"{path}: cannot be written: {error.strerror or error}; run the same command to go on")


def _render(build: Build, pending: Sequence[int], options: Options) -> Iterator[tuple[int, int, str | None]]:
    """(shard, samples, failure) as shards land: whole shards a worker, or a shard's samples where shards are few."""
    workers = options.workers or os.cpu_count() or 1
    if len(pending) >= workers or options.executor == "serial" or workers == 1:
        results = execute.run(_shard_work, build, pending, workers=workers, executor=options.executor)
        for shard, failure in zip(pending, results, strict=True):
            yield shard, len(build.samples(shard)), failure
        return
    tasks = [task for shard in pending for task in build.samples(shard)]
    rendered = execute.run(_sample_work, build, tasks, workers=workers, executor=options.executor)
    for shard in pending:
        yield shard, len(build.samples(shard)), _write(build, shard, rendered)


@dataclass(frozen=True)
class Rendered:
    """An encoded sample, or why there is none: a reject is the pair's fault, a failure ours."""

    task: SampleTask
    members: Mapping[str, bytes] | None = None
    reject: str | None = None
    failure: str | None = None


def _sample_work(build: Build, task: SampleTask) -> Rendered:
    key = f"{task.index:09d}"
    try:
        sample = render(build.spec, prepare(build.spec, task.ref), task.variant, key)
        return Rendered(task, shards.encode_sample(sample, codecs.CODECS[build.codec]))
    except BadPair as error:
        return Rendered(task, reject=str(error))
    except Exception as error:  # any other sample goes on; the shard is not written and is named at the end
        return Rendered(task, failure=f"{task.ref.name}: {type(error).__name__}: {error}")


def _shard_work(build: Build, shard: int) -> str | None:
    return _write(build, shard, (_sample_work(build, task) for task in build.samples(shard)))


class _Failed(Exception):
    """A sample failed: its shard must not land."""


def _write(build: Build, shard: int, rendered: Iterator[Rendered]) -> str | None:
    """Take a shard's samples from ``rendered``, in order, and land the tar, then the receipt. The failure, or None."""
    rejects: list[dict[str, Any]] = []
    failures: list[str] = []
    tasks = build.samples(shard)

    def members() -> Iterator[tuple[str, Mapping[str, bytes]]]:
        for _ in tasks:
            one = next(rendered)
            if one.failure is not None:
                failures.append(one.failure)
            elif one.members is not None:
                yield f"{one.task.index:09d}", one.members
            else:
                where = {"index": one.task.index, "dataset": one.task.ref.dataset, "pair": one.task.ref.key}
                rejects.append({**where, "variant": one.task.variant, "reason": one.reject})
        if failures:
            raise _Failed

    path = build.path(shard)
    try:
        facts = shards.write_shard(path, members())
        shards.write_json(receipt_path(path), _receipt(build, path, facts, rejects))
    except _Failed:
        return failures[0]
    except OSError as error:
        raise _unwritten(path, error) from None
    return None


def _receipt(build: Build, path: Location, facts: shards.ShardFacts, rejects: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "shard": path.name,
        "sha256": facts.sha256,
        "bytes": facts.size,
        "samples": len(facts.offsets),
        "offsets": facts.offsets,
        "rejects": rejects,
        "digest": build.digest,
        "settings": dict(build.settings),
    }

"""A build: settings resolved once, work as a function of (build, shard), resume by receipts."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from synth import codecs, execute, shards
from synth.card import write_card, write_dataset
from synth.render import Spec, prepare, render
from synth.resolve import Options, Resolved, resolve
from synth.seeds import seed_of
from synth.shards import TEMPORARY, receipt_path, shard_name
from synth.types import SCHEMA, BadPair, PairRef, Task, UserError, WorkIncomplete, check_schema, unknown

Say = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Build:
    """A resolved build: everything that a worker needs, and nothing that does not decide bytes but the folder."""

    out: Path
    spec: Spec
    pairs: tuple[PairRef, ...]
    split: str
    shard_size: int
    variants: int
    codec: str
    settings: Mapping[str, Any]
    digest: str
    _orders: dict[int, list[PairRef]] = field(default_factory=dict[int, list[PairRef]], compare=False, repr=False)

    @property
    def shards_per_variant(self) -> int:
        """Every variant fills its own shards."""
        return -(-len(self.pairs) // self.shard_size)

    @property
    def shard_count(self) -> int:
        """Shards of all variants."""
        return self.shards_per_variant * self.variants

    @property
    def sample_count(self) -> int:
        """Samples of all variants, before rejects."""
        return len(self.pairs) * self.variants

    def path(self, shard: int) -> Path:
        """Where a shard lands."""
        return self.out / shard_name(self.spec.task, self.split, shard)

    def samples(self, shard: int) -> list[SampleTask]:
        """The samples of a shard: the plan is variant-major, and keys keep their place whatever is rejected."""
        variant, part = divmod(shard, self.shards_per_variant)
        drawn = self.order(variant)[part * self.shard_size : (part + 1) * self.shard_size]
        return [SampleTask(shard * self.shard_size + i, variant, ref) for i, ref in enumerate(drawn)]

    def order(self, variant: int) -> list[PairRef]:
        """The pairs in a variant's order: by a hash of (seed, pair, variant)."""
        if variant not in self._orders:
            seed = self.spec.seed
            self._orders[variant] = sorted(
                self.pairs, key=lambda ref: seed_of(seed, ref.dataset, ref.key, variant, "order", 0)
            )
        return self._orders[variant]


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
    rejects: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    failed: dict[str, str] = field(default_factory=dict[str, str])


def plan_build(options: Options) -> tuple[Build, Resolved]:
    """Resolve every choice of a build, once, before work begins. Raises UserError for a user's mistake."""
    found = resolve(options)
    out = Path(options.out or f"shards/{options.task}")
    build = Build(
        out=out,
        spec=found.spec,
        pairs=found.pairs,
        split=options.split,
        shard_size=options.shard_size,
        variants=options.variants,
        codec=options.codec,
        settings=found.settings,
        digest=hashlib.sha256(shards.dumps(found.settings)).hexdigest(),
    )
    return build, found


def run_build(build: Build, options: Options, progress: Progress) -> BuildReport:
    """Render what is not yet done, then write ``dataset.json`` and the card. Bytes depend on the build alone."""
    _make_folder(build.out)
    with _alone(build.out):
        if options.overwrite:
            _clear(build.out)
        done = _done(build, extend=options.extend)
        _remove_temporary(build.out)
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
            receipts = [read_receipt(receipt_path(build.path(s))) for s in range(build.shard_count)]
            report.samples = sum(r["samples"] for r in receipts)
            report.shards = len(receipts)
            report.rejects = [reject for r in receipts for reject in r["rejects"]]
            write_dataset(build, receipts)
            write_card(build, receipts)
    return report


def build(
    task: Task, *, progress: Progress = lambda done, total: None, say: Say = lambda line: None, **options: Any
) -> BuildReport:
    """Build shards: ``build("vif", n="3", data=["msrs=/data/MSRS"], out="shards/vif")``.

    options: the fields of ``Options``, named as on the command line. Raises UserError where an option is wrong, before
    anything is written, and WorkIncomplete where shards failed or rejects exceed ``max_rejects``; what was finished
    stays, and the same call goes on.
    """
    try:
        chosen = Options(task, **{k: tuple(v) if k in ("data", "sets") else v for k, v in options.items()})
    except TypeError:
        known = [field.name for field in dataclasses.fields(Options)]
        raise unknown("option", next(name for name in options if name not in known), known) from None
    planned, found = plan_build(chosen)
    for note in found.notes:
        say(note)
    report = run_build(planned, chosen, progress)
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
    rejected = len(report.rejects)
    if rejected > options.max_rejects * build.sample_count:
        first = report.rejects[0]
        raise WorkIncomplete(
            f"{rejected} of {build.sample_count} samples rejected, over --max-rejects {options.max_rejects:g}: "
            f"{first['dataset']}/{first['pair']}: {first['reason']}; all are in {report.out}/*.json"
        )


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
    except _Failed:
        return failures[0]
    except OSError as error:
        raise WorkIncomplete(
            f"{path}: cannot be written: {error.strerror or error}; run the same command to go on"
        ) from None
    receipt = {
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
    shards.write_json(receipt_path(path), receipt)
    return None


def read_receipt(path: Path) -> dict[str, Any]:
    """A receipt, checked. Raises UserError where it is damaged or newer than this version."""
    try:
        receipt = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path}: receipt cannot be read: {error}; remove it and its tar to render the shard again"
        ) from None
    check_schema(receipt.get("schema"), str(path))
    return receipt


def difference(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """The settings in which two builds differ, a line each: ``seed was 0, is 1``."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            yield from difference(old.get(key), new.get(key), f"{at}.{key}" if at else str(key))
    elif old != new:
        yield f"{at} was {_short(old)}, is {_short(new)}"


def _short(value: Any) -> str:
    text = "not set" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _done(build: Build, *, extend: bool) -> set[int]:
    """The shards that are there with this build's digest. Another digest, or another build's files, is an error."""
    done: set[int] = set()
    for path in sorted(build.out.glob("*-*-??????.json")):
        receipt = read_receipt(path)
        if receipt["digest"] != build.digest:
            changes = list(difference(receipt["settings"], dict(build.settings)))
            more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
            raise UserError(
                f"{build.out} holds another build: {changes[0] if changes else 'digest'}{more}; "
                "use the same settings, another --out, or --overwrite"
            )
        shard = int(path.stem.rpartition("-")[2])
        if shard >= build.shard_count:
            raise UserError(f"{build.out} holds more variants than --variants {build.variants}: use another --out")
        if path.with_suffix(".tar").is_file():
            done.add(shard)
    _check_finished(build, extend)
    return done


def _check_finished(build: Build, extend: bool) -> None:
    """A finished build grows by --extend alone; a README of somebody else's is not written over."""
    dataset = build.out / "dataset.json"
    if dataset.is_file():
        held = read_receipt(dataset).get("variants")
        if held != build.variants and not extend:
            raise UserError(
                f"{build.out} is finished with --variants {held}, not {build.variants}: add --extend to add variants"
            )
    elif (build.out / "README.md").exists():
        raise UserError(f"{build.out} holds a README.md that is no build's: choose an empty folder for --out")


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f"{TEMPORARY}{os.getpid()}-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror}") from None


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One build a folder at a time; the lock is the folder's own and ends with the process, however it ends."""
    handle = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another build is writing to {out}: wait for it, or use another --out") from None
        yield
    finally:
        os.close(handle)


def _remove_temporary(out: Path) -> None:
    """What a killed build left behind."""
    for path in out.glob(f"{TEMPORARY}*"):
        path.unlink(missing_ok=True)


def _clear(out: Path) -> None:
    """Remove a build's own files, receipts first, so that a kill in between leaves no shard that looks done."""
    receipts = list(out.glob("*-*-??????.json"))
    ours = bool(receipts) or (out / "dataset.json").is_file()
    for path in receipts:
        path.unlink()
        path.with_suffix(".tar").unlink(missing_ok=True)
    for name in ("dataset.json", "README.md") if ours else ():
        (out / name).unlink(missing_ok=True)

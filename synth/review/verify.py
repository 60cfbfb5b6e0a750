"""Verify a build: receipts, hashes, members, decode, the contract of every sample, and replay of its pixels."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clearfuse.synth.datasets.labels import decode_runs
from clearfuse.synth.depth.metres import decode_png
from clearfuse.synth.execute.run import run_tasks
from clearfuse.synth.files import storage
from clearfuse.synth.files.jsonstream import dumps
from clearfuse.synth.files.storage import Location
from clearfuse.synth.operators import AUTHORS, operator_class, physical_order
from clearfuse.synth.plugins import require, require_same
from clearfuse.synth.samples.blocks import apply_blocks
from clearfuse.synth.samples.control import adjust, marked
from clearfuse.synth.samples.render import degrade_pair
from clearfuse.synth.samples.single import expose
from clearfuse.synth.seeds import unit_hash
from clearfuse.synth.shards.codecs import CODECS
from clearfuse.synth.shards.find import find_shards
from clearfuse.synth.shards.receipts import ShardNames, listed_shards, read_index, read_receipt
from clearfuse.synth.shards.records import LATENTS, Exposed, ListedShard, Receipt, member_names
from clearfuse.synth.shards.sample import Sample, decode_sample, holds_latents, read_latent_meta
from clearfuse.synth.shards.tar import BLOCK, in_blocks, read_shard, receipt_path
from clearfuse.synth.types import HELD, NO_TRUTH, UserError

Progress = Callable[[int, int], None]


@dataclass
class VerifyReport:
    """``ok``: no problem found. ``replayed``: samples whose degraded pair was made again and compared.

    ``lean``: samples that hold no degraded pair. ``given``: samples that others degraded, which nothing makes again.
    ``real``: samples without a clean side, which nothing makes again either. ``cached``: samples of ``train cache``.
    """

    samples: int = 0
    replayed: int = 0
    lean: int = 0
    given: int = 0
    real: int = 0
    cached: int = 0
    problems: list[str] = field(default_factory=list[str])

    @property
    def ok(self) -> bool:
        """No problem found."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints; ``given``, ``real`` and ``cached`` where there are such samples."""
        as_is = {name: count for name in ("given", "real", "cached") if (count := getattr(self, name))}
        return {"ok": self.ok, "samples": self.samples, "replayed": self.replayed, **as_is, "problems": self.problems}


def verify(
    paths: Sequence[str],
    *,
    replay: bool | float = False,
    workers: int = 1,
    progress: Progress = lambda done, total: None,
) -> VerifyReport:
    """Check shards and folders of shards: receipts, hashes, members, every image, the contract of every sample.

    replay: the share of samples whose degraded images are made again from the sample alone and compared; True is all.
    Which ones depends on their keys, so that it is the same ones each time, and those of 0.1 are among those of 0.2.
    Held in memory are the problems, not the samples. Raises UserError where a plugin that a shard was made with is not
    loaded, or, where it is to be made again, is another.
    """
    if not 0 <= replay <= 1:
        raise UserError(f"--replay {replay:g}: must be a share of the samples in [0, 1]")
    found, folders = find_shards(paths, whole=False)
    report = VerifyReport()
    for folder in folders:
        report.problems += check_folder(folder)
    alone = workers == 1 or len(found) == 1 or any(text.startswith(storage.IN_PROCESS) for text in paths)
    executor = "serial" if alone else "processes"
    results = run_tasks(_shard_work, float(replay), found, workers=workers, executor=executor)
    for done, one in enumerate(results, 1):
        report.samples += one.samples
        report.replayed += one.replayed
        report.lean += one.lean
        report.given += one.given
        report.real += one.real
        report.cached += one.cached
        report.problems += one.problems
        progress(done, len(found))
    return report


def check_folder(folder: Location) -> list[str]:
    """Problems of a folder as a whole: not finished, shards missing, or more than the index knows."""
    index = folder / "dataset.json"
    if not index.is_file():
        return [f"{folder}: no dataset.json: the build is not finished; run its command again"]
    problems: list[str] = []
    missing: list[str] = []
    there, listed = ShardNames(), ShardNames()
    tars = (name for name, _ in storage.files(folder) if name.endswith(".tar") and not name.startswith("."))
    odd = {name for name in tars if not there.add(name)}

    try:
        digest = read_index(index).digest
        for shard in listed_shards(index):
            name = shard.shard
            if name not in there and name not in odd:
                missing.append(name)
            if not listed.add(name):
                odd.discard(name)
            if _of_another_build(folder / name, shard, digest):
                problems.append(f"{folder / name}: is of another build than dataset.json")
    except UserError as error:
        return [str(error)]
    problems += [f"{folder / name}: missing, though dataset.json lists it" for name in sorted(missing)]
    more = sorted([*(name for name in there if name not in listed), *odd])
    return problems + [f"{folder / name}: not in dataset.json" for name in more]


def _of_another_build(path: Location, shard: ListedShard, digest: str) -> bool:
    """Whether a shard's receipt says another hash or digest than ``dataset.json``; a damaged one is named elsewhere."""
    if not (receipt_at := receipt_path(path)).is_file():
        return False
    try:
        receipt = read_receipt(receipt_at)
    except UserError:
        return False
    return (receipt.sha256, receipt.digest) != (shard.sha256, digest)


def _shard_work(replay: float, path: Location) -> VerifyReport:
    with storage.fetched(path) as file:
        return _check_shard(replay, path, file)


def _check_shard(replay: float, path: Location, file: Path) -> VerifyReport:
    """A shard's report. file: the shard itself, or a local copy of it."""
    receipt, problems = check_receipt(path, file)
    if receipt is not None:
        (require_same if replay else require)(receipt.settings.get("plugins", ()), path.name)
    report = VerifyReport(problems=problems)
    offsets: dict[str, int] = {}
    end = 0
    try:
        for key, members in read_shard(file, path.name):
            report.samples += 1
            offsets[key] = end
            end += sum(BLOCK + in_blocks(len(data)) for data in members.values())
            chosen = unit_hash("replay", path.stem.rpartition("-")[0], key) < replay
            report.problems += [
                f"{path.name}: {_line(fault)}" for fault in _check_members(key, members, chosen, report)
            ]
    except ValueError as error:
        report.problems.append(_line(str(error)))
    if receipt is not None:
        report.problems += check_offsets(path, receipt, offsets)
    return report


def _check_members(key: str, members: Mapping[str, bytes], replay: bool, report: VerifyReport) -> list[str]:
    """Problems of a sample; what it is, and whether it was replayed, is counted in ``report``."""
    try:
        if holds_latents(members):
            report.cached += 1
            return list(check_cached(key, members))
        sample = decode_sample(key, members)
        meta = sample.meta
        faults = [*check_members(sample, members), *check_sample(sample)]
        report.lean += meta.lean
        report.given += meta.given
        report.real += meta.real
        if replay and not faults and not (meta.lean or meta.given or meta.real):
            faults = list(check_replay(sample))
            report.replayed += 1
    except Exception as error:  # one damaged sample must not hide the others
        faults = [str(error) if isinstance(error, ValueError) else f"sample {key}: damaged: {error!r}"]
    return faults


def check_cached(key: str, members: Mapping[str, bytes]) -> Iterator[str]:
    """Problems of a sample of ``train cache``: a member for each of its drawn crops, with the bytes that were made."""
    latents = read_latent_meta(key, members).cached
    names = [f"{HELD if latents.held_out else number}{LATENTS}" for number in range(len(latents.variants))]
    if set(members) != {"json", *names}:
        wrong = sorted(set(members) ^ {"json", *names})
        yield f"sample {key}: its members are not those of a sample of train cache: {', '.join(wrong)}"
        return
    for name, crop in zip(names, latents.variants, strict=True):
        if zlib.crc32(members[name]) != crop.crc32:
            yield f"sample {key}: {name} is damaged: its checksum is another"


def _line(text: str) -> str:
    """One line, whatever a library said."""
    return " ".join(text.split())[:1000]


def check_members(sample: Sample, members: Mapping[str, bytes]) -> Iterator[str]:
    """Problems of what a sample holds: exactly its members, of one codec, and no depth where the json says none."""
    codec = next((name for name in CODECS if any(member.endswith(f"b.{name}") for member in members)), "webp")
    expected = member_names(codec, lean=sample.meta.lean, real=sample.meta.real)
    if list(members) != expected:
        wrong = sorted(set(members) ^ set(expected)) or ["their order"]
        yield f"sample {sample.key}: its members are not those of a sample: {', '.join(wrong)}"
    if sample.depth is None and "depth.png" in members and decode_png(members["depth.png"]).any():
        yield f"sample {sample.key}: depth.png holds depth, though the json says none"


def check_receipt(path: Location, file: Path) -> tuple[Receipt | None, list[str]]:
    """The receipt of a tar, None without one, and its problems: name, settings, size, hash. file: a local copy."""
    receipt_at = receipt_path(path)
    if not receipt_at.is_file():
        return None, [f"{path.name}: no receipt beside it: the shard was not finished"]
    try:
        receipt = read_receipt(receipt_at)
    except UserError as error:
        return None, [_line(str(error))]
    if receipt.shard != path.name:
        return receipt, [f"{path.name}: its receipt is of {receipt.shard}"]
    if receipt.digest != hashlib.sha256(dumps(receipt.settings)).hexdigest():
        return receipt, [f"{path.name}: the settings of its receipt are not those of its digest"]
    size = file.stat().st_size
    if size != receipt.bytes:
        return receipt, [f"{path.name}: {size} bytes, its receipt says {receipt.bytes}"]
    with file.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != receipt.sha256:
            return receipt, [f"{path.name}: its bytes are not those of its receipt (sha256 differs)"]
    return receipt, []


def check_offsets(path: Location, receipt: Receipt, offsets: Mapping[str, int]) -> Iterator[str]:
    """Problems of what a receipt says of its samples. offsets: where each was found."""
    listed = receipt.offsets
    missing, more = sorted(set(listed) - set(offsets)), sorted(set(offsets) - set(listed))
    if missing:
        yield f"{path.name}: {len(missing)} of {len(listed)} samples are missing, the first is {missing[0]}"
    if more:
        yield f"{path.name}: {len(more)} samples are not in its receipt, the first is {more[0]}"
    wrong = [key for key, at in offsets.items() if listed.get(key, at) != at]
    if wrong:
        yield f"{path.name}: sample {wrong[0]} is at {offsets[wrong[0]]}, its receipt says {listed[wrong[0]]}"
    if receipt.samples != len(listed):
        yield f"{path.name}: its receipt counts {receipt.samples} samples and lists {len(listed)}"


def check_sample(sample: Sample) -> Iterator[str]:
    """Problems of a sample against the contract: sizes, steps, order, depth, prompt."""
    meta, where = sample.meta, f"sample {sample.key}"
    width, height = meta.crop[2:]
    for name, image in sample.images.items():
        if image.shape[:2] != (height, width):
            yield f"{where}: {name} is {image.shape[1]}x{image.shape[0]}, its crop {width}x{height}"
    steps = meta.steps
    if len(steps) != meta.n:
        yield f"{where}: {len(steps)} steps, n is {meta.n}"
    names = [step.op for step in steps]
    try:
        ordered = names == physical_order(names) or any(name in AUTHORS for name in names)  # theirs: as drawn
        if not ordered or len(set(names)) != len(names):
            yield f"{where}: steps are not in physical order: {', '.join(names)}"
        needs = any(operator_class(name).takes_depth() for name in names)
    except UserError as error:
        yield f"{where}: {error}"
        return
    if sample.meta.given or sample.meta.real:
        yield from _check_given(sample)
    elif any(step.seed is None for step in steps):
        yield f"{where}: a step has no seed, though the sample was not given as it is"
    elif needs and sample.depth is None:
        yield f"{where}: a step needs depth, and depth.png is missing"
    elif sample.depth is not None and sample.depth.shape != (height, width):
        yield f"{where}: depth is {sample.depth.shape[1]}x{sample.depth.shape[0]}, its crop {width}x{height}"
    yield from _check_exposures(sample)
    yield from _check_target(sample)
    if sample.meta.lean:
        if steps or sample.depth is None:
            yield f"{where}: is lean, which goes with no steps and with depth"
        return
    if not sample.prompt.strip():
        yield f"{where}: the prompt is empty"
    if any(i >= len(steps) for i in meta.prompt.asked):
        yield f"{where}: the prompt asks for a step that is not there: {list(meta.prompt.asked)}"


def _check_exposures(sample: Sample) -> Iterator[str]:
    """Problems of a pair exposed from a single picture: each image follows from the picture, pixel by pixel."""
    how = sample.meta.single
    if not isinstance(how, Exposed) or sample.meta.fuser.name != "dataset":
        return
    for name, image in zip(("clean_a", "clean_b"), expose(sample.images["gt"], how), strict=True):
        if not np.array_equal(sample.images[name], image):
            yield f"sample {sample.key}: {name} is not the exposure of gt that the json says"


def _check_target(sample: Sample) -> Iterator[str]:
    """Problems of a target that follows from the picture which both inputs were made of, pixel by pixel."""
    meta, where = sample.meta, f"sample {sample.key}"
    if (meta.category == "control") != (meta.control is not None):
        yield f"{where}: control goes with a change of tone, and with nothing else"
    if (meta.category == "segment") != (meta.segment is not None):
        yield f"{where}: segment goes with a class, and with nothing else"
    if meta.real:
        return
    picture = target = sample.images["clean_a"]
    if meta.segment is not None:
        try:
            target = marked(picture, decode_runs(meta.segment.counts, picture.shape[:2]))
        except ValueError as error:
            yield f"{where}: segment: {error}"
            return
    elif meta.control is not None:
        target = adjust(picture, meta.control)
    if meta.blocks is None:
        return
    if not (np.array_equal(sample.images["gt"], target) and np.array_equal(sample.images["clean_b"], picture)):
        yield f"{where}: gt is not what the prompt asks of the picture that both inputs were made of"


def _check_given(sample: Sample) -> Iterator[str]:
    """Problems of a sample that others degraded: its steps are names alone, and what no source degraded is clean.

    A real one is degraded whole, and says neither what made a ground truth nor depth.
    """
    if any(step.seed is not None or step.params for step in sample.meta.steps):
        yield f"sample {sample.key}: was given as it is, yet a step says parameters"
    if sample.meta.real:
        if sample.meta.fuser.name != NO_TRUTH or sample.meta.depth is not None:
            yield f"sample {sample.key}: is a real pair, yet says a ground truth or depth"
        return
    for name in ("a", "b"):
        clean = sample.images[f"clean_{name}"]
        if f"degraded_{name}" not in sample.meta.sources and not np.array_equal(sample.images[name], clean):
            yield f"sample {sample.key}: {name} differs from clean_{name}, and no source of it is named"


def replay_pair(sample: Sample) -> tuple[np.ndarray, np.ndarray]:
    """The degraded pair, made again from the sample alone."""
    images = sample.images
    if sample.meta.blocks is not None:
        return apply_blocks(images["clean_a"], sample.meta.blocks)
    return degrade_pair(sample.meta.task, images["clean_a"], images["clean_b"], sample.meta.steps, sample.metres())


def check_replay(sample: Sample) -> Iterator[str]:
    """Problems of a sample's pixels: each degraded image must come out again bit for bit."""
    remade: Mapping[str, np.ndarray] = dict(zip(("a", "b"), replay_pair(sample), strict=True))
    for name, image in remade.items():
        stored = sample.images[name]
        if stored.shape != image.shape:
            yield f"sample {sample.key}: {name} replays as {image.shape}, stored as {stored.shape}"
        elif not np.array_equal(stored, image):
            off = int((stored != image).any(axis=2).sum())
            yield f"sample {sample.key}: {name} differs from its replay in {off} of {stored[..., 0].size} pixels"

"""The samples of a run: an index of all shards, which samples are held out, and where the bytes of each lie.

Columns, not objects: a million samples are about 100 MB, and each loader process has its own.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from clearfuse.synth.console import plural
from clearfuse.synth.seeds import unit_hash
from clearfuse.synth.shards.codecs import CODECS
from clearfuse.synth.shards.receipts import read_receipt
from clearfuse.synth.shards.records import LatentMeta, SampleMeta
from clearfuse.synth.shards.sample import holds_latents, read_latent_meta, read_meta
from clearfuse.synth.shards.tar import MOST_MEMBERS, SHARD, Span, read_spans, receipt_path
from clearfuse.synth.types import CATEGORIES, TASKS, Task, UserError, check_name
from clearfuse.train.data.find import LocalSource, ShardRow, content_differs, find_local_sources, shard_content

HELD_OUT = 0.05
"""Share of the pairs, by hash, that is never trained on where there are no validation shards."""
FEW = 16
"""Held-out samples below which their mean says little: see ``Corpus.said_of_held_out``."""

Mix = list[float] | dict[str, float]
"""Weights of what a run draws from: its sources in their order, or categories by name."""

KIND = "train cache"
"""What the settings of such a shard's receipt say that it is."""

BEFORE: dict[str, Any] = {
    "repeats": 1,
    "freeze": [],
    "optimizer": "adamw",
    "reading": 0,
    "undegraded": 0.0,
    "scale": 1.0,
}
"""Settings that the records of earlier runs and caches lack, as they were."""


@dataclass(frozen=True)
class SamplePlace:
    """Where a sample lies: its shard's number, and (start, size) of each member; whether it is lean."""

    shard: int
    key: str
    lean: bool
    members: Mapping[str, tuple[int, int]]


@dataclass(frozen=True, eq=False)
class SampleIndex:
    """Samples, a row each. size: (width, height) of the images; channels: of a, b and the ground truth; spans: (start,
    size) of the members ``names`` from the sample's own start, 0 where it has no such member. category: the index into
    ``CATEGORIES``.
    """

    names: tuple[str, ...]
    source: np.ndarray
    category: np.ndarray
    shard: np.ndarray
    key: np.ndarray
    lean: np.ndarray
    size: np.ndarray
    channels: np.ndarray
    start: np.ndarray
    spans: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, row: int) -> SamplePlace:
        start = int(self.start[row])
        members = {
            name: (start + int(at), int(size))
            for name, (at, size) in zip(self.names, self.spans[row], strict=True)
            if at
        }
        return SamplePlace(int(self.shard[row]), str(self.key[row]), bool(self.lean[row]), members)

    def where(self, mask: np.ndarray) -> SampleIndex:
        """Some of the rows."""
        columns = {name: getattr(self, name)[mask] for name in COLUMNS}
        return SampleIndex(self.names, **columns)

    @staticmethod
    def joined(parts: Sequence[SampleIndex]) -> SampleIndex:
        """One after the other."""
        names = tuple(dict.fromkeys(name for part in parts for name in part.names))
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS if name != "spans"}
        spans = np.zeros((len(columns["start"]), len(names), 2), np.uint32)
        row = 0
        for part in parts:
            spans[row : row + len(part), [names.index(name) for name in part.names]] = part.spans
            row += len(part)
        return SampleIndex(names, **columns, spans=spans)


COLUMNS = ("source", "category", "shard", "key", "lean", "size", "channels", "start", "spans")


@dataclass(frozen=True, eq=False)
class Corpus:
    """The samples of a run: those to train on, those to validate on.

    sources: the arguments that name shards; belongs: the source of each shard; sizes: their bytes;
    contents: see ``shard_content``. lean: the tasks that
    lean samples are of. cached: what the latents that they hold were made with, None where they hold pictures.
    """

    sources: tuple[str, ...]
    shards: tuple[Path, ...]
    belongs: tuple[int, ...]
    sizes: tuple[int, ...]
    contents: tuple[tuple[str, str | None], ...]
    train: SampleIndex
    held_out: SampleIndex
    lean: tuple[Task, ...] = ()
    cached: Mapping[str, Any] | None = None

    def said_of_held_out(self) -> str:
        """How many samples are held out, and what it means where they are few."""
        said = f"{len(self.held_out)} held out"
        if not 0 < len(self.held_out) < FEW:
            return said
        decided = self.cached or any(_split(path) == "val" for path in self.shards)
        remedy = "" if decided else "; --hold-out takes more"
        return f"{said}: fewer than {FEW} choose the best weights partly by chance{remedy}"

    @property
    def instructed(self) -> bool:
        """Whether some prompts ask to change the tone or to mark a class."""
        return bool(np.isin(self.train.category, [CATEGORIES.index("control"), CATEGORIES.index("segment")]).any())

    def fingerprint(self) -> list[ShardRow]:
        """The shards by source, name, size and content, in order, as a run's record holds them."""
        rows = zip(self.belongs, self.shards, self.sizes, self.contents, strict=True)
        return [(source, path.name, size, *content) for source, path, size, content in rows]

    def drawn_by(self, mix: Mix | None = None) -> np.ndarray:
        """The number by sample of what ``weights`` has the weights of: its category where ``mix`` names them."""
        return self.train.category if isinstance(mix, Mapping) else self.train.source

    def weights(self, mix: Mix | None = None) -> list[Fraction]:
        """How often each source is drawn from: ``mix``, in their order, else by their samples.

        Or each category, where ``mix`` names them: one that it does not name is not drawn. Raises UserError where it is
        not one weight of at least 0 a source, or gives one to a source or category without samples.
        """
        if isinstance(mix, Mapping):
            return self._category_weights(mix)
        counts = np.bincount(self.train.source, minlength=len(self.sources)).tolist()
        if mix is None:
            return [Fraction(count) for count in counts]
        said = ",".join(f"{weight:g}" for weight in mix)
        if len(mix) != len(counts):
            these = ", ".join(self.sources)
            raise UserError(f"--mix {said}: {plural(len(mix), 'weight')} for {plural(len(counts), 'source')}: {these}")
        if not all(0 <= weight < float("inf") for weight in mix) or not any(mix):
            raise UserError(f"--mix {said}: weights must be at least 0, and one of them above it")
        for weight, count, source in zip(mix, counts, self.sources, strict=True):
            if weight and not count:
                raise UserError(f"--mix {said}: {source} has no samples to train on: its weight must be 0")
        return [Fraction(str(weight)) for weight in mix]

    def _category_weights(self, mix: Mapping[str, float]) -> list[Fraction]:
        said = ",".join(f"{name}={weight:g}" for name, weight in mix.items())
        for name in mix:
            check_name(f"category in --mix {said}", name, CATEGORIES)
        if not all(0 <= weight < float("inf") for weight in mix.values()) or not any(mix.values()):
            raise UserError(f"--mix {said}: weights must be at least 0, and one of them above it")
        counts = np.bincount(self.train.category, minlength=len(CATEGORIES)).tolist()
        for name, count in zip(CATEGORIES, counts, strict=True):
            if mix.get(name) and not count:
                raise UserError(f"--mix {said}: no sample of {name} to train on: its weight must be 0")
        return [Fraction(str(mix.get(name, 0))) for name in CATEGORIES]


def shards_changed(
    before: Sequence[Sequence[Any]], now: Sequence[Sequence[Any]], paths: Sequence[Path] = ()
) -> str | None:
    """How a run's shards differ from those it began with, in words; None where they do not.

    paths: of the shards now. One that is what its receipt says, then and now, has been mended, not changed.
    """
    old, new = ([(row[0], row[1]) for row in rows] for rows in (before, now))
    found = {
        "is missing": [name for _, name in Counter(old) - Counter(new)],
        "is new": [name for _, name in Counter(new) - Counter(old)],
        "has changed": [],
    }
    if old == new:
        places = dict(zip(map(tuple, now), paths, strict=bool(paths)))
        found["has changed"] = [
            was[1]
            for was, row in zip(before, now, strict=True)
            if content_differs(was[2:], row[2:]) and not _is_mended(was, row, places.get(tuple(row)))
        ]
    for what, names in found.items():
        if names:
            more = f", and {len(names) - 1} more" if len(names) > 1 else ""
            return f"{min(names)} {what}{more}"
    return None if old == new else "their order is another"


def _is_mended(was: Sequence[Any], row: Sequence[Any], path: Path | None) -> bool:
    """Whether a shard has the sha256 that its receipt says, then and now: read whole, where its blocks differ."""
    if path is None or len(was) < 5 or was[4] is None or was[4] != row[4]:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == row[4]


def index(paths: Sequence[str], hold_out: float | None = None) -> Corpus:
    """Find all samples of the training and validation shards that ``paths`` name, a source an argument.

    ``*-val-*`` is validated on where there is any, else 5 % of the pairs by hash, or what ``hold_out`` says: below 1 a
    share of the pairs, else their number. ``*-test-*`` is left alone. A shard of another name is trained on. Raises
    UserError where there is nothing to train on, a shard is cut short or lacks a member, its pairs are real, without
    ground truth, or ``hold_out`` has no effect.
    """
    found = find_local_sources(paths)
    rows = [(number, path) for number, source in enumerate(found) for path in source.shards if _split(path) != "test"]
    if not rows:
        _explain(found, paths)
    shards = [path for _, path in rows]
    by_split = any(_split(path) == "val" for path in shards)
    read = [_shard(number, source, path, by_split) for number, (source, path) in enumerate(rows)]
    _check_kinds(read, shards)
    if hold_out is not None and (by_split or read[0].cached):
        decided = "by train cache" if read[0].cached else "by the validation shards, *-val-*"
        raise UserError(f"--hold-out {hold_out:g}: what is held out is decided {decided}")
    places = SampleIndex.joined([one.places for one in read])
    ranks = np.concatenate([one.ranks for one in read])
    held = ranks < _threshold(ranks, HELD_OUT if hold_out is None else hold_out)
    if held.all():
        raise UserError(f"{', '.join(paths)}: no samples to train on: {len(held)} are held out")
    lean = set[Task]().union(*(one.lean for one in read))
    return Corpus(
        tuple(one.text for one in found),
        tuple(shards),
        tuple(source for source, _ in rows),
        tuple(path.stat().st_size for path in shards),
        tuple(map(shard_content, shards)),
        places.where(~held),
        places.where(held),
        tuple(task for task in TASKS if task in lean),
        made_with(shards) if read[0].cached else None,
    )


def _threshold(ranks: np.ndarray, hold_out: float) -> float:
    """The rank below which pairs are held out: a share is one itself, a number of pairs are the first of them."""
    if hold_out < 1:
        return hold_out
    pairs = np.unique(ranks)
    return float(pairs[int(hold_out)]) if hold_out < len(pairs) else np.inf


def _explain(found: Iterable[LocalSource], paths: Sequence[str]) -> None:
    """Say why there is nothing: test shards of real pairs say it themselves."""
    for source in found:
        for path in source.shards:
            next(_read(path), None)
    raise UserError(f"{', '.join(paths)}: no shards to train on")


def _split(path: Path) -> str:
    match = SHARD.match(path.name)
    return match[2] if match else "train"


@dataclass(frozen=True, eq=False)
class _Shard:
    """What one shard holds. ranks: of its samples, in [0, 1], lower ones are held out first; equal for a pair's.

    cached: whether there is a sample with latents; plain: one without.
    """

    places: SampleIndex
    ranks: np.ndarray
    lean: set[Task]
    cached: bool
    plain: bool


def _shard(number: int, source: int, path: Path, by_split: bool) -> _Shard:
    """Read a shard's headers. by_split: whether names say what is held out; of a cache, its samples do."""
    entries = list(_read(path))
    names = tuple(dict.fromkeys(name for span, _ in entries for name in span.members))
    if len(names) > MOST_MEMBERS:  # a column each
        raise UserError(f"{path}: has {len(names)} kinds of members, {names[-1]} among them: at most {MOST_MEMBERS}")
    columns = {name: column for column, name in enumerate(names)}
    spans = np.zeros((len(entries), len(names), 2), np.uint32)
    for row, (span, _) in enumerate(entries):
        for name, (at, size) in span.members.items():
            spans[row, columns[name]] = at - span.start, size
    lean = [isinstance(meta, SampleMeta) and meta.lean for _, meta in entries]
    places = SampleIndex(
        names,
        np.full(len(entries), source, np.int32),
        np.array([CATEGORIES.index(meta.category) for _, meta in entries], np.int8),
        np.full(len(entries), number, np.int32),
        np.array([span.key for span, _ in entries], np.str_),
        np.array(lean, np.bool_),
        np.array([meta.crop[2:] for _, meta in entries], np.int32).reshape(-1, 2),
        np.array([_channels(meta) for _, meta in entries], np.int8).reshape(-1, 3),
        np.array([span.start for span, _ in entries], np.int64),
        spans,
    )
    cached = [isinstance(meta, LatentMeta) for _, meta in entries]
    ranks = [_rank(meta, _split(path) == "val" if by_split else None) for _, meta in entries]
    tasks: set[Task] = {meta.task for (_, meta), is_lean in zip(entries, lean, strict=True) if is_lean}
    return _Shard(places, np.array(ranks, np.float64), tasks, any(cached), not all(cached))


def _channels(meta: SampleMeta | LatentMeta) -> list[int]:
    if isinstance(meta, LatentMeta):
        return [3, 3, 3]
    return [meta.channels.get(name, 3) for name in ("a", "b", "gt")]


def _rank(meta: SampleMeta | LatentMeta, named: bool | None) -> float:
    """By hash of the pair; 0 or 1 where it is decided already whether the sample is held out."""
    if isinstance(meta, LatentMeta):
        named = meta.cached.held_out
    return unit_hash("held out", meta.dataset, meta.pair) if named is None else float(not named)


def _check_kinds(read: Sequence[_Shard], shards: Sequence[Path]) -> None:
    """Raise UserError where some samples hold latents and others do not."""
    cached = [path for path, one in zip(shards, read, strict=True) if one.cached]
    plain = [path for path, one in zip(shards, read, strict=True) if one.plain]
    if cached and plain:
        raise UserError(f"{cached[0]} holds latents of train cache, {plain[0]} does not: give one kind")


def made_with(shards: Sequence[Path]) -> dict[str, Any]:
    """What the latents of these shards were made with, from their receipts. Raises UserError where they differ."""
    found: dict[str, Any] = {}
    for shard in shards:
        receipt = receipt_path(shard)
        assert isinstance(receipt, Path)
        if not receipt.is_file():
            raise UserError(f"{shard}: its receipt {receipt.name} must be beside it: it says what made the latents")
        settings = read_receipt(receipt).settings
        if settings.get("kind") != KIND or not isinstance(settings.get("made"), dict):
            raise UserError(f"{receipt}: is no receipt of train cache")
        found = found or settings["made"]
        for name in {*found, *settings["made"]}:
            if found.get(name) != settings["made"].get(name):
                raise UserError(f"{shard}: was cached with another {name} than {shards[0]}: give shards of one kind")
    return found


def _read(path: Path) -> Iterator[tuple[Span, SampleMeta | LatentMeta]]:
    """Each sample of a tar and its ``json``; only headers and that member are read."""
    try:
        spans = read_spans(path)
        with path.open("rb") as file:
            for span in spans:
                yield span, _meta(file, path, span)
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: {error}; see synth verify") from None


def _meta(file: io.BufferedIOBase, path: Path, span: Span) -> SampleMeta | LatentMeta:
    members: dict[str, bytes] = {}
    if "json" in span.members:
        start, size = span.members["json"]
        file.seek(start)
        members["json"] = file.read(size)
    if holds_latents(span.members):
        return read_latent_meta(span.key, members)
    meta = read_meta(span.key, members)
    if meta.real:
        raise UserError(f"{path}: its pairs are real, without ground truth to train on; they are for train eval")
    coded = {name.rpartition(".")[0] for name in span.members if name.rpartition(".")[2] in CODECS}
    for name in (*meta.images, *(() if meta.lean else ("txt",))):
        if name not in coded and name not in span.members:
            raise ValueError(f"sample {span.key}: member {name} is missing")
    return meta

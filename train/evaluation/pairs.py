"""Pairs in plain folders as an evaluation's samples: ``train eval --pairs A,B[,GT]``, without a build of shards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from clearfuse.synth import console
from clearfuse.synth.datasets.find import find_all
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.datasets.read import read_image, read_pair
from clearfuse.synth.datasets.select import Match, folders, with_match
from clearfuse.synth.files.pictures import upright_size
from clearfuse.synth.seeds import seed_of
from clearfuse.synth.shards.records import Origin, PromptRecord, SampleMeta
from clearfuse.synth.shards.sample import Sample
from clearfuse.synth.types import NO_TRUTH, SCHEMA, TASKS, BadPair, PairRef, UserError, check_name
from clearfuse.train.evaluation.samples import Part, Portion
from clearfuse.train.pipeline.pictures.find import some_names
from clearfuse.train.pipeline.task import as_task, find_task

AUTO = "auto"


@dataclass(frozen=True)
class PairPart(Part):
    """Some of the pairs."""

    pairs: tuple[PairRef, ...] = ()

    def read(self) -> Iterator[Sample]:
        """The pairs as samples: see ``sample_of``."""
        return map(sample_of, self.pairs)


@dataclass(frozen=True)
class PairPortion(Portion):
    """The pairs of two folders. ``path`` is the first; ``real``: they have no clean side but themselves."""

    pairs: tuple[PairRef, ...] = ()

    @property
    def truth(self) -> bool:
        """Whether they have a ground truth."""
        return "gt" in self.pairs[0].sources

    def part(self, number: int, start: int, stop: int) -> PairPart:
        """See ``Portion``."""
        return PairPart(number, self.path, start, stop, self.pairs[start:stop])

    def content(self) -> tuple[str, ...]:
        """Names, sizes and times of the files, which decide the scores."""
        paths = [Path(path) for ref in self.pairs for path in ref.sources.values()]
        facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
        return (f"{seed_of(self.pairs[0].task, self.pairs[0].scale, *facts):x}",)


def pair_portions(
    location: str, task: str = AUTO, *, match: Match = None, scale: int | None = None, limit: int | None = None
) -> tuple[Portion, ...]:
    """The pairs of ``DIR_A,DIR_B[,DIR_GT]``, found by the names of their files.

    task: auto: told by the first pair. match: patterns of the names, see ``datasets.select.with_match``. scale: the
    count of white in pictures of 16 bits. Raises UserError, before work begins, where there are no pairs, one can't be
    read by its header or differs in size, or some have a ground truth and others not.
    """
    check_name("task", task, (AUTO, *TASKS))
    places = folders(with_match((f"folder={location}",), match), "--pairs ")["folder"]
    try:
        found = find_all(load_manifest("folder"), places, as_task(task))
    except UserError as error:
        raise UserError(str(error).replace("--data folder=", "--pairs ").replace("folder=DIR", "DIR")) from None
    if found.unpaired:
        console.note(f"{len(found.unpaired)} images have no partner and are left out: {some_names(found.unpaired)}")
    pairs = [replace(ref, scale=scale) for ref in list(found.pairs)[:limit]]
    with_truth = [ref for ref in pairs if "gt" in ref.sources]
    if with_truth and len(with_truth) < len(pairs):
        alone = [ref.key for ref in pairs if "gt" not in ref.sources]
        said = f"{len(alone)} pairs have no ground truth, and others have: {some_names(alone)}"
        raise UserError(f"--pairs {location}: {said}")
    for ref in pairs:
        _check_sizes(ref)
    if task == AUTO:
        pairs = _told(pairs)
    return (PairPortion(Path(location.split(",")[0]), len(pairs), len(pairs), True, tuple(pairs)),)


def _check_sizes(ref: PairRef) -> None:
    """Raise UserError where a header can't be read, or sizes differ."""
    try:
        sizes = {name: upright_size(path) for name, path in ref.sources.items()}
    except (BadPair, OSError) as error:
        raise UserError(f"pair {ref.key}: {error}") from None
    if len(set(sizes.values())) > 1:
        said = ", ".join(f"{name} {width}x{height}" for name, (width, height) in sizes.items())
        raise UserError(f"pair {ref.key}: sizes differ: {said}")


def _told(pairs: list[PairRef]) -> list[PairRef]:
    """The pairs with the task of the first, said in one line, in the order of its pictures."""
    first = pairs[0]
    try:
        told = find_task(*(read_image(first.sources[side], scale=first.scale)[0] for side in ("a", "b")))
    except BadPair as error:
        raise UserError(f"pair {first.key}: {error}") from None
    order = "; the second folder is taken first" if told.swapped else ""
    console.note(
        f"task: {told.task}, as {told.why}{order}; else --task {' or '.join(t for t in TASKS if t != told.task)}"
    )
    turned = {"a": "b", "b": "a"} if told.swapped else {}
    return [
        replace(ref, task=told.task, sources={turned.get(name, name): path for name, path in ref.sources.items()})
        for ref in pairs
    ]


def sample_of(ref: PairRef) -> Sample:
    """A pair as a sample, without steps, prompt and clean side. Raises ValueError where a file is damaged."""
    try:
        pair = read_pair(ref)
    except BadPair as error:
        raise ValueError(f"pair {ref.key}: {error}") from None
    images = {"a": pair.a, "b": pair.b} | ({} if pair.gt is None else {"gt": pair.gt})
    height, width = pair.a.shape[:2]
    meta = SampleMeta(
        schema=SCHEMA, task=ref.task, dataset=ref.dataset, pair=ref.key, variant=0, split="test",
        sources=dict(pair.sha256), crop=(0, 0, width, height), ratio=f"{width}:{height}",
        channels={name: image.shape[2] for name, image in images.items()}, n=0, steps=(),
        prompt=PromptRecord(templates=(), strength=None, asked=()),
        fuser=Origin(name=NO_TRUTH if pair.gt is None else "dataset", weights=None), depth=None, seed=0, recipe="",
        real=True,
    )  # fmt: skip
    return Sample(ref.key, images, None, "", meta)

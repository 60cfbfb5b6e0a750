"""A benchmark's page: ``manifests/benchmarks/NAME.toml``, or a TOML file of the user's own.

Its upper part says what is built. The lower part, which ``bench build --write-digests`` writes, holds the hashes: of
the sets' files, which choose the pairs, and of the shards that come of them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, model_validator

from clearfuse.synth.datasets.manifest import Manifest, load_manifest
from clearfuse.synth.files.jsonstream import dumps
from clearfuse.synth.files.resources import read_toml, resource_dir, resource_names
from clearfuse.synth.files.schema import Schema, StrictModel, validate
from clearfuse.synth.files.storage import local
from clearfuse.synth.samples.recipe import Recipe, Unit, load_recipe
from clearfuse.synth.shards.records import SampleMeta, Sha256
from clearfuse.synth.shards.tar import shard_name
from clearfuse.synth.types import Task, UserError, check_name

FOLDER = "manifests/benchmarks"
SHARD = 64
"""The most pairs of a set: then a variant of a part is one shard."""
REAL, GIVEN = "real", "given"
"""The parts of sets that come degraded: without a clean side, and with one."""
Few = Annotated[int, Field(ge=0, le=SHARD)]


class TaskEntry(StrictModel):
    """How the pairs of a task are degraded."""

    recipe: str
    """The recipe: each of its operators alone makes a part, and each number of ``mixes`` one of several together."""


class SetEntry(StrictModel):
    """A data set, and how many of its pairs are used."""

    name: str
    """The manifest's name."""
    task: Task
    """vif, mef or mff."""
    split: Literal["train", "val", "test"] = "test"
    """The split, where the set has its own."""
    truth: Literal["pyramid", "dataset", ""] = ""
    """What the ground truth is: pyramid, fused from the clean pair; or dataset, the set's own. None of real pairs."""
    pairs: Annotated[int, Field(ge=1, le=SHARD)]
    """Pairs at most, fewer where the set has fewer."""
    single: Few = 0
    """Pairs that each operator alone degrades; operators take the set's pairs in turn."""
    mix: Few = 0
    """Pairs that each number of operators together degrades."""
    note: str = ""
    """What a reader must know of it."""

    @property
    def key(self) -> str:
        """How messages and files call it: ``vif/msrs``."""
        return f"{self.task}/{self.name}"

    @cached_property
    def manifest(self) -> Manifest:
        """The set's manifest."""
        return load_manifest(self.name)

    @property
    def kind(self) -> str:
        """REAL, GIVEN, or nothing where the benchmark degrades it."""
        manifest = self.manifest
        return REAL if manifest.real else GIVEN if manifest.degraded_a or manifest.degraded_b else ""


class ShardDigest(StrictModel):
    """A shard as it must come out."""

    sha256: Sha256
    """Of the tar."""
    samples: Annotated[int, Field(ge=0, le=SHARD)]
    """How many it holds; pairs that an operator cannot act on are not there."""


class BenchmarkFile(StrictModel):
    """A benchmark: what is built of which pairs, and the hashes by which it is the same everywhere."""

    schema_: Schema
    title: str
    """Its name in full."""
    about: str = ""
    """What it is for, in a sentence or two."""
    seed: Annotated[int, Field(ge=0, lt=2**53)]
    """The seed of all its builds."""
    severities: Annotated[list[Unit], Field(min_length=1, max_length=9)]
    """The strengths of single degradations, 0 mild to 1 strong."""
    mixes: list[Annotated[int, Field(ge=2, le=9)]]
    """How many degradations a mix has."""
    depth: Literal["prior", "small"]
    """Where depth comes from; what needs no download."""
    codec: Literal["webp", "png"] = "webp"
    """The shards' lossless codec."""
    metrics: Annotated[list[str], Field(min_length=1)]
    """What methods are scored by."""
    real_metrics: list[str] = []  # noqa: RUF012
    """The same of pairs without a ground truth."""
    tasks: dict[Task, TaskEntry]
    """The tasks and their recipes."""
    sets: Annotated[list[SetEntry], Field(min_length=1)]
    """The data sets."""
    versions: dict[str, str] = {}  # noqa: RUF012
    """The versions that decided the shards' bytes when they were hashed."""
    files: dict[str, dict[str, dict[str, Sha256]]] = {}  # noqa: RUF012
    """The sha256 of a set's files by set (vif/msrs), pair and image: they choose the pairs."""
    shards: dict[str, ShardDigest] = {}  # noqa: RUF012
    """The shards by path below the benchmark's folder."""
    _name: str = PrivateAttr("")
    _path: Path = PrivateAttr(Path())

    @property
    def name(self) -> str:
        """The file's, by which users call it."""
        return self._name

    @property
    def path(self) -> Path:
        """Where its page lies."""
        return self._path

    @model_validator(mode="after")
    def _check(self) -> BenchmarkFile:
        """Sets are known, each once a task, with a recipe, and a truth where they have a clean side."""
        keys = [entry.key for entry in self.sets]
        for entry in self.sets:
            try:
                check_name("task of the page", entry.task, self.tasks)
                kind = entry.kind
            except UserError as error:
                raise ValueError(f"sets: {entry.key}: {error}") from None
            if keys.count(entry.key) > 1:
                raise ValueError(f"sets: {entry.key} is there twice")
            if entry.manifest.task not in (entry.task, "any"):
                raise ValueError(f"sets: {entry.key}: the set is for {entry.manifest.task}")
            if bool(entry.truth) == (kind == REAL):
                raise ValueError(f"sets: {entry.key}: {'has no ground truth' if entry.truth else 'truth is missing'}")
            if bool(entry.single or entry.mix) == bool(kind):
                raise ValueError(f"sets: {entry.key}: {'comes degraded' if kind else 'single and mix are missing'}")
        return self

    @property
    def definition(self) -> str:
        """The sha256 of what decides what is built and measured, hashes and words left out: the same page, or not."""
        told = self.model_dump(by_alias=True, exclude={"title", "about", "versions", "files", "shards"})
        for entry in told["sets"]:
            del entry["note"]
        recipes = {task: dict(self.recipe(task).source) for task in self.tasks}
        return hashlib.sha256(dumps({**told, "recipes": recipes})).hexdigest()

    def recipe(self, task: Task) -> Recipe:
        """A task's recipe. Raises UserError where it is of another task."""
        return load_recipe(self.tasks[task].recipe, task=task)

    def keys(self, entry: SetEntry) -> tuple[str, ...]:
        """The pairs of a set: built-in scenes by number, others as ``files`` has them; none where it has no hashes."""
        if entry.manifest.builtin:
            return tuple(f"{entry.split}-{number:06d}" for number in range(entry.pairs))
        return tuple(self.files.get(entry.key, ()))

    def parts(self, entry: SetEntry) -> list[Part]:
        """The builds of a set: one an operator and one a mix, or one of all its pairs where it comes degraded."""
        keys = self.keys(entry)
        if not keys:
            return []
        if entry.kind:
            return [Part(self, entry, entry.kind, keys)]
        names = list(self.recipe(entry.task).operators)
        parts = [Part(self, entry, op, _turn(keys, i, entry.single)) for i, op in enumerate(names)]
        parts += [Part(self, entry, f"n{n}", _turn(keys, i, entry.mix)) for i, n in enumerate(self.mixes)]
        return [part for part in parts if part.keys]


@dataclass(frozen=True)
class Part:
    """One build of a benchmark. what: an operator, ``n2``, ``real`` or ``given``; keys: of its pairs."""

    page: BenchmarkFile
    entry: SetEntry
    what: str
    keys: tuple[str, ...]

    @property
    def folder(self) -> str:
        """Its place below the benchmark's folder: ``vif/msrs-haze``."""
        return f"{self.entry.key}-{self.what}"

    @property
    def mixed(self) -> bool:
        """Whether several operators degrade a pair."""
        return self.what in {f"n{n}" for n in self.page.mixes}

    @property
    def variants(self) -> int:
        """Degraded versions of a pair: of a single operator one a strength."""
        return 1 if self.mixed or self.entry.kind else len(self.page.severities)

    @property
    def shards(self) -> list[str]:
        """The paths of its shards below the benchmark's folder, one a variant."""
        names = (shard_name(self.entry.task, self.entry.split, number) for number in range(self.variants))
        return [f"{self.folder}/{name}" for name in names]

    def options(self, location: str | None) -> dict[str, Any]:
        """The options of ``synth build`` that make it. location: the set's folder, None of built-in scenes."""
        page, entry = self.page, self.entry
        chosen: dict[str, Any] = {
            "task": entry.task, "split": entry.split, "keys": self.keys, "recipe": page.tasks[entry.task].recipe,
            "seed": page.seed, "codec": page.codec, "shard_size": SHARD, "max_rejects": 1.0,
            "data": () if location is None else (f"{entry.name}={location}",),
        }  # fmt: skip
        if entry.kind == REAL:
            return chosen
        chosen |= {"fuser": entry.truth, "variants": self.variants}
        if entry.kind == GIVEN:
            return chosen
        chosen |= {"depth": page.depth, "n": self.what.removeprefix("n") if self.mixed else "1"}
        if not self.mixed:
            others = [op for op in page.recipe(entry.task).operators if op != self.what]
            weights = [f"operators.{op}.weight=0" for op in others]
            chosen["sets"] = (*weights, f"severity={{schedule={page.severities}}}")
        return chosen


def _turn(keys: tuple[str, ...], number: int, count: int) -> tuple[str, ...]:
    """``count`` of the keys, those of ``number`` behind those of the one before, around the end and on."""
    drawn = (keys[(number * count + i) % len(keys)] for i in range(min(count, len(keys))))
    return tuple(sorted(set(drawn), key=keys.index))


def sample_name(meta: SampleMeta, key: str) -> str:
    """What a sample is called among all of its task: ``msrs-haze-000000001``; a sample's key is unique in a build."""
    kind = REAL if meta.real else GIVEN if meta.given else meta.steps[0].op if meta.n == 1 else f"n{meta.n}"
    return f"{meta.dataset}-{kind}-{key}"


def load_page(name: str) -> BenchmarkFile:
    """A benchmark by name, or by a TOML file's path. Raises UserError, one line."""
    if name.endswith(".toml") or "/" in name:
        path = local(name, "benchmark")
        if not path.is_file():
            raise UserError(f"benchmark file {name} does not exist")
    else:
        check_name("benchmark", name, resource_names(FOLDER))
        path = resource_dir(FOLDER) / f"{name}.toml"
    page = validate(BenchmarkFile, read_toml(path), str(path))
    page._name, page._path = path.stem, path
    for task in page.tasks:
        page.recipe(task)
    return page

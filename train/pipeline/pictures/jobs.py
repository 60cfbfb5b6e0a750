"""What is fused into one image: files, or a sample of a shard, read where it is due."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Protocol, runtime_checkable

from clearfuse.synth import color
from clearfuse.synth.datasets.read import as_grey
from clearfuse.synth.files.archives import is_member
from clearfuse.synth.files.pictures import Header, Picture, read_picture, upright_header
from clearfuse.synth.files.storage import is_url
from clearfuse.synth.shards.sample import Sample, decode_sample
from clearfuse.synth.shards.tar import read_members
from clearfuse.synth.types import MODALITIES, TASKS, BadPair, Modality


@runtime_checkable
class Job(Protocol):
    """One fused image to make."""

    @property
    def target(self) -> Path:
        """Where it is written."""
        ...

    @property
    def names(self) -> Sequence[str]:
        """What is fused, in order, for messages."""
        ...

    @property
    def task(self) -> str | None:
        """The task where the inputs say it."""
        ...

    def header(self, number: int) -> Header | None:
        """The header of an input, None where there is no file to look at. Raises BadPair or OSError."""
        ...

    def load(self, number: int, modality: Modality = "visible", scale: int | None = None) -> Picture:
        """An input, in its own depth. Raises BadPair."""
        ...

    def prompt(self) -> str | None:
        """The instruction that comes with the inputs."""
        ...

    def to(self, target: Path) -> Job:
        """The same, written elsewhere."""
        ...


@dataclass(frozen=True)
class Files:
    """Picture files, local paths, URLs or members of tars. scale: the count of white that their data set says."""

    paths: tuple[str, ...]
    target: Path
    task: str | None = None
    scale: int | None = None

    @property
    def names(self) -> Sequence[str]:
        """The names of the files."""
        return [Path(path).name for path in self.paths]

    def header(self, number: int) -> Header | None:
        """See ``Job``."""
        path = self.paths[number]
        return None if is_url(path) or is_member(path) else upright_header(path)

    def load(self, number: int, modality: Modality = "visible", scale: int | None = None) -> Picture:
        """See ``Job``."""
        return read_picture(self.paths[number], modality, scale or self.scale)

    def prompt(self) -> str | None:
        """None: files bring no instruction."""
        return None

    def to(self, target: Path) -> Files:
        """See ``Job``."""
        return replace(self, target=target)


@dataclass(frozen=True)
class ShardSample:
    """The degraded pair of a sample, with its prompt. at: where it begins in its shard."""

    shard: Path
    key: str
    at: int
    target: Path
    task: str

    @property
    def names(self) -> Sequence[str]:
        """The names of the members."""
        return [f"{self.shard.name}, {self.key}.{side}" for side in ("a", "b")]

    def header(self, number: int) -> Header | None:
        """None: pictures of a sample are of one size."""
        return None

    def load(self, number: int, modality: Modality = "visible", scale: int | None = None) -> Picture:
        """See ``Job``."""
        return Picture(_sample(self.shard, self.at).images["ab"[number]])

    def prompt(self) -> str | None:
        """The sample's."""
        return _sample(self.shard, self.at).prompt

    def to(self, target: Path) -> ShardSample:
        """See ``Job``."""
        return replace(self, target=target)


@lru_cache(maxsize=1)
def _sample(shard: Path, at: int) -> Sample:
    """The sample that begins at a place of a shard. Raises BadPair where it is damaged."""
    try:
        with shard.open("rb") as file:
            ((key, members),) = islice(read_members(file, at), 1)
            return decode_sample(key, members, ("a", "b"), depth=False)
    except ValueError as error:
        raise BadPair(f"{shard.name}: {error}") from None


def load_as(job: Job, number: int, task: str, scale: int | None) -> Picture:
    """An input as builds read it: an infrared one has one channel and 8 bits, those of another task are as stored.

    The fused image of a visible and an infrared picture has the visible one's depth: counts of a thermal camera are
    scaled by their range, and have no code values of their own.
    """
    kind: Modality = modality(task, number)
    picture = job.load(number, kind, scale)
    return in_8_bits(picture) if kind == "infrared" else picture


def modality(task: str, number: int) -> Modality:
    """What an input shows; all of another kind of pair are visible."""
    return MODALITIES[task]["ab"[number]] if task in TASKS and number < 2 else "visible"  # type: ignore[index]


def in_8_bits(picture: Picture) -> Picture:
    """A picture of one channel and 8 bits."""
    image = picture.image if picture.image.dtype.kind == "u" else color.to_uint8(picture.image)
    return Picture(as_grey(image), picture.alpha)

"""What the JSON in a folder of shards says, as models: samples, of pictures or of latents, receipts, and indexes.

Each field stands here once, with its bounds, for what is written and for what is read. Fields that this version does
not know are let pass: a new one does not raise the schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from clearfuse.synth.files.schema import Schema, StrictModel, finite
from clearfuse.synth.types import Category, Step, Tag, Target, Task

IMAGES = ("a", "b", "clean_a", "clean_b", "gt")
LEAN_IMAGES = ("clean_a", "clean_b", "gt")
"""The images of a lean sample, which is degraded where it is read."""
REAL_IMAGES = ("a", "b")
"""The images of a real sample, which has no clean side."""
LATENTS = ".safetensors"
"""How the names of a sample's members end that hold latents, or the pictures that are held out of them."""


def held_images(*, lean: bool, real: bool) -> tuple[str, ...]:
    """The images that a sample of a kind holds."""
    if real:
        return REAL_IMAGES
    return LEAN_IMAGES if lean else IMAGES


def member_names(codec: str, *, lean: bool, real: bool) -> list[str]:
    """The members of a sample of a kind, in the order of the tar: ``a.webp``, ..., ``txt``, ``json``."""
    images = [f"{name}.{codec}" for name in held_images(lean=lean, real=real)]
    return images + ([] if real else ["depth.png"]) + ([] if lean else ["txt"]) + ["json"]


SIDE = 1 << 20
"""Pixels of the longest side that any codec's file may have."""

Count = Annotated[int, Field(ge=0, lt=1 << 53)]
"""A number of things, of bytes, or a seed."""
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
ShardName = Annotated[str, Field(pattern=r"^[^/]+\.tar$", max_length=255)]
Name = Annotated[str, Field(min_length=1, max_length=4096)]
Length = Annotated[int, Field(ge=1, le=SIDE)]
Position = Annotated[int, Field(ge=0, le=SIDE)]
CropBox = tuple[Position, Position, Length, Length]
"""Left, top, width and height, in pixels of the whole image."""
Split = Literal["train", "val", "test"]
Table = Annotated[dict[str, Any], AfterValidator(finite)]
"""An object whose fields depend on something else; its numbers are finite."""


def _finite_step(step: Step) -> Step:
    finite(step.params)
    return step


class Record(StrictModel):
    """The base of all that is read from a folder of shards."""

    model_config = ConfigDict(extra="ignore", use_attribute_docstrings=True)


class Versioned(Record):
    """A file, or a sample's ``json``, that says its schema."""

    schema_: Schema


class Origin(Record):
    """What made a sample's ground truth or depth."""

    name: Name
    weights: str | None
    """The hash of the network's weights, or of the maps; null where there are none."""


class PromptRecord(Record):
    """How a sample's prompt came about; its text is the member ``txt``."""

    templates: tuple[str, ...]
    """The phrasings that it was made of."""
    strength: str | None
    """How strong it calls the degradations; null where it does not say."""
    asked: tuple[Annotated[int, Field(ge=0, lt=1 << 16)], ...]
    """The steps, by number, that it asks to remove."""


class Exposed(Record):
    """How a multi-exposure pair was made of a single picture: see ``samples.single.expose``."""

    n: Annotated[float, Field(gt=0, le=4)]
    """Exponent of the camera curve."""
    sigma: Annotated[float, Field(gt=0, le=16)]
    """Shoulder of the camera curve."""
    ev_a: Annotated[float, Field(ge=-16, lt=0)]
    """Stops of a from the picture: under-exposed."""
    ev_b: Annotated[float, Field(gt=0, le=16)]
    """Stops of b from the picture: over-exposed."""


class Focused(Record):
    """How a multi-focus pair was made of a single picture: see ``samples.single.refocus``."""

    cut: Annotated[float, Field(gt=0)]
    """Metres along the optical axis between the near and the far side."""
    near: Annotated[float, Field(gt=0)]
    """Metres to the plane that a is focused on."""
    far: Annotated[float, Field(gt=0)]
    """Metres to the plane that b is focused on."""
    aperture: Annotated[float, Field(gt=0)]
    """Radius of the blur in pixels, by the difference of 1/metres from the focus."""
    blades: Annotated[int, Field(ge=0, le=16)]
    """Blades of the aperture; 0: a disk."""
    rotation: Annotated[float, Field(ge=0, le=1)]
    """Rotation of the aperture, a fraction of the angle between blades."""
    depth: Origin
    """What made the depth that it was split by."""


class Block(Record):
    """One block of a picture: what damaged it, and in which of the two inputs."""

    op: Name
    """One of the block operators."""
    side: Target
    """a, b or both."""
    params: Table
    """The operator's parameters."""


class Blocks(Record):
    """How both inputs were made of one picture, block by block: see ``samples.blocks``."""

    size: Annotated[int, Field(ge=16, le=1024)]
    """Side of a block in pixels; those at the right and at the bottom may be cut short."""
    seed: Count
    """Of the blocks' random pixels."""
    blocks: Annotated[tuple[Block, ...], Field(min_length=1)]
    """Row by row."""


class Control(Record):
    """How the target's tone was changed: see ``samples.control``."""

    tag: Tag
    """The instruction, such as LIGHT++."""
    pivot: Annotated[float, Field(ge=0, le=255)]
    """The mean luma of what was changed, in codes: contrast acts about it."""


class Segment(Record):
    """The class that the target has marked."""

    name: Name
    """Its name, as the prompt has it in English."""
    counts: tuple[Count, ...]
    """The pixels that show it, as COCO's uncompressed run lengths: down the columns, what does not show it first."""


class SampleMeta(Versioned):
    """The ``json`` of a sample of pictures, in the order of its fields."""

    task: Task
    category: Category = "fusion"
    """What its prompt asks for."""
    dataset: Name
    pair: Name
    """The pair's name in its data set."""
    variant: Count
    """Which degraded version of the pair it is, from 0."""
    split: Split
    sources: Mapping[str, str]
    """The sha256 of each source file, by image; of a built-in scene and of an image made here, that of its pixels."""
    sensor: Mapping[str, Table] = {}
    """By image, how a file that is not 8 bit was brought to 8 bit."""
    crop: CropBox
    ratio: str
    """The nominal ratio of the crop, such as 4:3."""
    channels: Mapping[str, Literal[1, 3]]
    """Of a, b and gt; a clean image has as many as its degraded one."""
    n: Annotated[int, Field(ge=0, lt=1 << 16)]
    """How many steps there are."""
    steps: tuple[Annotated[Step, AfterValidator(_finite_step)], ...]
    """The degradations, in the order in which they act: the physical one, but in a reproduction."""
    prompt: PromptRecord
    fuser: Origin
    """What made the ground truth."""
    depth: Origin | None
    """What made the depth; null where no step used any."""
    seed: Count
    """The build's."""
    recipe: str
    lean: bool = False
    """Whether it holds no degraded images: it is degraded where it is read."""
    gt_quality: Mapping[str, float | None] = {}
    """How good a fusion of the clean pair the ground truth is, by metric; null where that is undefined."""
    single: Exposed | Focused | None = None
    """How the clean pair was made of a single picture; null where it was not."""
    blocks: Blocks | None = None
    """How both inputs were made of one picture, which is clean_a and clean_b; null where they were not."""
    control: Control | None = None
    """How the target's tone was changed; null in other categories."""
    segment: Segment | None = None
    """What the target has marked; null in other categories."""
    given: bool = False
    """Whether others degraded the pair, so that its steps are names without parameters and nothing replays."""
    real: bool = False
    """Whether its pair has no clean side."""
    left: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the strength of the steps that the prompt asks to remove, which the ground truth keeps."""
    redrawn: Count = 0
    """How many plans were drawn before this one, which lost the structure of both images or turned one white."""

    def to_json(self) -> dict[str, Any]:
        """What the member ``json`` holds."""
        fields = type(self).model_fields
        left_out = {name for name, field in fields.items() if not (field.is_required() or getattr(self, name))}
        return self.model_dump(by_alias=True, exclude=left_out)

    @property
    def images(self) -> tuple[str, ...]:
        """The images that such a sample holds."""
        return held_images(lean=self.lean, real=self.real)

    @property
    def partial(self) -> bool:
        """Whether the prompt asks to remove a part of the steps only."""
        return len(self.prompt.asked) < self.n


class LatentCrop(Record):
    """One drawn crop of a sample of latents."""

    prompt: str
    marks: tuple[str, ...]
    """The names of the operators of its steps."""
    crc32: Annotated[int, Field(ge=0, lt=1 << 32)]
    """The checksum of its member."""


class Latents(Record):
    """What a sample of latents holds."""

    held_out: bool
    """Whether it is validated on, so that it holds pictures."""
    variants: Annotated[tuple[LatentCrop, ...], Field(min_length=1)]
    """Its drawn crops, which a run takes in turn."""


class LatentMeta(Versioned):
    """The ``json`` of a sample of latents, which ``train cache`` writes, in the order of its fields."""

    task: Task
    category: Category = "fusion"
    dataset: Name
    pair: Name
    split: Split
    crop: CropBox
    variant: Count
    cached: Latents


class ListedShard(Record):
    """A shard as ``dataset.json`` lists it."""

    shard: ShardName
    sha256: Sha256
    bytes: Count
    samples: Count


class Reject(Record):
    """A sample that could not be made, and why."""

    index: Count
    dataset: Name
    pair: Name
    variant: Count
    reason: str


class Receipt(ListedShard, Versioned):
    """What is written beside a shard when it is done."""

    offsets: dict[str, Count]
    """Where each sample begins in the tar, by key."""
    rejects: tuple[Reject, ...]
    redrawn: Count = 0
    """Samples whose plan was drawn again, since the first lost the structure of both images or turned one white."""
    digest: Sha256
    """Of the settings: what was asked for."""
    settings: Table


class DatasetIndex(Versioned):
    """``dataset.json``, by which a folder of shards says that it is whole."""

    variants: Count
    shards: tuple[ListedShard, ...]
    """Empty where it is read by ``read_index``: there may be a million."""
    digest: Sha256
    settings: Table


class WidsShard(Record):
    """A shard as ``index.json`` lists it."""

    url: ShardName
    nsamples: Count
    filesize: Count
    sha256: Sha256


class WidsIndex(Record):
    """``index.json``, by which ``wids`` reads the shards of one split; its URLs are relative to the file."""

    kind: Annotated[Literal["wids-shard-index-v1"], Field(alias="__kind__")] = "wids-shard-index-v1"
    wids_version: Literal[1] = 1
    name: Name
    identifier: str
    shardlist: tuple[WidsShard, ...]

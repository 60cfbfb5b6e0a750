"""A sample in memory, and its members in a shard."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from clearfuse.synth.depth import metres as depth_maps
from clearfuse.synth.files.jsonstream import dumps
from clearfuse.synth.files.storage import Location
from clearfuse.synth.shards.codecs import CODECS, Codec
from clearfuse.synth.shards.tar import read_shard
from clearfuse.synth.types import CACHED, SCHEMA, Step

IMAGES = ("a", "b", "clean_a", "clean_b", "gt")
LEAN_IMAGES = ("clean_a", "clean_b", "gt")
"""The images of a lean sample, which is degraded where it is read."""
REAL_IMAGES = ("a", "b")
"""The images of a real sample, which has no clean side."""


@dataclass(frozen=True)
class Sample:
    """One sample, decoded. images: uint8 ``(h, w, c)``; depth: uint16 as stored, None where no step used it.

    A lean sample has no degraded images, no steps and an empty prompt, and always its depth. A real sample has the
    degraded images alone.
    """

    key: str
    images: Mapping[str, np.ndarray]
    depth: np.ndarray | None
    prompt: str
    meta: Mapping[str, Any]

    @property
    def lean(self) -> bool:
        """Whether it holds clean images, ground truth and depth alone."""
        return is_lean(self.meta)

    @property
    def real(self) -> bool:
        """Whether it holds a degraded pair without a clean side, ground truth or depth: to evaluate on."""
        return is_real(self.meta)

    @property
    def given(self) -> bool:
        """Whether others degraded the pair, so that its steps are names without parameters and nothing replays."""
        return self.meta.get("given") is True

    @property
    def steps(self) -> list[Step]:
        """The steps of the plan, in physical order."""
        return [Step.from_json(step) for step in self.meta["steps"]]

    def metres(self) -> np.ndarray | None:
        """The depth that the steps used: float32 metres along the ray, infinity for the sky."""
        return None if self.depth is None else depth_maps.dequantise(self.depth)


def is_lean(meta: Mapping[str, Any]) -> bool:
    """Whether a sample's ``json`` says that it holds no degraded images."""
    return meta.get("lean") is True


def is_real(meta: Mapping[str, Any]) -> bool:
    """Whether a sample's ``json`` says that its pair has no clean side."""
    return meta.get("real") is True


def held_images(meta: Mapping[str, Any]) -> tuple[str, ...]:
    """The images that a sample of this ``json`` holds."""
    if is_real(meta):
        return REAL_IMAGES
    return LEAN_IMAGES if is_lean(meta) else IMAGES


def encode_sample(sample: Sample, codec: Codec) -> dict[str, bytes]:
    """Member name -> bytes, in the order of the tar."""
    members = {f"{name}.{codec.name}": codec.encode(sample.images[name]) for name in held_images(sample.meta)}
    if sample.real:
        return members | {"txt": sample.prompt.encode(), "json": dumps(sample.meta)}
    # Every sample has the same members, or `datasets` refuses the shard: all invalid where no step used depth.
    height, width = sample.images["gt"].shape[:2]
    members["depth.png"] = _no_depth(height, width) if sample.depth is None else depth_maps.encode_png(sample.depth)
    text = {} if sample.lean else {"txt": sample.prompt.encode()}
    return members | text | {"json": dumps(sample.meta)}


@lru_cache(maxsize=64)
def _no_depth(height: int, width: int) -> bytes:
    """A depth map that is invalid everywhere; most samples of a size share it."""
    return depth_maps.encode_png(np.zeros((height, width), np.uint16))


def decode_sample(
    key: str, members: Mapping[str, bytes], names: Sequence[str] | None = None, *, depth: bool = True
) -> Sample:
    """The sample that ``encode_sample`` wrote, with the images asked for, else all that it holds.

    depth: whether its depth is asked for. Raises ValueError that names what is missing or damaged.
    """
    meta = json.loads(_member(key, members, "json"))
    if not isinstance(meta, dict):
        raise ValueError(f"sample {key}: json is no object")
    schema = meta.get("schema")
    if type(schema) is not int:
        raise ValueError(f"sample {key}: schema must be a whole number, not {schema!r}")
    if schema > SCHEMA:
        raise ValueError(f"sample {key}: schema {schema} is newer than this version reads ({SCHEMA})")
    if CACHED in meta:
        raise ValueError(f"sample {key}: holds latents of train cache, no images")
    lean = is_lean(meta)
    images: dict[str, np.ndarray] = {}
    for name in held_images(meta) if names is None else names:
        if name not in held_images(meta):
            what = f"is lean and holds no degraded {name}" if lean else f"is a real pair and holds no {name}"
            raise ValueError(f"sample {key}: {what}")
        coded = [codec for codec in CODECS.values() if f"{name}.{codec.name}" in members]
        if not coded:
            raise ValueError(f"sample {key}: member {name} is missing")
        try:
            image = coded[0].decode(members[f"{name}.{coded[0].name}"])
        except Exception as error:  # codecs raise what they like on damaged bytes
            raise ValueError(f"sample {key}: {name} does not decode: {error}") from None
        # Grey comes back from a codec without grey as three equal channels.
        grey = meta["channels"].get(name.removeprefix("clean_")) == 1
        images[name] = np.ascontiguousarray(image[..., :1]) if grey and image.shape[2] == 3 else image
    held = depth and meta.get("depth") is not None
    metres = depth_maps.decode_png(_member(key, members, "depth.png")) if held else None
    prompt = "" if lean else _member(key, members, "txt").decode()
    return Sample(key, images, metres, prompt, meta)


def _member(key: str, members: Mapping[str, bytes], name: str) -> bytes:
    if name not in members:
        raise ValueError(f"sample {key}: member {name} is missing")
    return members[name]


def read_samples(path: Location) -> Iterator[Sample]:
    """The samples of a shard, decoded."""
    for key, members in read_shard(path):
        yield decode_sample(key, members)

"""A sample in memory, and its members in a shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from clearfuse.synth.depth import metres as depth_maps
from clearfuse.synth.files.jsonstream import dumps
from clearfuse.synth.files.schema import Model, validate
from clearfuse.synth.files.storage import Location
from clearfuse.synth.shards.codecs import CODECS, Codec
from clearfuse.synth.shards.records import LATENTS, LatentMeta, SampleMeta
from clearfuse.synth.shards.tar import read_shard
from clearfuse.synth.types import UserError


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
    meta: SampleMeta

    def metres(self) -> np.ndarray | None:
        """The depth that the steps used: float32 metres along the ray, infinity for the sky."""
        return None if self.depth is None else depth_maps.dequantise(self.depth)


def encode_sample(sample: Sample, codec: Codec) -> dict[str, bytes]:
    """Member name -> bytes, in the order of the tar."""
    members = {f"{name}.{codec.name}": codec.encode(sample.images[name]) for name in sample.meta.images}
    meta = dumps(sample.meta.to_json())
    if sample.meta.real:
        return members | {"txt": sample.prompt.encode(), "json": meta}
    # Every sample has the same members, or `datasets` refuses the shard: all invalid where no step used depth.
    height, width = sample.images["gt"].shape[:2]
    members["depth.png"] = _no_depth(height, width) if sample.depth is None else depth_maps.encode_png(sample.depth)
    text = {} if sample.meta.lean else {"txt": sample.prompt.encode()}
    return members | text | {"json": meta}


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
    if holds_latents(members):
        raise ValueError(f"sample {key}: holds latents of train cache, no images")
    meta = read_meta(key, members)
    images: dict[str, np.ndarray] = {}
    for name in meta.images if names is None else names:
        if name not in meta.images:
            what = f"is lean and holds no degraded {name}" if meta.lean else f"is a real pair and holds no {name}"
            raise ValueError(f"sample {key}: {what}")
        coded = [codec for codec in CODECS.values() if f"{name}.{codec.name}" in members]
        if not coded:
            raise ValueError(f"sample {key}: member {name} is missing")
        try:
            image = coded[0].decode(members[f"{name}.{coded[0].name}"])
        except Exception as error:  # codecs raise what they like on damaged bytes
            raise ValueError(f"sample {key}: {name} does not decode: {error}") from None
        # Grey comes back from a codec without grey as three equal channels.
        grey = meta.channels.get(name.removeprefix("clean_")) == 1
        images[name] = np.ascontiguousarray(image[..., :1]) if grey and image.shape[2] == 3 else image
    held = depth and meta.depth is not None
    metres = depth_maps.decode_png(_member(key, members, "depth.png")) if held else None
    prompt = "" if meta.lean else read_prompt(key, members)
    return Sample(key, images, metres, prompt, meta)


def holds_latents(members: Iterable[str]) -> bool:
    """Whether these are the members of a sample of ``train cache``."""
    return any(name.endswith(LATENTS) for name in members)


def read_meta(key: str, members: Mapping[str, bytes]) -> SampleMeta:
    """The ``json`` of a sample of pictures. Raises ValueError that names what is wrong with it."""
    return _read(SampleMeta, key, members)


def read_latent_meta(key: str, members: Mapping[str, bytes]) -> LatentMeta:
    """The ``json`` of a sample of latents. Raises ValueError that names what is wrong with it."""
    return _read(LatentMeta, key, members)


def _read(model: type[Model], key: str, members: Mapping[str, bytes]) -> Model:
    try:
        return validate(model, _member(key, members, "json"), f"sample {key}: json")
    except UserError as error:
        raise ValueError(str(error)) from None


def read_prompt(key: str, members: Mapping[str, bytes]) -> str:
    """The prompt of a sample. Raises ValueError where there is none."""
    try:
        return _member(key, members, "txt").decode()
    except UnicodeDecodeError:
        raise ValueError(f"sample {key}: txt is no UTF-8 text") from None


def _member(key: str, members: Mapping[str, bytes], name: str) -> bytes:
    if name not in members:
        raise ValueError(f"sample {key}: member {name} is missing")
    return members[name]


def read_samples(path: Location, names: Sequence[str] | None = None, *, depth: bool = True) -> Iterator[Sample]:
    """The samples of a shard, decoded as far as asked for: see ``decode_sample``."""
    for key, members in read_shard(path):
        yield decode_sample(key, members, names, depth=depth)

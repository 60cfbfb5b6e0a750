"""Samples, shards and receipts: what a build writes, and how to read it back.

A shard is a plain WebDataset tar, byte for byte a function of its samples. What is written lands whole or not at all
(``storage.landing``), and the receipt after its tar, so a shard is done when its receipt is there.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from synth import depth as depth_maps
from synth.codecs import CODECS, Codec
from synth.jsonstream import pieces
from synth.remote import StoreError
from synth.storage import Location, landing, size
from synth.types import CACHED, SCHEMA, Step

IMAGES = ("a", "b", "clean_a", "clean_b", "gt")
LEAN_IMAGES = ("clean_a", "clean_b", "gt")
"""The images of a lean sample, which is degraded where it is read."""
REAL_IMAGES = ("a", "b")
"""The images of a real sample, which has no clean side."""
TEMPORARY = re.compile(r"\.tmp-\d+-[0-9a-f]{8}-")
"""The names under which files of a build are written before they land."""
SHARD = re.compile(r"(vif|mef|mff)-(train|val|test)-(\d{6})\.(tar|json)\Z")


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


def dumps(data: Any) -> bytes:
    """JSON as every file of a build holds it: one form for one value."""
    return json.dumps(data, ensure_ascii=False, separators=(", ", ": "), allow_nan=False).encode()


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


class _Hashing:
    """A binary file that hashes and counts what is written through it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sha256, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size += len(data)
        return self.file.write(data)

    def tell(self) -> int:
        return self.size


def write_json(path: Location, data: Any) -> None:
    """A JSON file a person can read, landed whole. data: see ``jsonstream.pieces``."""
    with landing(path) as file:
        for piece in pieces(data):
            file.write(piece.encode())
        file.write(b"\n")


BLOCK = 512
"""Bytes: members of a tar begin at multiples of it."""
END_MARK = 2 * BLOCK


@dataclass
class ShardFacts:
    """What the receipt says of a written tar."""

    sha256: str = ""
    size: int = 0
    offsets: dict[str, int] = field(default_factory=dict[str, int])


def write_shard(path: Location, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> ShardFacts:
    """Write (key, members) as a tar of which nothing but the members decides a byte: no times, owners or hosts."""
    facts = ShardFacts()
    with landing(path) as file:
        hashing = _Hashing(file)
        with tarfile.open(fileobj=hashing, mode="w", format=tarfile.USTAR_FORMAT) as tar:  # type: ignore[call-overload]
            for key, members in samples:
                facts.offsets[key] = hashing.size
                for name, data in members.items():
                    info = tarfile.TarInfo(f"{key}.{name}")
                    info.size, info.mode, info.mtime = len(data), 0o644, 0
                    tar.addfile(info, io.BytesIO(data))
        facts.sha256, facts.size = hashing.sha256.hexdigest(), hashing.size
    return facts


def read_shard(path: Location, name: str | None = None) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, members) of a shard in order. Raises ValueError, which names it, where it is damaged or cut short."""
    try:
        with path.open("rb") as file:
            yield from read_members(file)
    except StoreError:
        raise
    except (ValueError, OSError) as error:
        raise ValueError(f"{name or path.name}: {error}") from None


@dataclass(frozen=True)
class Span:
    """Where a sample lies in its tar: its first and last byte, and (start, size) of each member."""

    key: str
    start: int
    stop: int
    members: Mapping[str, tuple[int, int]]


def read_spans(path: Location) -> list[Span]:
    """All samples of a tar, from its headers alone. Raises ValueError where it is no tar or lacks its end mark."""
    found: list[Span] = []
    try:
        for full, offset, start, length in _plain_headers(path) or _headers(path):
            key, _, name = full.partition(".")
            if not found or found[-1].key != key:
                found.append(Span(key, offset, 0, {}))
            members = {**found[-1].members, name: (start, length)}
            found[-1] = Span(key, found[-1].start, start + -(-length // BLOCK) * BLOCK, members)
    except StoreError:
        raise
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"not a whole shard: {error}") from None
    if size(path) < (found[-1].stop if found else 0) + END_MARK:
        raise ValueError(f"not a whole shard: it is cut short after {len(found)} samples")
    return found


def _headers(path: Location) -> Iterator[tuple[str, int, int, int]]:
    """(name, offset, offset of its bytes, bytes) of each file of a tar."""
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        for info in tar:
            if info.isfile():
                yield info.name, info.offset, info.offset_data, info.size


def _plain_headers(path: Location) -> list[tuple[str, int, int, int]] | None:
    """The same of a local tar of nothing but POSIX headers of plain files, such as ours, in a tenth of the time.

    None where there is anything else, or anything wrong: ``tarfile`` knows more kinds, and what to say.
    """
    if not isinstance(path, Path):
        return None
    found: list[tuple[str, int, int, int]] = []
    with path.open("rb", buffering=0) as file:
        descriptor, at = file.fileno(), 0
        while any(block := os.pread(descriptor, BLOCK, at)):
            if len(block) < BLOCK or block[257:263] != b"ustar\0" or block[156] not in b"0\0" or block[345]:
                return None
            try:
                length, said = (int(block[a:b].strip(b" \0"), 8) for a, b in ((124, 136), (148, 156)))
                name = block[:100].partition(b"\0")[0].decode()
            except ValueError:
                return None
            if sum(block) - sum(block[148:156]) + 8 * 32 != said:
                return None
            found.append((name, at, at + BLOCK, length))
            at += BLOCK + -(-length // BLOCK) * BLOCK
        return found if len(block) == BLOCK else None


def read_members(file: io.BufferedIOBase) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, members) of an open tar in order. Raises ValueError where it is damaged or cut short."""
    key: str | None = None
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                if not info.isfile():
                    continue
                found, _, name = info.name.partition(".")
                if key is not None and found != key:
                    yield key, members
                    members = {}
                key = found
                stream = tar.extractfile(info)
                data = b"" if stream is None else stream.read()
                if len(data) != info.size:
                    raise ValueError(f"cut short in {info.name}")
                members[name] = data
    except StoreError:
        raise
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"not a whole tar: {error}") from None
    if key is not None:
        yield key, members


def read_samples(path: Location) -> Iterator[Sample]:
    """The samples of a shard, decoded."""
    for key, members in read_shard(path):
        yield decode_sample(key, members)


def shard_name(task: str, split: str, index: int) -> str:
    """``vif-train-000000.tar``."""
    return f"{task}-{split}-{index:06d}.tar"


def receipt_path(shard: Location) -> Location:
    """The receipt beside a shard."""
    return shard.with_suffix(".json")

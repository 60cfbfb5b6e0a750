"""Shards: a plain WebDataset tar, byte for byte a function of its samples, and how it is read back.

A shard is a plain WebDataset tar, byte for byte a function of its samples. What is written lands whole or not at all
(``storage.landing``), and the receipt after its tar, so a shard is done when its receipt is there.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, get_args

from clearfuse.synth.files.archives import tar_entries
from clearfuse.synth.files.pictures import MOST_PIXELS
from clearfuse.synth.files.remote import StoreError
from clearfuse.synth.files.storage import Location, landing
from clearfuse.synth.types import BuildTask

SHARD = re.compile(rf"({'|'.join(get_args(BuildTask))})-(train|val|test)-(\d{{6}})\.(tar|json)\Z")


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


BLOCK = 512
"""Bytes: members of a tar begin at multiples of it."""
END_MARK = 2 * BLOCK

MOST_BYTES = 4 * MOST_PIXELS
"""Of a member: more than the largest picture takes as PNM."""
MOST_SAMPLE_BYTES = 8 * MOST_BYTES
"""Of a sample, from its first header to its last byte."""
MOST_MEMBERS = 64
"""Of a sample, and different names of members in a shard."""


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
    start, members = 0, dict[str, tuple[int, int]]()
    with _naming("not a whole shard"), path.open("rb") as file:
        for info in _files(file):
            key, _, name = info.name.partition(".")
            if not found or found[-1].key != key:
                start, members = info.offset, dict[str, tuple[int, int]]()
                found.append(Span(key, start, 0, members))
            members[name] = (info.offset_data, info.size)
            found[-1] = Span(key, start, info.offset_data + in_blocks(info.size), members)
        if file.seek(0, os.SEEK_END) < (found[-1].stop if found else 0) + END_MARK:
            raise tarfile.ReadError(f"it is cut short after {len(found)} samples")
    return found


def read_members(file: io.BufferedIOBase, start: int = 0) -> Iterator[tuple[str, dict[str, bytes]]]:
    """(key, members) of an open tar in order, from the sample that begins at ``start``.

    Raises ValueError where it is damaged or cut short.
    """
    key: str | None = None
    members: dict[str, bytes] = {}
    with _naming("not a whole tar"):
        for info in _files(file, start):
            found, _, name = info.name.partition(".")
            if key is not None and found != key:
                yield key, members
                members = {}
            key = found
            file.seek(info.offset_data)
            members[name] = file.read(info.size)
        if key is not None:
            yield key, members


def in_blocks(size: int) -> int:
    """Bytes that a file of ``size`` bytes takes in a tar, without its header."""
    return -(-size // BLOCK) * BLOCK


def _files(file: io.BufferedIOBase, start: int = 0) -> Iterator[tarfile.TarInfo]:
    """The files of a tar whose headers say what can be: a size that is in the tar, no holes, samples of a few files."""
    length = file.seek(0, os.SEEK_END)
    key, count, first = "", 0, start
    for info in tar_entries(file, start):
        if not info.isfile():
            continue
        if not info.name.isprintable():  # bytes that are no UTF-8 too
            raise tarfile.ReadError(f"{info.name!a} is no name of a member")
        if info.issparse():
            raise tarfile.ReadError(f"{info.name} has holes")
        stop = info.offset_data + info.size
        if stop > length:
            raise tarfile.ReadError(f"it is cut short in {info.name}")
        if info.size > MOST_BYTES:
            raise tarfile.ReadError(f"{info.name} has {info.size} bytes: at most {MOST_BYTES} are read")
        if (found := info.name.partition(".")[0]) != key:
            key, count, first = found, 0, info.offset
        count += 1
        if count > MOST_MEMBERS:
            raise tarfile.ReadError(f"sample {key} has more than {MOST_MEMBERS} members, {info.name} among them")
        if stop - first > MOST_SAMPLE_BYTES:
            raise tarfile.ReadError(f"sample {key} has more than {MOST_SAMPLE_BYTES} bytes up to {info.name}")
        yield info


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """What tarfile raises as a ValueError: on damaged headers it raises what it likes."""
    try:
        yield
    except StoreError:
        raise
    except (tarfile.TarError, EOFError, OSError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
        raise ValueError(f"{what}: {error}") from None


def shard_name(task: str, split: str, index: int) -> str:
    """``vif-train-000000.tar``."""
    return f"{task}-{split}-{index:06d}.tar"


def receipt_path(shard: Location) -> Location:
    """The receipt beside a shard."""
    return shard.with_suffix(".json")

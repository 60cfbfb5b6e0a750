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
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from clearfuse.synth.files.remote import StoreError
from clearfuse.synth.files.storage import Location, landing, size

SHARD = re.compile(r"(vif|mef|mff)-(train|val|test)-(\d{6})\.(tar|json)\Z")


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


def shard_name(task: str, split: str, index: int) -> str:
    """``vif-train-000000.tar``."""
    return f"{task}-{split}-{index:06d}.tar"


def receipt_path(shard: Location) -> Location:
    """The receipt beside a shard."""
    return shard.with_suffix(".json")

"""Receipts and ``dataset.json`` as they are read, and what a build's last files say of all its shards."""

from __future__ import annotations

import json
import os
import re
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from clearfuse.synth.files import storage
from clearfuse.synth.files.jsonstream import read_but, read_items, write_json
from clearfuse.synth.files.remote import StoreError
from clearfuse.synth.files.schema import NewerSchema, validate, validate_python
from clearfuse.synth.files.storage import Location
from clearfuse.synth.shards.records import DatasetIndex, ListedShard, Receipt, Reject
from clearfuse.synth.shards.tar import SHARD, ShardFacts, read_spans, receipt_path, write_shard
from clearfuse.synth.types import SCHEMA, UserError, WorkIncomplete, reason_of

LISTED = tuple(ListedShard.model_fields)
"""What ``dataset.json`` says of a shard."""
_RENDER = "remove it and its tar to render the shard again"
_FINISH = "remove it and run the build again"
BLOCK = 1 << 16


class SampleFailed(Exception):
    """A sample failed, for this reason: its shard must not land."""


def land_shard(
    shard: Location,
    samples: Iterable[tuple[str, Mapping[str, bytes]]],
    digest: str,
    settings: Mapping[str, Any],
    rejects: Sequence[Reject] = (),
    redrawn: Mapping[bool, int] | None = None,
) -> str | None:
    """Write a shard of (key, members), then its receipt: what builds and caches are made of. The failure, or None.

    digest: of the settings. rejects, and redrawn, which counts samples by whether their plan was drawn again: complete
    when the samples are. Raises WorkIncomplete where it cannot be written.
    """
    try:
        facts = write_shard(shard, samples)
        _write_receipt(shard, facts, digest, settings, rejects, (redrawn or {}).get(True, 0))
    except SampleFailed as error:
        return str(error)
    except OSError as error:
        raise write_error(shard, error) from None
    return None


def write_error(path: Location, error: OSError) -> WorkIncomplete:
    """The error for a file that the output cannot take."""
    return WorkIncomplete(f"{path}: cannot be written: {error.strerror or error}; run the same command to go on")


def _write_receipt(
    shard: Location,
    facts: ShardFacts,
    digest: str,
    settings: Mapping[str, Any],
    rejects: Sequence[Reject],
    redrawn: int,
) -> None:
    receipt = Receipt(
        schema=SCHEMA,
        shard=shard.name,
        sha256=facts.sha256,
        bytes=facts.size,
        samples=len(facts.offsets),
        offsets=facts.offsets,
        rejects=tuple(rejects),
        redrawn=redrawn,
        digest=digest,
        settings=dict(settings),
    )
    write_json(receipt_path(shard), receipt.model_dump(by_alias=True))


def read_receipt(path: Location) -> Receipt:
    """A receipt. Raises UserError where it is damaged or newer than this version."""
    try:
        return validate(Receipt, path.read_bytes(), str(path))
    except StoreError:
        raise
    except (OSError, UserError) as error:
        raise _unreadable(path, error, _RENDER) from None


def sample_offsets(shard: Location) -> Mapping[str, int]:
    """Where each sample of a tar begins, by key: as its receipt says where that is of these bytes, else by its headers.

    Raises ValueError where there is no such receipt and it is no whole tar.
    """
    path = receipt_path(shard)
    if path.is_file():
        with suppress(UserError):  # no receipt, whatever else it is
            receipt = read_receipt(path)
            same = (receipt.shard, receipt.bytes) == (shard.name, storage.size(shard))
            if same and all(map(storage.is_below, receipt.offsets)):
                return receipt.offsets
    return {span.key: span.start for span in read_spans(shard)}


def read_index(path: Location) -> DatasetIndex:
    """``dataset.json`` without its list of shards. Raises UserError where it is damaged or newer than this version."""
    try:
        with path.open("rb") as file:
            return validate(DatasetIndex, read_but(file, "shards"), str(path))
    except StoreError:
        raise
    except (OSError, ValueError, UserError) as error:
        raise _unreadable(path, error, _FINISH) from None


def listed_shards(path: Location) -> Iterator[ListedShard]:
    """The shards of ``dataset.json``, one at a time. Raises UserError where it is damaged."""
    try:
        with path.open("rb") as file:
            for number, shard in enumerate(read_items(file, "shards")):
                yield validate_python(ListedShard, shard, f"{path}: shards.{number}")
    except StoreError:
        raise
    except (OSError, ValueError, UserError) as error:
        raise _unreadable(path, error, _FINISH) from None


def missing_shards(folder: Location, there: Iterable[str]) -> Iterator[str]:
    """The tars that the ``dataset.json`` of a folder lists, or else its receipts, and that are not ``there``.

    Raises UserError where ``dataset.json`` is damaged.
    """
    held, odd = ShardNames(), set[str]()
    for name in there:
        if not held.add(name):
            odd.add(name)
    index = folder / "dataset.json"
    if index.is_file():
        listed = (shard.shard for shard in listed_shards(index))
    else:
        listed = (f"{name.removesuffix('.json')}.tar" for name in receipts_of(folder))
    return (name for name in listed if name not in held and name not in odd)


def _unreadable(path: Location, error: Exception, mend: str) -> UserError:
    if isinstance(error, NewerSchema):
        return error
    said = str(error) if isinstance(error, UserError) else f"{path}: cannot be read: {reason_of(error)}"
    return UserError(f"{said}; {mend}")


def receipts_of(out: Location) -> ShardNames:
    """The names of a folder that are receipts'."""
    return ShardNames(name for name, _ in storage.files(out) if name.endswith(".json"))


class ShardNames:
    """Names of tars or receipts as builds give them, a byte each; others are not taken."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._there: dict[tuple[str, str, str], bytearray] = {}
        for name in names:
            self.add(name)

    def add(self, name: str) -> bool:
        """Take a name; False where no build gives it."""
        if (found := SHARD.match(name)) is None:
            return False
        there = self._there.setdefault((found[1], found[2], found[4]), bytearray())
        number = int(found[3])
        there.extend(bytes(max(0, number + 1 - len(there))))
        there[number] = 1
        return True

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str) or (found := SHARD.match(name)) is None:
            return False
        there = self._there.get((found[1], found[2], found[4]), b"")
        return int(found[3]) < len(there) and there[int(found[3])] == 1

    def __iter__(self) -> Iterator[str]:
        """The names, sorted where all are of one kind."""
        for (task, split, suffix), there in sorted(self._there.items()):
            number = there.find(1)
            while number >= 0:
                yield f"{task}-{split}-{number:06d}.{suffix}"
                number = there.find(1, number + 1)

    def __len__(self) -> int:
        return sum(there.count(1) for there in self._there.values())


class Receipts:
    """What a build's last files say of its shards: sums, and a line a shard in a temporary file.

    Read as often as needed, and never held: there may be a million.
    """

    def __init__(self, shown: int = 0) -> None:
        self._file, name = tempfile.mkstemp(prefix="clearfuse-receipts-")
        os.unlink(name)  # gone with the process, however it ends
        weakref.finalize(self, os.close, self._file)
        self.count = self.bytes = 0
        self.samples: Counter[str] = Counter()
        """By split."""
        self.redrawn = 0
        self.rejects: Counter[str] = Counter()
        """By reason."""
        self.shown: list[Reject] = []
        """The first rejects, as many as were asked for: all may be as many as there are samples."""
        self._shown = shown

    def add(self, receipt: Receipt) -> None:
        """Take a shard's receipt."""
        os.write(self._file, json.dumps({name: getattr(receipt, name) for name in LISTED}).encode() + b"\n")
        self.count += 1
        self.bytes += receipt.bytes
        self.samples[split_of(receipt.shard)] += receipt.samples
        self.redrawn += receipt.redrawn
        self.rejects.update(reject.reason for reject in receipt.rejects)
        self.shown += receipt.rejects[: self._shown - len(self.shown)]

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Of each shard its name, sha256, bytes and samples, in the order in which they were taken."""
        at, rest = 0, b""
        while block := os.pread(self._file, BLOCK, at):
            at += len(block)
            *lines, rest = (rest + block).split(b"\n")
            yield from map(json.loads, map(bytes.decode, lines))

    def of_split(self, split: str) -> Iterator[dict[str, Any]]:
        """Those of a split."""
        return (shard for shard in self if split_of(shard["shard"]) == split)


_SPLIT = re.compile(r"-(train|val|test)-\d+\.tar\Z")


def split_of(shard: str) -> str:
    """The split of a shard's name."""
    found = _SPLIT.search(shard)
    return "" if found is None else found[1]

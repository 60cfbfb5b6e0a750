"""Receipts and ``dataset.json`` as they are read, and what a build's last files say of all its shards."""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from clearfuse.synth.files import storage
from clearfuse.synth.files.jsonstream import read_object
from clearfuse.synth.files.remote import StoreError
from clearfuse.synth.files.storage import Location
from clearfuse.synth.shards.tar import SHARD
from clearfuse.synth.types import UserError, check_schema

_KINDS: dict[str, type] = {
    **dict.fromkeys(("digest", "shard", "sha256"), str),
    **dict.fromkeys(("bytes", "samples", "variants"), int),
    **dict.fromkeys(("settings", "offsets"), dict),
    "rejects": list,
}
"""The fields of receipts and indexes, and their types."""
_RECEIPT = ("digest", "settings", "shard", "sha256", "bytes", "samples", "offsets", "rejects")
_INDEX = ("digest", "settings", "variants")
LISTED = ("shard", "sha256", "bytes", "samples")
"""What ``dataset.json`` says of a shard."""
_MEND = {True: "remove it and run the build again", False: "remove it and its tar to render the shard again"}
BLOCK = 1 << 16


def read_receipt(path: Location) -> dict[str, Any]:
    """A receipt, checked. Raises UserError where it is damaged or newer than this version."""
    try:
        receipt = json.loads(path.read_bytes())
    except StoreError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error, index=False) from None
    _check(path, receipt, wrong_field(receipt, ("schema", *_RECEIPT)), index=False)
    return receipt


def read_index(path: Location, each: Callable[[Mapping[str, Any]], None] = lambda shard: None) -> dict[str, Any]:
    """``dataset.json`` without its list of shards, checked; each of those goes to ``each`` as it is read.

    Raises UserError where it is damaged or newer than this version.
    """

    def check(shard: Any) -> None:
        wrong = wrong_field(shard, LISTED)
        _check(path, {}, None if wrong is None else f"shards.{wrong}", index=True)
        each(shard)

    try:
        with path.open("rb") as file, io.TextIOWrapper(file, "utf-8") as text:
            index, listed = read_object(text, "shards", check)
    except StoreError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error, index=True) from None
    _check(path, index, wrong_field(index, ("schema", *_INDEX)) or (None if listed else "shards"), index=True)
    return index


def _unreadable(path: Location, error: Exception, *, index: bool) -> UserError:
    return UserError(f"{path}: cannot be read: {' '.join(str(error).split())}; {_MEND[index]}")


def _check(path: Location, data: Any, wrong: str | None, *, index: bool) -> None:
    what = f"is no {'index' if index else 'receipt'} of a build"
    if wrong is not None:
        raise UserError(f"{path}: {what}: no {wrong} in it, or of the wrong type; {_MEND[index]}")
    if "schema" in data:
        check_schema(data["schema"], str(path))


def wrong_field(data: Any, fields: Iterable[str]) -> str | None:
    """The first of the fields that an object lacks, or has of another type."""
    for field in fields:
        if not isinstance(data, dict) or field not in data or not isinstance(data[field], _KINDS.get(field, object)):
            return field
    return None


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

    def __init__(self) -> None:
        self._file, name = tempfile.mkstemp(prefix="clearfuse-receipts-")
        os.unlink(name)  # gone with the process, however it ends
        weakref.finalize(self, os.close, self._file)
        self.count = self.bytes = 0
        self.samples: Counter[str] = Counter()
        """By split."""
        self.rejects: Counter[str] = Counter()
        """By reason."""

    def add(self, receipt: Mapping[str, Any]) -> None:
        """Take a shard's receipt."""
        os.write(self._file, json.dumps({key: receipt[key] for key in LISTED}).encode() + b"\n")
        self.count += 1
        self.bytes += receipt["bytes"]
        self.samples[split_of(receipt["shard"])] += receipt["samples"]
        self.rejects.update(reject["reason"] for reject in receipt["rejects"])

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Of each shard its name, sha256, bytes and samples, in the order in which they were taken."""
        at, rest = 0, b""
        while block := os.pread(self._file, BLOCK, at):
            at += len(block)
            *lines, rest = (rest + block).split(b"\n")
            yield from map(json.loads, lines)

    def of_split(self, split: str) -> Iterator[dict[str, Any]]:
        """Those of a split."""
        return (shard for shard in self if split_of(shard["shard"]) == split)


_SPLIT = re.compile(r"-(train|val|test)-\d+\.tar\Z")


def split_of(shard: str) -> str:
    """The split of a shard's name."""
    found = _SPLIT.search(shard)
    return "" if found is None else found[1]

"""Shards as local files: those at a URL are downloaded once, whole, to the user's cache folder, and read from there."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearfuse.synth.files import cache, storage
from clearfuse.synth.files.remote import Remote
from clearfuse.synth.files.storage import Location
from clearfuse.synth.seeds import content_key
from clearfuse.synth.shards.find import find_sources
from clearfuse.synth.shards.receipts import read_receipt
from clearfuse.synth.shards.tar import receipt_path
from clearfuse.synth.types import UserError, WorkIncomplete


@dataclass(frozen=True)
class LocalSource:
    """The shards of one argument, in order."""

    text: str
    shards: tuple[Path, ...]


def find_local_sources(paths: Sequence[str]) -> list[LocalSource]:
    """The shards of a command line, a source an argument: see ``shards.find.find_sources``.

    Raises UserError where an argument names none, and WorkIncomplete where a download fails.
    """
    return [LocalSource(one.text, tuple(storage.in_order(downloaded, one.shards))) for one in find_sources(paths)]


def find_local_shards(paths: Sequence[str]) -> list[Path]:
    """All of them."""
    return [shard for source in find_local_sources(paths) for shard in source.shards]


def downloaded(shard: Location) -> Path:
    """A shard as a local file: itself, or the copy of a URL's in the cache folder, made once.

    A copy is found by URL, size and what the store says changes with the content; processes of one machine wait for
    each other.
    """
    if not isinstance(shard, Remote):
        return shard
    info = shard.info()
    if info is None:
        raise UserError(f"{shard}: no such file or folder")
    from filelock import FileLock

    folder = cache.cache_folder()
    if isinstance(folder, Remote):
        raise UserError(f"{shard}: is downloaded to the cache folder, and CLEARFUSE_CACHE is a URL too: {folder}")
    size, stamp = storage.fact(info)
    target = folder / "shards" / content_key("shard", shard.url, size, stamp) / shard.name
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(".lock")):
            if not target.is_file():
                _download(shard, target, size)
    return target


BLOCKS, BLOCK = 64, 4096
"""How many blocks of a shard are hashed, and their bytes."""


ShardRow = tuple[int, str, int, str, str | None]
"""A shard in a run's record: source, name, size in bytes and ``shard_content``."""


def shard_content(shard: Path) -> tuple[str, str | None]:
    """What tells a shard from another of its name and size: a hash of blocks spread evenly over it, and the sha256 that
    its receipt says, None without one of a tar of this size. It costs 64 short reads, whatever the shard's size.
    """
    size = shard.stat().st_size
    hashed = hashlib.blake2b(str(size).encode(), digest_size=16)
    with shard.open("rb") as file:
        for block in range(BLOCKS):
            file.seek(max(size - BLOCK, 0) * block // (BLOCKS - 1))
            hashed.update(file.read(BLOCK))
    return hashed.hexdigest(), _receipt_sha256(shard, size)


def _receipt_sha256(shard: Path, size: int) -> str | None:
    path = receipt_path(shard)
    if path.is_file():
        with suppress(UserError):  # no receipt, whatever else it is
            receipt = read_receipt(path)
            if (receipt.shard, receipt.bytes) == (shard.name, size):
                return receipt.sha256
    return None


def content_differs(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two contents differ, by what is known of both: records of earlier versions hold less."""
    return any(a != b for a, b in zip(one, other, strict=False) if a is not None and b is not None)


def _download(shard: Remote, target: Path, size: int) -> None:
    for name in (shard.with_suffix(".json"), shard):  # a receipt first, where there is one: the shard says it is done
        temporary = target.with_name(f".tmp-{os.getpid()}-{name.name}")
        try:
            name.download(str(temporary))
            if name is shard and temporary.stat().st_size != size:
                raise WorkIncomplete(f"{shard}: cut short in the download; run the same command again")
            os.replace(temporary, target.with_name(name.name))
        except FileNotFoundError:
            if name is shard:
                raise
        except OSError as error:
            raise WorkIncomplete(f"{shard}: can't be downloaded to {target.parent}: {error.strerror}") from None
        finally:
            temporary.unlink(missing_ok=True)


def ground_truth_by(shards: Sequence[Path]) -> Counter[str]:
    """How many of the shards have ground truth of each fuser, by their receipts; those without one are not counted."""
    found: Counter[str] = Counter()
    for shard in shards:
        path = receipt_path(shard)
        with suppress(UserError):
            fusers = read_receipt(path).settings.get("fuser")
            if isinstance(fusers, dict):
                found.update({str(one.get("name")) for one in fusers.values() if isinstance(one, dict)})
    return found

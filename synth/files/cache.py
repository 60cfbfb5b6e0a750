"""What is made once and kept in the user's cache folder: found by what it was made of, never by a name or a time.

An entry is named by a hash of all that decides its bytes, so it is never stale, only unused. A damaged one, or
a folder that cannot be written, costs time and no more. The folder may be a URL, which machines share.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from typing import Any

from clearfuse.synth.files import storage
from clearfuse.synth.files.remote import Remote, StoreError
from clearfuse.synth.files.storage import Location
from clearfuse.synth.seeds import content_key
from clearfuse.synth.types import UserError

KINDS = {
    "truth": "ground truth of pairs, by what fused them",
    "quality": "how good that ground truth is",
    "depth": "depth maps of pairs, in metres",
    "inverse": "relative inverse depth, as a network gave it",
    "thumbnails": "small pictures by which datasets check and splits know pictures again",
}


def cache_folder() -> Location:
    """$CLEARFUSE_CACHE, a folder or a URL, else clearfuse in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return storage.locate(os.environ.get("CLEARFUSE_CACHE") or f"{base}/clearfuse")


def check(*, writes: bool) -> None:
    """See once, before work, that a cache at a URL answers, and takes what is to be kept. Raises an error that says."""
    folder = cache_folder()
    if not isinstance(folder, Remote):
        return
    try:
        if writes:
            probe = folder / f".tmp-{os.getpid()}-probe"
            with storage.landing(probe):
                pass
            probe.unlink(missing_ok=True)
        else:
            folder.exists()
    except StoreError:
        raise
    except OSError as error:
        raise UserError(f"CLEARFUSE_CACHE {folder}: cannot be written: {error.strerror}") from None


def entry(kind: str, *parts: Any) -> Location:
    """Where the entry of that kind made of ``parts``, which JSON can hold, stands; it may not be there."""
    key = content_key(*parts)
    return cache_folder() / kind / key[:2] / key[2:]


def digest(data: bytes) -> bytes:
    """blake2b, 16 bytes."""
    return hashlib.blake2b(data, digest_size=16).digest()


def load_cached(path: Location) -> bytes | None:
    """The entry's bytes, None where there is none; a damaged one is removed."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if digest(data[16:]) != data[:16]:
        forget(path)
        return None
    return data[16:]


def keep(path: Location, data: bytes) -> bool:
    """Keep an entry, whole or not at all; False where the folder cannot be written."""
    if isinstance(path, Remote):
        with contextlib.suppress(OSError), storage.landing(path) as file:
            file.write(digest(data) + data)
            return True
        return False
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")
        with os.fdopen(descriptor, "wb") as file:
            file.write(digest(data) + data)
        os.replace(temporary, path)
    except OSError:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        return False
    return True


def forget(path: Location) -> None:
    """Remove an entry, so that it is made anew."""
    with contextlib.suppress(OSError):
        path.unlink()


@dataclass(frozen=True)
class Usage:
    """What the entries of one kind take."""

    kind: str
    entries: int
    size: int


def usage() -> list[Usage]:
    """Entries and bytes by kind."""
    out: list[Usage] = []
    for kind in KINDS:
        sizes = _sizes(cache_folder() / kind)
        out.append(Usage(kind, len(sizes), sum(sizes)))
    return out


def _sizes(folder: Location) -> list[int]:
    if isinstance(folder, Remote):
        return [int(info["size"]) for info in folder.entries(below=True).values()]
    return [path.stat().st_size for path in folder.rglob("*") if path.is_file()]


def clear(kinds: tuple[str, ...] = tuple(KINDS)) -> list[Usage]:
    """Remove all entries of these kinds, and say what they took; weights stay."""
    taken = [each for each in usage() if each.kind in kinds]
    for folder in (cache_folder() / kind for kind in kinds):
        if isinstance(folder, Remote):
            folder.remove_tree()
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return taken

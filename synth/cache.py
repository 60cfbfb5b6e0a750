"""What is made once and kept in the user's cache folder: found by what it was made of, never by a name or a time.

An entry is named by a hash of all that decides its bytes, so it is never stale, only unused. A damaged one, or
a folder that cannot be written, costs time and no more.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from synth.seeds import content_key

KINDS = {
    "truth": "ground truth of pairs, by what fused them",
    "quality": "how good that ground truth is",
    "depth": "depth maps of pairs, in metres",
    "inverse": "relative inverse depth, as a network gave it",
    "thumbnails": "small pictures by which datasets check and splits know pictures again",
}


def cache_folder() -> Path:
    """$CLEARFUSE_CACHE, else clearfuse in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(os.environ.get("CLEARFUSE_CACHE") or Path(base) / "clearfuse")


def entry(kind: str, *parts: Any) -> Path:
    """Where the entry of that kind made of ``parts``, which JSON can hold, stands; it may not be there."""
    key = content_key(*parts)
    return cache_folder() / kind / key[:2] / key[2:]


def digest(data: bytes) -> bytes:
    """blake2b, 16 bytes."""
    return hashlib.blake2b(data, digest_size=16).digest()


def load(path: Path) -> bytes | None:
    """The entry's bytes, None where there is none; a damaged one is removed."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    if digest(data[16:]) != data[:16]:
        forget(path)
        return None
    return data[16:]


def keep(path: Path, data: bytes) -> bool:
    """Keep an entry, whole or not at all; False where the folder cannot be written."""
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


def forget(path: Path) -> None:
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
        files = [path for path in (cache_folder() / kind).rglob("*") if path.is_file()]
        out.append(Usage(kind, len(files), sum(path.stat().st_size for path in files)))
    return out


def clear(kinds: tuple[str, ...] = tuple(KINDS)) -> list[Usage]:
    """Remove all entries of these kinds, and say what they took; weights stay."""
    taken = [each for each in usage() if each.kind in kinds]
    for kind in kinds:
        shutil.rmtree(cache_folder() / kind, ignore_errors=True)
    return taken

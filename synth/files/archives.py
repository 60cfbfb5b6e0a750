"""Files in tars, read where they lie: a set that comes as WebDataset shards is found and read as a folder is.

The path of a member is that of its tar, a slash, and a name by which no two members of a set are called the same: the
member's own with the number of its tar and of its sample in it, ``0000.tar/00012N-0000000017.m1_clean.jpg``, since such
sets use a key again and again.
"""

from __future__ import annotations

import functools
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

from clearfuse.synth.files import storage
from clearfuse.synth.files.remote import Remote, StoreError
from clearfuse.synth.files.storage import LISTED, Listed, Location
from clearfuse.synth.types import UserError

MOST_HEADER_BYTES = 1 << 20
"""Of the headers before a file, with the extended ones of pax and GNU tar."""
MOST_MEMBER_BYTES = 1 << 30
"""Of a member that is read."""
NUMBER = 10
"""Digits behind a key: four of the tar's, six of the sample's."""
PICTURES = (".jpg", ".jpeg", ".png")
"""Ends of the members that are found; of others only JSON can be read."""


class _Headers:
    """A tar as ``tarfile`` reads it: headers alone, of which it may read ``MOST_HEADER_BYTES`` before each file.

    Else a header that says a size of its extension of -1 or 20 GB is read whole, or over and over.
    """

    def __init__(self, file: io.BufferedIOBase) -> None:
        self.file, self.left = file, MOST_HEADER_BYTES
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int) -> bytes:
        self.left -= size
        if size < 0 or self.left < 0:
            raise tarfile.ReadError(f"a header at byte {self.tell()} has no end")
        return self.file.read(size)


def tar_entries(file: io.BufferedIOBase, start: int = 0) -> Iterator[tarfile.TarInfo]:
    """All entries of a tar, of which none is held. Raises what tarfile raises where it is damaged.

    A name that leads elsewhere is damage too: what is made of an entry is written below a folder, under its name.
    """
    file.seek(start)
    headers = _Headers(file)
    with tarfile.open(fileobj=headers, mode="r:") as tar:  # type: ignore[call-overload]
        while (info := tar.next()) is not None:
            tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
            headers.left = MOST_HEADER_BYTES
            if info.size < 0:
                raise tarfile.ReadError(f"{info.name} has {info.size} bytes by its header")
            if not storage.is_below(info.name):
                raise tarfile.ReadError(f"{info.name} is a path out of the folder")
            yield info


def is_member(path: str) -> bool:
    """Whether a path names a file in a tar, by its form: a folder may be called NAME.tar too."""
    tar, inside, _ = path.rpartition(".tar/")
    return bool(inside) and (storage.is_url(path) or not os.path.isdir(f"{tar}.tar"))


def scan(root: Location) -> Iterator[Listed]:
    """The pictures in every tar below a folder, as ``storage.scan`` lists files; other files have -1 bytes.

    Raises UserError where a tar is damaged.
    """
    others: list[str] = []
    tars: list[str] = []
    for name in storage.walk_files(root):
        (tars if name.endswith(".tar") else others).append(name)
    for number, tar in enumerate(tars):
        held = {name: size for name, (_, size) in _members(str(root / tar), number).items() if name.endswith(PICTURES)}
        names = list(held)
        for some in (names[at : at + LISTED] for at in range(0, len(names), LISTED)):
            yield Listed(f"{tar}/", some, [held[name] for name in some])
    for some in (others[at : at + LISTED] for at in range(0, len(others), LISTED)):
        yield Listed("", some, [-1] * len(some))


def read_member(path: str) -> bytes | None:
    """The bytes of a file in a tar, by the path that ``scan`` gives it; None where it is not there."""
    tar, _, name = path.rpartition(".tar/")
    number = name.partition(".")[0][-NUMBER:][:4]
    place = _members(f"{tar}.tar", int(number) if number.isdecimal() else 0).get(name)
    if place is None:
        return None
    with storage.locate(f"{tar}.tar").open("rb") as file:
        file.seek(place[0])
        return file.read(place[1])


@functools.lru_cache(maxsize=64)
def _members(tar: str, number: int) -> dict[str, tuple[int, int]]:
    """(first byte, bytes) of each file of the tar with that number in its set, by the name of ``scan``."""
    found: dict[str, tuple[int, int]] = {}
    sample, last = -1, ""
    try:
        with storage.locate(tar).open("rb") as file:
            length = file.seek(0, os.SEEK_END)
            for info in tar_entries(file):
                if not info.isfile() or info.issparse() or info.size > MOST_MEMBER_BYTES:
                    continue
                if info.offset_data + info.size > length:
                    raise tarfile.ReadError(f"it is cut short in {info.name}")
                if not info.name.endswith((*PICTURES, ".json")):
                    continue
                key, _, member = info.name.removeprefix("./").replace("/", "_").partition(".")
                if key != last:
                    sample, last = sample + 1, key
                found[f"{key}-{number:04d}{sample:06d}.{member}"] = (info.offset_data, info.size)
    except StoreError:
        raise
    except (tarfile.TarError, EOFError, OSError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
        name = tar.rpartition("/")[2] if isinstance(storage.locate(tar), Remote) else Path(tar).name
        raise UserError(f"{name}: not a whole tar: {error}") from None
    return found

"""Objects of a store that fsspec reaches (``s3://``, ``gs://``, ``hf://``, ``memory://``, ...), by their URLs.

Credentials, endpoints and retries are the store's own (``AWS_*``, ``FSSPEC_S3_ENDPOINT_URL``, ...). What its library
raises beyond that is one line: see ``StoreError``.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePosixPath
from typing import Any

from clearfuse.synth.types import UserError, WorkIncomplete, reason_of, unknown

PIP = {
    **dict.fromkeys(("s3", "s3a"), "pip install 'clearfuse[s3]'"),
    **dict.fromkeys(("gs", "gcs"), "pip install gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "pip install adlfs"),
}
"""What adds the library of a store that is an extra."""

LISTED = 4096
"""Objects of a folder that are asked for at once, where the library gives pages."""

BLOCK = 8 << 20
"""Bytes that a stream asks for at once."""


class StoreError(OSError):
    """What a store's library raised, in one line."""

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class Unreachable(StoreError, WorkIncomplete):
    """A store failed, beyond the retries of its own library: the same command goes on (exit code 1)."""

    def __str__(self) -> str:
        return f"{super().__str__()}; run the same command again"


class Refused(StoreError, UserError):
    """A store refused: no credentials, or none that suffice (exit code 2)."""


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Whatever a store's library raises becomes an OSError of one line that names the URL."""
    try:
        yield
    except (UserError, WorkIncomplete):
        raise
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), url) from error
    except Exception as error:  # each library has errors of its own
        reason = reason_of(error, 1000)
        if isinstance(error, PermissionError) or _unsigned(error) or _denied(error):
            raise Refused(errno.EACCES, f"access denied: {reason}", url) from error
        raise Unreachable(errno.EIO, reason, url) from error


def _unsigned(error: Exception) -> bool:
    """Whether S3's library found no credentials: no OSError of any kind."""
    botocore = sys.modules.get("botocore.exceptions")
    return botocore is not None and isinstance(error, (botocore.NoCredentialsError, botocore.PartialCredentialsError))


def _denied(error: Exception) -> bool:
    """Whether a server of HTTP knew no such user, or none who may: as the hub's library says it, or aiohttp."""
    status = getattr(getattr(error, "response", None), "status_code", getattr(error, "status", None))
    return status in (401, 403)


def open_store(url: str) -> tuple[Any, str]:
    """The file system of a URL, which fsspec keeps, and the URL's path there."""
    import fsspec

    protocol = url.partition("://")[0]
    try:
        fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise UserError(f"{url}: needs a library: {PIP.get(protocol, error)}") from None
    except ValueError:
        raise unknown("protocol", protocol, ("s3", "gs", "az", "hf", "memory", "file")) from None
    return fsspec.url_to_fs(url)


@dataclass(frozen=True, order=True)
class Remote:
    """An object of a store, or a folder of objects, by its URL; with pathlib's names for what it can do.

    Every method that asks the store raises OSError: FileNotFoundError, or a ``StoreError``.
    """

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> Remote:
        return Remote(f"{self.url}/{name}")

    @property
    def name(self) -> str:
        """The last piece of the path."""
        return self.url.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """The name's last extension, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Remote:
        """The folder that it is in."""
        return Remote(self.url.rpartition("/")[0])

    def with_name(self, name: str) -> Remote:
        """Another object of the same folder."""
        return self.parent / name

    def with_suffix(self, suffix: str) -> Remote:
        """The object of another suffix beside it."""
        return self.with_name(PurePosixPath(self.name).with_suffix(suffix).name)

    def info(self) -> dict[str, Any] | None:
        """What the store says of it, now; None where there is nothing."""
        with reaching(self.url):
            fs, path = open_store(self.url)
            fs.invalidate_cache(path)  # another process may have written since
            try:
                return fs.info(path)
            except FileNotFoundError:
                return None

    def exists(self) -> bool:
        """Whether there is an object of this name, or one below it."""
        return self.info() is not None

    def is_file(self) -> bool:
        """Whether there is an object of this name."""
        return (self.info() or {}).get("type") == "file"

    def is_dir(self) -> bool:
        """Whether there are objects below it."""
        return (self.info() or {}).get("type") == "directory"

    def read_bytes(self) -> bytes:
        """The whole object."""
        with reaching(self.url):
            fs, path = open_store(self.url)
            return fs.cat_file(path)

    def read_text(self, errors: str = "strict") -> str:
        """The whole object as UTF-8."""
        return self.read_bytes().decode(errors=errors)

    def open(self, mode: str = "rb") -> io.BufferedReader:
        """A stream to read from and to seek in."""
        if mode != "rb":
            raise ValueError(f"{mode}: a Remote is written by landing")
        with reaching(self.url):
            fs, path = open_store(self.url)
            fs.invalidate_cache(path)
            return io.BufferedReader(_Stream(self.url, fs.open(path, "rb", block_size=BLOCK)), 1 << 20)

    def upload(self, file: str) -> None:
        """Put a local file here, whole or not at all."""
        with reaching(self.url):
            fs, path = open_store(self.url)
            fs.put_file(file, path)

    def download(self, file: str) -> None:
        """Copy it to a local file."""
        with reaching(self.url):
            fs, path = open_store(self.url)
            fs.get_file(path, file)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        try:
            with reaching(self.url):
                fs, path = open_store(self.url)
                fs.rm_file(path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_tree(self) -> None:
        """Remove all objects below it."""
        with suppress(FileNotFoundError), reaching(self.url):
            fs, path = open_store(self.url)
            fs.invalidate_cache(path)
            fs.rm(path, recursive=True)

    def entries(self, *, below: bool = False) -> dict[str, dict[str, Any]]:
        """Objects in it by name, or those below it by relative path, as the store describes them; {} for nothing."""
        with reaching(self.url):
            fs, path = open_store(self.url)
            fs.invalidate_cache(path)
            try:
                infos = fs.find(path, detail=True).values() if below else fs.ls(path, detail=True)
            except FileNotFoundError:
                return {}
        within = f"{path.rstrip('/')}/"
        files = {info["name"].removeprefix(within): info for info in infos if info["type"] == "file"}
        return {name: info for name, info in files.items() if name and f"{within}{name}" == info["name"]}

    def files(self, start: str = "") -> Iterator[tuple[str, int]]:
        """Name and bytes of each object in it whose name starts so, now.

        Some thousands at a time where the library gives a listing in pages, as S3's does; others hold the whole, about
        a kilobyte an object.
        """
        with reaching(self.url):
            fs, path = open_store(self.url)
        if not hasattr(fs, "_iterdir"):
            found = ((name, int(info["size"])) for name, info in self.entries().items())
            yield from (one for one in found if one[0].startswith(start))
            return
        from fsspec.asyn import sync

        bucket, _, inside = path.partition("/")
        within = f"{path.rstrip('/')}/"
        infos = fs._iterdir(bucket, prefix=f"{inside.rstrip('/')}/{start}" if inside else start)
        while True:
            with reaching(self.url):
                some: list[dict[str, Any]] = sync(fs.loop, _next, infos, LISTED) or []
            files = ((info["name"].removeprefix(within), int(info["size"])) for info in some if info["type"] == "file")
            yield from ((name, size) for name, size in files if name)
            if len(some) < LISTED:
                return

    def iterdir(self) -> Iterator[Remote]:
        """The objects in it."""
        return (self / name for name in self.entries())

    def glob(self, pattern: str) -> Iterator[Remote]:
        """The objects in it whose names match."""
        return (self / name for name in self.entries() if fnmatchcase(name, pattern))


async def _next(infos: AsyncIterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The next ``count`` items, fewer at the end."""
    some: list[dict[str, Any]] = []
    async for info in infos:
        some.append(info)
        if len(some) == count:
            break
    return some


class _Stream(io.RawIOBase):
    """A store's file: its errors are a ``Remote``'s."""

    def __init__(self, url: str, file: Any) -> None:
        self.url, self.file = url, file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with reaching(self.url):
            data = self.file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def close(self) -> None:
        if not self.closed:
            self.file.close()
        super().close()

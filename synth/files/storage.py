"""Where data lie: a local path, or an object of a store that fsspec reaches (``s3://``, ``gs://``, ``hf://``, ...).

A local path is a ``pathlib.Path`` and goes through the operating system. A ``Remote`` has the part of pathlib's
interface that the package uses, so that code which takes a ``Location`` serves both.

What is written lands whole or not at all: locally by rename; in a store an object appears when its upload is complete,
so it is written to a local temporary file ($TMPDIR) first, and uploaded under its final name. A store has no locks and
no folders: a folder is there where an object is in it.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import socket
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import groupby, islice
from pathlib import Path, PurePath
from typing import IO, Any, NamedTuple, TypeVar

from clearfuse.synth.files.remote import Remote, open_store, reaching
from clearfuse.synth.types import UserError

Location = Path | Remote
"""Where a file or a folder is."""

IN_PROCESS = "memory://"
"""The store that lives in one process: each worker would have its own."""

THREADS = 16
"""Requests in flight where many small objects are read: a store answers slowly, and many at once."""

LISTED = 4096
"""Files of a folder that are looked at together."""

MOST_BYTES = 1 << 30
"""Of a local file that is read whole: more than the largest picture of any depth takes."""
MOST_TEXT = 1 << 26
"""Of a local file of settings, words or scores."""

_WAITING = "clearfuse-{host}-{pid}-"
"""How the names of local temporary files begin."""
_STAMPS = ("ETag", "etag", "blob_id", "md5Hash", "mtime", "LastModified", "created")
"""What stores call that which changes with an object's content."""

_T = TypeVar("_T")
_U = TypeVar("_U")


def is_url(text: str) -> bool:
    """Whether it names an object of a store, not a local path."""
    return "://" in text and not text.startswith(("file://", "local://"))


def locate(text: str) -> Location:
    """What a user named: a local path (``file://`` too), or a URL. Raises UserError where its library is missing."""
    if not is_url(text):
        return Path(_plain(text))
    protocol, _, rest = text.partition("://")
    if not rest.strip("/"):
        raise UserError(f"{text}: names no place: must be like {protocol}://bucket/folder")
    with reaching(text):
        open_store(text)
    return Remote(text.rstrip("/"))


def local(text: str, option: str) -> Path:
    """A path that an option needs to be local. Raises UserError where it is a URL."""
    return Path(local_text(text, option))


def local_text(text: str, option: str) -> str:
    """The text of such a path as it was given, without ``file://``."""
    if is_url(text):
        raise UserError(f"{option} {text}: must be local, not a URL")
    return _plain(text)


def _plain(text: str) -> str:
    return text.removeprefix("file://").removeprefix("local://")


def read_bytes(path: str) -> bytes:
    """A whole file, by its path or URL. Raises OSError, of a local file as ``check_regular``."""
    place = locate(path) if "://" in path else Path(path)
    if isinstance(place, Path):
        check_regular(place)
    return place.read_bytes()


def check_regular(path: str | Path, most: int = MOST_BYTES) -> None:
    """Raise UnfitFile unless a local path is a regular file of so many bytes; another OSError as the system does."""
    found = os.stat(path)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise UnfitFile(errno.EINVAL, "is no regular file", str(path))
    if found.st_size > most:
        raise UnfitFile(errno.EFBIG, f"is {found.st_size} bytes: at most {most} are read", str(path))


def read_small(path: str | Path, where: str = "") -> bytes:
    """A local file of settings, words or scores. Raises UserError, one line, where it can't be read.

    where: what the line begins with; the path without it.
    """
    try:
        check_regular(path, MOST_TEXT)
        return Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"{where or path}: cannot be read: {error.strerror or error}") from None


def is_below(name: str) -> bool:
    """Whether a name that comes from outside, joined to a folder, is a path below it."""
    path = PurePath(name)  # of this system: a drive and backslashes lead elsewhere on Windows
    return not path.anchor and ".." not in path.parts


class UnfitFile(OSError):
    """A local path that must not be read whole: a pipe waits for ever, a device may never end, or it is too large."""


class Fact(NamedTuple):
    """A file's bytes, and what changes with its content."""

    size: int
    stamp: str


def fact(info: dict[str, Any]) -> Fact:
    """Of what a store says of an object."""
    return Fact(int(info["size"]), str(next((info[name] for name in _STAMPS if info.get(name)), "")))


def facts(paths: Iterable[str]) -> dict[str, Fact]:
    """By path or URL, of the files that are there. A store is asked once a folder, not once a file."""
    found: dict[str, Fact] = {}
    remote: dict[Remote, list[str]] = {}
    for path in paths:
        if is_url(path):
            remote.setdefault(Remote(path).parent, []).append(path)
            continue
        with suppress(OSError):
            stat = os.stat(path)
            found[path] = Fact(stat.st_size, str(stat.st_mtime_ns))
    for (_, urls), entries in zip(remote.items(), in_order(Remote.entries, remote), strict=True):
        names = {url: url.rpartition("/")[2] for url in urls}
        found |= {url: fact(entries[name]) for url, name in names.items() if name in entries}
    return found


def files(folder: Location, start: str = "") -> Iterator[tuple[str, int]]:
    """Name and bytes of each file in a folder whose name starts so, one at a time; nothing where there is no folder."""
    if isinstance(folder, Remote):
        yield from folder.files(start)
        return
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(start) and entry.is_file():
                yield entry.name, entry.stat().st_size


def listing(folder: Location) -> dict[str, int]:
    """Bytes by name of the files in a folder; {} where there is no such folder."""
    return dict(files(folder))


class Listed(NamedTuple):
    """Some files of one folder: its path below the root with a last slash ("" for the root), names and bytes.

    Bytes are -1 where a name is no file: a dangling link, a pipe.
    """

    folder: str
    names: list[str]
    sizes: list[int]


def scan(root: Location) -> Iterator[Listed]:
    """Every file below a folder, a few thousand of one folder at a time; links are followed, loops are not.

    What begins with a dot is left out, and what is in a folder that cannot be opened. Never all held: a folder may
    have millions.
    """
    if isinstance(root, Remote):
        yield from _scan_store(root)
        return
    left, seen = [""], set[tuple[int, int]]()
    while left:
        below = left.pop()
        try:
            folder = os.open(os.path.join(root, below), os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            continue
        try:
            stat = os.fstat(folder)
            if (stat.st_dev, stat.st_ino) in seen:
                continue
            seen.add((stat.st_dev, stat.st_ino))
            inside: list[str] = []
            with os.scandir(folder) as entries:
                while some := list(islice(entries, LISTED)):
                    yield _listed(below, some, folder, inside)
            left += [f"{below}{name}/" for name in sorted(inside, reverse=True)]
        finally:
            os.close(folder)


def _listed(below: str, entries: Sequence[os.DirEntry[str]], folder: int, inside: list[str]) -> Listed:
    """The files among some entries of an open folder; its folders go ``inside``."""
    names: list[str] = []
    sizes: list[int] = []
    for entry in entries:
        name = entry.name
        if name[0] == ".":
            continue
        try:
            if entry.is_dir():
                inside.append(name)
                continue
            sizes.append(os.stat(name, dir_fd=folder).st_size if entry.is_file() else -1)
        except OSError:
            sizes.append(-1)
        names.append(name)
    return Listed(below, names, sizes)


def _scan_store(root: Remote) -> Iterator[Listed]:
    """What a store lists of a folder: its library holds the whole listing, about a kilobyte an object."""
    files = ((*path.rpartition("/"), int(info["size"])) for path, info in root.entries(below=True).items())
    shown = (one for one in files if not any(piece.startswith(".") for piece in (one[2], *one[0].split("/"))))
    for folder, group in groupby(shown, key=lambda one: one[0] + one[1]):
        while some := list(islice(group, LISTED)):
            yield Listed(folder, [one[2] for one in some], [one[3] for one in some])


def walk_files(root: Location) -> list[str]:
    """Every regular file below a folder as a relative path with forward slashes, sorted: see ``scan``."""
    return sorted(
        listed.folder + name
        for listed in scan(root)
        for name, size in zip(listed.names, listed.sizes, strict=True)
        if size >= 0
    )


def same(one: Location, other: Location) -> bool:
    """Whether two names are of one file or folder: links, hard ones too, and letters' case where it does not count."""
    if isinstance(one, Remote) or isinstance(other, Remote):
        return one == other
    return one.resolve() == other.resolve() or (one.exists() and other.exists() and one.samefile(other))


def ensure_folder(folder: Location) -> None:
    """Make a local folder; in a store there is nothing to make."""
    if not isinstance(folder, Remote):
        folder.mkdir(parents=True, exist_ok=True)


def size(path: Location) -> int:
    """Bytes of a file."""
    if not isinstance(path, Remote):
        return path.stat().st_size
    info = path.info()
    if info is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path.url)
    return int(info["size"])


def in_order(work: Callable[[_T], _U], items: Iterable[_T]) -> Iterator[_U]:
    """``work`` of each item, in order: in this thread on local paths, many at once where a store must be asked."""
    left = iter(items)
    first = next(left, None)
    if first is None:
        return
    if not isinstance(first, Remote):
        yield work(first)
        yield from map(work, left)
        return
    with ThreadPoolExecutor(THREADS) as pool:
        yield work(first)
        while some := list(islice(left, 4 * THREADS)):  # bounded: a receipt may be large
            yield from pool.map(work, some)


@contextmanager
def fetched(path: Location) -> Iterator[Path]:
    """A file as a local one: itself, or a copy for the time of the block."""
    if not isinstance(path, Remote):
        yield path
        return
    with _temporary(path.name) as (file, name):
        file.close()
        path.download(name)
        yield Path(name)


@contextmanager
def landing(path: Location) -> Iterator[IO[bytes]]:
    """A file that appears under its name whole or not at all.

    Local: unique temporary name, fsync, rename, the folder's fsync: what lands later is on the disk later, so that no
    receipt outlives its tar in a power cut. Remote: a local temporary file, uploaded at the end; the upload is complete
    when this returns.
    """
    if isinstance(path, Remote):
        with _temporary(path.name) as (file, name):
            yield file
            file.close()
            path.upload(name)
        return
    temporary = path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk: a rename alone may be lost in a power cut. Windows opens no folders."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems have no fsync of folders
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _temporary(name: str) -> Iterator[tuple[IO[bytes], str]]:
    """A local file that waits for its upload, or was downloaded, and its path."""
    prefix = _WAITING.format(host=socket.gethostname(), pid=os.getpid())
    with tempfile.NamedTemporaryFile(prefix=prefix, suffix=f"-{name}", delete=False) as file:
        try:
            yield file, file.name
        except OSError as error:
            if error.errno == errno.ENOSPC:
                where = f"{os.strerror(errno.ENOSPC)} in {tempfile.gettempdir()}, where uploads wait (TMPDIR)"
                raise OSError(errno.ENOSPC, where) from None
            raise
        finally:
            Path(file.name).unlink(missing_ok=True)


def sweep() -> None:
    """Remove the temporary files of processes that were killed."""
    start = _WAITING.partition("{pid}")[0].format(host=socket.gethostname())
    for path in Path(tempfile.gettempdir()).glob(f"{start}*"):
        pid = path.name.removeprefix(start).partition("-")[0]
        if pid.isdecimal() and not _alive(int(pid)):
            with suppress(OSError):
                path.unlink()


def _alive(pid: int) -> bool:
    if os.name == "nt":  # there signal 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


BEGUN = ".tmp-"
TEMPORARY = re.compile(rf"{re.escape(BEGUN)}\d+-[0-9a-f]{{8}}-")
"""The names under which files of a build are written before they land."""

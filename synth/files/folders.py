"""Output folders: made and tested before work, one writer at a time, swept of what a kill left."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from clearfuse.synth.files import storage
from clearfuse.synth.files.remote import Remote, StoreError, Unreachable
from clearfuse.synth.files.storage import BEGUN, TEMPORARY, Location
from clearfuse.synth.types import UserError

LOCK = ".clearfuse.lock"
"""The file that a folder is locked by. One that a killed process left is locked by nobody, and goes with the next."""


def difference(old: Any, new: Any, at: str = "") -> Iterator[str]:
    """The settings in which two builds differ, a line each: ``seed was 0, is 1``."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(k for k in new if k not in old)]:
            yield from difference(old.get(key), new.get(key), f"{at}.{key}" if at else str(key))
    elif old != new:
        yield f"{at} was {_short(old)}, is {_short(new)}"


def _short(value: Any) -> str:
    text = "not set" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def check_folder(out: str | Path, option: str = "--out") -> Path:
    """A local folder that is there or is to be made. Raises UserError, which names the option, for a file or a URL."""
    folder = storage.local(str(out), option)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{option} {out}: is a file, must be a folder")
    return folder


def make_folder(out: Location) -> list[Path]:
    """Make the folder, and see that it can be written to, before any work. The folders that were not there before."""
    made = [] if isinstance(out, Remote) else [folder for folder in (out, *out.parents) if not folder.exists()]
    name = f".tmp-{os.getpid()}-00000000-probe"
    try:
        if isinstance(out, Remote):
            with storage.landing(out / name):
                pass
        else:
            out.mkdir(parents=True, exist_ok=True)
            (out / name).touch()
        (out / name).unlink(missing_ok=True)
    except Unreachable:
        raise
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror}") from None
    return made


def check_html(out: str) -> None:
    """Refuse, before any work, a page that is no HTML file."""
    if storage.local(out, "--out").suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out}: must end in .html")


@contextmanager
def writing(out: str) -> Iterator[Location]:
    """The file that ``--out`` names, here or in a store, to be written within; its folder is made.

    Raises UserError where it can't be written, StoreError where a store fails.
    """
    target = storage.locate(out)
    try:
        if isinstance(target, Path):
            target.parent.mkdir(parents=True, exist_ok=True)
        yield target
    except StoreError:
        raise
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror or error}") from None


def write_file(out: str, content: bytes) -> None:
    """Write the file that ``--out`` names, whole or not at all. Raises as ``writing``."""
    with writing(out) as target, storage.landing(target) as file:
        file.write(content)


def check_new(out: Path) -> Path:
    """The absolute path of a folder that is to be new, whose parents are made; an empty one may be there.

    Raises UserError where something else is, or its parent can't be made.
    """
    path = out.resolve()
    try:
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise UserError(f"--out {out}: is there already; name a new folder")
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror or error}") from None
    return path


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to be filled, which takes the name ``out`` at the end: it is there whole or not at all.

    Raises UserError as ``check_new`` does, and where nothing can be written.
    """
    out = check_new(out)
    temporary = out.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{out.name}")
    try:
        temporary.mkdir()
        yield temporary
        os.replace(temporary, out)
    except Unreachable:
        raise
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def folder_lock(out: Location, what: str = "build") -> Iterator[None]:
    """One build, or run, a folder at a time; the lock ends with the process, however it ends.

    A store has no locks. Two runs of one build write the same bytes there; of two different builds at once, the one
    that ends later finds the other's receipts: see ``own_receipts``.
    """
    if isinstance(out, Remote):
        yield
        return
    from filelock import FileLock, Timeout

    lock = FileLock(out / LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"another {what} is writing to {out}: wait for it, or use another --out") from None
    try:
        yield
    finally:
        (out / LOCK).unlink(missing_ok=True)  # while it is held: whoever has opened it sees that, and makes another
        lock.release()


def remove_temporary(out: Location) -> None:
    """What a killed build left behind."""
    if isinstance(out, Remote):
        storage.sweep()
    for name in [name for name, _ in storage.files(out, BEGUN) if TEMPORARY.match(name)]:
        (out / name).unlink(missing_ok=True)

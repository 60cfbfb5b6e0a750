"""Shards as arguments name them: folders, tars, patterns and URLs, each argument a source.

    shards/vif   'shards/*/vif-train-*.tar'   shards/vif-train-{000000..000012}.tar   s3://bucket/shards   hf://...

Shards at a URL are downloaded once, whole, to the user's cache folder, and read from there.
"""

from __future__ import annotations

import fcntl
import glob
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clearfuse.synth.files import cache, storage
from clearfuse.synth.files.remote import Remote, open_store, reaching
from clearfuse.synth.files.storage import Location
from clearfuse.synth.seeds import content_key
from clearfuse.synth.types import UserError, WorkIncomplete

_MAGIC = re.compile(r"[*?\[]")
_BRACES = re.compile(r"\{[^{}]*(\.\.|,)[^{}]*\}")


@dataclass(frozen=True)
class ShardSource:
    """The shards of one argument, in order. Local: those at a URL have been downloaded."""

    text: str
    shards: tuple[Path, ...]


def find_sources(paths: Sequence[str]) -> list[ShardSource]:
    """The shards of a command line, a source an argument. One that several arguments name belongs to the first.

    Raises UserError where an argument names none, and WorkIncomplete where a download fails.
    """
    seen: set[str] = set()
    found: list[ShardSource] = []
    for text in paths:
        shards = [shard for shard in _shards(text) if not (str(shard) in seen or seen.add(str(shard)))]
        found.append(ShardSource(text, tuple(storage.in_order(downloaded, shards))))
    return found


def _shards(text: str) -> list[Location]:
    """The shards of an argument."""
    found: list[Location] = []
    for part in expanded(text):
        for path in _matches(part):
            if path.is_dir():
                here = sorted(path.glob("*.tar"))
                if not here and not (path / "dataset.json").exists():
                    raise UserError(f"{path}: no shards in this folder")
                found += here
            elif path.is_file():
                found.append(path)
            else:
                raise UserError(f"{path}: no such file or folder")
    return found


def expanded(text: str) -> list[str]:
    """An argument with ``{000..012}`` and ``{a,b}`` written out, as webdataset has them, unless it is a file's name."""
    if not _BRACES.search(text) or os.path.exists(text):
        return [text]
    from braceexpand import braceexpand

    try:
        return list(braceexpand(text))
    except ValueError:
        raise UserError(f"{text}: its braces are not balanced; they are like shard-{{000000..000012}}.tar") from None


def _matches(text: str) -> list[Location]:
    """The files and folders of a pattern; what is no pattern is itself."""
    path = storage.locate(text)
    query = text.startswith(("http://", "https://"))  # there ? begins a query
    if not _MAGIC.search(text.partition("?")[0] if query else text) or (isinstance(path, Path) and path.exists()):
        return [path]
    if isinstance(path, Remote):
        with reaching(text):
            store, inside = open_store(text)
            names = sorted(str(name) for name in store.glob(inside))
        protocol = text.partition("://")[0]
        found: list[Location] = [Remote(name if "://" in name else f"{protocol}://{name}") for name in names]
    else:
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]
    found = [one for one in found if one.suffix == ".tar" or one.is_dir()]
    if not found:
        raise UserError(f"{text}: matches no shard and no folder")
    return found


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
    folder = cache.cache_folder()
    if isinstance(folder, Remote):
        raise UserError(f"{shard}: is downloaded to the cache folder, and CLEARFUSE_CACHE is a URL too: {folder}")
    size, stamp = storage.fact(info)
    target = folder / "shards" / content_key("shard", shard.url, size, stamp) / shard.name
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked(target.with_name(".lock")):
            if not target.is_file():
                _download(shard, target, size)
    return target


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


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone among the processes of this machine."""
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

"""What a build finds in its folder: what is done, what another build left, what is somebody else's."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synth.shards import SHARD, TEMPORARY
from synth.types import UserError, check_schema

if TYPE_CHECKING:
    from synth.builder import Build

_CARD_MARK = re.compile(r"digest `[0-9a-f]{64}`")
"""What every card of a build says, edited or not."""


def read_receipt(path: Path) -> dict[str, Any]:
    """A receipt or ``dataset.json``, checked. Raises UserError where it is damaged or newer than this version."""
    index = path.name == "dataset.json"
    mend = "remove it and run the build again" if index else "remove it and its tar to render the shard again"
    try:
        receipt = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {error}; {mend}") from None
    fields = ("shards", "variants") if index else ("shard", "sha256", "bytes", "samples", "offsets", "rejects")
    missing = [
        f for f in ("schema", "digest", "settings", *fields) if not isinstance(receipt, dict) or f not in receipt
    ]
    if missing:
        raise UserError(f"{path}: is no {'index' if index else 'receipt'} of a build: no {missing[0]} in it; {mend}")
    check_schema(receipt["schema"], str(path))
    return receipt


def receipts_of(out: Path) -> list[Path]:
    """The files of a folder that are named as receipts, in order."""
    return sorted(path for path in out.iterdir() if SHARD.match(path.name) and path.suffix == ".json")


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


def done_shards(build: Build, *, extend: bool) -> set[int]:
    """The shards that are there, whole, with this build's digest. Another digest, or foreign files, is an error."""
    done: set[int] = set()
    numbers = {build.path(shard).stem: shard for shard in range(build.shard_count)}
    for path in receipts_of(build.out):
        receipt = read_receipt(path)
        if receipt["digest"] != build.digest:
            changes = list(difference(receipt["settings"], dict(build.settings)))
            more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
            raise UserError(
                f"{build.out} holds another build: {changes[0] if changes else 'digest'}{more}; "
                "use the same settings, another --out, or --overwrite"
            )
        if path.stem not in numbers:
            raise UserError(f"{build.out} holds more variants than --variants {build.variants}: use another --out")
        tar = path.with_suffix(".tar")
        if tar.is_file() and tar.stat().st_size == receipt["bytes"]:
            done.add(numbers[path.stem])
    _check_strangers(build)
    _check_finished(build, extend=extend, begun=bool(receipts_of(build.out)))
    return done


def _check_strangers(build: Build) -> None:
    """A tar past the last shard would be read with the build's own by whoever reads ``*.tar``."""
    wanted = {build.path(shard).name for shard in range(build.shard_count)}
    for path in sorted(build.out.glob("*.tar")):
        if path.name not in wanted and not path.name.startswith("."):
            raise UserError(f"{path} is no shard of this build: move it, or use another --out")


def _check_finished(build: Build, *, extend: bool, begun: bool) -> None:
    """A finished build grows by --extend alone; a README of somebody else's is not written over."""
    index = build.out / "dataset.json"
    if index.exists():
        held = read_receipt(index)
        if held["digest"] != build.digest and not begun:
            raise UserError(f"{build.out} holds another build's dataset.json: use another --out, or --overwrite")
        if held["variants"] != build.variants and not extend:
            raise UserError(
                f"{build.out} is finished with --variants {held['variants']}, not {build.variants}: "
                "add --extend to add variants"
            )
    card = build.out / "README.md"
    if card.exists() and not _our_card(card):
        raise UserError(f"{build.out} holds a README.md that is no build's: choose an empty folder for --out")


def _our_card(path: Path) -> bool:
    return path.is_file() and bool(_CARD_MARK.search(path.read_text(errors="replace")))


def make_folder(out: Path) -> None:
    """Make the folder, and see that it can be written to, before any work."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / f".tmp-{os.getpid()}-00000000-probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror}") from None


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """One build a folder at a time; the lock is the folder's own and ends with the process, however it ends."""
    handle = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another build is writing to {out}: wait for it, or use another --out") from None
        yield
    finally:
        os.close(handle)


def remove_temporary(out: Path) -> None:
    """What a killed build left behind."""
    for path in out.iterdir():
        if TEMPORARY.match(path.name) and path.is_file():
            path.unlink(missing_ok=True)


def clear(out: Path) -> None:
    """Remove a build's own files and nobody else's, receipts first, so that no shard looks done after a kill."""
    index = out / "dataset.json"
    receipts = [path for path in receipts_of(out) if _ours(path)]
    ours = bool(receipts) or _ours(index)
    for path in receipts:
        path.unlink()
        path.with_suffix(".tar").unlink(missing_ok=True)
    if ours and (out / "README.md").exists() and _our_card(out / "README.md"):
        (out / "README.md").unlink()
    if _ours(index):
        index.unlink()


def _ours(path: Path) -> bool:
    try:
        return bool(read_receipt(path))
    except UserError:
        return False

"""What a build finds in its folder: what is done, what another build left, what is somebody else's."""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from synth import storage
from synth.remote import Remote, StoreError, Unreachable
from synth.shards import SHARD, TEMPORARY, receipt_path
from synth.storage import Location
from synth.types import UserError, WorkIncomplete, check_schema

if TYPE_CHECKING:
    from synth.builder import Build

_MARK = re.compile(r"digest `[0-9a-f]{64}`|clearfuse:[0-9a-f]{64}")
"""What every card of a build says, edited or not, and every file for other tools."""
_SHARED_NAMES = re.compile(r"(README\.md|(index(-(train|val|test))?|croissant)\.json)\Z")
"""Names of a build's last files that other people's folders have too."""


_KINDS: dict[str, type] = {
    **dict.fromkeys(("digest", "shard", "sha256"), str),
    **dict.fromkeys(("bytes", "samples", "variants"), int),
    **dict.fromkeys(("settings", "offsets"), dict),
    **dict.fromkeys(("rejects", "shards"), list),
}
"""The fields of receipts and indexes, and their types."""
_RECEIPT = ("digest", "settings", "shard", "sha256", "bytes", "samples", "offsets", "rejects")
_INDEX = ("digest", "settings", "shards", "variants")
_LISTED = ("shard", "sha256", "bytes", "samples")


def read_receipt(path: Location) -> dict[str, Any]:
    """A receipt or ``dataset.json``, checked. Raises UserError where it is damaged or newer than this version."""
    index = path.name == "dataset.json"
    mend = "remove it and run the build again" if index else "remove it and its tar to render the shard again"
    try:
        receipt = json.loads(path.read_bytes())
    except StoreError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: cannot be read: {reason}; {mend}") from None
    what = f"is no {'index' if index else 'receipt'} of a build"
    wrong = "schema" if not isinstance(receipt, dict) or "schema" not in receipt else None
    wrong = wrong or _wrong_field(receipt, _INDEX if index else _RECEIPT)
    if wrong is None and index:
        wrong = next((f"shards.{w}" for shard in receipt["shards"] if (w := _wrong_field(shard, _LISTED))), None)
    if wrong is not None:
        raise UserError(f"{path}: {what}: no {wrong} in it, or of the wrong type; {mend}")
    check_schema(receipt["schema"], str(path))
    return receipt


def _wrong_field(data: Any, fields: Iterable[str]) -> str | None:
    """The first of the fields that an object lacks, or has of another type."""
    for field in fields:
        if not isinstance(data, dict) or not isinstance(data.get(field), _KINDS[field]):
            return field
    return None


def receipts_of(out: Location, held: Iterable[str]) -> list[Location]:
    """Those of the files ``held`` in a folder that are named as receipts, in order."""
    return [out / name for name in sorted(held) if SHARD.match(name) and name.endswith(".json")]


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


def done_shards(build: Build, *, extend: bool) -> bytearray:
    """1 for each shard that is there, whole, with this build's digest; another digest, or foreign files: an error."""
    done = bytearray(build.shard_count)
    held = storage.listing(build.out)
    receipts = receipts_of(build.out, held)
    for path, receipt in zip(receipts, storage.in_order(read_receipt, receipts), strict=True):
        if receipt["digest"] != build.digest:
            changes = list(difference(receipt["settings"], dict(build.settings)))
            more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
            raise UserError(
                f"{build.out} holds another build: {changes[0] if changes else 'digest'}{more}; "
                "use the same settings, another --out, or --overwrite"
            )
        if (shard := build.find(path.name)) is None:
            raise UserError(f"{build.out} holds more variants than --variants {build.variants}: use another --out")
        done[shard] = held.get(f"{path.stem}.tar") == receipt["bytes"]
    _check_strangers(build, held)
    _check_finished(build, held, extend=extend, begun=bool(receipts))
    return done


def _check_strangers(build: Build, held: Iterable[str]) -> None:
    """A tar past the last shard would be read with the build's own by whoever reads ``*.tar``."""
    for name in sorted(held):
        if name.endswith(".tar") and build.find(name) is None and not name.startswith("."):
            raise UserError(f"{build.out / name} is no shard of this build: move it, or use another --out")


def _check_finished(build: Build, held: Iterable[str], *, extend: bool, begun: bool) -> None:
    """A finished build grows by --extend alone; a README or an index of somebody else's is not written over."""
    index = build.out / "dataset.json"
    if index.exists():
        finished = read_receipt(index)
        if finished["digest"] != build.digest and not begun:
            raise UserError(f"{build.out} holds another build's dataset.json: use another --out, or --overwrite")
        if finished["variants"] != build.variants and not extend:
            raise UserError(
                f"{build.out} is finished with --variants {finished['variants']}, not {build.variants}: "
                "add --extend to add variants"
            )
    for name in filter(_SHARED_NAMES.match, sorted(held)):
        if not _marked(build.out / name):
            raise UserError(f"{build.out} holds a {name} that is no build's: choose an empty folder for --out")


def _marked(path: Location) -> bool:
    return bool(_MARK.search(path.read_text(errors="replace")))


def make_folder(out: Location) -> None:
    """Make the folder, and see that it can be written to, before any work."""
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


@contextmanager
def alone(out: Location) -> Iterator[None]:
    """One build a folder at a time; the lock is the folder's own and ends with the process, however it ends.

    A store has no locks. Two runs of one build write the same bytes there; of two different builds at once, the one
    that ends later finds the other's receipts: see ``own_receipts``.
    """
    if isinstance(out, Remote):
        yield
        return
    handle = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another build is writing to {out}: wait for it, or use another --out") from None
        yield
    finally:
        os.close(handle)


def remove_temporary(out: Location) -> None:
    """What a killed build left behind."""
    if isinstance(out, Remote):
        storage.sweep()
    for name in filter(TEMPORARY.match, storage.listing(out)):
        (out / name).unlink(missing_ok=True)


def own_receipts(build: Build, rejects: list[dict[str, Any]], shown: int) -> list[dict[str, Any]]:
    """What the last files of a build say of each shard: its name, hash, bytes, samples, and rejects by reason.

    The first ``shown`` rejects go to ``rejects``: all may be as many as there are samples. Raises WorkIncomplete where
    another build wrote over a shard.
    """
    held = storage.listing(build.out)
    paths = (receipt_path(build.path(shard)) for shard in range(build.shard_count))
    kept: list[dict[str, Any]] = []
    for receipt in storage.in_order(read_receipt, paths):
        if receipt["digest"] != build.digest or held.get(receipt["shard"]) != receipt["bytes"]:
            raise WorkIncomplete(
                f"{build.out / receipt['shard']}: another build wrote to this folder meanwhile: "
                "run this one again with another --out"
            )
        rejects += receipt["rejects"][: shown - len(rejects)]
        facts = {key: receipt[key] for key in ("shard", "sha256", "bytes", "samples")}
        kept.append({**facts, "rejects": dict(Counter(reject["reason"] for reject in receipt["rejects"]))})
    return kept


def clear(out: Location) -> None:
    """Remove a build's own files and nobody else's, receipts first, so that no shard looks done after a kill."""
    index = out / "dataset.json"
    receipts = [path for path in receipts_of(out, storage.listing(out)) if _ours(path)]
    ours = bool(receipts) or _ours(index)
    for path in receipts:
        path.unlink()
        path.with_suffix(".tar").unlink(missing_ok=True)
    if ours:
        for name in filter(_SHARED_NAMES.match, storage.listing(out)):
            if _marked(out / name):
                (out / name).unlink()
    if _ours(index):
        index.unlink()


def _ours(path: Location) -> bool:
    try:
        return bool(read_receipt(path))
    except StoreError:
        raise
    except UserError:
        return False

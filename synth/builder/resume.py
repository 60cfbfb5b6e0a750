"""What a build finds in its folder: what is done, what another build left, what is somebody else's."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from clearfuse.synth.builder.pack import overwritten_error
from clearfuse.synth.execute.run import run_tasks
from clearfuse.synth.files import storage
from clearfuse.synth.files.folders import difference
from clearfuse.synth.files.remote import Remote, StoreError
from clearfuse.synth.files.storage import Location
from clearfuse.synth.shards.receipts import Receipts, read_index, read_receipt, receipts_of
from clearfuse.synth.shards.records import Receipt
from clearfuse.synth.shards.tar import SHARD, receipt_path
from clearfuse.synth.types import UserError

if TYPE_CHECKING:
    from clearfuse.synth.builder.build import Build


FEW, BATCH, READERS = 4096, 128, 64
"""Receipts of a store that the driver reads itself; beyond them, a task's, and the workers that read at most."""

_MARK = re.compile(r"digest `[0-9a-f]{64}`|clearfuse:[0-9a-f]{64}")
"""What every card of a build says, edited or not, and every file for other tools."""
_SHARED_NAMES = re.compile(r"(README\.md|(index(-(train|val|test))?|croissant)\.json)\Z")
"""Names of a build's last files that other people's folders have too."""


Read = Callable[["ShardSet", Sequence[int]], Iterator[Receipt]]
"""How the receipts of some shards are read."""


@runtime_checkable
class ShardSet(Protocol):
    """The shards that are to be in a folder: a build's, or those of ``train cache``."""

    @property
    def out(self) -> Location: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    @property
    def digest(self) -> str: ...
    @property
    def shard_count(self) -> int: ...
    def path(self, shard: int) -> Location:
        """Where a shard lands."""
        ...

    def find(self, name: str) -> int | None:
        """The shard of a tar or receipt of that name, None where it is none of these."""
        ...


@dataclass
class FolderState:
    """What a folder of shards holds, in nine bytes a shard. tars: bytes of each shard's, -1 where there is none.

    receipts: which shards have one. strange_receipt, strange_tar: the first names that are no shard of these.
    shared: a build's last files whose names other people's folders have too.
    """

    tars: np.ndarray
    receipts: np.ndarray
    strange_receipt: str | None = None
    strange_tar: str | None = None
    shared: list[str] = field(default_factory=list[str])


def folder_state(wanted: ShardSet) -> FolderState:
    """What there is in the folder, by one listing."""
    held = FolderState(np.full(wanted.shard_count, -1, np.int64), np.zeros(wanted.shard_count, np.bool_))
    for name, size in storage.files(wanted.out):
        shard = wanted.find(name)
        if shard is not None and name.endswith(".tar"):
            held.tars[shard] = size
        elif shard is not None:
            held.receipts[shard] = True
        elif name.endswith(".tar") and not name.startswith("."):
            held.strange_tar = min(name, held.strange_tar or name)
        elif SHARD.match(name):
            held.strange_receipt = min(name, held.strange_receipt or name)
        elif _SHARED_NAMES.match(name):
            held.shared.append(name)
    return held


def read_receipts(
    wanted: ShardSet, shards: Sequence[int], workers: int = 1, executor: str = "serial"
) -> Iterator[Receipt]:
    """The receipts of some shards, in order, without their samples; those of this digest without its settings too.

    From a store many at once: one by one a million take hours, and 16 at a time half of one. Where there are more than
    ``FEW``, the workers read them.
    """
    paths = (receipt_path(wanted.path(shard)) for shard in shards)
    if not isinstance(wanted.out, Remote) or executor == "serial" or len(shards) <= FEW:
        return storage.in_order(read_receipt, paths)
    batches = iter(lambda: list(itertools.islice(paths, BATCH)), [])
    read = run_tasks(_read_batch, wanted.digest, batches, workers=min(workers, READERS), executor=executor)
    return itertools.chain.from_iterable(read)


def _read_batch(digest: str, paths: Sequence[Location]) -> list[Receipt]:
    return [_reduced(receipt, digest) for receipt in storage.in_order(read_receipt, paths)]


def _reduced(receipt: Receipt, digest: str) -> Receipt:
    """A receipt without what the driver does not look at."""
    less: dict[str, Any] = {"offsets": {}}
    return receipt.model_copy(update=less | ({"settings": {}} if receipt.digest == digest else {}))


def done_shards(wanted: ShardSet, held: FolderState, *, more: str, read: Read = read_receipts) -> bytearray:
    """1 for each shard that is there, whole, with this digest; another digest, or foreign files: an error.

    more: what to say where there are receipts of this digest beyond these shards.
    """
    done = bytearray(wanted.shard_count)
    there = np.flatnonzero(held.receipts).tolist()
    for shard, receipt in zip(there, read(wanted, there), strict=True):
        _check_digest(wanted, receipt)
        done[shard] = bool(held.tars[shard] == receipt.bytes)
    if held.strange_receipt is not None:
        _check_digest(wanted, read_receipt(wanted.out / held.strange_receipt))
        raise UserError(f"{wanted.out} holds more {more}: use another --out")
    if held.strange_tar is not None:  # whoever reads ``*.tar`` would take it for one of these
        raise UserError(f"{wanted.out / held.strange_tar} is no shard of this build: move it, or use another --out")
    return done


def _check_digest(wanted: ShardSet, receipt: Receipt) -> None:
    if receipt.digest != wanted.digest:
        changes = list(difference(receipt.settings, dict(wanted.settings)))
        more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
        raise UserError(
            f"{wanted.out} holds another build: {changes[0] if changes else 'digest'}{more}; "
            "use the same settings, another --out, or --overwrite"
        )


def check_finished(build: Build, held: FolderState, *, extend: bool) -> None:
    """A finished build grows by --extend alone; a README or an index of somebody else's is not written over."""
    index = build.out / "dataset.json"
    if index.exists():
        finished = read_index(index)
        if finished.digest != build.digest and not held.receipts.any():
            raise UserError(f"{build.out} holds another build's dataset.json: use another --out, or --overwrite")
        if finished.variants != build.variants and not extend:
            raise UserError(
                f"{build.out} is finished with --variants {finished.variants}, not {build.variants}: "
                "add --extend to add variants"
            )
    for name in sorted(held.shared):
        if not _marked(build.out / name):
            raise UserError(f"{build.out} holds a {name} that is no build's: choose an empty folder for --out")


def _marked(path: Location) -> bool:
    return bool(_MARK.search(path.read_text(errors="replace")))


def own_receipts(wanted: ShardSet, shown: int = 0, *, read: Read = read_receipts) -> Receipts:
    """What is said of all shards at the end, with the first ``shown`` rejects.

    Raises WorkIncomplete where another build wrote over a shard.
    """
    held, kept = folder_state(wanted), Receipts(shown)
    for shard, receipt in enumerate(read(wanted, range(wanted.shard_count))):
        if receipt.digest != wanted.digest or held.tars[shard] != receipt.bytes:
            raise overwritten_error(wanted.path(shard))
        kept.add(receipt)
    return kept


def clear(out: Location) -> None:
    """Remove a build's own files and nobody else's, receipts first, so that no shard looks done after a kill."""
    index = out / "dataset.json"
    ours = _ours(index)
    for path in (out / name for name in receipts_of(out)):
        if _ours(path):
            ours = True
            path.unlink()
            path.with_suffix(".tar").unlink(missing_ok=True)
    if ours:
        for name in [name for name, _ in storage.files(out) if _SHARED_NAMES.match(name)]:
            if _marked(out / name):
                (out / name).unlink()
    if _ours(index):
        index.unlink()


def _ours(path: Location) -> bool:
    try:
        return bool(read_index(path) if path.name == "dataset.json" else read_receipt(path))
    except StoreError:
        raise
    except UserError:
        return False

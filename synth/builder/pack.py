"""*Pack*: what a worker does of a build: render a shard's samples, land the tar, then the receipt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from clearfuse.synth.execute.tasks import one_thread, report
from clearfuse.synth.files.remote import Remote
from clearfuse.synth.files.storage import Location
from clearfuse.synth.samples.prepare import Spec, prepare, uses_network
from clearfuse.synth.samples.render import render
from clearfuse.synth.shards import codecs
from clearfuse.synth.shards.receipts import SampleFailed, land_shard, read_receipt
from clearfuse.synth.shards.records import Reject
from clearfuse.synth.shards.sample import encode_sample
from clearfuse.synth.shards.tar import receipt_path
from clearfuse.synth.types import BadPair, PairRef, WorkIncomplete


@dataclass(frozen=True)
class Packer:
    """A build as its workers have it: without its pairs, which come with the tasks, however many there are."""

    out: Location
    spec: Spec
    codec: str
    settings: Mapping[str, Any]
    digest: str


@dataclass(frozen=True)
class SampleTask:
    """One sample to render."""

    index: int
    variant: int
    ref: PairRef


@dataclass(frozen=True)
class ShardTask:
    """One shard to make: the name of its tar, and its samples in order."""

    name: str
    samples: tuple[SampleTask, ...]


@dataclass(frozen=True)
class Rendered:
    """An encoded sample, or why there is none: a reject is the pair's fault, a failure ours."""

    task: SampleTask
    members: Mapping[str, bytes] | None = None
    reject: str | None = None
    failure: str | None = None
    redrawn: bool = False


def render_sample(packer: Packer, task: SampleTask) -> Rendered:
    """Prepare, render and encode one sample; whatever goes wrong with it is in the result."""
    report(task.ref.name)
    key = f"{task.index:09d}"
    try:
        with one_thread(torch=uses_network(packer.spec.fusers, packer.spec.depths)):
            sample = render(packer.spec, prepare(packer.spec, task.ref), task.variant, key)
        members = encode_sample(sample, codecs.CODECS[packer.codec])
        return Rendered(task, members, redrawn=sample.meta.redrawn > 0)
    except BadPair as error:
        return Rendered(task, reject=str(error))
    except Exception as error:  # any other sample goes on; the shard is not written and is named at the end
        return Rendered(task, failure=f"{task.ref.name}: {type(error).__name__}: {error}")


def pack_shard(packer: Packer, task: ShardTask) -> str | None:
    """Make a shard, sample by sample. The failure, or None."""
    return write(packer, task, (render_sample(packer, one) for one in task.samples))


def write(packer: Packer, task: ShardTask, rendered: Iterator[Rendered]) -> str | None:
    """Take a shard's samples from ``rendered``, in order, and land the tar, then the receipt. The failure, or None."""
    rejects: list[Reject] = []
    failures: list[str] = []
    redrawn = Counter[bool]()

    def members() -> Iterator[tuple[str, Mapping[str, bytes]]]:
        for _ in task.samples:
            one = next(rendered)
            if one.failure is not None:
                failures.append(one.failure)
            elif one.members is not None:
                redrawn[one.redrawn] += 1
                yield f"{one.task.index:09d}", one.members
            else:
                rejects.append(_reject(one))
        if failures:
            raise SampleFailed(failures[0])
        _check_ours(packer, path)

    path = packer.out / task.name
    return land_shard(path, members(), packer.digest, packer.settings, rejects, redrawn)


def _reject(one: Rendered) -> Reject:
    ref = one.task.ref
    return Reject(
        index=one.task.index, dataset=ref.dataset, pair=ref.key, variant=one.task.variant, reason=one.reject or ""
    )


def _check_ours(packer: Packer, path: Location) -> None:
    """Leave a shard alone that another build wrote meanwhile: a store has no lock that would have kept it out.

    Raises WorkIncomplete.
    """
    receipt = receipt_path(path)
    if isinstance(path, Remote) and receipt.is_file() and read_receipt(receipt).digest != packer.digest:
        raise overwritten_error(path)


def overwritten_error(shard: Location) -> WorkIncomplete:
    """The error for a shard of another build where this one's should be."""
    return WorkIncomplete(
        f"{shard}: another build wrote to this folder meanwhile: run this one again with another --out"
    )

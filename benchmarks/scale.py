"""A build on 1, 20 and 200 nodes, played: time, idle workers, what is lost, the driver, requests to the store.

The build's own plan, scheduler, receipts and last files run on a virtual clock; ``played.py`` says what is played. A core's
seconds and bytes a sample are measured first, by a real build of the built-in scenes in processor time.

    python benchmarks/scale.py              # all rows of docs/scale.md: an hour of one core
    python benchmarks/scale.py --rows 20x10000000 --shards 2000
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import fsspec
import numpy as np
from played import HOUR, Clock, Cluster, Store, World, sha256_of

from clearfuse.synth.builder import pack, run
from clearfuse.synth.builder.build import Build
from clearfuse.synth.builder.options import Options
from clearfuse.synth.builder.run import build, plan_build, run_build
from clearfuse.synth.execute import ray as execute_ray
from clearfuse.synth.files import storage
from clearfuse.synth.files.storage import Location, landing
from clearfuse.synth.shards import receipts
from clearfuse.synth.shards.receipts import listed_shards
from clearfuse.synth.shards.tar import END_MARK, ShardFacts

PLANNED = 8
"""Samples of a shard that are planned; each stands for as many as make the shard's real number."""
PAIRS = 800
URL = "played://bucket/shards"


@dataclass(frozen=True)
class Played:
    """What a played build took. Times in seconds. idle: share of cores' time without a task; wasted: lost with workers.

    again: shards whose receipt was written more than once, with the same bytes. memory: the process's peak in bytes.
    """

    samples: int
    shards: int
    hours: float
    idle: float
    wasted: float
    lost: int
    again: int
    driver: float
    memory: int
    requests: Mapping[str, int]
    up: int
    failed: int
    phases: Mapping[str, float]


def play(world: World, samples: int, size: int, *, most: int | None = None) -> Played:
    """Play a build of so many samples in shards of ``size``; ``most``: of so many shards, the rest left out."""
    planned = 1 if world.copied else min(PLANNED, size)
    world = dataclasses.replace(world, stands=max(1, size // planned))
    shards = min(-(-samples // size), most or 10**6)
    per_variant = min(PAIRS // planned, shards)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clearfuse-played-")))
        fsspec.register_implementation("played", Store, clobber=True)
        store = Store(world, folder)
        cluster = Cluster(world, store)
        for patch in (
            mock.patch.object(execute_ray, "ray_module", lambda: cluster),
            mock.patch.object(pack, "render_sample", _render),
            mock.patch.object(storage, "in_order", functools.partial(_in_order, store.clock, storage.in_order)),
            mock.patch.object(receipts, "write_shard", lambda path, given: _write(world, path, given)),
        ):
            stack.enter_context(patch)
        options = Options(
            task="vif", out=URL, limit=per_variant * planned, variants=shards // per_variant, shard_size=planned,
            n="3", executor="ray", workers=world.nodes * world.cores, timeout=0, max_rejects=0.0,
        )  # fmt: skip
        clock, began = store.clock, time.process_time()
        plan, _ = plan_build(options)
        with clock.outside():
            marks = {"planned": clock.now}
        report = run_build(plan, options, lambda done, total: marks.update({"rendered": clock.now}))
        with clock.outside():
            marks["ended"] = clock.now
        if not report.failed:
            check(plan, store)
        return Played(
            samples=report.samples * world.stands,
            shards=report.shards,
            hours=clock.now / HOUR,
            idle=cluster.idle(),
            wasted=cluster.wasted / max(cluster.useful + cluster.wasted, 1.0),
            lost=cluster.counts["nodes lost"],
            again=int((store.written > 1).sum()),
            driver=clock.driver,
            memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
            requests=dict(sorted(store.requests.items())),
            up=store.up,
            failed=len(report.failed),
            phases={"render": marks["rendered"] - marks["planned"], "finish": marks["ended"] - marks["rendered"]},
        )


def _in_order(clock: Clock, real: Callable[..., Any], work: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """``storage.in_order``; in a worker without its threads, whose time is played."""
    return map(work, items) if clock.working else real(work, items)


def _render(packer: pack.Packer, task: pack.SampleTask) -> pack.Rendered:
    """What a worker's sample comes to: nothing but its place."""
    return pack.Rendered(task, {})


def _write(world: World, path: Location, samples: Iterable[tuple[str, Mapping[str, bytes]]]) -> ShardFacts:
    """A tar of the samples' bytes, all of them holes."""
    offsets: dict[str, int] = {}
    each = int(world.stands * world.sample_bytes)
    with landing(path) as file:
        for key, _ in samples:
            offsets[key] = len(offsets) * each
        file.truncate(len(offsets) * each + END_MARK)
    return ShardFacts(sha256_of(path.name), len(offsets) * each + END_MARK, offsets)


def check(plan: Build, store: Store) -> None:
    """Every shard of the plan once in ``dataset.json``, in order, and in the store. Raises AssertionError."""
    store.clock.working = True  # nobody's time
    for shard, listed in enumerate(listed_shards(plan.out / "dataset.json")):
        assert listed.shard == plan.path(shard).name, listed.shard
        assert listed.bytes == store.tars[shard]
    store.clock.working = False
    assert shard == plan.shard_count - 1
    assert (store.written[: plan.shard_count] > 0).all()


if __name__ == "__main__":
    import sys
    t=time.process_time(); 
    nodes, shards, size = map(int, sys.argv[1:4])
    r = play(World(nodes=nodes, copied=len(sys.argv) > 4), shards*size, size)
    for f in dataclasses.fields(r): print(f.name, getattr(r, f.name))
    print("cpu", time.process_time()-t)

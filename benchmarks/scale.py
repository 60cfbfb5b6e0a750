"""A build on 1, 20 and 200 nodes, simulated: time, idle workers, what is lost, the driver, requests to the store.

The build's own plan, scheduler, receipts and last files run on a virtual clock; see ``simulated_cluster.py``.

    python benchmarks/scale.py                                              # half an hour of a core
    python benchmarks/scale.py --nodes 200 --samples 100000000 --size 100   # a million shards: five minutes of a core
    python benchmarks/scale.py --measure                                    # a core's seconds and bytes a sample
    python benchmarks/scale.py --nodes 20 --broken                          # what each fix gains
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import fsspec
from build import FEW, make_pairs
from build import PAIRS as PAIRS_OF_BUILD
from simulated_cluster import HOUR, Cluster
from simulated_store import Clock, Store, World, sha256_of

from clearfuse.synth.builder import pack, resume, run
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
URL = "simulated://bucket/shards"


@dataclass(frozen=True)
class Simulation:
    """The outcome of a simulated build. Times in seconds.

    idle: share of core time without a task. wasted: share of the work that was lost with its worker.
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


def simulate(world: World, samples: int, size: int, *, most: int | None = None) -> Simulation:
    """Simulate a build of so many samples in shards of ``size``; most: the shards to simulate at most."""
    planned = 1 if world.copied else min(PLANNED, size)
    world = dataclasses.replace(world, stands=max(1, size // planned))
    shards = min(-(-samples // size), most or 10**6)
    per_variant = next(n for n in range(min(PAIRS // planned, shards), 0, -1) if shards % n == 0)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clearfuse-simulated-")))
        fsspec.register_implementation("simulated", Store, clobber=True)
        store = Store(world, folder)
        stack.callback(store.receipts.close)
        cluster = Cluster(world, store)
        for patch in (
            mock.patch.object(execute_ray, "ray_module", lambda: cluster),
            mock.patch.object(pack, "render_sample", _render),
            mock.patch.object(run, "render_sample", _render),
            mock.patch.object(storage, "in_order", functools.partial(_in_order, store.clock, storage.in_order)),
            mock.patch.object(receipts, "write_shard", lambda path, given: _write(world, path, given)),
        ):
            stack.enter_context(patch)
        options = Options(
            task="vif", out=URL, limit=per_variant * planned, variants=shards // per_variant, shard_size=planned,
            n="3", executor="ray", workers=world.nodes * world.cores, timeout=0, max_rejects=0.0,
        )  # fmt: skip
        clock = store.clock
        plan, _ = plan_build(options)
        with clock.outside():
            marks = {"planned": clock.now}
        report = run_build(plan, options, lambda done, total: marks.update({"rendered": clock.now}))
        with clock.outside():
            marks["ended"] = clock.now
        if not report.failed:
            check(plan, store)
        return Simulation(
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


def _in_order(
    clock: Clock, real: Callable[..., Any], work: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
    """``storage.in_order``; in a worker without its threads, whose time is found."""
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


def measured() -> tuple[float, float]:
    """(processor seconds, bytes in the tar) of a sample: 640x480, n = 3, WebP; without start-up."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        data = make_pairs(root, 640, 480)
        spent, count = [0.0, 0.0], [0, 0]
        for turn, pairs in enumerate((PAIRS_OF_BUILD, FEW, PAIRS_OF_BUILD)):  # the first loads and compiles
            began = time.process_time()
            report = build(
                "vif", data=[data[pairs]], out=str(root / f"out-{turn}"), n="3", shard_size=8, executor="serial",
                max_rejects=0.0,
            )  # fmt: skip
            if turn:
                spent[turn - 1], count[turn - 1] = time.process_time() - began, report.samples
        size = sum(shard.stat().st_size for shard in (root / "out-2").glob("*.tar"))
        return (spent[1] - spent[0]) / (count[1] - count[0]), size / count[1]


HEADS = (
    "samples",
    "shards",
    "nodes",
    "hours",
    "samples/s",
    "idle",
    "wasted",
    "lost",
    "again",
    "driver",
    "s/shard",
    "MB",
)


def row(world: World, found: Simulation) -> str:
    """A line of the table."""
    cells = (
        f"{found.samples:,}", f"{found.shards:,}", str(world.nodes), f"{found.hours:.2f}",
        f"{found.samples / found.hours / HOUR:,.0f}", f"{found.idle:.1%}", f"{found.wasted:.2%}", str(found.lost),
        str(found.again), f"{found.driver / found.hours / HOUR:.1%}",
        f"{1e3 * found.driver / found.shards:.2f} ms", f"{found.memory >> 20}",
    )  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def table(rows: Iterable[tuple[World, int, int]]) -> None:
    """Simulate and print rows of (world, samples, samples a shard)."""
    print("| " + " | ".join(HEADS) + " |\n|" + "---|" * len(HEADS))
    for world, samples, size in rows:
        found = simulate(world, samples, size)
        print(row(world, found), flush=True)
        if found.failed:
            print(f"{found.failed} shards failed")
        asked = ", ".join(f"{name} {count:,}" for name, count in found.requests.items())
        spent = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in found.phases.items())
        print(f"  {spent}; {found.up / 1e12:.2f} TB up; {asked}", file=sys.stderr, flush=True)


def broken(world: World) -> None:
    """The same with each fix undone: a bound on waiting results, and receipts read by the driver."""
    samples, size = 4500 * 100, 100
    for what, patches in (
        ("as it is", {}),
        ("as many results wait as there are workers", {(run, "WAITING"): world.nodes * world.cores}),
        ("the driver reads the receipts", {(resume, "FEW"): 10**7}),
    ):
        with contextlib.ExitStack() as stack:
            for (module, name), value in patches.items():
                stack.enter_context(mock.patch.object(module, name, value))
            found = simulate(world, samples, size)
        print(f"{what}: {60 * found.hours:.1f} min, idle {found.idle:.1%}, end {found.phases['finish']:.0f} s")


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 20, 200])
    parser.add_argument("--samples", type=int, nargs="+", default=[195_300, 10**7, 10**8])
    parser.add_argument("--size", type=int, default=256, help="samples a shard")
    parser.add_argument("--lost", type=float, default=0.05, help="share of nodes lost an hour")
    parser.add_argument("--measure", action="store_true", help="a core's seconds and bytes a sample, by a real build")
    parser.add_argument("--broken", action="store_true", help="with each fix undone")
    given = parser.parse_args()
    if given.measure:
        seconds, size = measured()
        print(f"{seconds:.3f} s of a core and {size / 1e6:.2f} MB a sample (640x480, n = 3, WebP)")
        return
    worlds = [  # one node alone is as fast as most
        World(nodes=nodes, lost=given.lost, copied=True, slow=World.slow if nodes > 1 else 0.0) for nodes in given.nodes
    ]
    if given.broken:
        broken(worlds[-1])
        return
    table((world, samples, given.size) for samples in given.samples for world in worlds)


if __name__ == "__main__":
    main()

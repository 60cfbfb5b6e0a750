"""``train cache``: encodings of shards, written as a build is: receipts last, resume by digest.

A shard a task; each sample is what a run would make of it (``data.samples.Samples``), encoded alone, so that no number
depends on workers, executor or what stood beside it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np
import torch

from clearfuse.synth.builder.resume import clear, done_shards, folder_state, own_receipts
from clearfuse.synth.execute.run import connect_workers, find_executor, run_tasks
from clearfuse.synth.execute.tasks import Needs, Watch
from clearfuse.synth.files import storage
from clearfuse.synth.files.folders import folder_lock, make_folder, remove_temporary
from clearfuse.synth.files.jsonstream import Stream, dumps, write_json
from clearfuse.synth.files.storage import Location
from clearfuse.synth.shards.tar import SHARD
from clearfuse.synth.types import SCHEMA, UserError, WorkIncomplete
from clearfuse.train.data.corpus import KIND, Corpus, index
from clearfuse.train.data.degrade import Degraders, choose_degraders, degraders_record
from clearfuse.train.designs.design import AS_DESIGNED, Parts, find_parts
from clearfuse.train.device import find_device
from clearfuse.train.runs.settings import Settings
from clearfuse.train.training.encode import CacheTask, Maker, cache_shard
from clearfuse.train.training.inputs import latent_settings

Progress = Callable[[int, int], None]
PACKAGES = ("torch", "safetensors", "numpy", "opencv-python-headless", "diffusers", "transformers")
"""Packages whose versions may decide bytes."""


@dataclass
class CacheReport:
    """What a run of ``train cache`` left. resumed: shards that were there."""

    out: str
    shards: int
    resumed: int
    samples: int
    bytes: int

    def line(self) -> str:
        """What the command line prints."""
        return f"{self.out}: {self.samples} samples in {self.shards} shards, {self.bytes / 1e6:.1f} MB"


@dataclass(frozen=True)
class LatentShards:
    """The shards that a cache is to hold: see ``ShardSet``. names: of their tars, in order."""

    out: Location
    settings: Mapping[str, Any]
    digest: str
    names: tuple[str, ...]

    @cached_property
    def _numbers(self) -> Mapping[str, int]:
        return {name.removesuffix(".tar"): number for number, name in enumerate(self.names)}

    @property
    def shard_count(self) -> int:
        """How many."""
        return len(self.names)

    def path(self, shard: int) -> Location:
        """Where a shard lands."""
        return self.out / self.names[shard]

    def find(self, name: str) -> int | None:
        """The shard of a tar or receipt of that name, None where it is none of these."""
        stem, _, end = name.rpartition(".")
        return self._numbers.get(stem) if end in ("tar", "json") else None


def cache(
    paths: Sequence[str],
    out: str,
    settings: Settings,
    *,
    epochs: int = 1,
    hold_out: float | None = None,
    recipes: Sequence[str] = (),
    partial: float = 0.0,
    language: str = "en",
    parts: Parts = AS_DESIGNED,
    executor: str | None = None,
    workers: int | None = None,
    device: str | None = None,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> CacheReport:
    """Write what ``settings`` make of shards to the folder ``out``, or go on where that was stopped.

    epochs: drawn crops of each sample, which a run takes in turn. hold_out: see ``corpus.index``. executor: by default
    this process on CUDA, else processes. Raises UserError before work begins, WorkIncomplete where
    shards could not be cached, naming them.
    """
    where = find_device(device)
    executor = find_executor(executor or ("serial" if where.type == "cuda" else "processes"))
    corpus = index(paths, hold_out)
    tasks = _tasks(corpus)
    degraders = choose_degraders(corpus.lean, recipes, partial, language)
    design = settings.design()
    found = find_parts(design, parts, torch.Generator())
    # What the workers load is what was found here, at its commit.
    design = dataclasses.replace(design, **{kind: part.reference for kind, part in found._asdict().items()})
    record = _record(corpus, degraders, latent_settings(settings, found), epochs, where.type)
    record |= {} if hold_out is None else {"hold_out": hold_out}
    folder = storage.locate(out)
    if any(storage.same(folder, path.parent) for path in corpus.shards):
        raise UserError(f"--out {out}: holds the shards to cache, which would be replaced; choose another folder")
    digest = hashlib.sha256(dumps(record)).hexdigest()
    maker = Maker(folder, settings, design, parts, degraders, epochs, where.type, record, digest)
    make_folder(folder)
    local = [os.path.abspath(part) for part in (out, *paths) if "://" not in part]
    with folder_lock(folder), connect_workers(executor, workers, Needs(PACKAGES, tuple(local))) as count:
        if overwrite:
            clear(folder)
        remove_temporary(folder)
        wanted = LatentShards(folder, record, digest, tuple(task.name for task in tasks))
        done = done_shards(wanted, folder_state(wanted), more="shards than these")
        missing = [task for task, there in zip(tasks, done, strict=True) if not there]
        failed = _run(maker, missing, executor, count, progress)
        remove_temporary(folder)
        if failed:
            name, reason = next(iter(failed.items()))
            raise WorkIncomplete(f"{len(failed)} of {len(tasks)} shards failed: {name}: {reason}; fix it and run again")
        return _finish(wanted, epochs, sum(done))


def _tasks(corpus: Corpus) -> list[CacheTask]:
    """A task a shard. Raises UserError where the shards can't be cached into one folder."""
    if corpus.cached is not None:
        raise UserError(f"{corpus.shards[0]}: holds latents already; cache the shards that it was made of")
    names = [path.name for path in corpus.shards]
    for path in corpus.shards:
        if not SHARD.match(path.name):
            raise UserError(f"{path}: a shard must be named as synth build does, such as vif-train-000000.tar")
        if names.count(path.name) > 1:
            raise UserError(f"{path.name}: is the name of two shards; cache each build into a folder of its own")
    return [CacheTask(path.name, number, _alone(corpus, number)) for number, path in enumerate(corpus.shards)]


def _alone(corpus: Corpus, number: int) -> Corpus:
    """One shard of a corpus, as a corpus."""
    kinds: dict[str, Any] = {}
    for kind in ("train", "held_out"):
        places = getattr(corpus, kind)
        mine = places.where(places.shard == number)
        zero = np.zeros(len(mine), np.int32)
        kinds[kind] = dataclasses.replace(mine, shard=zero, source=zero)
    facts = (corpus.sizes[number],), (corpus.contents[number],)
    return Corpus(("",), (corpus.shards[number],), (0,), *facts, lean=corpus.lean, **kinds)


def _record(corpus: Corpus, degraders: Degraders, made: Mapping[str, Any], epochs: int, device: str) -> dict[str, Any]:
    """All that decides bytes: what the digest is of."""
    return {
        "kind": KIND,
        "made": dict(made),
        "epochs": epochs,
        "degrade": degraders_record(degraders),
        "shards": [row[1:] for row in corpus.fingerprint()],
        "device": device,
        "versions": {name: version(name) for name in PACKAGES},
    }


def _run(maker: Maker, tasks: list[CacheTask], executor: str, workers: int, progress: Progress) -> dict[str, str]:
    """Cache shards. Those that failed, and why."""
    total = sum(task.samples for task in tasks)
    progress(0, total)
    watch = Watch(None, lambda task: task.name, lambda task, why: why)
    failed: dict[str, str] = {}
    count = 0
    workers = min(workers, max(len(tasks), 1))
    how: dict[str, Any] = {"workers": workers, "executor": executor, "watch": watch, "waiting": len(tasks)}
    results = run_tasks(cache_shard, maker, tasks, **how)
    for task, failure in zip(tasks, results, strict=True):
        count += task.samples
        progress(count, total)
        if failure is not None:
            failed[task.name] = failure
    return failed


def _finish(wanted: LatentShards, variants: int, resumed: int) -> CacheReport:
    """``dataset.json``, when all shards are there."""
    receipts = own_receipts(wanted)
    said = {"schema": SCHEMA, "digest": wanted.digest, "variants": variants, "shards": Stream(receipts)}
    write_json(wanted.out / "dataset.json", {**said, "settings": dict(wanted.settings)})
    samples = receipts.samples.total()
    return CacheReport(str(wanted.out), wanted.shard_count, resumed, samples, receipts.bytes)

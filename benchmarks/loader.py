"""Throughput of the data loader against the needs of the fastest preset, and the bytes it reads.

    python benchmarks/loader.py [--workers 1] [--preset tiny-reg] [--set schedule.repeats=K] [--codec webp]
        [--shards DIR ...]

On two cores one reads while the other trains, so both are measured in CPU time of one core: of a worker over whole
epochs, and of a training step. The ratio is of samples per second and core; the target is 3. The cache of decoded
images of a loader process holds none of the data set's images, a 64th, 32nd or 16th of them, or all: ten epochs each,
one where epochs do not differ. Then the loader as in a run, in samples per second of wall time over four epochs, with
an idle trainer. A sample is a crop. Bytes are those read from the shards, on average per epoch, beside their total.
codec: that of the shards of built-in scenes, which are made where none are given.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from clearfuse.synth.builder.run import build
from clearfuse.synth.execute.tasks import limit_threads
from clearfuse.train.data.batch import Batch
from clearfuse.train.data.corpus import Corpus, index
from clearfuse.train.data.loader import batches, cache_size
from clearfuse.train.data.order import RankBatches
from clearfuse.train.data.samples import Samples
from clearfuse.train.designs.design import Assembly
from clearfuse.train.objectives.noise import Draws
from clearfuse.train.runs.settings import Settings
from clearfuse.train.training import optim
from clearfuse.train.training.cache import cache
from clearfuse.train.training.inputs import samples_of
from clearfuse.train.training.loss import batch_loss

BAR = 3.0
EPOCHS = 10


def shards(folder: Path, pairs: int, codec: str) -> list[str]:
    """Shards of built-in scenes of the three tasks."""
    found: list[str] = []
    for task in ("vif", "mef", "mff"):
        build(task, n="1-3", limit=pairs, codec=codec, out=str(folder / task))
        found.append(str(folder / task))
    return found


def rate(samples: Samples, count: int, size: int) -> float:
    """Samples per second of CPU time, in this process, over whole batches."""
    began = time.process_time()
    done = sum(
        len(batch.names) for batch in batches(samples, RankBatches(0, count // size, size)) if isinstance(batch, Batch)
    )
    return done / (time.process_time() - began)


def learned(assembly: Assembly, settings: Settings, batch: Batch, steps: int) -> float:
    """Samples per second of CPU time that training consumes: the median over steps of ``training.trainer``."""
    weights = assembly.trained()
    shadow = {name: weight.detach().clone() for name, weight in weights.items()}
    optimizer = optim.build_optimizer(assembly, settings.lr, settings.decay, settings.cautious, settings.optimizer)
    spent: list[float] = []
    for step in range(steps):
        began = time.process_time()
        optimizer.zero_grad()
        batch_loss(assembly, batch, Draws.of("noise", 0, batch.positions), torch.device("cpu")).total.backward()
        optim.clip_gradients(weights.values(), optim.grad_norm(weights.values()), settings.clip)
        optimizer.step()
        optim.update_ema(shadow.values(), weights.values(), step, settings.ema)
        spent.append(time.process_time() - began)
    return len(batch.names) / statistics.median(spent)


def running(samples: Samples, count: int, size: int, workers: int) -> float:
    """Samples per second of wall time from ``workers`` processes, after all have started."""
    source = batches(samples, RankBatches(0, count // size, size), workers)
    for _ in range(workers):
        next(source)
    began, done = time.perf_counter(), 0
    for batch in source:
        assert isinstance(batch, Batch)
        done += len(batch.names)
    return done / (time.perf_counter() - began)


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="tiny-reg")
    parser.add_argument("--set", dest="sets", action="append", default=[])
    parser.add_argument("--codec", default="webp")
    parser.add_argument("--shards", nargs="*")
    parser.add_argument("--pairs", type=int, default=32)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--steps", type=int, default=12)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    limit_threads()
    settings = Settings.of(asked.preset, sets=asked.sets)
    assembly = Assembly(settings.design(), torch.Generator().manual_seed(0), adapt=settings.adapts).train()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = asked.shards or shards(folder, asked.pairs, asked.codec)
        cache(paths, str(folder / "latents"), settings, epochs=settings.repeats)
        report(assembly, settings, index(paths), index([str(folder / "latents")]), asked)


def report(assembly: Assembly, settings: Settings, pictures: Corpus, latents: Corpus, asked: Any) -> None:
    """Measure and print."""
    size = settings.batch
    count = len(pictures.train) * settings.repeats // size * size  # an epoch's

    def reader(corpus: Corpus, kept: int = 0) -> Samples:
        return samples_of(settings, assembly, corpus, {}, training=True, cache=kept)

    (batch,) = batches(reader(pictures), RankBatches(0, 1, size))
    assert isinstance(batch, Batch)
    needed = learned(assembly, settings, batch, asked.steps)
    crops = f"{count} crops, {settings.repeats} a picture, batches of {size} at {settings.crop}²"
    print(f"{asked.preset}: {crops}; one core trains {needed:.1f}/s")
    kept = reader(pictures, cache_size())
    rate(kept, count, size)  # now everything is in memory
    rows = {
        "nothing of the pictures": (reader(pictures), 1),
        **{f"1/{n} of the pictures": (reader(pictures, kept.decoded_size() // n), EPOCHS) for n in (64, 32, 16)},
        "all pictures, later epochs": (kept, 0),
        "nothing of train cache's latents": (reader(latents), 1),
    }
    print(f"{'one core reads; memory holds':<34}{'samples/s':>12}{'of training':>12}{'bytes read':>12}")
    for name, (samples, epochs) in rows.items():
        found = rate(samples, count * max(epochs, 1), size)
        held = sum(path.stat().st_size for path in samples.shards)
        share = f"{samples.reader.bytes_read / held / epochs:.2f}" if epochs else "0"
        verdict = "" if found >= BAR * needed else f"  below {BAR:g}"
        print(f"{name:<34}{found:>12.1f}{found / needed:>12.1f}{share:>12}{verdict}", flush=True)
    spawned = running(reader(pictures, cache_size() // asked.workers), 4 * count, size, asked.workers)
    cores = os.cpu_count()
    rate_of_run = f"{spawned:.1f} samples/s of the wall clock, {spawned / needed:.1f} times what one core trains"
    print(f"{asked.workers} loader processes of {cores} cores, four epochs as a run has them: {rate_of_run}")


if __name__ == "__main__":
    main()

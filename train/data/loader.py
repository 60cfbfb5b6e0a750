"""The data loader: batches of samples, whose contents do not depend on the number of worker processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, get_worker_info

from clearfuse.synth import plugins
from clearfuse.synth.execute.memory import memory_limit
from clearfuse.synth.execute.processes import die_with_parent
from clearfuse.synth.execute.tasks import limit_threads
from clearfuse.train.data.batch import Batch, UnreadableSample, collate
from clearfuse.train.data.order import RankBatches
from clearfuse.train.data.samples import Samples


def cache_size() -> int:
    """Bytes of samples that the data-loader workers of one rank may cache: a quarter of the memory over all local
    ranks.
    """
    return memory_limit() // 4 // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's and accelerate's


def batches(
    samples: Samples, groups: Iterable[Sequence[int]], workers: int = 0, pin: bool = False
) -> Iterator[Batch | UnreadableSample]:
    """A batch for each group of positions, in order, prefetched by ``workers`` processes; 0: loaded in this one.

    pin: into pinned memory.
    """
    options: dict[str, Any] = {}
    schedule = groups if isinstance(groups, RankBatches) else None
    if workers:
        options = {"multiprocessing_context": "spawn", "prefetch_factor": 4}
        options["worker_init_fn"] = partial(_start_worker, os.getpid(), plugins.own(), schedule)
    elif schedule:
        samples.set_schedule(schedule)
    return iter(
        DataLoader(
            samples,
            batch_sampler=groups,  # pyright: ignore[reportArgumentType]
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin,
            generator=torch.Generator(),  # else it draws from the global one
            **options,
        )
    )


def _start_worker(trainer: int, own: plugins.Own, schedule: RankBatches | None, number: int) -> None:
    # If the trainer is killed, torch's worker waits forever for somebody to read its batches.
    die_with_parent(trainer)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the trainer gets it too, and ends the workers
    torch.set_num_threads(1)
    limit_threads()
    plugins.adopt(own)
    info = get_worker_info()
    if schedule and info and isinstance(info.dataset, Samples):
        info.dataset.set_schedule(schedule, number, info.num_workers)

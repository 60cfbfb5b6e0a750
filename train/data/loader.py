"""Batches of samples, from any number of loader processes: what is in them does not hang on that number."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader, get_worker_info

from clearfuse.synth.execute.memory import memory_limit
from clearfuse.synth.execute.processes import die_with_parent
from clearfuse.synth.execute.tasks import limit_threads
from clearfuse.train.data.batch import Batch, Broken, collate
from clearfuse.train.data.order import RankBatches
from clearfuse.train.data.samples import Samples


def cache_size() -> int:
    """Bytes of decoded samples that the loader processes of one trainer keep: of all here, a quarter of the memory."""
    return memory_limit() // 4 // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))  # torchrun's and accelerate's


def batches(
    samples: Samples, groups: Iterable[Sequence[int]], workers: int = 0, pin: bool = False
) -> Iterator[Batch | Broken]:
    """A batch for each group of positions, in order, decoded ahead by ``workers`` processes; 0: in this one.

    pin: into memory that a GPU copies from.
    """
    more: dict[str, Any] = {}
    course = groups if isinstance(groups, RankBatches) else None
    if workers:
        more = {"multiprocessing_context": "spawn", "prefetch_factor": 4}
        more["worker_init_fn"] = partial(_start_worker, os.getpid(), course)
    elif course:
        samples.follow(course)
    return iter(
        DataLoader(
            samples,
            batch_sampler=groups,  # pyright: ignore[reportArgumentType]
            num_workers=workers,
            collate_fn=collate,
            pin_memory=pin,
            generator=torch.Generator(),  # or it would draw from the global one
            **more,
        )
    )


def _start_worker(trainer: int, course: RankBatches | None, number: int) -> None:
    # torch's worker, its trainer killed, waits without end for somebody to read what it has decoded.
    die_with_parent(trainer)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the trainer hears it too, and ends us
    torch.set_num_threads(1)
    limit_threads()
    here = get_worker_info()
    if course and here and isinstance(here.dataset, Samples):
        here.dataset.follow(course, number, here.num_workers)

"""The ranks of a distributed run, and the collective operations between them.

``torchrun`` and ``accelerate launch`` start the processes and set their environment variables. Only tensors are
exchanged: torch's collectives for objects unpickle what they receive.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

from clearfuse.synth.types import UserError
from clearfuse.train.device import find_device


@dataclass(frozen=True)
class Ranks:
    """This process among the ranks of a run. rank: its number, from 0; world: the world size; device: it
    computes on.
    """

    device: torch.device
    rank: int = 0
    world: int = 1

    def __str__(self) -> str:
        return self.device.type if self.world == 1 else f"{self.world} × {self.device.type}"

    @property
    def main(self) -> bool:
        """Whether this is rank 0, which writes the run's files."""
        return self.rank == 0

    def total(self, values: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """The sum over the ranks; NaN if it is NaN on any rank."""
        if self.world == 1:
            return values
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank."""
        return bool(self.total(torch.tensor([float(flag)], device=self.device)))

    def gather(self, value: Any) -> list[Any]:
        """Gather a JSON value from each rank, in order of rank, on all ranks."""
        if self.world == 1:
            return [value]
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(self.device)
        sizes = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.world)]
        dist.all_gather(sizes, torch.tensor([len(data)], device=self.device))
        longest = int(max(map(int, sizes)))
        padded = torch.zeros(longest, dtype=torch.uint8, device=self.device)
        padded[: len(data)] = data
        received = [torch.zeros_like(padded) for _ in range(self.world)]
        dist.all_gather(received, padded)
        return [json.loads(bytes(r[: int(n)].tolist())) for r, n in zip(received, sizes, strict=True)]

    def wait(self) -> None:
        """Wait until all ranks have arrived (a barrier)."""
        if self.world > 1:
            self.total(torch.zeros(1, device=self.device))

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """This rank's equal part of a sequence, whose length must be a multiple of the world size."""
        part = len(items) // self.world
        return items[self.rank * part : (self.rank + 1) * part]


@contextmanager
def join_ranks(device: str | None = None) -> Iterator[Ranks]:
    """Context: join the process group of the launcher, or run as a single process without one.

    device: ``cpu`` or ``cuda``; each process takes the GPU of its local rank. Raises UserError if some of a launcher's
    environment variables are missing or invalid.
    """
    world = _number("WORLD_SIZE", 1)
    if world == 1:
        yield Ranks(find_device(device))
        return
    rank, local = _number("RANK", None), _number("LOCAL_RANK", None)
    computes_on = find_device(device)
    if computes_on.type == "cuda":
        if local >= torch.cuda.device_count():
            raise UserError(f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}")
        computes_on = torch.device("cuda", local)
        torch.cuda.set_device(computes_on)
    initialised = not dist.is_initialized()
    if initialised:
        dist.init_process_group("nccl" if computes_on.type == "cuda" else "gloo")
    try:
        yield Ranks(computes_on, rank, world)
    finally:
        if initialised:
            dist.destroy_process_group()


def local_world_size() -> int:
    """The number of ranks on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1)


def _number(name: str, default: int | None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise UserError(f"{name} is {text!r}: torchrun or accelerate launch set it to a number")
    return int(text)

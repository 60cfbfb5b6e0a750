"""The processes of one training run: which of them this one is, and what they tell each other.

``torchrun`` and ``accelerate launch`` start them and say so in the environment. What passes between them is tensors:
torch's collectives for objects unpickle what they get.
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
    """rank: which process of ``world`` this is. device: where it computes."""

    device: torch.device
    rank: int = 0
    world: int = 1

    def __str__(self) -> str:
        return self.device.type if self.world == 1 else f"{self.world} × {self.device.type}"

    @property
    def main(self) -> bool:
        """Whether this process writes what is written once."""
        return self.rank == 0

    def total(self, values: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """The sum over the processes; NaN of any is NaN of all."""
        if self.world == 1:
            return values
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    def any(self, flag: bool) -> bool:
        """Whether it is so in any process."""
        return bool(self.total(torch.tensor([float(flag)], device=self.device)))

    def gather(self, value: Any) -> list[Any]:
        """A value of JSON from each process, in order of rank, in all of them."""
        if self.world == 1:
            return [value]
        own = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8).to(self.device)
        sizes = [torch.zeros(1, dtype=torch.int64, device=self.device) for _ in range(self.world)]
        dist.all_gather(sizes, torch.tensor([len(own)], device=self.device))
        room = int(max(map(int, sizes)))
        padded = torch.zeros(room, dtype=torch.uint8, device=self.device)
        padded[: len(own)] = own
        received = [torch.zeros_like(padded) for _ in range(self.world)]
        dist.all_gather(received, padded)
        return [json.loads(bytes(r[: int(n)].tolist())) for r, n in zip(received, sizes, strict=True)]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.world > 1:
            self.total(torch.zeros(1, device=self.device))

    def share(self, items: Sequence[Any]) -> Sequence[Any]:
        """This process's equal part of a sequence, whose length the number of processes divides."""
        part = len(items) // self.world
        return items[self.rank * part : (self.rank + 1) * part]


@contextmanager
def joined(device: str | None = None) -> Iterator[Ranks]:
    """This process among those that a launcher started, left again at the end; alone where there was none.

    device: ``cpu`` or ``cuda``; each process takes the GPU of its local rank. Raises UserError where the environment
    is half a launcher's.
    """
    world = _number("WORLD_SIZE", 1)
    if world == 1:
        yield Ranks(find_device(device))
        return
    rank, local = _number("RANK", None), _number("LOCAL_RANK", None)
    where = find_device(device)
    if where.type == "cuda":
        if local >= torch.cuda.device_count():
            raise UserError(f"process {local} of this machine has no GPU: there are {torch.cuda.device_count()}")
        where = torch.device("cuda", local)
        torch.cuda.set_device(where)
    started = not dist.is_initialized()
    if started:
        dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        yield Ranks(where, rank, world)
    finally:
        if started:
            dist.destroy_process_group()


def local_world() -> int:
    """Processes of the run on this machine."""
    return _number("LOCAL_WORLD_SIZE", 1)


def _number(name: str, default: int | None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise UserError(f"{name} is {text!r}: torchrun or accelerate launch set it to a number")
    return int(text)

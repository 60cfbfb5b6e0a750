"""Networks that work for a model and do not learn with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Frozen(nn.Module):
    """Holds networks that others trained: bf16 on CUDA, float32 elsewhere, always in evaluation mode.

    They move with their owner, but are neither among its parameters nor in its state dict, so no optimizer, average or
    checkpoint sees them, and a deep copy of it shares them.
    """

    here: Float[Tensor, " 0"]
    precision: torch.dtype | None = None
    """What the networks compute in; None: as their device is."""

    def __init__(self, *networks: nn.Module) -> None:
        super().__init__()
        for network in networks:
            for parameter in network.eval().parameters():  # a scripted module has no requires_grad_
                parameter.requires_grad_(False)
        self.networks = networks  # a tuple: torch registers no module in it
        self.register_buffer("here", torch.zeros(0), persistent=False)

    @property
    def dtype(self) -> torch.dtype:
        """What the networks compute in."""
        return self.precision or (torch.bfloat16 if self.here.is_cuda else torch.float32)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        before = self.here.device
        super()._apply(fn, recurse)
        if self.here.device != before:
            for network in self.networks:
                network.to(self.here.device, self.dtype)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return self

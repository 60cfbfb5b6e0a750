"""The optimizer, the learning-rate schedule, gradient clipping, and the exponential moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

from clearfuse.train.models.layers import decayed_parameters

BETAS = (0.9, 0.99)
MIN_MASK = 1e-3
"""Lower bound of the mean mask that a cautious step divides by."""


class CautiousAdamW(torch.optim.AdamW):
    """AdamW (Loshchilov and Hutter 2019), which with ``cautious`` updates only where momentum and gradient agree in
    sign.

    u = m̂ / (√v̂ + ε) as in AdamW, then w ← (1 − η λ) w − η u ⊙ φ / max(mean φ, 0.001), φ = 1 where m g > 0, else 0,
    the mean over each parameter (Liang et al., arXiv 2411.16085, algorithm 2 with the scale of their code). torch's
    fused step is taken first; its updates are then reverted or scaled.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, cautious: bool = True, betas: tuple[float, float] = BETAS
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, fused=True)
        self.cautious = cautious
        for group in self.param_groups:
            for p in group["params"]:
                # Initialised here, not in the first step, so that checkpoints have the same tensors at any step.
                state = {"step": torch.zeros((), device=p.device), "exp_avg": torch.zeros_like(p)}
                self.state[p] = {**state, "exp_avg_sq": torch.zeros_like(p)}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step. Raises ValueError for a closure."""
        if closure is not None:
            raise ValueError("a closure is not supported")
        if not self.cautious:
            super().step()
            return
        decayed: dict[nn.Parameter, Tensor] = {}
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    decayed[p] = p * (1 - group["lr"] * group["weight_decay"])
        super().step()
        for p, start in decayed.items():
            # In floats: comparing to bool, and summing that, takes three times as long on a CPU.
            mask = (self.state[p]["exp_avg"] * p.grad).gt_(0)
            mean = full_tensor(mask.sum()) / mask.numel()
            mask.div_(replicate_like(mean.clamp(min=MIN_MASK), mask))
            p.copy_(start.lerp_(p, mask))

    @property
    def updates(self) -> int:
        """The number of steps taken."""
        return int(next(iter(self.state.values()))["step"])

    def set_updates(self, count: int) -> None:
        """Set the number of steps taken."""
        for state in self.state.values():
            state["step"].fill_(float(count))


def full_tensor(value: Tensor) -> Tensor:
    """A tensor that may be sharded over ranks, as the full tensor on each rank."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def replicate_like(value: Tensor, other: Tensor) -> Tensor:
    """A value that is equal on all ranks, as a replicated DTensor if ``other`` is one."""
    if not isinstance(other, DTensor):
        return value
    return DTensor.from_local(value, other.device_mesh, [Replicate()] * other.device_mesh.ndim, run_check=False)


def build_optimizer(model: nn.Module, lr: float, decay: float, cautious: bool = True) -> CautiousAdamW:
    """The optimizer of a model's trainable parameters; ``decayed_parameters`` tells which of them get weight decay."""
    decayed: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for module in model.modules():
        parameters = [(name, p) for name, p in module.named_parameters(recurse=False) if p.requires_grad]
        names = decayed_parameters(module) if parameters else ()
        for name, p in parameters:
            (decayed if name in names else rest).append(p)
    groups = [{"params": decayed, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    return CautiousAdamW([group for group in groups if group["params"]], lr, cautious)


def learning_rate(step: int, *, peak: float, warmup: int, steps: int) -> float:
    """Linear warm-up peak (step + 1) / warmup, then cosine decay peak (1 + cos π u) / 2, u from 0 to 1 at ``steps``."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr


@torch.no_grad()
def update_ema(shadow: Iterable[Tensor], weights: Iterable[Tensor], step: int, decay: float) -> None:
    """shadow ← d shadow + (1 − d) weight in place, d = min(decay, (step + 1) / (step + 10)): a short
    average at first.
    """
    d = min(decay, (step + 1) / (step + 10))
    for s, w in zip(shadow, weights, strict=True):
        s.lerp_(w.detach(), 1 - d)


def grad_norm(parameters: Iterable[nn.Parameter]) -> Float[Tensor, ""]:
    """The L2 norm of all gradients together, over all ranks if they are sharded."""
    return full_tensor(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))


def clip_gradients(parameters: Iterable[nn.Parameter], norm: Float[Tensor, ""], limit: float) -> None:
    """Scale all gradients by limit / norm if the norm is above the limit."""
    torch.nn.utils.clip_grads_with_norm_(list(parameters), limit, norm)

"""The optimizer, its learning rate over the steps, and the moving average of the weights."""

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
LEAST_SHARE = 1e-3
"""The least share of a parameter's numbers that a cautious step divides by."""


class CautiousAdamW(torch.optim.AdamW):
    """AdamW (Loshchilov and Hutter 2019), which with ``cautious`` moves only where its momentum and gradient agree.

    u = m̂ / (√v̂ + ε) as in AdamW, then w ← (1 − η λ) w − η u ⊙ φ / max(mean φ, 0.001), φ = 1 where m g > 0, else 0,
    the mean over each parameter (Liang et al., arXiv 2411.16085, algorithm 2 with the scale of their code). The step
    is torch's fused one; what it moved is then taken back or lengthened.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], lr: float, cautious: bool = True, betas: tuple[float, float] = BETAS
    ) -> None:
        super().__init__(groups, lr=lr, betas=betas, fused=True)
        self.cautious = cautious
        for group in self.param_groups:
            for p in group["params"]:
                # Made now and not at the first step: a checkpoint has the same tensors at any step.
                state = {"step": torch.zeros((), device=p.device), "exp_avg": torch.zeros_like(p)}
                self.state[p] = {**state, "exp_avg_sq": torch.zeros_like(p)}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step. Raises ValueError for a closure, which no caller has."""
        if closure is not None:
            raise ValueError("a closure is not supported")
        if not self.cautious:
            super().step()
            return
        before: dict[nn.Parameter, Tensor] = {}
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    before[p] = p * (1 - group["lr"] * group["weight_decay"])
        super().step()
        for p, start in before.items():
            # In floats: a comparison to bool, and its sum, take three times as long on a CPU.
            agrees = (self.state[p]["exp_avg"] * p.grad).gt_(0)
            share = gathered(agrees.sum()) / agrees.numel()
            agrees.div_(like(share.clamp(min=LEAST_SHARE), agrees))
            p.copy_(start.lerp_(p, agrees))

    @property
    def updates(self) -> int:
        """Steps that were taken."""
        return int(next(iter(self.state.values()))["step"])

    def set_updates(self, count: int) -> None:
        """As after so many steps."""
        for state in self.state.values():
            state["step"].fill_(float(count))


def gathered(value: Tensor) -> Tensor:
    """A tensor that may be spread over processes, as a plain one in each."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def like(value: Tensor, other: Tensor) -> Tensor:
    """A plain number in the kind of another tensor: one that is the same in all processes, where it is spread."""
    if not isinstance(other, DTensor):
        return value
    return DTensor.from_local(value, other.device_mesh, [Replicate()] * other.device_mesh.ndim, run_check=False)


def build_optimizer(model: nn.Module, lr: float, decay: float, cautious: bool = True) -> CautiousAdamW:
    """The optimizer of what learns in a model; which of it decays, each layer says."""
    shrunk: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for module in model.modules():
        own = [(name, p) for name, p in module.named_parameters(recurse=False) if p.requires_grad]
        names = decayed_parameters(module) if own else ()
        for name, p in own:
            (shrunk if name in names else rest).append(p)
    groups = [{"params": shrunk, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    return CautiousAdamW([group for group in groups if group["params"]], lr, cautious)


def learning_rate(step: int, *, peak: float, warmup: int, steps: int) -> float:
    """peak (step + 1) / warmup at first, then peak (1 + cos π u) / 2, u from 0 after the warm-up to 1 at the end."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """One rate for all groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr


@torch.no_grad()
def average(shadow: Iterable[Tensor], weights: Iterable[Tensor], step: int, decay: float) -> None:
    """shadow ← d shadow + (1 − d) weight, d = min(decay, (step + 1) / (step + 10)): short at first, in place."""
    keep = min(decay, (step + 1) / (step + 10))
    for s, w in zip(shadow, weights, strict=True):
        s.lerp_(w.detach(), 1 - keep)


def grad_norm(parameters: Iterable[nn.Parameter]) -> Float[Tensor, ""]:
    """The root of the sum of squares of all gradients, of all processes where they are spread."""
    return gathered(torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))


def clip_gradients(parameters: Iterable[nn.Parameter], norm: Float[Tensor, ""], limit: float) -> None:
    """Scale all gradients by limit / norm where the norm is above the limit."""
    torch.nn.utils.clip_grads_with_norm_(list(parameters), limit, norm)

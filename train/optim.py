"""The optimizer, its learning rate over the steps, and the moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

BETAS = (0.9, 0.99)
MATRIX = 2
"""Parameters of at least so many axes decay: matrices and convolutions, no biases, norms or scalars."""


def build_optimizer(parameters: Mapping[str, nn.Parameter], lr: float, decay: float) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019); what has fewer than two axes does not decay."""
    matrices = [p for p in parameters.values() if p.ndim >= MATRIX]
    rest = [p for p in parameters.values() if p.ndim < MATRIX]
    groups = [{"params": matrices, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=BETAS, fused=True)


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


def grad_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The root of the sum of squares of all gradients."""
    norms = [torch.linalg.vector_norm(p.grad) for p in parameters if p.grad is not None]
    return torch.linalg.vector_norm(torch.stack(norms)) if norms else torch.zeros(())


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], norm: Tensor, limit: float) -> None:
    """Scale all gradients by limit / norm where the norm is above the limit."""
    factor = limit / norm.clamp(min=limit)
    for p in parameters:
        if p.grad is not None:
            p.grad.mul_(factor.to(p.grad.device))

"""The optimizer, the learning-rate schedule, gradient clipping, and the exponential moving average of the weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Replicate

from clearfuse.train.models.layers import decayed_parameters

OptimizerKind = Literal["adamw", "muon"]
BETAS = (0.9, 0.99)
MUON_MOMENTUM = 0.95
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration: singular values from 0.001 to 1 come to 0.7 to 1.2 in five steps."""
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


class Muon(CautiousAdamW):
    """AdamW for vectors, embeddings and depthwise kernels; for matrices, steps along the orthogonalised momentum.

    Of a gradient G of a matrix (a convolution's: output channels × the rest; an expert's: its own): M ← β M + G,
    U = orthogonal(G + β M), w ← (1 − η λ) w − η √max(rows, columns) U (Jordan et al. 2024,
    kellerjordan.github.io/posts/muon; Liu et al., arXiv 2502.16982, eq. 4). With the factor each entry of a step is η
    in root mean square, as in a first step of AdamW, so that both have one learning rate; Liu et al. take 0.2 of it.

    matrices: those of the parameters of ``groups`` that are stepped so.
    """

    def __init__(
        self, groups: Iterable[dict[str, Any]], matrices: Sequence[nn.Parameter], lr: float, cautious: bool = True
    ) -> None:
        super().__init__(groups, lr, cautious)
        self.matrices = set(matrices)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step. Raises ValueError for a closure."""
        gradients = {p: p.grad for p in self.matrices if p.grad is not None}
        for p in gradients:
            p.grad = None  # AdamW passes over it
        super().step(closure)
        for group in self.param_groups:
            for p in group["params"]:
                if p not in gradients:
                    continue
                p.grad = gradient = gradients[p]
                state = self.state[p]
                state["step"] += 1
                momentum = state["exp_avg"].mul_(MUON_MOMENTUM).add_(gradient)
                matrix = gradient.add(momentum, alpha=MUON_MOMENTUM)
                matrix = matrix.flatten(1) if p.ndim == 4 else matrix
                update = orthogonal(matrix) * math.sqrt(max(matrix.shape[-2:]))
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(update.view_as(p), alpha=-group["lr"])


def orthogonal(matrix: Float[Tensor, "*stack m n"]) -> Float[Tensor, "*stack m n"]:
    """About U Vᵀ of the singular value decomposition U S Vᵀ, by five steps of Newton and Schulz (Jordan et al.).

    X ← a X + (b A + c A²) X with A = X Xᵀ acts on each singular value; at first all are at most 1. 0 stays 0.
    """
    a, b, c = NEWTON_SCHULZ
    tall = matrix.shape[-2] > matrix.shape[-1]
    x = matrix.mT if tall else matrix
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-12)
    for _ in range(5):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


def full_tensor(value: Tensor) -> Tensor:
    """A tensor that may be sharded over ranks, as the full tensor on each rank."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def replicate_like(value: Tensor, other: Tensor) -> Tensor:
    """A value that is equal on all ranks, as a replicated DTensor if ``other`` is one."""
    if not isinstance(other, DTensor):
        return value
    return DTensor.from_local(value, other.device_mesh, [Replicate()] * other.device_mesh.ndim, run_check=False)


def build_optimizer(
    model: nn.Module, lr: float, decay: float, cautious: bool = True, kind: OptimizerKind = "adamw"
) -> CautiousAdamW:
    """The optimizer of a model's trainable parameters; ``decayed_parameters`` tells which of them get weight decay.

    With ``muon``, those that do and are matrices, but no depthwise kernels, are stepped by Muon.
    """
    decayed: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for module in model.modules():
        parameters = [(name, p) for name, p in module.named_parameters(recurse=False) if p.requires_grad]
        names = decayed_parameters(module) if parameters else ()
        for name, p in parameters:
            (decayed if name in names else rest).append(p)
    groups = [{"params": decayed, "weight_decay": decay}, {"params": rest, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if kind == "adamw":
        return CautiousAdamW(groups, lr, cautious)
    matrices = [p for p in decayed if p.ndim >= 2 and not (p.ndim == 4 and p.shape[1] == 1)]
    return Muon(groups, matrices, lr, cautious)


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

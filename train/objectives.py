"""Objectives: what a network's prediction stands for, the loss on it, and how a latent is made from it.

A network comes here as ``predict(z_t, t) -> Prediction``, with the degraded latents and the prompt already bound to
it. The generator is an argument; its place in the run is the trainer's to choose. Shapes: b z h w.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from synth.types import unknown
from train.models.base import Prediction
from train.samplers import find_sampler, one_shot

Predict = Callable[[Tensor | None, Tensor | None], Prediction]
PixelLoss = Callable[[Tensor], Tensor]
"""The auxiliary loss of a clean latent: decodes it, and compares the picture with the sources."""


@dataclass(frozen=True)
class Loss:
    """total: what to minimise; terms: its parts before weighting, for the log."""

    total: Float[Tensor, ""]
    terms: dict[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Objective(Protocol):
    """A row of choices that turns predictions into losses, and into samples."""

    def loss(
        self,
        predict: Predict,
        target: Float[Tensor, "b z h w"],
        rng: torch.Generator,
        pixels: PixelLoss | None = None,
        weight: Float[Tensor, "z 1 1"] | None = None,
    ) -> Loss:
        """The loss on clean latents."""
        ...

    def sample(self, predict: Predict, like: Float[Tensor, "b z h w"], rng: torch.Generator) -> Tensor:
        """Clean latents of the shape and device of ``like``."""
        ...


@dataclass(frozen=True)
class Regression:
    """MSE(f(Z_a, Z_b, P), Z_GT) (MMAIF eq. 8), or under ``log`` the mean of log(MSE + 0.001) over the samples.

    The logarithm is the mean PSNR where the weights make the latents' error the pixels': a batch of one hazy and one
    clear pair then learns from both, not from the hazy one alone. It draws nothing.
    """

    measure: str = "mse"  # or "log"
    balance: float = 0.01  # weight of the experts' load-balancing loss
    pixel: float = 0.0  # weight of the auxiliary pixel loss, eq. 9

    def __post_init__(self) -> None:
        if self.measure not in ("mse", "log"):
            raise ValueError(f"measure must be 'mse' or 'log', not {self.measure!r}")

    def loss(
        self,
        predict: Predict,
        target: Float[Tensor, "b z h w"],
        rng: torch.Generator,
        pixels: PixelLoss | None = None,
        weight: Float[Tensor, "z 1 1"] | None = None,
    ) -> Loss:
        """The loss on clean latents."""
        prediction = predict(None, None)
        each = errors(prediction.latent, target, weight)
        error = each.mean() if self.measure == "mse" else (each + FLOOR).log().mean()
        return _total(self, error, prediction, prediction.latent, pixels)

    def sample(self, predict: Predict, like: Float[Tensor, "b z h w"], rng: torch.Generator) -> Tensor:
        """One call."""
        return one_shot(lambda z_t, t: predict(z_t, t).latent)


@dataclass(frozen=True)
class FlowMatching:
    """MSE(v(Z_t, t, Z_a, Z_b, P), Z_GT − noise), Z_t = (1 − t) noise + t Z_GT, t ~ U(0, 1) (MMAIF eq. 2, 11).

    predicts: what the network's latent stands for: the velocity, or the clean latent Ẑ1, of which the velocity is
    (Ẑ1 − Z_t) / max(1 − t, NEAREST). Under ``clean`` the target's velocity is taken by the same formula: it is
    Z_GT − noise up to t = 1 − NEAREST, and beyond it the loss still vanishes at Ẑ1 = Z_GT.
    """

    predicts: str = "velocity"  # or "clean"
    sampler: str = "ab2"
    steps: int = 5
    balance: float = 0.01
    pixel: float = 0.0

    def __post_init__(self) -> None:
        if self.predicts not in ("velocity", "clean"):
            raise ValueError(f"predicts must be 'velocity' or 'clean', not {self.predicts!r}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")
        find_sampler(self.sampler)

    def loss(
        self,
        predict: Predict,
        target: Float[Tensor, "b z h w"],
        rng: torch.Generator,
        pixels: PixelLoss | None = None,
        weight: Float[Tensor, "z 1 1"] | None = None,
    ) -> Loss:
        """The loss at one drawn time and noise for each latent."""
        t = torch.rand(len(target), generator=rng, device=rng.device).to(target.device)  # fp32 whatever the latents
        noise = torch.randn(target.shape, generator=rng, device=rng.device).to(target)
        z_t = path(noise, target, t)
        prediction = predict(z_t, t)
        v = self.velocity(prediction.latent, z_t, t)
        v_target = target - noise if self.predicts == "velocity" else clean_to_velocity(target, z_t, t)
        clean = prediction.latent if self.predicts == "clean" else z_t + _wide(1 - t, v) * v
        return _total(self, errors(v, v_target, weight).mean(), prediction, clean, pixels)

    def velocity(
        self, latent: Float[Tensor, "b z h w"], z_t: Float[Tensor, "b z h w"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, "b z h w"]:
        """The velocity that a predicted latent stands for."""
        return clean_to_velocity(latent, z_t, t) if self.predicts == "clean" else latent

    def sample(self, predict: Predict, like: Float[Tensor, "b z h w"], rng: torch.Generator) -> Tensor:
        """From drawn noise along the velocity, with the sampler and number of steps of this objective."""
        noise = torch.randn(like.shape, generator=rng, device=rng.device).to(like)
        return find_sampler(self.sampler)(
            lambda z_t, t: self.velocity(predict(z_t, t).latent, z_t, t), noise, self.steps
        )


FLOOR = 1e-3
"""Errors below it count as alike under the logarithm."""

NEAREST = 0.05
"""The least 1 − t that a clean prediction's velocity is divided by."""


def path(
    noise: Float[Tensor, "b ..."], clean: Float[Tensor, "b ..."], t: Float[Tensor, " b"]
) -> Float[Tensor, "b ..."]:
    """Z_t = (1 − t) noise + t Z_GT (MMAIF eq. 2, with the signs of its velocity Z_GT − noise)."""
    return noise + _wide(t, clean) * (clean - noise)


def clean_to_velocity(
    clean: Float[Tensor, "b ..."], z_t: Float[Tensor, "b ..."], t: Float[Tensor, " b"]
) -> Float[Tensor, "b ..."]:
    """v = (Ẑ1 − Z_t) / max(1 − t, 0.05)."""
    return (clean - z_t) / _wide((1 - t).clamp(min=NEAREST), clean)


def errors(
    predicted: Float[Tensor, "b z h w"], target: Float[Tensor, "b z h w"], weight: Float[Tensor, "z 1 1"] | None
) -> Float[Tensor, " b"]:
    """Each sample's mean of weight (predicted − target)², the weight being 1 where none is given."""
    square = (predicted - target).square()
    return (square if weight is None else weight * square).mean((1, 2, 3))


def source_loss(
    fused: Float[Tensor, "b 3 h w"], a: Float[Tensor, "b 3 h w"], b: Float[Tensor, "b 3 h w"]
) -> Float[Tensor, ""]:
    """Σ over the clean sources of L1(X̃, X_i) + L1(∇X̃, ∇X_i), ∇ forward differences along both axes (MMAIF eq. 9)."""
    total = fused.new_zeros(())
    for source in (a, b):
        difference = fused - source
        total = total + difference.abs().mean()
        total = total + difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
    return total


def _wide(t: Tensor, like: Tensor) -> Tensor:
    return t.view(-1, *([1] * (like.ndim - 1))).to(like.dtype)


def _total(
    weights: Regression | FlowMatching, error: Tensor, prediction: Prediction, clean: Tensor, pixels: PixelLoss | None
) -> Loss:
    """error + balance × load-balancing loss + pixel × auxiliary loss."""
    terms = {"error": error, "balance": prediction.balance}
    total = error + weights.balance * prediction.balance
    if weights.pixel:
        if pixels is None:
            raise ValueError(f"the pixel loss has weight {weights.pixel}, but no function computes it")
        terms["pixel"] = pixels(clean)
        total = total + weights.pixel * terms["pixel"]
    return Loss(total, {name: term.detach() for name, term in terms.items()})


OBJECTIVES: dict[str, type[Regression] | type[FlowMatching]] = {"regression": Regression, "flow": FlowMatching}


def find_objective(name: str) -> type[Regression] | type[FlowMatching]:
    """The objective of a name."""
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    return OBJECTIVES[name]

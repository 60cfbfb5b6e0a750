"""The terms of the losses: times, paths and errors of latents. Shapes: b z h w."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from clearfuse.train.objectives.noise import Rng, numbers

FLOOR = 1e-3
"""Added to an error before its logarithm, so that much smaller errors count alike."""

NEAREST = 0.05
"""Lower bound of the divisor 1 − t of a clean prediction's velocity in the loss."""


def draw_times(times: str, like: Float[Tensor, "b ..."], rng: Rng) -> Float[Tensor, " b"]:
    """A random time for each latent, always in fp32: U(0, 1), or the logistic of N(0, 1) (arXiv 2403.03206)."""
    if times == "uniform":
        return numbers(len(like), rng, like.device)
    return numbers(len(like), rng, like.device, gaussian=True).sigmoid()


def path(
    start: Float[Tensor, "b ..."], clean: Float[Tensor, "b ..."], t: Float[Tensor, " b"]
) -> Float[Tensor, "b ..."]:
    """Z_t = (1 − t) Z_0 + t Z_GT (MMAIF eq. 2, with the sign of its velocity Z_GT − Z_0)."""
    return start + per_sample(t, clean) * (clean - start)


def clean_to_velocity(
    clean: Float[Tensor, "b ..."], z_t: Float[Tensor, "b ..."], t: Float[Tensor, " b"], nearest: float
) -> Float[Tensor, "b ..."]:
    """v = (Ẑ1 − Z_t) / max(1 − t, nearest)."""
    return (clean - z_t) / per_sample((1 - t).clamp(min=nearest), clean)


def errors(
    predicted: Float[Tensor, "b z h w"], target: Float[Tensor, "b z h w"], weight: Float[Tensor, "z 1 1"] | None
) -> Float[Tensor, " b"]:
    """The mean of weight (predicted − target)² for each sample; without a weight, 1."""
    square = (predicted - target).square()
    return (square if weight is None else weight * square).mean((1, 2, 3))


def measured(each: Float[Tensor, " b"], measure: Literal["mse", "log"], floor: float) -> Float[Tensor, " b"]:
    """The errors as they are, or log(error + floor)."""
    return each if measure == "mse" else (each + floor).log()


def per_sample(t: Float[Tensor, " b"], like: Float[Tensor, "b ..."]) -> Tensor:
    """Reshape one value per sample to broadcast over ``like``, in its dtype."""
    return t.view(-1, *([1] * (like.ndim - 1))).to(like.dtype)

"""The bridge of I²SB: from a degraded latent at t = 0 to a clean one at t = 1, with noise in between.

Source: Liu et al., arXiv 2302.05872, eq. 4 and 11, where time is reversed: u = 1 − t is 0 at the clean latent.
σ²(u) = ∫ β from 0 to u, σ̄²(u) = ∫ β from u to 1.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from clearfuse.train.objectives.losses import per_sample

LOW, HIGH = math.sqrt(0.1), math.sqrt(0.3)
"""√β = LOW + (HIGH − LOW) u up to u = 1/2, mirrored beyond it: LOW at both ends.

The schedule of the published code, whose 1000 discrete values are 1000 times smaller.
"""


def variance(u: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """σ²(u) in closed form: I(u) up to u = 1/2, 2 I(1/2) − I(1 − u) beyond it.

    I(u) = u (LOW² + LOW s u + s² u² / 3), s = HIGH − LOW.
    """
    slope = HIGH - LOW
    distance = torch.minimum(u, 1 - u)
    integral = distance * (LOW**2 + LOW * slope * distance + slope**2 * distance**2 / 3)
    total = LOW**2 + LOW * slope / 2 + slope**2 / 12
    return torch.where(u <= 0.5, integral, total - integral)


def place(v: float) -> float:
    """The inverse of ``variance``: the u where it is v, from I(u) = ((LOW + s u)³ − LOW³) / (3 s), s = HIGH − LOW."""
    slope = HIGH - LOW
    total = float(variance(torch.ones(1, dtype=torch.float64)))
    smaller = min(v, total - v)
    u = ((LOW**3 + 3 * slope * smaller) ** (1 / 3) - LOW) / slope
    return u if v <= total / 2 else 1 - u


def times(steps: int) -> list[float]:
    """Times t_0 = 0 to t_steps = 1 at which σ(1 − t) decreases in equal steps.

    A step that uses E[Z_1 | Z_t] in place of a sample of Z_1 loses (δ² / σ_t²)² Var(Z_1 | Z_t) of the variance,
    δ² = σ_t² − σ_s² (``posterior``). Near the clean end Var(Z_1 | Z_t) is σ_t², and the loss over all steps,
    Σ (Δσ²)² / σ², is smallest for equal steps of σ.
    """
    total = float(variance(torch.ones(1, dtype=torch.float64)))
    return [0.0, *(1 - place(total * (1 - i / steps) ** 2) for i in range(1, steps)), 1.0]


def between(
    degraded: Float[Tensor, "b ..."],
    clean: Float[Tensor, "b ..."],
    noise: Float[Tensor, "b ..."],
    t: Float[Tensor, " b"],
) -> Float[Tensor, "b ..."]:
    """q(Z_t | degraded, clean): (σ̄² clean + σ² degraded) / (σ² + σ̄²) + √(σ² σ̄² / (σ² + σ̄²)) noise (eq. 11)."""
    sigma2, total = variance(1 - t), variance(torch.ones_like(t))
    share = per_sample(sigma2 / total, clean)
    deviation = per_sample((sigma2 * (total - sigma2) / total).sqrt(), clean)
    return clean + share * (degraded - clean) + deviation * noise


def deviation(t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """σ(1 − t), the divisor in the network's target (Z_t − clean) / σ (eq. 12)."""
    return variance(1 - t).sqrt()


def posterior(
    clean: Float[Tensor, "b ..."], z: Float[Tensor, "b ..."], t: float, s: float
) -> tuple[Float[Tensor, "b ..."], float]:
    """Mean and standard deviation of q(Z_s | clean, Z_t), t < s (eq. 4).

    Mean (δ² clean + σ_s² Z_t) / σ_t², variance σ_s² δ² / σ_t², where δ² = σ_t² − σ_s².
    """
    variance_t, variance_s = variance(1 - torch.tensor([t, s], dtype=torch.float64)).tolist()
    return torch.lerp(clean, z, variance_s / variance_t), math.sqrt(variance_s * (variance_t - variance_s) / variance_t)

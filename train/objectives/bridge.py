"""The bridge of I²SB: from a degraded latent at t = 0 to a clean one at t = 1, noisy in between.

Source: Liu et al., arXiv 2302.05872, eq. 4 and 11. Its time runs the other way: its u, 0 at the clean latent, is 1 − t
here. σ²(u) = ∫ β from 0 to u, σ̄²(u) = ∫ β from u to 1.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from clearfuse.train.objectives.losses import per_sample

LOW, HIGH = math.sqrt(0.1), math.sqrt(0.3)
"""√β at either end, and what it rises towards: √β is linear in u, LOW + (HIGH − LOW) u, and turns back half way.

The published code's β, whose 1000 values are 1000 times smaller.
"""


def variance(u: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """σ²(u) by the closed form: I(u) up to the middle, 2 I(1/2) − I(1 − u) beyond it.

    I(u) = u (LOW² + LOW s u + s² u² / 3), s = HIGH − LOW.
    """
    slope = HIGH - LOW
    near = torch.minimum(u, 1 - u)
    integral = near * (LOW**2 + LOW * slope * near + slope**2 * near**2 / 3)
    whole = LOW**2 + LOW * slope / 2 + slope**2 / 12
    return torch.where(u <= 0.5, integral, whole - integral)


def place(v: float) -> float:
    """The u of a variance, the inverse of ``variance``: ∛ of I(u) = ((LOW + s u)³ − LOW³) / (3 s), s = HIGH − LOW."""
    slope = HIGH - LOW
    whole = float(variance(torch.ones(1, dtype=torch.float64)))
    near = min(v, whole - v)
    u = ((LOW**3 + 3 * slope * near) ** (1 / 3) - LOW) / slope
    return u if v <= whole / 2 else 1 - u


def times(steps: int) -> list[float]:
    """t_0 = 0 to t_steps = 1, between which σ(1 − t) falls evenly.

    A step that takes E[Z_1 | Z_t] for a draw of Z_1 loses (δ² / σ_t²)² Var(Z_1 | Z_t) of the variance, δ² = σ_t² − σ_s²
    (``posterior``). Near the clean end Var(Z_1 | Z_t) is σ_t² itself, and the sum over the steps, of (Δσ²)² / σ², is
    least where σ falls evenly.
    """
    whole = float(variance(torch.ones(1, dtype=torch.float64)))
    return [0.0, *(1 - place(whole * (1 - i / steps) ** 2) for i in range(1, steps)), 1.0]


def between(
    degraded: Float[Tensor, "b ..."],
    clean: Float[Tensor, "b ..."],
    noise: Float[Tensor, "b ..."],
    t: Float[Tensor, " b"],
) -> Float[Tensor, "b ..."]:
    """q(Z_t | degraded, clean): (σ̄² clean + σ² degraded) / (σ² + σ̄²) + √(σ² σ̄² / (σ² + σ̄²)) noise (eq. 11)."""
    here, whole = variance(1 - t), variance(torch.ones_like(t))
    share = per_sample(here / whole, clean)
    deviation = per_sample((here * (whole - here) / whole).sqrt(), clean)
    return clean + share * (degraded - clean) + deviation * noise


def deviation(t: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """σ(u): by it is divided what a network of the bridge predicts, (Z_t − clean) / σ (eq. 12)."""
    return variance(1 - t).sqrt()


def posterior(
    clean: Float[Tensor, "b ..."], z: Float[Tensor, "b ..."], t: float, s: float
) -> tuple[Float[Tensor, "b ..."], float]:
    """Mean and standard deviation of q(Z_s | clean, Z_t), t < s (eq. 4).

    Mean (δ² clean + σ_s² Z_t) / σ_t², variance σ_s² δ² / σ_t², where δ² = σ_t² − σ_s².
    """
    now, then = variance(1 - torch.tensor([t, s], dtype=torch.float64)).tolist()
    return torch.lerp(clean, z, then / now), math.sqrt(then * (now - then) / now)

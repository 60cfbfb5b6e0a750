"""Samplers: from a source at t = 0 to a clean latent at t = 1. Pure functions; ``SAMPLERS`` is the table.

v(z, t), with z (b, ...) and t (b,), returns the velocity; for the bridge's samplers it returns the clean latent. Steps
are equal, Δ = 1 / steps, except those of a bridge (``bridge.times``). The cost is the number of network calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from clearfuse.train.objectives.bridge import posterior, times
from clearfuse.train.objectives.noise import Rng, normal

Velocity = Callable[[Tensor, Tensor], Tensor]


def guided(
    conditional: Float[Tensor, "b ..."], unconditional: Float[Tensor, "b ..."], scale: float
) -> Float[Tensor, "b ..."]:
    """Classifier-free guidance u + s (c − u) (Ho and Salimans, arXiv 2207.12598, with s = 1 + w)."""
    return torch.lerp(unconditional, conditional, scale)


def euler(v: Velocity, z: Float[Tensor, "b ..."], steps: int) -> Float[Tensor, "b ..."]:
    """Z ← Z + Δ v(Z, t). Order 1, one call per step."""
    for i in range(steps):
        z = z + v(z, _time(z, i / steps)) / steps
    return z


def paper(v: Velocity, z: Float[Tensor, "b ..."], steps: int) -> Float[Tensor, "b ..."]:
    """MMAIF eq. 12 as printed: Z_mid = Z + v(Z, t) Δ/2; Z ← Z_mid + v(Z_mid, t + Δ/2) Δ/2. Order 1, two calls per step.

    This is two Euler steps of half the length.
    """
    for i in range(steps):
        z = z + v(z, _time(z, i / steps)) / (2 * steps)
        z = z + v(z, _time(z, (i + 0.5) / steps)) / (2 * steps)
    return z


def paper_reuse(v: Velocity, z: Float[Tensor, "b ..."], steps: int) -> Float[Tensor, "b ..."]:
    """Eq. 12 with the first velocity used twice: an Euler step in two halves. Order 1, one call per step."""
    for i in range(steps):
        velocity = v(z, _time(z, i / steps))
        middle = z + velocity / (2 * steps)
        z = middle + velocity / (2 * steps)
    return z


def midpoint(v: Velocity, z: Float[Tensor, "b ..."], steps: int) -> Float[Tensor, "b ..."]:
    """Z ← Z + Δ v(Z + Δ/2 v(Z, t), t + Δ/2). Order 2, two calls per step."""
    for i in range(steps):
        middle = z + v(z, _time(z, i / steps)) / (2 * steps)
        z = z + v(middle, _time(z, (i + 0.5) / steps)) / steps
    return z


def heun(v: Velocity, z: Float[Tensor, "b ..."], steps: int) -> Float[Tensor, "b ..."]:
    """Z ← Z + Δ (v(Z, t) + v(Z + Δ v(Z, t), t + Δ)) / 2, an Euler step at the end. Order 2, 2 · steps − 1 calls.

    At t = 1 the velocity of a network that predicts the clean latent is undefined, so it is not evaluated there (as in
    EDM, arXiv 2206.00364, algorithm 1).
    """
    for i in range(steps):
        first = v(z, _time(z, i / steps))
        second = v(z + first / steps, _time(z, (i + 1) / steps)) if i + 1 < steps else first
        z = z + (first + second) / (2 * steps)
    return z


def ab2(v: Velocity, z: Float[Tensor, "b ..."], steps: int) -> Float[Tensor, "b ..."]:
    """Two-step Adams–Bashforth: Z ← Z + Δ (3 v_i − v_i−1) / 2 after an Euler step. Order 2, one call per step."""
    previous = None
    for i in range(steps):
        velocity = v(z, _time(z, i / steps))
        z = z + (velocity if previous is None else 1.5 * velocity - 0.5 * previous) / steps
        previous = velocity
    return z


def score(v: Float[Tensor, "b ..."], z: Float[Tensor, "b ..."], t: float) -> Float[Tensor, "b ..."]:
    """∇ log p_t(Z) = (t v − Z) / (1 − t) on the path Z_t = (1 − t) noise + t Z_1 with Gaussian noise."""
    return (t * v - z) / (1 - t)


def sde(v: Velocity, z: Float[Tensor, "b ..."], steps: int, rng: Rng, g: float = 1.0) -> Float[Tensor, "b ..."]:
    """An SDE with the marginals of the flow: a midpoint step with diffusion κ = g sin²(π t_mid), g ≥ 0.

    Z ← Z + Δ v_mid + κ Δ score(v_mid, Z_mid, t_mid) + √(2 κ Δ) ε. Two calls per step. This is the SDE of SiT (arXiv
    2401.08740, eq. 5), which MMAIF's algorithm 1 intends: as printed there, its update does not carry Z on, and has v
    in place of Z_mid.
    """
    for i in range(steps):
        t = (i + 0.5) / steps
        middle = z + v(z, _time(z, i / steps)) / (2 * steps)
        v_mid = v(middle, _time(z, t))
        kappa = g * math.sin(math.pi * t) ** 2
        z = z + (v_mid + kappa * score(v_mid, middle, t)) / steps + math.sqrt(2 * kappa / steps) * normal(z, rng)
    return z


def i2sb(clean: Velocity, z: Float[Tensor, "b ..."], steps: int, rng: Rng) -> Float[Tensor, "b ..."]:
    """Ancestral sampling of a bridge: Z ← a sample of q(Z_s | Ẑ_1(Z, t), Z). One call per step, stochastic.

    Source: I²SB, arXiv 2302.05872, algorithm 2, with its symmetric quadratic β, at the times of ``bridge.times``. Since
    Ẑ_1 is a mean and not a sample, each step loses variance of order 1 / steps², in total of order 1 / steps.
    """
    for t, s in pairwise(times(steps)):
        mean, deviation = posterior(clean(z, _time(z, t)), z, t, s)
        z = mean + deviation * normal(z, rng) if deviation else mean
    return z


def i2sb_corrected(clean: Velocity, z: Float[Tensor, "b ..."], steps: int, rng: Rng) -> Float[Tensor, "b ..."]:
    """``i2sb``, each step repeated with the same noise and the mean of Ẑ_1 at both of its ends. Order 2 in variance.

    Heun's correction of dZ = (Ẑ_1 − Z) / σ² dσ² + noise, whose noise does not depend on Z. Two calls per step, one in
    the last, where Z is Ẑ_1.
    """
    for t, s in pairwise(times(steps)):
        guess = clean(z, _time(z, t))
        mean, deviation = posterior(guess, z, t, s)
        if deviation:
            noise = deviation * normal(z, rng)
            mean = posterior((guess + clean(mean + noise, _time(z, s))) / 2, z, t, s)[0] + noise
        z = mean
    return z


def _time(z: Tensor, t: float) -> Tensor:
    """The time t for each latent, at least in fp32: half precision is too coarse."""
    return torch.full((len(z),), t, device=z.device, dtype=torch.promote_types(z.dtype, torch.float32))


@dataclass(frozen=True)
class Sampler:
    """A sampler. calls: network calls per step; spared: calls saved in the last step; order: of convergence, 0 if
    stochastic.

    path: a "flow" from its source, or a "bridge" from the degraded pair. stochastic: takes the generator and draws
    noise; on a flow it then requires a Gaussian source, and takes g, the scale of its diffusion.
    """

    about: str
    function: Callable[..., Tensor]
    calls: int
    order: int
    path: str = "flow"
    stochastic: bool = False
    spared: int = 0

    def evaluations(self, steps: int) -> int:
        """Network calls for a number of steps."""
        return self.calls * steps - self.spared

    def __call__(
        self, v: Velocity, z: Float[Tensor, "b ..."], steps: int, rng: Rng, g: float = 1.0
    ) -> Float[Tensor, "b ..."]:
        """Integrate from z at t = 0 to the latent at t = 1. g: see ``sde``; others have no use for it."""
        if not self.stochastic:
            return self.function(v, z, steps)
        return self.function(v, z, steps, rng, g) if self.path == "flow" else self.function(v, z, steps, rng)


SAMPLERS: dict[str, Sampler] = {
    "ab2": Sampler("two-step Adams–Bashforth: the fast default", ab2, 1, 2),
    "euler": Sampler("Euler", euler, 1, 1),
    "midpoint": Sampler("the midpoint rule", midpoint, 2, 2),
    "heun": Sampler("Heun, the trapezoid rule", heun, 2, 2, spared=1),
    "paper": Sampler("MMAIF eq. 12 as printed: two Euler half steps", paper, 2, 1),
    "paper-reuse": Sampler("eq. 12, its velocity used twice: Euler", paper_reuse, 1, 1),
    "sde": Sampler("the stochastic form of algorithm 1, corrected", sde, 2, 0, stochastic=True),
    "i2sb": Sampler("ancestral sampling of a bridge", i2sb, 1, 0, path="bridge", stochastic=True),
    "i2sb-heun": Sampler(
        "the same, corrected as Heun's", i2sb_corrected, 2, 0, path="bridge", stochastic=True, spared=1
    ),
}


def samplers_of(path: str) -> dict[str, Sampler]:
    """The samplers for this kind of path."""
    return {name: sampler for name, sampler in SAMPLERS.items() if sampler.path == path}

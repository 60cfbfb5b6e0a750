"""Samplers: from noise at t = 0 along a velocity to a latent at t = 1. Pure functions; ``SAMPLERS`` is the table.

v is called as v(z, t) with z (b, ...) and t (b,); the steps are equal. The calls of a step are the cost.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from synth.types import unknown

Velocity = Callable[[Tensor, Tensor], Tensor]
Sampler = Callable[[Velocity, Tensor, int], Tensor]


def one_shot(predict: Callable[[None, None], Tensor]) -> Float[Tensor, "b ..."]:
    """A regression has no path: one call, without latent and time, is the answer."""
    return predict(None, None)


def euler(v: Velocity, z: Float[Tensor, "b ..."], steps: int) -> Float[Tensor, "b ..."]:
    """Z ← Z + Δ v(Z, t). Order 1, one call a step."""
    for i in range(steps):
        z = z + v(z, _time(z, i / steps)) / steps
    return z


def midpoint(v: Velocity, z: Float[Tensor, "b ..."], steps: int) -> Float[Tensor, "b ..."]:
    """Z ← Z + Δ v(Z + Δ/2 v(Z, t), t + Δ/2). Order 2, two calls a step."""
    for i in range(steps):
        middle = z + v(z, _time(z, i / steps)) / (2 * steps)
        z = z + v(middle, _time(z, (i + 0.5) / steps)) / steps
    return z


def ab2(v: Velocity, z: Float[Tensor, "b ..."], steps: int) -> Float[Tensor, "b ..."]:
    """Two-step Adams–Bashforth: Z ← Z + Δ (3 v_i − v_i−1) / 2, begun by an Euler step. Order 2, one call a step."""
    before = None
    for i in range(steps):
        here = v(z, _time(z, i / steps))
        z = z + (here if before is None else 1.5 * here - 0.5 * before) / steps
        before = here
    return z


def _time(z: Tensor, t: float) -> Tensor:
    """A time for each latent, in fp32 at least: half precision would blur it."""
    return torch.full((len(z),), t, device=z.device, dtype=torch.promote_types(z.dtype, torch.float32))


SAMPLERS: dict[str, Sampler] = {"euler": euler, "midpoint": midpoint, "ab2": ab2}


def find_sampler(name: str) -> Sampler:
    """The sampler of a name."""
    if name not in SAMPLERS:
        raise unknown("sampler", name, SAMPLERS)
    return SAMPLERS[name]

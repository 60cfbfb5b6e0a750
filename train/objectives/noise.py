"""Random numbers per sample: those of one depend neither on the rest of its batch nor on the rank that computes it.

A batch that is split over several ranks therefore gets the same noise as in one process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from clearfuse.synth.seeds import seed_of


@dataclass(frozen=True)
class Draws:
    """A generator for each sample of a batch."""

    generators: tuple[torch.Generator, ...]

    @staticmethod
    def of(role: str, seed: int, positions: Sequence[int]) -> Draws:
        """Generators seeded by role, seed and the samples' positions in the run."""
        return Draws(tuple(torch.Generator().manual_seed(seed_of(role, seed, position)) for position in positions))


Rng = torch.Generator | Draws
"""One generator for the whole batch, or one for each of its samples."""


def normal(like: Float[Tensor, "b ..."], rng: Rng) -> Float[Tensor, "b ..."]:
    """N(0, 1) with a tensor's shape, device and dtype, drawn in fp32."""
    if isinstance(rng, Draws):
        return torch.stack([torch.randn(like.shape[1:], generator=g) for g in rng.generators]).to(like)
    return torch.randn(like.shape, generator=rng, device=rng.device).to(like)


def numbers(count: int, rng: Rng, device: torch.device, gaussian: bool = False) -> Float[Tensor, " b"]:
    """One fp32 number per sample: U(0, 1), or N(0, 1)."""
    draw = torch.randn if gaussian else torch.rand
    if isinstance(rng, Draws):
        return torch.cat([draw(1, generator=g) for g in rng.generators]).to(device)
    return draw(count, generator=rng, device=rng.device).to(device)

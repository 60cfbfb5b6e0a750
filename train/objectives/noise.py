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


@dataclass(frozen=True)
class NoiseField:
    """Noise of a whole latent grid, of which a tile takes its window: overlapping tiles then see the same noise.

    height, width: of the whole grid; top, left: where the window begins. Each tile draws whole grids from a generator
    of the same seed, so its i-th draw is its window of the i-th grid.
    """

    generator: torch.Generator
    height: int
    width: int
    top: int = 0
    left: int = 0

    def normal(self, like: Float[Tensor, "b z h w"]) -> Float[Tensor, "b z h w"]:
        """The window of the next grid, in the shape of ``like``."""
        batch, channels, height, width = like.shape
        rows, columns = max(self.height, self.top + height), max(self.width, self.left + width)
        grid = torch.randn((batch, channels, rows, columns), generator=self.generator, device=self.generator.device)
        return grid[..., self.top : self.top + height, self.left : self.left + width].to(like)


Rng = torch.Generator | Draws | NoiseField
"""One generator for a batch as a whole, one for each of its samples, or a window of one field of noise."""


def normal(like: Float[Tensor, "b ..."], rng: Rng) -> Float[Tensor, "b ..."]:
    """N(0, 1) with a tensor's shape, device and dtype, drawn in fp32."""
    if isinstance(rng, Draws):
        return torch.stack([torch.randn(like.shape[1:], generator=g) for g in rng.generators]).to(like)
    if isinstance(rng, NoiseField):
        return rng.normal(like)
    return torch.randn(like.shape, generator=rng, device=rng.device).to(like)


def numbers(count: int, rng: Rng, device: torch.device, gaussian: bool = False) -> Float[Tensor, " b"]:
    """One fp32 number per sample: U(0, 1), or N(0, 1)."""
    draw = torch.randn if gaussian else torch.rand
    if isinstance(rng, Draws):
        return torch.cat([draw(1, generator=g) for g in rng.generators]).to(device)
    generator = rng.generator if isinstance(rng, NoiseField) else rng
    return draw(count, generator=generator, device=generator.device).to(device)

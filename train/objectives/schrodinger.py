"""Schrödinger bridge, I²SB: from the degraded latents to the clean one (arXiv 2302.05872)."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor

from clearfuse.synth.files.schema import STRICT, OneOf
from clearfuse.train.objectives.base import (
    SOURCES,
    Drop,
    Loss,
    Pair,
    PathObjective,
    PixelLoss,
    PixelWeights,
    Predict,
    Steps,
    Times,
    Weight,
    check_guidance,
    sampler_calls,
    sources_alone,
    total_loss,
)
from clearfuse.train.objectives.bridge import between, deviation
from clearfuse.train.objectives.losses import draw_times, errors, per_sample
from clearfuse.train.objectives.noise import Rng, normal
from clearfuse.train.objectives.samplers import SAMPLERS, samplers_of

LAST = 1e-3
"""The smallest 1 − t at which a bridge is trained: at 0 the target would be divided by σ = 0."""


@dataclass(frozen=True, config=STRICT)
class SchrodingerBridge(PathObjective):
    """I²SB: MSE(ε(Z_t, t), (Z_t − Z_GT) / σ_t), Z_t between the degraded source and Z_GT (arXiv 2302.05872, eq. 12).

    predicts: that target (``noise``), or the clean latent. source: the degraded end; the mean in MMAIF's table 6.
    """

    kind: Literal["i2sb"] = "i2sb"
    predicts: Literal["noise", "clean"] = "noise"
    source: Annotated[str, OneOf(SOURCES)] = "mean"
    times: Times = "uniform"
    sampler: Annotated[str, OneOf(samplers_of("bridge"))] = "i2sb"
    steps: Steps = 100
    drop: Drop = 0.0
    guidance: Weight = 1.0
    balance: Weight = 0.01
    pixel: Weight = 0.0
    pixels: PixelWeights = field(default_factory=sources_alone, hash=False)

    def __post_init__(self) -> None:
        check_guidance(self)

    @property
    def calls(self) -> int:
        """Network calls per image."""
        return sampler_calls(self)

    def loss(
        self,
        predict: Predict,
        target: Float[Tensor, "b z h w"],
        pair: Pair,
        rng: Rng,
        pixels: PixelLoss | None = None,
        weight: Float[Tensor, "z 1 1"] | None = None,
    ) -> Loss:
        """The loss at one random time and state of the bridge for each latent."""
        t = draw_times(self.times, target, rng).clamp(max=1 - LAST)
        z_t = between(SOURCES[self.source](*pair), target, normal(target, rng), t)
        prediction = predict(z_t, t)
        expected = target if self.predicts == "clean" else (z_t - target) / per_sample(deviation(t), target)
        clean = self.clean(prediction.latent, z_t, t)
        return total_loss(self, errors(prediction.latent, expected, weight), prediction, clean, pixels)

    def clean(
        self, latent: Float[Tensor, "b z h w"], z_t: Float[Tensor, "b z h w"] | None, t: Float[Tensor, " b"] | None
    ) -> Float[Tensor, "b z h w"]:
        """The clean latent of a network output: Z_t − σ_t ε, or the output itself."""
        assert z_t is not None and t is not None
        return latent if self.predicts == "clean" else z_t - per_sample(deviation(t), z_t) * latent

    def sample(self, predict: Predict, pair: Pair, rng: Rng) -> Tensor:
        """Sample from the degraded source by the bridge's sampler."""

        def clean(z_t: Tensor, t: Tensor) -> Tensor:
            return self.clean(predict(z_t, t).latent, z_t, t)

        return SAMPLERS[self.sampler](clean, SOURCES[self.source](*pair), self.steps, rng)

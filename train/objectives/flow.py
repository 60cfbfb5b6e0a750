"""Flow matching: the velocity from a source to the clean latent (MMAIF eq. 2, 11)."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from clearfuse.synth.console import DECIBEL, PLAIN, Unit
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
from clearfuse.train.objectives.losses import (
    FLOOR,
    NEAREST,
    clean_to_velocity,
    draw_times,
    errors,
    measured,
    path,
    per_sample,
)
from clearfuse.train.objectives.noise import Rng, normal
from clearfuse.train.objectives.samplers import SAMPLERS, samplers_of


@dataclass(frozen=True, config=STRICT)
class FlowMatching(PathObjective):
    """MSE(v(Z_t, t, Z_a, Z_b, P), Z_GT − Z_0), Z_t = (1 − t) Z_0 + t Z_GT, Z_0 ~ p0 (MMAIF eq. 2, 11).

    predicts: the network's output: the velocity, or the clean latent Ẑ1, whose velocity is (Ẑ1 − Z_t) / (1 − t). In the
    loss the divisor is max(1 − t, NEAREST), for the target too: up to t = 1 − NEAREST the target is Z_GT − Z_0, and
    beyond it the loss still vanishes at Ẑ1 = Z_GT. error: the quantity that the loss compares: the velocity, or the
    clean latent, which weights times by (1 − t)²: the optimum is the same, and late times, whose velocities are hardest
    to predict, do not dominate early ones. measure: the error, or log(error + floor) of each sample, as in
    ``Regression``, where the error is that of the clean latent. source: p0: Gaussian noise, a degraded latent, or the
    mean of both (MMAIF table 6, j to l). times: distribution of t. drop_images, drop_both, guidance_images: of networks
    that may lack their images. g: of the sampler ``sde``: how much noise it adds on its way.
    """

    kind: Literal["flow"] = "flow"
    predicts: Literal["velocity", "clean"] = "velocity"
    error: Literal["velocity", "clean"] = "velocity"
    measure: Literal["mse", "log"] = "mse"
    floor: Annotated[float, Field(gt=0)] = FLOOR
    source: Annotated[str, OneOf(("gaussian", *SOURCES))] = "gaussian"
    times: Times = "uniform"
    sampler: Annotated[str, OneOf(samplers_of("flow"))] = "ab2"
    steps: Steps = 5
    g: Weight = 1.0
    drop: Drop = 0.0
    guidance: Weight = 1.0
    drop_images: Drop = 0.0
    drop_both: Drop = 0.0
    guidance_images: Weight = 1.0
    balance: Weight = 0.01
    pixel: Weight = 0.0
    pixels: PixelWeights = field(default_factory=sources_alone, hash=False)

    def __post_init__(self) -> None:
        if self.measure == "log" and self.error != "clean":
            raise ValueError("measure 'log' is of the clean latent's error, which is an image's: error must be 'clean'")
        if SAMPLERS[self.sampler].stochastic and self.source != "gaussian":
            raise ValueError(
                f"sampler {self.sampler!r} needs a Gaussian source, not {self.source!r}: its score is the noise's"
            )
        check_guidance(self)

    @property
    def unit(self) -> Unit:
        """dB under ``measure="log"``: 10 log10(MSE + floor), the mean of it over samples."""
        return DECIBEL if self.measure == "log" else PLAIN

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
        """The loss at one random time and source for each latent."""
        t = draw_times(self.times, target, rng)
        start = self.start(pair, rng)
        z_t = path(start, target, t)
        prediction = predict(z_t, t)
        v = self.velocity(prediction.latent, z_t, t, NEAREST)
        clean = self.clean(prediction.latent, z_t, t)
        if self.error == "clean":
            error = measured(errors(clean, target, weight), self.measure, self.floor)
        else:
            v_target = target - start if self.predicts == "velocity" else clean_to_velocity(target, z_t, t, NEAREST)
            error = errors(v, v_target, weight)
        return total_loss(self, error, prediction, clean, pixels)

    def start(self, pair: Pair, rng: Rng) -> Float[Tensor, "b z h w"]:
        """A sample of p0."""
        return normal(pair[0], rng) if self.source == "gaussian" else SOURCES[self.source](*pair)

    def velocity(
        self,
        latent: Float[Tensor, "b z h w"],
        z_t: Float[Tensor, "b z h w"],
        t: Float[Tensor, " b"],
        nearest: float = 0.0,
    ) -> Float[Tensor, "b z h w"]:
        """The velocity of a network output; samplers never evaluate it at t = 1."""
        return clean_to_velocity(latent, z_t, t, nearest) if self.predicts == "clean" else latent

    def clean(
        self, latent: Float[Tensor, "b z h w"], z_t: Float[Tensor, "b z h w"] | None, t: Float[Tensor, " b"] | None
    ) -> Float[Tensor, "b z h w"]:
        """The clean latent that a predicted one stands for: Z_t + (1 − t) v."""
        assert z_t is not None and t is not None
        return latent if self.predicts == "clean" else z_t + per_sample(1 - t, latent) * latent

    def sample(self, predict: Predict, pair: Pair, rng: Rng) -> Tensor:
        """Integrate the velocity from a sample of p0, with this objective's sampler and number of steps."""
        start = self.start(pair, rng)

        def velocity(z_t: Tensor, t: Tensor) -> Tensor:
            return self.velocity(predict(z_t, t).latent, z_t, t)

        return SAMPLERS[self.sampler](velocity, start, self.steps, rng, self.g)

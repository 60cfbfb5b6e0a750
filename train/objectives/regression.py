"""Regression: predicts the clean latent in one network call (MMAIF eq. 8)."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor

from clearfuse.synth.console import DECIBEL, PLAIN, Unit
from clearfuse.synth.files.schema import STRICT
from clearfuse.train.objectives.base import (
    Loss,
    Objective,
    Pair,
    PixelLoss,
    PixelWeights,
    Predict,
    Weight,
    sources_alone,
    total_loss,
)
from clearfuse.train.objectives.losses import FLOOR, errors, measured
from clearfuse.train.objectives.noise import Rng


@dataclass(frozen=True, config=STRICT)
class Regression(Objective):
    """MSE(f(Z_a, Z_b, P), Z_GT) (MMAIF eq. 8); with ``measure="log"`` the mean over samples of log(MSE + floor).

    Where the tokenizer's weights make the error of latents that of pixels, the logarithm optimises the mean PSNR: a
    batch of a hazy and a clear pair then trains on both, not mainly on the hazy one. No random numbers are drawn, no
    prompts are dropped, and there is no guidance.
    """

    kind: Literal["regression"] = "regression"
    measure: Literal["mse", "log"] = "mse"
    floor: Annotated[float, Field(gt=0)] = FLOOR
    """Under ``measure="log"``: errors far below it count alike. The mean PSNR asks for a low one, learning begins with
    a high one, as it is easily harmed where little is to be done."""
    balance: Weight = 0.01
    """Weight of the experts' load-balancing loss."""
    pixel: Weight = 0.0
    """Weight λ of the auxiliary pixel loss, eq. 10."""
    pixels: PixelWeights = field(default_factory=sources_alone, hash=False)
    """Weights of its terms, such as {sources = 1.0}: eq. 9."""

    @property
    def unit(self) -> Unit:
        """dB under ``measure="log"``: 10 log10(MSE + floor), the mean of it over samples."""
        return DECIBEL if self.measure == "log" else PLAIN

    @property
    def calls(self) -> int:
        """Network calls per image: 1."""
        return 1

    def loss(
        self,
        predict: Predict,
        target: Float[Tensor, "b z h w"],
        pair: Pair,
        rng: Rng,
        pixels: PixelLoss | None = None,
        weight: Float[Tensor, "z 1 1"] | None = None,
    ) -> Loss:
        """The loss on clean latents."""
        prediction = predict(None, None)
        error = measured(errors(prediction.latent, target, weight), self.measure, self.floor)
        return total_loss(self, error, prediction, prediction.latent, pixels)

    def clean(
        self, latent: Float[Tensor, "b z h w"], z_t: Float[Tensor, "b z h w"] | None, t: Float[Tensor, " b"] | None
    ) -> Float[Tensor, "b z h w"]:
        """The predicted latent, which is the clean one."""
        return latent

    def sample(self, predict: Predict, pair: Pair, rng: Rng) -> Tensor:
        """The prediction of one network call, without latent and time."""
        return predict(None, None).latent

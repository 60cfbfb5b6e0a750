"""Objectives: the meaning of a network's prediction, the loss on it, and sampling from it.

A network is passed as ``predict(z_t, t) -> Prediction``, with the degraded latents and the prompt already bound to it.
The random generator is an argument, seeded by the trainer. Shapes: b z h w. Times run from a source at 0 to the clean
latent at 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from clearfuse.synth.console import PLAIN, Unit
from clearfuse.synth.files.schema import OneOf
from clearfuse.train.models.base import Prediction
from clearfuse.train.objectives.noise import Rng
from clearfuse.train.objectives.pixels import PIXEL_LOSSES
from clearfuse.train.objectives.samplers import SAMPLERS, guided

Predict = Callable[[Tensor | None, Tensor | None], Prediction]
Pair = tuple[Tensor, Tensor]
"""The degraded latents (Z_a, Z_b), each b z h w."""
PixelLoss = Callable[[Tensor], dict[str, Tensor]]
"""The auxiliary losses of a clean latent, by name: decodes it, and compares the image with the clean ones."""


@dataclass(frozen=True)
class Loss:
    """A loss. total: to be minimised; terms: its unweighted parts and the load of the experts, for the log.

    each: the error of each sample; load, notes: see ``Prediction``.
    """

    total: Float[Tensor, ""]
    each: Float[Tensor, " b"]
    load: Float[Tensor, "layers experts"]
    terms: dict[str, Tensor] = field(default_factory=dict)
    notes: Mapping[str, Float[Tensor, "b _"]] = field(default_factory=dict[str, Tensor])


class Objective(ABC):
    """What is predicted: turns predictions into losses, and into samples. Its classes are frozen pydantic dataclasses.

    kind: the class's name in a design. balance: weight of the experts' load-balancing loss. pixel: weight of the
    auxiliary pixel loss, for which the trainer then supplies ``pixels``; pixels: the weights in it of those of
    ``PIXEL_LOSSES``. drop: share of training prompts that the trainer leaves empty. guidance: scale of classifier-free
    guidance in sampling, 1: none.
    """

    kind: Any  # a Literal in each class
    balance: float
    pixel: float
    pixels: dict[str, float]
    drop: float = 0.0
    guidance: float = 1.0

    @property
    def unit(self) -> Unit:
        """What its losses are said in."""
        return PLAIN

    @property
    @abstractmethod
    def calls(self) -> int:
        """Network calls per image."""

    @abstractmethod
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

    @abstractmethod
    def clean(
        self, latent: Float[Tensor, "b z h w"], z_t: Float[Tensor, "b z h w"] | None, t: Float[Tensor, " b"] | None
    ) -> Float[Tensor, "b z h w"]:
        """The clean latent that a latent predicted from (z_t, t) stands for: affine in it."""

    @abstractmethod
    def sample(self, predict: Predict, pair: Pair, rng: Rng) -> Tensor:
        """Clean latents of the shape and device of the pair's."""


Weight = Annotated[float, Field(ge=0)]
"""Of a term of a loss."""
PixelWeights = dict[Annotated[str, OneOf(PIXEL_LOSSES)], Weight]
"""Of the terms of the pixel loss."""


def sources_alone() -> dict[str, float]:
    """MMAIF's eq. 9."""
    return {"sources": 1.0}


Times = Literal["uniform", "logit-normal"]
"""How the time of a training sample is drawn."""
Steps = Annotated[int, Field(ge=1, le=100_000)]
"""Of a sampler."""
Drop = Annotated[float, Field(ge=0, lt=1)]
"""Share of training prompts left empty, for guidance."""


class PathObjective(Objective):
    """An objective that samples along a path, in ``steps`` of a ``sampler``. times: the distribution of t."""

    times: Times
    sampler: str
    steps: int


SOURCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a": lambda z_a, z_b: z_a,
    "b": lambda z_a, z_b: z_b,
    "mean": lambda z_a, z_b: (z_a + z_b) / 2,
}
"""The degraded latents that a path may start from, besides noise."""


def guide(predict: Predict, unconditional: Predict, scale: float) -> Predict:
    """A network that predicts u + s (c − u), with c under the prompt and u under the empty one, in two calls."""

    def both(z_t: Tensor | None, t: Tensor | None) -> Prediction:
        given, none = predict(z_t, t), unconditional(z_t, t)
        return replace(given, latent=guided(given.latent, none.latent, scale))

    return both


def total_loss(
    objective: Objective, each: Tensor, prediction: Prediction, clean: Tensor, pixels: PixelLoss | None
) -> Loss:
    """Mean error + balance × load-balancing loss + pixel × auxiliary loss (MMAIF eq. 10)."""
    error = each.mean()
    terms = {"error": error, "balance": prediction.balance}
    total = error + objective.balance * prediction.balance
    if objective.pixel:
        if pixels is None:
            raise ValueError(f"the pixel loss has weight {objective.pixel}, but no function computes it")
        found = pixels(clean)
        terms["pixel"] = sum((w * found[name] for name, w in objective.pixels.items()), error.new_zeros(()))
        terms |= found if len(found) > 1 else {}
        total = total + objective.pixel * terms["pixel"]
    if prediction.load.shape[1]:
        terms["least_load"], terms["most_load"] = prediction.load.min(), prediction.load.max()
    said = {name: term.detach() for name, term in terms.items()}
    return Loss(total, each.detach(), prediction.load.detach(), said, prediction.notes)


def check_guidance(objective: PathObjective) -> None:
    """Raise ValueError for guidance of a model that was always given a prompt."""
    if objective.guidance != 1 and not objective.drop:
        raise ValueError(f"guidance must be 1, not {objective.guidance}: the model always had a prompt in training")


def sampler_calls(objective: PathObjective) -> int:
    """Network calls per image: those of the sampler, doubled by guidance."""
    calls = SAMPLERS[objective.sampler].evaluations(objective.steps)
    return calls if objective.guidance == 1 else 2 * calls

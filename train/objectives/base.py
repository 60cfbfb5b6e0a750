"""Objectives: the meaning of a network's prediction, the loss on it, and sampling from it.

A network is passed as ``predict(z_t, t) -> Prediction``, with the degraded latents and the prompt already bound to it.
The random generator is an argument, seeded by the trainer. Shapes: b z h w. Times run from a source at 0 to the clean
latent at 1.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from clearfuse.synth.console import PLAIN, Unit
from clearfuse.synth.files.schema import OneOf
from clearfuse.train.models.base import Prediction
from clearfuse.train.objectives.noise import Rng, numbers
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
    ``PIXEL_LOSSES``. drop, drop_images, drop_both: shares of training samples without their prompt alone, without their
    images alone, and without both. guidance, guidance_images: scales of classifier-free guidance in sampling, by the
    prompt and by the images, 1: none.
    """

    kind: Any  # a Literal in each class
    balance: float
    pixel: float
    pixels: dict[str, float]
    drop: float = 0.0
    guidance: float = 1.0
    drop_images: float = 0.0
    drop_both: float = 0.0
    guidance_images: float = 1.0

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


def draw_present(
    objective: Objective, unprompted: Sequence[bool], rng: Rng, device: torch.device
) -> Bool[Tensor, "b 2"] | None:
    """Which images the training samples keep; None where all are kept, by the objective.

    unprompted: the samples that have lost their prompt, a share ``drop`` + ``drop_both`` of all: ``drop_both`` of these
    lose their images too, and of the others a share such that ``drop_images`` of all samples do.
    """
    if not objective.drop_images and not objective.drop_both:
        return None
    without = objective.drop + objective.drop_both
    chance = [objective.drop_both / without if none else objective.drop_images / (1 - without) for none in unprompted]
    kept = numbers(len(unprompted), rng, device) >= torch.tensor(chance, device=device)
    return kept[:, None].expand(-1, 2)


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


def guide_twice(
    predict: Predict, images_alone: Predict, unconditional: Predict, images: float, prompt: float
) -> Predict:
    """A network that predicts u + s_i (i − u) + s_t (c − i): c under all, i under the images, u under nothing.

    Source: Brooks, Holynski and Efros, InstructPix2Pix, CVPR 2023, eq. 3, which OmniGen and DiTFuse take. images,
    prompt: s_i and s_t. With both 1 it is c.
    """

    def all_three(z_t: Tensor | None, t: Tensor | None) -> Prediction:
        given, i, u = predict(z_t, t), images_alone(z_t, t).latent, unconditional(z_t, t).latent
        return replace(given, latent=u + images * (i - u) + prompt * (given.latent - i))

    return all_three


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
    if objective.guidance_images != 1 and not objective.drop_both:
        raise ValueError(f"guidance_images must be 1, not {objective.guidance_images}: the model always had images")
    if objective.drop + objective.drop_images + objective.drop_both > 1:
        raise ValueError("drop, drop_images and drop_both are shares of the same samples: their sum is at most 1")


def sampler_calls(objective: PathObjective) -> int:
    """Network calls per image: those of the sampler, doubled by guidance, tripled by that of images."""
    calls = SAMPLERS[objective.sampler].evaluations(objective.steps)
    return calls * (3 if objective.guidance_images != 1 else 2 if objective.guidance != 1 else 1)

"""Objectives: the meaning of a network's prediction, the loss on it, and sampling from it.

A network is passed as ``predict(z_t, t) -> Prediction``, with the degraded latents and the prompt already bound to it.
The random generator is an argument, seeded by the trainer. Shapes: b z h w. Times run from a source at 0 to the clean
latent at 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from jaxtyping import Float
from torch import Tensor

from clearfuse.train.models.base import Prediction
from clearfuse.train.objectives.noise import Rng
from clearfuse.train.objectives.samplers import find_sampler, guided

Predict = Callable[[Tensor | None, Tensor | None], Prediction]
Pair = tuple[Tensor, Tensor]
"""The degraded latents (Z_a, Z_b), each b z h w."""
PixelLoss = Callable[[Tensor], Tensor]
"""The auxiliary loss of a clean latent: decodes it, and compares the image with the sources."""


@dataclass(frozen=True)
class Loss:
    """A loss. total: to be minimised; terms: its unweighted parts and the load of the experts, for the log.

    each: the error of each sample; load: see ``Prediction``.
    """

    total: Float[Tensor, ""]
    each: Float[Tensor, " b"]
    load: Float[Tensor, "layers experts"]
    terms: dict[str, Tensor] = field(default_factory=dict)


class Objective(ABC):
    """What is predicted: turns predictions into losses, and into samples. Its classes are frozen dataclasses.

    balance: weight of the experts' load-balancing loss. pixel: weight of the auxiliary pixel loss, for which the
    trainer then supplies ``pixels``. drop: share of training prompts that the trainer leaves empty. guidance: scale of
    classifier-free guidance in sampling, 1: none.
    """

    balance: float
    pixel: float
    drop: float = 0.0
    guidance: float = 1.0

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


class PathObjective(Objective):
    """An objective that samples along a path, in ``steps`` of a ``sampler``. times: the distribution of t."""

    times: str
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
        terms["pixel"] = pixels(clean)
        total = total + objective.pixel * terms["pixel"]
    if prediction.load.shape[1]:
        terms["least_load"], terms["most_load"] = prediction.load.min(), prediction.load.max()
    return Loss(total, each.detach(), prediction.load.detach(), {name: term.detach() for name, term in terms.items()})


def check_choice(name: str, value: str, allowed: Iterable[str]) -> None:
    """Raise ValueError, naming the allowed values, for any other value."""
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, not {value!r}")


def check_sampling(objective: PathObjective) -> None:
    """Raise ValueError for invalid sampling settings."""
    check_choice("times", objective.times, ("uniform", "logit-normal"))
    if objective.steps < 1:
        raise ValueError(f"steps must be at least 1, not {objective.steps}")
    if not 0 <= objective.drop < 1:
        raise ValueError(f"drop must be at least 0 and below 1, not {objective.drop}")
    if not 0 <= objective.guidance < math.inf:
        raise ValueError(f"guidance must be at least 0, not {objective.guidance}")
    if objective.guidance != 1 and not objective.drop:
        raise ValueError(f"guidance must be 1, not {objective.guidance}: the model always had a prompt in training")


def sampler_calls(objective: PathObjective, path: str) -> int:
    """Network calls per image: those of the sampler, doubled by guidance."""
    calls = find_sampler(objective.sampler, path).evaluations(objective.steps)
    return calls if objective.guidance == 1 else 2 * calls

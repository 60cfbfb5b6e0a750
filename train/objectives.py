"""Objectives: what a network's prediction stands for, the loss on it, and how a latent is made from it.

A network comes here as ``predict(z_t, t) -> Prediction``, with the degraded latents and the prompt already bound to
it. The generator is an argument; its place in the run is the trainer's to choose. Shapes: b z h w. Times run from a
source at 0 to the clean latent at 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from synth.types import unknown
from train.bridge import between, deviation
from train.draws import Rng, normal
from train.losses import FLOOR, NEAREST, clean_to_velocity, draw_times, errors, path, wide
from train.models.base import Prediction
from train.samplers import find_sampler, guided, one_shot

Predict = Callable[[Tensor | None, Tensor | None], Prediction]
Pair = tuple[Tensor, Tensor]
"""The degraded latents (Z_a, Z_b), each b z h w."""
PixelLoss = Callable[[Tensor], Tensor]
"""The auxiliary loss of a clean latent: decodes it, and compares the picture with the sources."""


@dataclass(frozen=True)
class Loss:
    """total: what to minimise; terms: its parts before weighting, and how the experts are loaded, for the log.

    each: the error of each sample, which ``terms`` has the mean of; load: see ``Prediction``.
    """

    total: Float[Tensor, ""]
    each: Float[Tensor, " b"]
    load: Float[Tensor, "layers experts"]
    terms: dict[str, Tensor] = field(default_factory=dict)


@runtime_checkable
class Objective(Protocol):
    """A row of choices that turns predictions into losses, and into samples.

    pixel: weight of the auxiliary pixel loss, for which the trainer then supplies ``pixels``. drop: share of training
    prompts that the trainer leaves empty. guidance: strength of the prompt in sampling, 1 is its own.
    """

    @property
    def pixel(self) -> float: ...
    @property
    def drop(self) -> float: ...
    @property
    def guidance(self) -> float: ...
    @property
    def calls(self) -> int:
        """Calls of the network an image."""
        ...

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
        ...

    def sample(self, predict: Predict, pair: Pair, rng: Rng) -> Tensor:
        """Clean latents of the shape and device of the pair's."""
        ...


@dataclass(frozen=True)
class Regression:
    """MSE(f(Z_a, Z_b, P), Z_GT) (MMAIF eq. 8), or under ``log`` the mean of log(MSE + 0.001) over the samples.

    The logarithm is the mean PSNR where the weights make the latents' error the pixels': a batch of one hazy and one
    clear pair then learns from both, not from the hazy one alone. It draws nothing.
    """

    measure: str = "mse"  # or "log"
    balance: float = 0.01  # weight of the experts' load-balancing loss
    pixel: float = 0.0  # weight λ of the auxiliary pixel loss, eq. 9 and 10

    def __post_init__(self) -> None:
        _one_of("measure", self.measure, ("mse", "log"))

    @property
    def drop(self) -> float:
        """A regression is not guided, and always has its prompt."""
        return 0.0

    @property
    def guidance(self) -> float:
        """None."""
        return 1.0

    @property
    def calls(self) -> int:
        """One call an image."""
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
        each = errors(prediction.latent, target, weight)
        error = each if self.measure == "mse" else (each + FLOOR).log()
        return _total(self, error, prediction, prediction.latent, pixels)

    def sample(self, predict: Predict, pair: Pair, rng: Rng) -> Tensor:
        """One call."""
        return one_shot(lambda z_t, t: predict(z_t, t).latent)


@dataclass(frozen=True)
class FlowMatching:
    """MSE(v(Z_t, t, Z_a, Z_b, P), Z_GT − Z_0), Z_t = (1 − t) Z_0 + t Z_GT, Z_0 ~ p0 (MMAIF eq. 2, 11).

    predicts: what the network's latent stands for: the velocity, or the clean latent Ẑ1, of which the velocity is
    (Ẑ1 − Z_t) / (1 − t), in the loss over max(1 − t, NEAREST), the target's too: that is Z_GT − Z_0 up to
    t = 1 − NEAREST, and beyond it the loss still vanishes at Ẑ1 = Z_GT.
    error: what the loss is measured on: the velocity, or the clean latent, which weighs the times by (1 − t)²: the same
    mean is learned, and late times, where velocities are hardest to tell, do not drown the early ones.
    source: p0: noise, or a degraded latent, or the mean of both (MMAIF table 6, j to l). times: how t is drawn.
    """

    predicts: str = "velocity"  # or "clean"
    error: str = "velocity"  # or "clean"
    source: str = "gaussian"  # or "a", "b", "mean"
    times: str = "uniform"  # or "logit-normal"
    sampler: str = "ab2"
    steps: int = 5
    drop: float = 0.0  # share of training prompts left empty, for guidance
    guidance: float = 1.0
    balance: float = 0.01
    pixel: float = 0.0

    def __post_init__(self) -> None:
        _one_of("predicts", self.predicts, ("velocity", "clean"))
        _one_of("error", self.error, ("velocity", "clean"))
        _one_of("source", self.source, ("gaussian", *SOURCES))
        if find_sampler(self.sampler).stochastic and self.source != "gaussian":
            raise ValueError(
                f"sampler {self.sampler!r} needs a Gaussian source, not {self.source!r}: its score is the noise's"
            )
        _check_sampling(self)

    @property
    def calls(self) -> int:
        """Calls of the network an image."""
        return _calls(self, "flow")

    def loss(
        self,
        predict: Predict,
        target: Float[Tensor, "b z h w"],
        pair: Pair,
        rng: Rng,
        pixels: PixelLoss | None = None,
        weight: Float[Tensor, "z 1 1"] | None = None,
    ) -> Loss:
        """The loss at one drawn time and source for each latent."""
        t = draw_times(self.times, target, rng)
        start = self.start(pair, rng)
        z_t = path(start, target, t)
        prediction = predict(z_t, t)
        v = self.velocity(prediction.latent, z_t, t, NEAREST)
        clean = prediction.latent if self.predicts == "clean" else z_t + wide(1 - t, v) * v
        if self.error == "clean":
            error = errors(clean, target, weight)
        else:
            v_target = target - start if self.predicts == "velocity" else clean_to_velocity(target, z_t, t, NEAREST)
            error = errors(v, v_target, weight)
        return _total(self, error, prediction, clean, pixels)

    def start(self, pair: Pair, rng: Rng) -> Float[Tensor, "b z h w"]:
        """A draw of p0."""
        return normal(pair[0], rng) if self.source == "gaussian" else SOURCES[self.source](*pair)

    def velocity(
        self,
        latent: Float[Tensor, "b z h w"],
        z_t: Float[Tensor, "b z h w"],
        t: Float[Tensor, " b"],
        nearest: float = 0.0,
    ) -> Float[Tensor, "b z h w"]:
        """The velocity that a predicted latent stands for; no sampler asks for it at t = 1."""
        return clean_to_velocity(latent, z_t, t, nearest) if self.predicts == "clean" else latent

    def sample(self, predict: Predict, pair: Pair, rng: Rng) -> Tensor:
        """From a draw of p0 along the velocity, with the sampler and number of steps of this objective."""
        start = self.start(pair, rng)

        def velocity(z_t: Tensor, t: Tensor) -> Tensor:
            return self.velocity(predict(z_t, t).latent, z_t, t)

        return find_sampler(self.sampler)(velocity, start, self.steps, rng)


@dataclass(frozen=True)
class SchrodingerBridge:
    """I²SB: MSE(ε(Z_t, t), (Z_t − Z_GT) / σ_t), Z_t between the degraded source and Z_GT (arXiv 2302.05872, eq. 12).

    predicts: that difference over σ_t (``noise``), or the clean latent itself. source: the mean in MMAIF's table 6.
    """

    predicts: str = "noise"  # or "clean"
    source: str = "mean"  # or "a", "b"
    times: str = "uniform"  # or "logit-normal"
    sampler: str = "i2sb"
    steps: int = 100
    drop: float = 0.0
    guidance: float = 1.0
    balance: float = 0.01
    pixel: float = 0.0

    def __post_init__(self) -> None:
        _one_of("predicts", self.predicts, ("noise", "clean"))
        _one_of("source", self.source, SOURCES)
        find_sampler(self.sampler, "bridge")
        _check_sampling(self)

    @property
    def calls(self) -> int:
        """Calls of the network an image."""
        return _calls(self, "bridge")

    def loss(
        self,
        predict: Predict,
        target: Float[Tensor, "b z h w"],
        pair: Pair,
        rng: Rng,
        pixels: PixelLoss | None = None,
        weight: Float[Tensor, "z 1 1"] | None = None,
    ) -> Loss:
        """The loss at one drawn time and place on the bridge for each latent."""
        t = draw_times(self.times, target, rng).clamp(max=1 - LAST)
        z_t = between(SOURCES[self.source](*pair), target, normal(target, rng), t)
        prediction = predict(z_t, t)
        wanted = target if self.predicts == "clean" else (z_t - target) / wide(deviation(t), target)
        clean = self.clean(prediction.latent, z_t, t)
        return _total(self, errors(prediction.latent, wanted, weight), prediction, clean, pixels)

    def clean(
        self, latent: Float[Tensor, "b z h w"], z_t: Float[Tensor, "b z h w"], t: Float[Tensor, " b"]
    ) -> Float[Tensor, "b z h w"]:
        """The clean latent that a predicted one stands for: Z_t − σ_t ε."""
        return latent if self.predicts == "clean" else z_t - wide(deviation(t), z_t) * latent

    def sample(self, predict: Predict, pair: Pair, rng: Rng) -> Tensor:
        """From the degraded source, each step a draw of the bridge's posterior."""

        def clean(z_t: Tensor, t: Tensor) -> Tensor:
            return self.clean(predict(z_t, t).latent, z_t, t)

        return find_sampler(self.sampler, "bridge")(clean, SOURCES[self.source](*pair), self.steps, rng)


SOURCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "a": lambda z_a, z_b: z_a,
    "b": lambda z_a, z_b: z_b,
    "mean": lambda z_a, z_b: (z_a + z_b) / 2,
}
"""Where a path may start but from noise."""

LAST = 1e-3
"""The least 1 − t at which a bridge is trained: at 0 there is no noise left to divide by."""


def guide(predict: Predict, unconditional: Predict, scale: float) -> Predict:
    """A network that answers with u + s (c − u), c under its prompt and u under none; two calls in one."""

    def both(z_t: Tensor | None, t: Tensor | None) -> Prediction:
        given, none = predict(z_t, t), unconditional(z_t, t)
        return replace(given, latent=guided(given.latent, none.latent, scale))

    return both


def _total(objective: AnyObjective, each: Tensor, made: Prediction, clean: Tensor, pixels: PixelLoss | None) -> Loss:
    """Mean error + balance × load-balancing loss + pixel × auxiliary loss (MMAIF eq. 10)."""
    error = each.mean()
    terms = {"error": error, "balance": made.balance}
    total = error + objective.balance * made.balance
    if objective.pixel:
        if pixels is None:
            raise ValueError(f"the pixel loss has weight {objective.pixel}, but no function computes it")
        terms["pixel"] = pixels(clean)
        total = total + objective.pixel * terms["pixel"]
    if made.load.shape[1]:
        terms["least_load"], terms["most_load"] = made.load.min(), made.load.max()
    return Loss(total, each.detach(), made.load.detach(), {name: term.detach() for name, term in terms.items()})


def _one_of(name: str, value: str, allowed: Iterable[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be {' or '.join(map(repr, allowed))}, not {value!r}")


def _check_sampling(objective: FlowMatching | SchrodingerBridge) -> None:
    _one_of("times", objective.times, ("uniform", "logit-normal"))
    if objective.steps < 1:
        raise ValueError(f"steps must be at least 1, not {objective.steps}")
    if not 0 <= objective.drop < 1:
        raise ValueError(f"drop must be at least 0 and below 1, not {objective.drop}")
    if not 0 <= objective.guidance < math.inf:
        raise ValueError(f"guidance must be at least 0, not {objective.guidance}")
    if objective.guidance != 1 and not objective.drop:
        raise ValueError(f"guidance must be 1, not {objective.guidance}: the model always had a prompt in training")


def _calls(objective: FlowMatching | SchrodingerBridge, path: str) -> int:
    calls = find_sampler(objective.sampler, path).evaluations(objective.steps)
    return calls if objective.guidance == 1 else 2 * calls


AnyObjective = Regression | FlowMatching | SchrodingerBridge

OBJECTIVES: dict[str, type[AnyObjective]] = {
    "regression": Regression,
    "flow": FlowMatching,
    "i2sb": SchrodingerBridge,
}


def find_objective(name: str) -> type[AnyObjective]:
    """The objective of a name."""
    if name not in OBJECTIVES:
        raise unknown("objective", name, OBJECTIVES)
    return OBJECTIVES[name]

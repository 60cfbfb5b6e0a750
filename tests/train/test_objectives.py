"""Objectives at their optimum and by their formulas; samplers' order on a Gaussian flow whose velocity is known."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from synth.types import UserError
from train.models import Prediction
from train.objectives import NEAREST, FlowMatching, Regression, clean_to_velocity, path, source_loss
from train.samplers import SAMPLERS, find_sampler

SHAPE = (4, 3, 5, 6)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def predicted(latent: Tensor, balance: float = 1.5) -> Prediction:
    return Prediction(latent, torch.tensor(balance), torch.zeros(1, 0))


def test_regression_is_the_mean_square_and_the_balance() -> None:
    target, guess = randn(*SHAPE), randn(*SHAPE, seed=2)
    calls: list[tuple[object, object]] = []

    def predict(z_t: Tensor | None, t: Tensor | None) -> Prediction:
        calls.append((z_t, t))
        return predicted(guess)

    loss = Regression(balance=0.1).loss(predict, target, seeded())
    mse = (guess - target).square().mean()
    torch.testing.assert_close(loss.total, mse + 0.1 * 1.5)
    assert loss.terms.keys() == {"error", "balance"} and torch.equal(
        Regression().sample(predict, target, seeded()), guess
    )
    assert calls == [(None, None), (None, None)], "a regression never sees a time"


@pytest.mark.parametrize("predicts", ["velocity", "clean"])
def test_flow_loss_vanishes_at_its_optimum(predicts: str) -> None:
    """With one clean latent, the best prediction is known from (Z_t, t): the loss is 0 there, at any time."""
    target = randn(*SHAPE)

    def predict(z_t: Tensor | None, t: Tensor | None) -> Prediction:
        assert z_t is not None and t is not None
        noise = (z_t - t.view(-1, 1, 1, 1) * target) / (1 - t.view(-1, 1, 1, 1))
        return predicted(target if predicts == "clean" else target - noise, 0.0)

    objective = FlowMatching(predicts=predicts)
    for seed in range(20):
        assert float(objective.loss(predict, target, seeded(seed)).total) < 1e-6
    for sampler in SAMPLERS:
        objective = FlowMatching(predicts="clean", sampler=sampler, steps=4)
        torch.testing.assert_close(
            objective.sample(lambda z_t, t: predicted(target), target, seeded()), target, atol=1e-5, rtol=1e-5
        )


def test_flow_loss_at_the_conditional_mean_is_the_variance_that_is_left() -> None:
    """Clean latents N(0, s²): the loss at E[Z1 − noise | Z_t] is the mean over t of the conditional variance."""
    s, n = 0.5, 100_000
    target = s * randn(n, 1, 1, 1)

    def predict(z_t: Tensor | None, t: Tensor | None) -> Prediction:
        assert z_t is not None and t is not None
        return predicted(gaussian_velocity(z_t, t, 0, s), 0.0)

    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    left = (s**2 + 1) - (t * s**2 - (1 - t)) ** 2 / (t**2 * s**2 + (1 - t) ** 2)
    assert float(FlowMatching().loss(predict, target, seeded()).total) == pytest.approx(float(left.mean()), rel=0.02)


def test_the_path_and_the_velocity_of_a_clean_latent() -> None:
    noise, clean, t = randn(*SHAPE), randn(*SHAPE, seed=2), torch.tensor([0.0, 0.3, 0.95, 1.0])
    z_t = path(noise, clean, t)
    torch.testing.assert_close(z_t[0], noise[0])
    torch.testing.assert_close(z_t[3], clean[3])
    v = clean_to_velocity(clean, z_t, t)
    torch.testing.assert_close(v[:3], (clean - noise)[:3], atol=1e-4, rtol=1e-4)
    assert v[3].abs().max() < 1e-4 and NEAREST == 0.05


def test_times_stay_in_full_precision_beside_half_precision_latents() -> None:
    seen: list[Tensor] = []

    def predict(z_t: Tensor | None, t: Tensor | None) -> Prediction:
        assert z_t is not None and t is not None
        seen.append(t)
        return predicted(z_t)

    target, objective = randn(*SHAPE).bfloat16(), FlowMatching(predicts="clean")
    objective.loss(predict, target, seeded())
    assert objective.sample(predict, target, seeded()).dtype == torch.bfloat16
    assert {t.dtype for t in seen} == {torch.float32}


def test_flow_draws_from_its_generator_alone() -> None:
    target = randn(*SHAPE)

    def draw(seed: int) -> list[Tensor]:
        seen: list[Tensor] = []

        def predict(z_t: Tensor | None, t: Tensor | None) -> Prediction:
            assert z_t is not None and t is not None
            seen.extend([z_t, t])
            return predicted(z_t)

        FlowMatching().loss(predict, target, seeded(seed))
        return seen

    before = torch.random.get_rng_state()
    first, second, third = draw(0), draw(0), draw(1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.equal(first[0], second[0]) and not torch.equal(first[1], third[1])
    assert len(first[1].unique()) == len(target), "each latent has its own time"


def test_the_pixel_loss_sees_the_clean_latent() -> None:
    target = randn(*SHAPE)
    seen: list[Tensor] = []

    def pixels(latent: Tensor) -> Tensor:
        seen.append(latent)
        return latent.new_full((), 2.0)

    loss = Regression(balance=0, pixel=0.5).loss(lambda z_t, t: predicted(target), target, seeded(), pixels)
    assert float(loss.total) == 1.0 and float(loss.terms["pixel"]) == 2.0

    def exact(z_t: Tensor | None, t: Tensor | None) -> Prediction:
        assert z_t is not None and t is not None
        return predicted((target - z_t) / (1 - t.view(-1, 1, 1, 1)))

    FlowMatching(pixel=0.5).loss(exact, target, seeded(), pixels)
    for latent in seen:
        torch.testing.assert_close(latent, target, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match=r"the pixel loss has weight 0.5, but no function computes it"):
        Regression(pixel=0.5).loss(lambda z_t, t: predicted(target), target, seeded())


def test_the_pixel_loss_is_its_formula() -> None:
    a = torch.zeros(1, 3, 4, 4)
    ramp = torch.arange(4.0).expand(1, 3, 4, 4)
    assert float(source_loss(a, a, a)) == 0
    assert float(source_loss(ramp, a, ramp)) == pytest.approx(1.5 + 1.0)


def gaussian_velocity(z: Tensor, t: Tensor, mean: float, s: float) -> Tensor:
    """E[Z1 − noise | Z_t] where Z1 is N(mean, s²): mean + (t s² − (1 − t)) / (t² s² + (1 − t)²) (Z_t − t mean)."""
    t = t.view(-1, *([1] * (z.ndim - 1)))
    return mean + (t * s**2 - (1 - t)) / (t**2 * s**2 + (1 - t) ** 2) * (z - t * mean)


@pytest.mark.parametrize(("name", "order", "calls"), [("euler", 1, 1), ("midpoint", 2, 2), ("ab2", 2, 1)])
def test_samplers_have_their_order_on_a_gaussian_flow(name: str, order: int, calls: int) -> None:
    """The exact flow takes noise z to mean + s z. Halving the step divides the error by 2^order."""
    z, counted = randn(200, 1, seed=3).double(), 0

    def v(z_t: Tensor, t: Tensor) -> Tensor:
        nonlocal counted
        counted += 1
        return gaussian_velocity(z_t, t, 0.7, 0.4)

    errors = []
    for steps in (40, 80, 160):
        counted = 0
        errors.append(float((SAMPLERS[name](v, z, steps) - (0.7 + 0.4 * z)).square().mean().sqrt()))
        assert counted == calls * steps
    for coarse, fine in pairwise(errors):
        assert order - 0.2 < math.log2(coarse / fine) < order + 1.2, errors


def test_what_is_unknown_is_refused() -> None:
    with pytest.raises(UserError, match="unknown sampler 'eular': did you mean 'euler'"):
        find_sampler("eular")
    with pytest.raises(UserError, match="unknown sampler 'ab3'"):
        FlowMatching(sampler="ab3")
    with pytest.raises(ValueError, match="predicts must be 'velocity' or 'clean', not 'noise'"):
        FlowMatching(predicts="noise")
    with pytest.raises(ValueError, match="steps must be at least 1, not 0"):
        FlowMatching(steps=0)

"""Objectives against their formulas: losses, sources, times, guidance. Common properties are tested in tests/laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from clearfuse.synth.files.schema import validate
from clearfuse.synth.types import UserError
from clearfuse.train.metrics import evaluate, fidelity
from clearfuse.train.models import Prediction
from clearfuse.train.objectives.base import guide
from clearfuse.train.objectives.bridge import deviation
from clearfuse.train.objectives.flow import FlowMatching
from clearfuse.train.objectives.losses import NEAREST, clean_to_velocity, draw_times, path
from clearfuse.train.objectives.pixels import PIXEL_LOSSES, CleanImages, ssim
from clearfuse.train.objectives.regression import Regression
from clearfuse.train.objectives.schrodinger import SchrodingerBridge

SHAPE = (4, 3, 5, 6)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def predicted(latent: Tensor, balance: float = 1.5) -> Prediction:
    return Prediction(latent, torch.tensor(balance), torch.zeros(1, 0))


def pair(like: Tensor) -> tuple[Tensor, Tensor]:
    """A clean latent and its degraded pair."""
    return tuple(torch.randn(like.shape, generator=seeded(seed)).to(like) for seed in (11, 12))  # type: ignore[return-value]


def test_regression_is_the_mean_square_and_the_balance() -> None:
    target, guess = randn(*SHAPE), randn(*SHAPE, seed=2)
    calls: list[tuple[object, object]] = []

    def predict(z_t: Tensor | None, t: Tensor | None) -> Prediction:
        calls.append((z_t, t))
        return predicted(guess)

    loss = Regression(balance=0.1).loss(predict, target, pair(target), seeded())
    mse = (guess - target).square().mean()
    torch.testing.assert_close(loss.total, mse + 0.1 * 1.5)
    assert loss.terms.keys() == {"error", "balance"} and torch.equal(
        Regression().sample(predict, pair(target), seeded()), guess
    )
    assert calls == [(None, None), (None, None)], "a regression never sees a time"


def gaussian_velocity(z: Tensor, t: Tensor, mean: float, s: float) -> Tensor:
    """E[Z1 − noise | Z_t] for Z1 ~ N(mean, s²): mean + (t s² − (1 − t)) / (t² s² + (1 − t)²) (Z_t − t mean)."""
    t = t.view(-1, *([1] * (z.ndim - 1)))
    return mean + (t * s**2 - (1 - t)) / (t**2 * s**2 + (1 - t) ** 2) * (z - t * mean)


def test_flow_loss_at_the_conditional_mean_is_the_variance_that_is_left() -> None:
    """For clean latents N(0, s²), the loss of E[Z1 − noise | Z_t] is the mean over t of the conditional variance."""
    s, n = 0.5, 100_000
    target = s * randn(n, 1, 1, 1)

    def predict(z_t: Tensor | None, t: Tensor | None) -> Prediction:
        assert z_t is not None and t is not None
        return predicted(gaussian_velocity(z_t, t, 0, s), 0.0)

    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    left = (s**2 + 1) - (t * s**2 - (1 - t)) ** 2 / (t**2 * s**2 + (1 - t) ** 2)
    loss = float(FlowMatching().loss(predict, target, pair(target), seeded()).total)
    assert loss == pytest.approx(float(left.mean()), rel=0.02)


def test_an_error_of_the_clean_latent_weighs_the_times_alone() -> None:
    """For one latent and time it is (1 − t)² times the velocity's error, whichever of the two is predicted."""
    target, seen = randn(1, 3, 5, 6), []

    def predict(z_t: Tensor | None, t: Tensor | None) -> Prediction:
        assert t is not None
        seen.append(float(t))
        return predicted(randn(1, 3, 5, 6, seed=2), 0.0)

    given = pair(target)
    for seed in range(5):
        one, other = (
            float(FlowMatching(error=error).loss(predict, target, given, seeded(seed)).total)
            for error in ("velocity", "clean")
        )
        assert other == pytest.approx((1 - seen[-1]) ** 2 * one, rel=1e-4)


def test_the_path_and_the_velocity_of_a_clean_latent() -> None:
    noise, clean, t = randn(*SHAPE), randn(*SHAPE, seed=2), torch.tensor([0.0, 0.3, 0.95, 1.0])
    z_t = path(noise, clean, t)
    torch.testing.assert_close(z_t[0], noise[0])
    torch.testing.assert_close(z_t[3], clean[3])
    v = clean_to_velocity(clean, z_t, t, NEAREST)
    torch.testing.assert_close(v[:3], (clean - noise)[:3], atol=1e-4, rtol=1e-4)
    assert v[3].abs().max() < 1e-4 and NEAREST == 0.05


def test_the_pixel_losses_are_their_formulas() -> None:
    """On ramps: their mean is 1.5, their slope 1, which Sobel's kernels see as ½ at the repeated edges."""
    flat, ramp = torch.zeros(1, 3, 4, 4), torch.arange(4.0).expand(1, 3, 4, 4)
    steep = CleanImages(ramp, flat, 2 * ramp)
    losses = {name: loss for name, loss in PIXEL_LOSSES.items() if not name.startswith("metric-")}  # metrics' laws test
    found = {name: float(loss(flat, steep)) for name, loss in losses.items()}
    slope = 0.5 * (0.5 + 1)
    assert found["truth"] == 1.5 and found["intensity"] == 3 and found["gradient"] == pytest.approx(2 * slope)
    assert found["charbonnier"] == pytest.approx(1.5 - 0.75e-3, abs=1e-5)
    assert found["frequency"] == pytest.approx((6 + 8**0.5 + 2) / 12)  # of 4 × 3 frequencies those along the ramp
    assert found["sources"] == pytest.approx(2 * (1.5 + 1.0))
    same = {name: float(loss(ramp, CleanImages(ramp, ramp, ramp))) for name, loss in losses.items()}
    assert same == {name: pytest.approx(0, abs=1e-6) for name in losses}


def test_the_ssim_of_the_loss_is_that_of_the_metric() -> None:
    x = torch.nn.functional.interpolate(randn(1, 3, 8, 8), (40, 48), mode="bicubic").clamp(-1, 1)
    y = (0.7 * x + 0.2 * randn(1, 3, 40, 48, seed=2)).clamp(-1, 1)
    grey = [((z[:, :1] + 1) / 2).float() for z in (x, y)]
    images = [255 * z[0, 0, ..., None].numpy().astype(np.float32) for z in grey]
    assert float(ssim(2 * grey[0] - 1, 2 * grey[1] - 1)) == pytest.approx(fidelity.ssim(*images), abs=1e-4)


def test_the_similarity_of_the_loss_is_that_of_the_metric() -> None:
    """Of colours: both are of luma, the metric's sum is twice the mean."""
    made, a, b = (torch.nn.functional.interpolate(randn(1, 3, 8, 8, seed=i), (40, 48)).clamp(-1, 1) for i in (1, 2, 3))
    images = [(255 * (x[0].permute(1, 2, 0).numpy() + 1) / 2).round().astype(np.uint8) for x in (made, a, b)]
    found = evaluate(*images, metrics=["SSIM-sum"])["SSIM-sum"]
    loss = PIXEL_LOSSES["similarity"](made, CleanImages(torch.zeros_like(made), a, b))
    assert 1 - float(loss) == pytest.approx(found / 2, abs=2e-3)


def test_the_terms_of_the_pixel_loss_are_weighted() -> None:
    objective = Regression(pixel=0.5, pixels={"truth": 2.0, "ssim": 1.0})
    target = randn(*SHAPE)

    def pixels(latent: Tensor) -> dict[str, Tensor]:
        return {"truth": torch.tensor(3.0), "ssim": torch.tensor(4.0)}

    loss = objective.loss(lambda z_t, t: predicted(target, 0.0), target, pair(target), seeded(), pixels)
    assert float(loss.total) == pytest.approx(0.5 * (2 * 3 + 4)) and float(loss.terms["pixel"]) == 10
    assert (float(loss.terms["truth"]), float(loss.terms["ssim"])) == (3, 4)
    with pytest.raises(UserError, match="pixels: unknown key 'trut'"):
        validate(Regression, {"kind": "regression", "pixels": {"trut": 1.0}}, "x")


SOURCE = {"a": lambda a, b: a, "b": lambda a, b: b, "mean": lambda a, b: (a + b) / 2}


@pytest.mark.parametrize("source", SOURCE)
@pytest.mark.parametrize("kind", [FlowMatching, SchrodingerBridge])
def test_a_path_may_start_from_a_degraded_latent(kind: Any, source: str) -> None:
    """At t = 0 the state is the source, in training and sampling; a network that predicts the target samples it."""
    target, given = randn(*SHAPE), pair(randn(*SHAPE))
    start, seen = SOURCE[source](*given), []

    def predict(z_t: Tensor | None, t: Tensor | None) -> Prediction:
        assert z_t is not None and t is not None
        seen.append((z_t, t.view(-1, 1, 1, 1)))
        return predicted(target, 0.0)

    objective = kind(predicts="clean", source=source, steps=4)
    assert float(objective.loss(predict, target, given, seeded()).total) == 0
    z_t, t = seen.pop()
    if kind is FlowMatching:
        torch.testing.assert_close(z_t, (1 - t) * start + t * target)
    torch.testing.assert_close(objective.sample(predict, given, seeded()), target, atol=1e-5, rtol=1e-5)
    assert torch.equal(seen[0][0], start) and seen[0][1].max() == 0 and len(seen) == objective.calls == 4


def test_the_bridge_learns_its_noise() -> None:
    """Eq. 12: the loss vanishes at (Z_t − clean) / σ_t, and the samples are then the clean latents."""
    target, given = randn(*SHAPE), pair(randn(*SHAPE))

    def predict(z_t: Tensor | None, t: Tensor | None) -> Prediction:
        assert z_t is not None and t is not None
        return predicted((z_t - target) / deviation(t).view(-1, 1, 1, 1), 0.0)

    objective = SchrodingerBridge(steps=10)
    for seed in range(20):
        assert float(objective.loss(predict, target, given, seeded(seed)).total) < 1e-6
    torch.testing.assert_close(objective.sample(predict, given, seeded()), target, atol=1e-4, rtol=1e-4)


def test_times_are_uniform_or_logit_normal() -> None:
    like = torch.zeros(100_000, 1)
    uniform, normal = (draw_times(times, like, seeded()) for times in ("uniform", "logit-normal"))
    for t in (uniform, normal):
        assert t.min() >= 0 and t.max() <= 1 and float(t.mean()) == pytest.approx(0.5, abs=0.005)
    assert float(uniform.var()) == pytest.approx(1 / 12, rel=0.02)
    assert float(normal.logit().std()) == pytest.approx(1, rel=0.02)


def test_guidance_asks_with_and_without_the_prompt() -> None:
    with_, without = (lambda z_t, t, value=value: predicted(torch.full(SHAPE, value)) for value in (3.0, 1.0))
    assert guide(with_, without, 2.0)(None, None).latent.unique().tolist() == [5.0]
    assert FlowMatching(drop=0.1, guidance=2.0, sampler="heun", steps=3).calls == 10
    assert (FlowMatching().calls, Regression().calls, SchrodingerBridge().calls) == (5, 1, 100)
    assert Regression().guidance == 1 and Regression().drop == 0


def test_the_experts_load_is_among_the_terms() -> None:
    target = randn(*SHAPE)
    made = Prediction(target, torch.tensor(1.0), torch.tensor([[0.5, 0.5], [0.9, 0.1]]))
    terms = Regression().loss(lambda z_t, t: made, target, pair(target), seeded()).terms
    assert {name: float(terms[name]) for name in ("least_load", "most_load")} == pytest.approx(
        {"least_load": 0.1, "most_load": 0.9}
    )


REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (FlowMatching, {"source": "c"}, "unknown source 'c': allowed: a, b, gaussian, mean"),
    (FlowMatching, {"sampler": "sde", "source": "mean"}, "sampler 'sde' needs a Gaussian source, not 'mean'"),
    (FlowMatching, {"sampler": "eular"}, "unknown sampler 'eular': did you mean 'euler'"),
    (FlowMatching, {"sampler": "i2sb"}, "unknown sampler 'i2sb': allowed: ab2, euler, heun, midpoint"),
    (FlowMatching, {"predicts": "noise"}, "unknown predicts 'noise': allowed: clean, velocity"),
    (FlowMatching, {"error": "noise"}, "unknown error 'noise': allowed: clean, velocity"),
    (FlowMatching, {"times": "normal"}, "unknown times 'normal': did you mean 'logit-normal'? allowed: logit-normal, "),
    (FlowMatching, {"steps": 0}, "steps = 0: must be in [1, 100000]"),
    (FlowMatching, {"steps": 2.0}, "steps = 2.0: must be a whole number"),
    (FlowMatching, {"steps": True}, "steps = True: must be a whole number"),
    (FlowMatching, {"pixel": float("nan")}, "pixel = nan: must be a finite number"),
    (FlowMatching, {"balance": -1.0}, "balance = -1.0: must be at least 0"),
    (FlowMatching, {"drop": 1.0}, "drop = 1.0: must be in [0, 1)"),
    (FlowMatching, {"guidance": -1.0, "drop": 0.1}, "guidance = -1.0: must be at least 0"),
    (FlowMatching, {"guidance": 2.0}, "guidance must be 1, not 2.0: the model always had a prompt in training"),
    (FlowMatching, {"stepz": 2}, "unknown key 'stepz': did you mean 'steps'?"),
    (SchrodingerBridge, {"source": "gaussian"}, "unknown source 'gaussian': allowed: a, b, mean"),
    (SchrodingerBridge, {"predicts": "velocity"}, "unknown predicts 'velocity': allowed: clean, noise"),
    (SchrodingerBridge, {"sampler": "euler"}, "unknown sampler 'euler': allowed: i2sb, i2sb-heun"),
    (Regression, {"measure": "l1"}, "unknown measure 'l1': allowed: log, mse"),
    (FlowMatching, {"measure": "log"}, "measure 'log' is of the clean latent's error"),
]


@pytest.mark.parametrize(("kind", "changed", "said"), REFUSED, ids=[str(row[1]) for row in REFUSED])
def test_settings_that_can_not_be_are_refused(kind: Any, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        validate(kind, changed, "x")
    assert str(error.value).startswith(f"x: {said}")
    with pytest.raises(ValueError):
        kind(**changed)

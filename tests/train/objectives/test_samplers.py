"""Samplers on flows between Gaussians with known velocity, score and posterior: order, calls, moments."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from clearfuse.train.models.base import Prediction
from clearfuse.train.objectives.bridge import between, place, posterior, times, variance
from clearfuse.train.objectives.flow import FlowMatching
from clearfuse.train.objectives.samplers import SAMPLERS, Sampler, guided, score

FLOWS = {name: row for name, row in SAMPLERS.items() if row.path == "flow" and not row.stochastic}
MEAN, SIGMA = 0.7, 0.4


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def velocity(z: Tensor, t: Tensor) -> Tensor:
    """E[Z1 − Z0 | Z_t], Z0 ~ N(0, 1), Z1 ~ N(μ, σ²): μ + (t σ² − (1 − t)) / (t² σ² + (1 − t)²) (Z_t − t μ)."""
    t = t.view(-1, *([1] * (z.ndim - 1)))
    return MEAN + (t * SIGMA**2 - (1 - t)) / (t**2 * SIGMA**2 + (1 - t) ** 2) * (z - t * MEAN)


def run(row: Sampler, z: Tensor, steps: int) -> tuple[Tensor, int]:
    """The latents at t = 1, and the number of velocity evaluations."""
    calls = 0

    def counted(z_t: Tensor, t: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        assert t.shape == z.shape[:1]
        return velocity(z_t, t)

    return row(counted, z, steps, seeded()), calls


@pytest.mark.parametrize("name", FLOWS)
def test_the_order_of_convergence_is_the_table_s(name: str) -> None:
    """The exact flow maps noise z to μ + σ z. Halving the step divides the error by 2^order."""
    row, z = FLOWS[name], torch.randn(200, 1, generator=seeded(3)).double()
    errors = []
    for steps in (40, 80, 160):
        found, calls = run(row, z, steps)
        assert calls == row.evaluations(steps)
        errors.append(float((found - (MEAN + SIGMA * z)).square().mean().sqrt()))
    least = {1: 0.9, 2: 1.8}[row.order]
    for coarse, fine in pairwise(errors):
        assert least < math.log2(coarse / fine) < row.order + 1.2, errors


@pytest.mark.parametrize("steps", [1, 2, 5, 25])
def test_eq_12_as_printed_is_euler(steps: int) -> None:
    """With the velocity used twice it is one Euler step; without, two of half the length."""
    z = torch.randn(50, 3, generator=seeded(3))
    for name, like in (("paper-reuse", steps), ("paper", 2 * steps)):
        found, euler = run(SAMPLERS[name], z, steps)[0], run(SAMPLERS["euler"], z, like)[0]
        torch.testing.assert_close(found, euler, atol=1e-6, rtol=0)


def test_samplers_draw_from_their_generator_alone() -> None:
    z, before = torch.randn(50, 3, generator=seeded(3)), torch.random.get_rng_state()
    for row in SAMPLERS.values():
        first, second, third = (row(velocity, z, 4, seeded(seed)) for seed in (1, 1, 2))
        assert torch.equal(first, second) and torch.equal(first, third) != row.stochastic
        assert run(row, z, 3)[1] == row.evaluations(3)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_score_is_that_of_the_marginal() -> None:
    """−(Z_t − t μ) / (t² σ² + (1 − t)²)."""
    z, t = torch.randn(50, generator=seeded(3)).double(), 0.6
    found = score(velocity(z, torch.full((50,), t).double()), z, t)
    torch.testing.assert_close(found, -(z - t * MEAN) / (t**2 * SIGMA**2 + (1 - t) ** 2))


@pytest.mark.slow
def test_the_stochastic_form_keeps_mean_and_variance() -> None:
    z = torch.randn(1, 1_000_000, generator=seeded(3))
    found, calls = run(SAMPLERS["sde"], z, 500)
    assert calls == 1000
    assert abs(float(found.mean()) - MEAN) < 0.01 * SIGMA
    assert float(found.var()) == pytest.approx(SIGMA**2, rel=0.01)
    assert float(torch.corrcoef(torch.stack([found[0], z[0]]))[0, 1]) < 0.8, "it is no deterministic flow"


def test_g_scales_the_diffusion_of_the_stochastic_form_alone() -> None:
    """With g = 0 it is the midpoint rule; a larger g strays further from it; other samplers don't know it."""
    z = torch.randn(1, 2000, generator=seeded(3)).double()

    def at(name: str, g: float) -> Tensor:
        return SAMPLERS[name](velocity, z, 50, seeded(1), g)

    torch.testing.assert_close(at("sde", 0), at("midpoint", 1))
    strays = [float((at("sde", g) - at("midpoint", 1)).square().mean()) for g in (0.1, 0.5, 2.0)]
    assert strays == sorted(strays) and strays[0] > 0 and torch.equal(at("ab2", 0), at("ab2", 2))
    pair = (torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))

    def predict(z_t: Tensor | None, t: Tensor | None) -> Prediction:
        assert z_t is not None
        return Prediction(z_t, torch.zeros(()), torch.zeros(1, 0))

    ways = [FlowMatching(sampler=name, g=g) for name, g in (("sde", 0.0), ("sde", 1.0), ("midpoint", 1.0))]
    none, some, rule = (way.sample(predict, pair, seeded(2)) for way in ways)
    torch.testing.assert_close(none, rule)
    assert not torch.allclose(some, rule)


def slope_and_spread(t: float, sigma: float) -> tuple[float, float, float]:
    """The coefficients of Z1 and of the degraded latent in Z_t, and its variance.

    Z1 ~ N(μ, σ²), and the degraded latent is Z1 / 2 + 0.3 + 0.2 ε.
    """
    here, whole = variance(torch.tensor([1 - t, 1.0], dtype=torch.float64)).tolist()
    share = here / whole
    slope = 1 - share / 2
    return slope, share, (slope * sigma) ** 2 + (share * 0.2) ** 2 + here * (whole - here) / whole


def bridged(z: Tensor, t: Tensor) -> Tensor:
    """E[Z1 | Z_t] for a standard deviation SIGMA."""
    slope, share, total = slope_and_spread(float(t[0]), SIGMA)
    return MEAN + slope * SIGMA**2 / total * (z - slope * MEAN - share * 0.3)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps", "within"), [("i2sb", 500, 0.01), ("i2sb-heun", 50, 0.01)])
def test_i2sb_keeps_mean_and_variance(name: str, steps: int, within: float) -> None:
    rng = seeded(3)
    clean = MEAN + SIGMA * torch.randn(1, 1_000_000, generator=rng)
    degraded = clean / 2 + 0.3 + 0.2 * torch.randn(1, 1_000_000, generator=rng)
    found = SAMPLERS[name](bridged, degraded, steps, rng)
    assert abs(float(found.mean()) - MEAN) < 0.01 * SIGMA
    assert float(found.var()) == pytest.approx(SIGMA**2, rel=within)


def lost(name: str, steps: int, sigma: float, monkeypatch: pytest.MonkeyPatch) -> float:
    """The exact share of variance that a sampler loses: its result is linear in its start and its noise.

    z holds the coefficients of these unit Gaussians; each noise draw adds one.
    """
    count = 0

    def unit(z: Tensor, rng: torch.Generator) -> Tensor:
        nonlocal count
        count += 1
        return torch.eye(z.shape[1], dtype=z.dtype)[count : count + 1]

    def mean(z: Tensor, t: Tensor) -> Tensor:
        slope, _, total = slope_and_spread(float(t[0]), sigma)
        return slope * sigma**2 / total * z

    monkeypatch.setattr("clearfuse.train.objectives.samplers.normal", unit)
    start = torch.zeros(1, steps + 1, dtype=torch.float64)
    start[0, 0] = slope_and_spread(0.0, sigma)[2] ** 0.5
    found = SAMPLERS[name](mean, start, steps, seeded())
    assert count == steps - 1
    return 1 - float(found.square().sum()) / sigma**2


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.4, 1.0])
def test_what_a_bridge_loses_is_the_steps_length(sigma: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is of order 1 / steps, and 1 / steps² with the correction, which verifies the coefficients."""
    for name, order in (("i2sb", 1), ("i2sb-heun", 2)):
        losses = [lost(name, steps, sigma, monkeypatch) for steps in (50, 100, 200)]
        assert all(loss > 0 for loss in losses)
        for coarse, fine in pairwise(losses):
            assert order - 0.4 < math.log2(coarse / fine) < order + 0.4, (name, losses)
    if sigma == SIGMA:
        assert lost("i2sb", 500, sigma, monkeypatch) < 0.0055, "0.9 % at equal steps"
        assert lost("i2sb-heun", 100, sigma, monkeypatch) < 0.002


def test_a_bridge_s_times_take_its_deviation_down_evenly() -> None:
    u = torch.linspace(0, 1, 41, dtype=torch.float64)
    for one, v in zip(u.tolist(), variance(u).tolist(), strict=True):
        assert place(v) == pytest.approx(one, abs=1e-12)
    for steps in (1, 2, 7, 500):
        grid = torch.tensor(times(steps), dtype=torch.float64)
        assert grid[0] == 0 and grid[-1] == 1 and (grid.diff() > 0).all()
        falls = -variance(1 - grid).sqrt().diff()
        torch.testing.assert_close(falls, falls[:1].expand(steps), atol=1e-9, rtol=0)


def test_the_bridge_s_noise_is_the_published_schedule() -> None:
    """σ² against the sum of the published code's 1000 values, and its symmetry."""
    root = torch.linspace(1e-4**0.5, 3e-4**0.5, 1000, dtype=torch.float64)[:500]
    summed = torch.cat([root, root.flip(0)]).square().cumsum(0)
    u = torch.arange(1, 1001, dtype=torch.float64) / 1000
    torch.testing.assert_close(variance(u), summed, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(variance(u[:-1]) + variance(1 - u[:-1]), variance(u[-1:]).expand(999))
    assert float(variance(torch.zeros(1))) == 0


def test_the_bridge_s_posterior_leads_to_its_marginal() -> None:
    """A state of the bridge at t, then a sample of the posterior, have mean and variance of the bridge at s."""
    rng, n, t, s = seeded(), 400_000, 0.3, 0.7
    clean, degraded = torch.full((n,), 2.0), torch.full((n,), -1.0)
    noise = torch.randn(2, n, generator=rng)
    at_t = between(degraded, clean, noise[0], torch.full((n,), t))
    mean, deviation = posterior(clean, at_t, t, s)
    found, direct = mean + deviation * noise[1], between(degraded, clean, noise[1], torch.full((n,), s))
    assert float(found.mean()) == pytest.approx(float(direct.mean()), abs=2e-3)
    assert float(found.std()) == pytest.approx(float(direct.std()), rel=5e-3)
    ends = between(degraded[:2], clean[:2], noise[0, :2], torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(ends, torch.tensor([-1.0, 2.0]), atol=1e-3, rtol=0)


def test_guidance_is_its_formula() -> None:
    c, u = torch.randn(2, 5, generator=seeded(3))
    for scale in (0.0, 1.0, 2.5):
        torch.testing.assert_close(guided(c, u, scale), u + scale * (c - u))

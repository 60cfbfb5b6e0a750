"""Noise and fixed pattern against the statistics that they declare."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from synth.operators.base import Scene
from synth.operators.sensor import MAX_STRIPS, GaussianNoise, IrStripes, autoregressive, normal_field, strip_profile
from synth.seeds import generator

GREY = np.full((300, 400, 3), 0.5, np.float32)
INFRARED = Scene("infrared")


def stripes(**params: Any) -> IrStripes:
    still: dict[str, Any] = {"offset": 0.0, "gain": 0.0, "strips": 0, "strip_depth": 0.3, "rho": 0.0, "rows": 0.0}
    return IrStripes(**(still | params))


def test_normal_field_is_standard_normal() -> None:
    z = normal_field((1000, 1000), generator(1)).astype(np.float64)
    assert z.mean() == pytest.approx(0, abs=0.004)
    assert z.std() == pytest.approx(1, rel=0.003)
    assert (z**3).mean() == pytest.approx(0, abs=0.01)
    assert (z**4).mean() == pytest.approx(3, abs=0.03)
    assert np.abs(z).max() > 4
    assert (np.abs(z) < 1.959964).mean() == pytest.approx(0.95, abs=0.001)
    assert abs((z[:, 1:] * z[:, :-1]).mean()) < 0.004


@pytest.mark.parametrize("sigma", [5 / 255, 15 / 255, 25 / 255])
@pytest.mark.parametrize("colour", [0.0, 0.3, 1.0])
def test_sigma_in_mid_grey_within_two_percent(sigma: float, colour: float) -> None:
    out = GaussianNoise(sigma=sigma, colour=colour)(GREY, generator(4), Scene())
    residual = (out - GREY).reshape(-1, 3).astype(np.float64)
    np.testing.assert_allclose(residual.std(axis=0), sigma, rtol=0.02)
    np.testing.assert_allclose(residual.mean(axis=0), 0, atol=0.02 * sigma)
    correlation = np.asarray(np.corrcoef(residual.T))[np.triu_indices(3, 1)]
    np.testing.assert_allclose(correlation, 1 - colour, atol=0.02)


def test_one_channel_has_the_same_sigma_whatever_the_colour() -> None:
    for colour in (0.0, 1.0):
        out = GaussianNoise(sigma=0.1, colour=colour)(GREY[..., :1], generator(4), INFRARED)
        assert (out - 0.5).std() == pytest.approx(0.1, rel=0.02)


def test_sigma_scales_one_and_the_same_noise() -> None:
    weak, strong = (GaussianNoise(sigma=s, colour=0.5)(GREY, generator(4), Scene()) for s in (0.02, 0.06))
    np.testing.assert_allclose(strong - GREY, 3 * (weak - GREY), atol=1e-6)


@pytest.mark.parametrize("rho", [0.0, 0.4, 0.8])
def test_autoregression_has_its_marginal_sigma_at_every_column(rho: float) -> None:
    runs = np.stack([autoregressive(generator(s).standard_normal(40), 0.05, rho) for s in range(4000)])
    np.testing.assert_allclose(runs.std(axis=0), 0.05, rtol=0.06)
    assert runs.std() == pytest.approx(0.05, rel=0.02)
    lag = np.mean(runs[:, 1:] * runs[:, :-1]) / np.mean(runs**2)
    assert lag == pytest.approx(rho, abs=0.02)


def test_offsets_are_one_a_column_and_of_the_declared_sigma() -> None:
    image = np.full((20, 4000, 1), 0.5, np.float32)
    residual = stripes(offset=0.05, rho=0.5)(image, generator(2), INFRARED)[..., 0] - 0.5
    np.testing.assert_allclose(residual - residual[:1], 0, atol=1e-6)
    assert residual[0].std() == pytest.approx(0.05, rel=0.06)
    assert np.corrcoef(residual[0, 1:], residual[0, :-1])[0, 1] == pytest.approx(0.5, abs=0.05)


def test_gain_multiplies_and_offset_adds() -> None:
    op, scene = stripes(offset=0.02, gain=0.05), INFRARED
    low, high = (op(np.full((2, 4000, 1), v, np.float32), generator(2), scene)[0, :, 0] for v in (0.3, 0.6))
    gain = (high - low) / 0.3
    assert gain.mean() == pytest.approx(1, abs=0.005)
    assert gain.std() == pytest.approx(0.05, rel=0.05)
    assert (low - gain * 0.3).std() == pytest.approx(0.02, rel=0.05)


def test_rows_are_their_share_of_the_columns() -> None:
    image = np.full((3000, 3000, 1), 0.5, np.float32)
    residual = stripes(offset=0.04, rows=0.5)(image, generator(3), INFRARED)[..., 0] - 0.5
    assert residual.mean(axis=0).std() == pytest.approx(0.04, rel=0.05)
    assert residual.mean(axis=1).std() == pytest.approx(0.02, rel=0.05)


def test_strips_are_dark_sparse_and_as_deep_as_declared() -> None:
    for seed in range(20):
        profile = strip_profile(640, 5, 0.4, generator(seed).random((MAX_STRIPS, 4)))
        assert profile.max() == 0
        assert -0.4 <= profile.min() < -0.1
        assert 5 <= np.count_nonzero(profile) <= 5 * 18


def test_more_strips_keep_the_ones_there_are() -> None:
    draws = generator(7).random((MAX_STRIPS, 4))
    profiles = [strip_profile(640, count, 0.3, draws) for count in range(21)]
    assert not profiles[0].any()
    for fewer, more in itertools.pairwise(profiles):
        assert (more <= fewer).all()


def test_strips_widen_with_the_image() -> None:
    for seed in range(20):
        draws = generator(seed).random((MAX_STRIPS, 4))
        draws[:, 1] = 0.5 + draws[:, 1] / 2  # wider than a pixel at both sizes
        narrow, wide = (-strip_profile(w, 1, 0.3, draws).sum() for w in (640, 1280))
        assert wide == pytest.approx(2 * narrow, rel=0.1) or draws[0, 0] < 0.01 or draws[0, 0] > 0.99


def test_channels_share_the_pattern_and_values_are_clipped() -> None:
    image = np.repeat(generator(1).random((30, 40, 1), dtype=np.float32), 3, axis=2)
    out = stripes(offset=0.3, gain=0.5, strips=10, rows=0.5)(image, generator(5), INFRARED)
    np.testing.assert_array_equal(out[..., 0], out[..., 1])
    np.testing.assert_array_equal(out[..., 0], out[..., 2])
    assert out.min() == 0
    assert out.max() == 1

"""Noise and fixed pattern against their declared statistics."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist
from typing import Any

import cv2
import numpy as np
import pytest

from clearfuse.synth.operators.base import Scene
from clearfuse.synth.operators.exposure import HighExposure
from clearfuse.synth.operators.sensor import (
    MAX_STRIPS,
    GaussianNoise,
    IrDeadPixels,
    IrStripes,
    SensorNoise,
    _normal_quantiles,
    autoregressive,
    normal_field,
    read_variance,
    shot_and_read,
    strip_profile,
)
from clearfuse.synth.samples.chain import run_chain
from clearfuse.synth.seeds import generator

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


def test_fast_uniforms_are_those_of_the_generator() -> None:
    shape = (24, 33, 3)
    slow = np.take(_normal_quantiles(), generator(9).integers(0, 65536, size=shape, dtype=np.uint16))
    np.testing.assert_array_equal(normal_field(shape, generator(9)), slow)


# Shot and read noise


def sensor(shot: float, read: float = 0.5) -> SensorNoise:
    return SensorNoise(shot=shot, read=read)


def flat(level: float, channels: int = 3) -> np.ndarray:
    return np.full((500, 600, channels), level, np.float32)


@pytest.mark.slow
def test_drawn_noise_follows_the_joint_law() -> None:
    ops = [SensorNoise.draw(generator(seed)) for seed in range(4000)]
    shot = np.log([op.params()["shot"] for op in ops])
    read = np.log([read_variance(op.params()["shot"], op.params()["read"]) for op in ops])
    assert (shot.min(), shot.max()) == pytest.approx((math.log(6e-4), math.log(1.2e-2)), abs=0.01)
    assert np.histogram(shot, 8)[0] == pytest.approx(500, rel=0.15)  # uniform in the logarithm
    slope, level = np.polyfit(shot, read, 1)
    assert slope == pytest.approx(2.18, abs=0.01)
    residual = read - (2.18 * shot + 1.20)
    assert residual.mean() == pytest.approx(0, abs=0.015)
    assert residual.std() == pytest.approx(0.26, rel=0.03)
    assert (residual**4).mean() / residual.var() ** 2 == pytest.approx(3, abs=0.2)
    assert level == pytest.approx(1.20, abs=0.06)


def test_read_noise_is_a_variance_on_the_published_line() -> None:
    assert math.log(read_variance(1e-3, 0.5)) == pytest.approx(2.18 * math.log(1e-3) + 1.20)
    assert math.log(read_variance(1e-3, 0.8413447) / read_variance(1e-3, 0.5)) == pytest.approx(0.26, rel=1e-5)
    assert read_variance(0.0, 0.5) == 0


@pytest.mark.parametrize("shot", [1e-4, 1e-3, 1.2e-2])
@pytest.mark.parametrize("level", [0.3, 0.5])
def test_sigma_is_that_of_shot_and_read_within_two_percent(shot: float, level: float) -> None:
    out = sensor(shot)(flat(level), generator(4), Scene())
    residual = (out - np.float32(level)).reshape(-1, 3).astype(np.float64)
    sigma = math.sqrt(shot * level + read_variance(shot, 0.5))
    np.testing.assert_allclose(residual.std(axis=0), sigma, rtol=0.02)
    np.testing.assert_allclose(residual.mean(axis=0), 0, atol=0.01 * sigma)
    assert np.abs(np.corrcoef(residual.T) - np.eye(3)).max() < 0.01


def test_shot_variance_is_linear_in_the_signal() -> None:
    shot, levels = 4e-3, np.array([0.05, 0.1, 0.2, 0.4, 0.6])
    variances = [float(sensor(shot)(flat(v, 1), generator(5), Scene()).var(dtype=np.float64)) for v in levels]
    np.testing.assert_allclose(variances, shot * levels + read_variance(shot, 0.5), rtol=0.02)
    slope, intercept = np.polyfit(levels, variances, 1)
    assert slope == pytest.approx(shot, rel=0.05)
    assert intercept == pytest.approx(read_variance(shot, 0.5), rel=0.35)


@pytest.mark.parametrize("count", [10.0, 40.0])
def test_photon_counts_have_the_moments_of_poisson(count: float) -> None:
    """In photo-electrons, mean, variance and third central moment equal the count."""
    out = shot_and_read(flat(count * 1e-3), 1e-3, 0.0, generator(6), full_well=math.inf).astype(np.float64) / 1e-3
    assert out.mean() == pytest.approx(count, rel=0.002)
    assert out.var() == pytest.approx(count, rel=0.01)
    assert ((out - out.mean()) ** 3).mean() == pytest.approx(count, rel=0.15)


def exact_cdf(at: np.ndarray, count: float, sigma: float) -> np.ndarray:
    """P(Poisson(count) + N(0, sigma²) ≤ at), in photo-electrons."""
    k = np.arange(int(count + 12 * math.sqrt(count) + 30))
    weights = np.exp(k * math.log(count) - count - np.array([math.lgamma(i + 1) for i in k]))
    return np.array([sum(w * NormalDist(i, sigma).cdf(t) for i, w in enumerate(weights)) for t in at])


@pytest.mark.parametrize("shot", [1e-4, 1.2e-2])
@pytest.mark.parametrize("count", [0.5, 2.0, 10.0])
def test_distribution_is_poisson_and_read_noise(shot: float, count: float) -> None:
    sigma = math.sqrt(read_variance(shot, 0.5)) / shot
    out = np.sort(sensor(shot)(flat(count * shot), generator(7), Scene()).ravel()) / shot
    at = np.linspace(0.05, count + 4 * math.sqrt(count + sigma**2), 60)
    empirical = np.searchsorted(out, at, side="right") / out.size
    assert np.abs(empirical - exact_cdf(at, count, sigma)).max() < 0.02


def test_what_the_exposure_blew_out_is_quiet() -> None:
    """Clipping before the noise would keep the full shot noise; here only the read noise remains, clipped at 1."""
    shot, shape = 4e-3, (200, 300, 3)
    read = math.sqrt(read_variance(shot, 0.5))
    blown = sensor(shot)(np.full(shape, 4.0, np.float32), generator(8), Scene())
    edge = sensor(shot)(np.full(shape, 1.0, np.float32), generator(8), Scene())
    assert (blown == 1).mean() == pytest.approx(0.5, abs=0.01)
    assert (1 - blown).mean() == pytest.approx(read / math.sqrt(2 * math.pi), rel=0.02)
    assert blown.std() < 0.25 * edge.std()


def test_chain_hands_the_unclipped_signal_to_the_sensor() -> None:
    image = np.full((80, 90, 3), 0.9, np.float32)
    op = sensor(4e-3)
    out = run_chain(image, [(HighExposure(ev=3.0), generator(1)), (op, generator(2))], Scene())
    assert out.min() > 0.96


def test_one_infrared_detector_serves_all_channels() -> None:
    out = sensor(2e-3)(flat(0.4), generator(3), INFRARED)
    np.testing.assert_array_equal(out[..., 0], out[..., 2])
    np.testing.assert_array_equal(out[..., :1], sensor(2e-3)(flat(0.4, 1), generator(3), INFRARED))


def test_stronger_sensor_noise_is_the_same_noise_larger() -> None:
    weak, strong = (sensor(k)(flat(0.5), generator(4), Scene()) - 0.5 for k in (1e-3, 4e-3))
    assert np.corrcoef(weak.ravel(), strong.ravel())[0, 1] > 0.99


def test_values_below_zero_are_black() -> None:
    out = sensor(1e-3)(np.full((8, 8, 1), -1e-7, np.float32), generator(4), Scene())
    assert np.isfinite(out).all()


# Defective pixels


def dead(share: float, **params: Any) -> IrDeadPixels:
    return IrDeadPixels(**({"share": share, "clusters": 0.25, "stuck": 0.3, "hot": 0.5} | params))


def holes(op: IrDeadPixels, shape: tuple[int, int] = (480, 640), seed: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """The image and the mask of defects, found on an image of 2, which is no defect's level."""
    out = op(np.full((*shape, 1), 2, np.float32), generator(seed), INFRARED)[..., 0]
    return out, out != 2


@pytest.mark.parametrize("share", [1e-3, 0.02, 0.1])
@pytest.mark.parametrize("clusters", [0.0, 0.25, 1.0])
def test_share_of_defective_pixels(share: float, clusters: float) -> None:
    where = [holes(dead(share, clusters=clusters), seed=seed)[1].mean() for seed in range(4)]
    assert np.mean(where) == pytest.approx(share, rel=0.02)


def test_kinds_of_defects() -> None:
    out, where = holes(dead(0.05, clusters=0.0), (1000, 1000))
    levels = out[where]
    assert (levels == 0).mean() == pytest.approx(0.35, abs=0.01)
    assert (levels == 1).mean() == pytest.approx(0.35, abs=0.01)
    stuck = levels[(levels > 0) & (levels < 1)]
    assert stuck.mean() == pytest.approx(0.5, abs=0.01)
    assert stuck.std() == pytest.approx(1 / math.sqrt(12), abs=0.01)


def test_clusters_are_small_and_of_one_level() -> None:
    out, where = holes(dead(2e-3, clusters=1.0, stuck=1.0))
    count, labels = cv2.connectedComponents(where.astype(np.uint8), connectivity=8)
    sizes = np.bincount(labels.ravel())[1:]
    lone = [k for k in range(1, count) if sizes[k - 1] <= 4]
    assert len(lone) > 0.9 * (count - 1)
    assert set(sizes[[k - 1 for k in lone]]) == {2, 3, 4}
    # Adjacent clusters occasionally form a larger one.
    assert np.mean([len(np.unique(out[labels == k])) == 1 for k in lone]) > 0.97


@pytest.mark.parametrize("shape", [(480, 640), (61, 83), (1, 700), (900, 1)], ids=str)
def test_more_defects_keep_the_ones_there_are(shape: tuple[int, int]) -> None:
    images = [holes(dead(share), shape) for share in (1e-3, 5e-3, 0.02, 0.1)]
    for (few, there), (many, now) in itertools.pairwise(images):
        assert now[there].all()
        np.testing.assert_array_equal(many[there], few[there])
        assert now.sum() > there.sum()


def test_defects_are_everywhere_and_alike_in_all_channels() -> None:
    _, where = holes(dead(0.1), (400, 400))
    thirds = [block.mean() for rows in np.array_split(where, 4) for block in np.array_split(rows, 4, axis=1)]
    np.testing.assert_allclose(thirds, 0.1, rtol=0.12)
    out = dead(0.02)(GREY, generator(3), INFRARED)
    np.testing.assert_array_equal(out[..., 0], out[..., 1])
    np.testing.assert_array_equal(out[..., 0], out[..., 2])

"""Exposure as powers of two, contrast about its pedestal, and the grey levels that remain after rounding."""

from __future__ import annotations

import numpy as np
import pytest

from clearfuse.synth import color
from clearfuse.synth.operators.base import Scene
from clearfuse.synth.operators.exposure import (
    BASE_SHOT,
    DRIFT,
    HighContrast,
    HighExposure,
    IrLowContrast,
    LowContrast,
    LowExposure,
    gain_variances,
)
from clearfuse.synth.operators.sensor import read_variance
from clearfuse.synth.samples.chain import apply_steps, run_chain
from clearfuse.synth.seeds import generator
from clearfuse.synth.types import Step

RAMP = (np.arange(256, dtype=np.float32) / 255).reshape(16, 16, 1)


@pytest.mark.parametrize("ev", [-4.0, -2.5, -1.0])
def test_low_exposure_is_two_to_the_ev(ev: float) -> None:
    image = np.full((4, 5, 3), 0.8, np.float32)
    np.testing.assert_array_equal(LowExposure(ev=ev)(image, generator(0), Scene()), image * np.float32(2**ev))


@pytest.mark.parametrize("ev", [1.0, 2.0, 3.0])
def test_high_exposure_is_not_clipped_by_the_operator(ev: float) -> None:
    image = np.full((4, 5, 3), 0.75, np.float32)
    np.testing.assert_array_equal(HighExposure(ev=ev)(image, generator(0), Scene()), image * np.float32(2**ev))


def test_chain_clips_highlights_and_keeps_the_ratio_below_them() -> None:
    linear = np.linspace(0.001, 1, 64, dtype=np.float32).reshape(8, 8, 1)
    out = run_chain(color.linear_to_srgb(linear), [(HighExposure(ev=1.0), generator(0))], Scene())
    np.testing.assert_allclose(color.srgb_to_linear(out), np.minimum(2 * linear, 1), atol=1e-5)


def test_up_and_down_again_is_the_same_light() -> None:
    image = generator(1).random((6, 7, 3), dtype=np.float32)
    up = HighExposure(ev=2.0)(image, generator(0), Scene())
    np.testing.assert_array_equal(LowExposure(ev=-2.0)(up, generator(0), Scene()), image)


@pytest.mark.parametrize(("contrast", "left"), [(1.0, 256), (0.5, 128), (0.25, 64), (0.0, 1)])
def test_grey_levels_are_lost(contrast: float, left: int) -> None:
    out = LowContrast(contrast=contrast, pedestal=0.4)(RAMP, generator(0), Scene())
    levels = np.unique(out)
    assert abs(len(levels) - left) <= 1
    np.testing.assert_allclose(levels * 255, np.round(levels * 255), atol=1e-4)


@pytest.mark.parametrize("contrast", [0.25, 0.5, 0.7])
@pytest.mark.parametrize("level", [0.2, 0.6])
def test_contrast_acts_about_the_pedestal(contrast: float, level: float) -> None:
    image = generator(2).random((80, 80, 3), dtype=np.float32)
    out = LowContrast(contrast=contrast, pedestal=level)(image, generator(0), Scene())
    mean = float(image.mean())
    pedestal = mean + DRIFT * (level - mean)
    assert out.std() / image.std() == pytest.approx(contrast, rel=0.01)
    np.testing.assert_allclose(out, pedestal + contrast * (image - pedestal), atol=0.5 / 255 + 1e-6)


def test_a_flat_image_moves_toward_the_level_and_stays_flat() -> None:
    image = np.full((5, 5, 1), 0.8, np.float32)
    out = LowContrast(contrast=0.0, pedestal=0.4)(image, generator(0), Scene("infrared"))
    np.testing.assert_allclose(out, 0.6, atol=0.5 / 255 + 1e-6)


# Noise of the gain


@pytest.mark.parametrize("ev", [-4.0, -2.0, 0.0])
def test_gain_noise_brightened_is_that_of_the_iso_which_restores_the_light(ev: float) -> None:
    """y = d · 2^−ev has the variance k_s y + k_r of the law at k_s = 2^−ev k_s0."""
    gain, level = 2.0**-ev, 0.5
    out = LowExposure(ev=ev, gain_noise=1.0)(np.full((500, 600, 3), level, np.float32), generator(3), Scene())
    restored = HighExposure(ev=-ev)(out, generator(0), Scene()).astype(np.float64)
    shot = gain * BASE_SHOT
    assert restored.mean() == pytest.approx(level, rel=1e-3)
    assert restored.var() == pytest.approx(shot * level + read_variance(shot, 0.5), rel=0.02)


def test_gain_noise_referred_to_the_darkened_signal() -> None:
    shot, read = gain_variances(-3.0)
    assert shot == BASE_SHOT
    assert read == pytest.approx(read_variance(8 * BASE_SHOT, 0.5) / 64)
    assert read == pytest.approx(read_variance(BASE_SHOT, 0.5) * 8**0.18)  # almost the same number of electrons


@pytest.mark.parametrize("amount", [0.25, 0.5])
def test_gain_noise_is_a_share_of_the_amplitude(amount: float) -> None:
    image = np.full((300, 400, 3), 0.6, np.float32)
    some, all_ = (LowExposure(ev=-3.0, gain_noise=a)(image, generator(3), Scene()) for a in (amount, 1.0))
    assert some.std(dtype=np.float64) / all_.std(dtype=np.float64) == pytest.approx(amount, rel=0.01)


def test_gain_noise_is_off_and_draws_nothing_unless_a_recipe_asks() -> None:
    rng, image = generator(5), generator(1).random((6, 7, 3), dtype=np.float32)
    for seed in range(20):
        op = LowExposure.draw(generator(seed))
        assert op.params()["gain_noise"] == 0
        np.testing.assert_array_equal(op(image, rng, Scene()), image * np.float32(2 ** op.params()["ev"]))
    assert rng.random() == generator(5).random()
    ranges = LowExposure.narrowed({"gain_noise": [0, 1]})
    drawn = [LowExposure.draw(generator(seed), 0.5, ranges).params() for seed in range(50)]
    assert 0.3 < np.mean([d["gain_noise"] for d in drawn]) < 0.7
    assert {d["ev"] for d in drawn} == {LowExposure.draw(generator(0), 0.5).params()["ev"]}


def test_a_step_recorded_before_gain_noise_replays() -> None:
    image = color.to_uint8(generator(1).random((16, 16, 3), dtype=np.float32))
    old = Step("low_exposure", "a", {"ev": -2.0}, 7)
    new = Step("low_exposure", "a", {"ev": -2.0, "gain_noise": 0.0}, 7)
    made = [apply_steps(image, [step], task="vif", name="a") for step in (old, new)]
    np.testing.assert_array_equal(*made)


def test_only_a_declared_default_may_be_left_out() -> None:
    with pytest.raises(TypeError, match="ev"):
        LowExposure(gain_noise=0.0)  # pyright: ignore[reportCallIssue]


# High contrast, and low contrast in the infrared


@pytest.mark.parametrize("contrast", [1.25, 2.5])
@pytest.mark.parametrize("pivot", [-0.5, 0.0, 0.5])
def test_high_contrast_is_a_gain_about_its_pivot_clipped(contrast: float, pivot: float) -> None:
    image = generator(2).random((80, 80, 3), dtype=np.float32)
    out = HighContrast(contrast=contrast, pivot=pivot)(image, generator(0), Scene())
    mean = float(image.mean(dtype=np.float64))
    at = mean + pivot * mean * (1 - mean)
    np.testing.assert_allclose(out, np.clip(at + contrast * (image - at), 0, 1), atol=1e-6)
    assert (out == 0).mean() == pytest.approx(at * (1 - 1 / contrast), abs=0.01)
    assert (out == 1).mean() == pytest.approx((1 - at) * (1 - 1 / contrast), abs=0.01)


@pytest.mark.parametrize("level", [0.02, 0.98])
def test_high_contrast_leaves_a_dark_frame_its_lights_and_a_bright_one_its_shadows(level: float) -> None:
    image = np.clip(level + 0.01 * generator(2).standard_normal((60, 60, 1)), 0, 1).astype(np.float32)
    for pivot in (-0.5, 0.5):
        out = HighContrast(contrast=2.5, pivot=pivot)(image, generator(0), Scene())
        assert len(np.unique(color.to_uint8(out))) > 3


@pytest.mark.parametrize("contrast", [1.0, 0.7, 0.35, 0.1])
@pytest.mark.parametrize("pedestal", [0.0, 0.4, 1.0])
def test_infrared_keeps_its_share_of_the_span_and_of_the_grey_levels(contrast: float, pedestal: float) -> None:
    out = IrLowContrast(contrast=contrast, pedestal=pedestal)(RAMP, generator(0), Scene("infrared"))
    levels = np.unique(out)
    assert abs(len(levels) - round(255 * contrast + 1)) <= 1
    np.testing.assert_allclose(levels * 255, np.round(levels * 255), atol=1e-4)
    assert levels[0] == pytest.approx((1 - contrast) * pedestal, abs=0.5 / 255 + 1e-6)
    assert levels[-1] == pytest.approx((1 - contrast) * pedestal + contrast, abs=0.5 / 255 + 1e-6)


def test_infrared_contrast_is_that_of_gain_by_the_extremes() -> None:
    """The frame after automatic gain with a hotter and a colder extreme in view: their range mapped to [0, 1]."""
    scene = np.linspace(0, 1, 200, dtype=np.float32).reshape(10, 20, 1)
    cold, hot = -0.8, 1.7
    contrast, pedestal = 1 / (hot - cold), -cold / (hot - cold - 1)
    out = IrLowContrast(contrast=contrast, pedestal=pedestal)(scene, generator(0), Scene("infrared"))
    np.testing.assert_allclose(out, (scene - cold) / (hot - cold), atol=0.5 / 255 + 1e-6)

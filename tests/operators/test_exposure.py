"""Exposure values as factors of two, contrast about its pedestal, and the grey levels that rounding leaves."""

from __future__ import annotations

import numpy as np
import pytest

from synth import color
from synth.chain import run_chain
from synth.operators.base import Scene
from synth.operators.exposure import DRIFT, HighExposure, LowContrast, LowExposure
from synth.seeds import generator

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

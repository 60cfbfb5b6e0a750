"""The thermal camera: gain control by extremes, blur by scattering, and the stretch after weather."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from clearfuse.synth.operators.base import Scene
from clearfuse.synth.operators.physics.infrared import MOST_BLUR, MOST_GAIN, gain_control, infrared_weather, scatter
from clearfuse.synth.operators.sensor import IrStripes
from clearfuse.synth.operators.weather import Haze
from clearfuse.synth.seeds import generator

RAMP = np.linspace(0.1, 0.9, 64 * 96, dtype=np.float32).reshape(64, 96, 1)


def test_the_extremes_come_back_and_the_middle_is_linear() -> None:
    out = gain_control(RAMP * np.float32(0.5) - np.float32(0.3), RAMP)
    np.testing.assert_allclose(out, RAMP, atol=1e-6)
    np.testing.assert_array_equal(gain_control(RAMP, RAMP), RAMP)


def test_a_share_of_the_stretch_is_geometric_and_stays_in_range() -> None:
    flat = np.float32(0.5) + RAMP * np.float32(0.25)  # a quarter of the span, high up
    for share in (0.0, 0.5, 1.0):
        out = gain_control(flat, RAMP, share)
        assert out.max() - out.min() == pytest.approx(0.2 * 4**share, rel=1e-4)
        assert out.min() >= 0 and out.max() <= 1
    np.testing.assert_allclose(gain_control(flat, RAMP, 0.0), flat, atol=1e-6)


def test_the_gain_has_a_limit_and_one_level_stays_one() -> None:
    faint = np.float32(0.5) + RAMP * np.float32(0.01)
    out = gain_control(faint, RAMP)
    assert out.max() - out.min() == pytest.approx(0.8 * 0.01 * MOST_GAIN, rel=1e-3)
    one = np.full_like(RAMP, 0.3)
    np.testing.assert_array_equal(gain_control(one, RAMP), one)
    assert gain_control(RAMP + np.float32(0.5), one).max() == 1


@pytest.mark.parametrize("severity", [0.0, 0.5, 1.0])
def test_stripes_take_contrast_and_clip_nothing(severity: float) -> None:
    """Over a dark scene, of which the clipped pattern left a large part at 0."""
    scene = np.float32(0.02) * generator(1).random((120, 160, 1), dtype=np.float32)
    scene[40:80, 60:90] = 1.0
    stripes = IrStripes.draw(generator(3), severity)
    out = stripes(scene, generator(4), Scene("infrared"))
    assert (out.min(), out.max()) == (pytest.approx(0, abs=1e-6), pytest.approx(1, abs=1e-6))
    assert (out <= 0.5 / 255).mean() < 0.02 and (out >= 1 - 0.5 / 255).mean() < 0.02
    clipped = IrStripes(**{**stripes.params(), "gain_control": 0})(scene, generator(4), Scene("infrared"))
    assert (clipped == 0).mean() > 0.05
    person, ground = out[40:80, 60:90].mean(), out[:30].mean()
    assert person - ground < scene[40:80, 60:90].mean() - scene[:30].mean()


def test_steps_of_before_the_gain_control_still_clip() -> None:
    old = {"offset": 0.05, "gain": 0.03, "strips": 5, "strip_depth": 0.3, "rho": 0.4, "rows": 0.2}
    out = IrStripes(**old)(RAMP * np.float32(0.2), generator(5), Scene("infrared"))
    assert (out == 0).mean() > 0.05


def test_the_blur_is_the_declared_gaussian_and_grows_with_what_is_scattered() -> None:
    image = np.zeros((41, 640, 1), np.float32)
    image[20, 320] = 1
    y, x = np.mgrid[-20:21, -320:320]
    spread: list[float] = []
    for scattered in (1 / 3, 2 / 3, 1.0):
        out = scatter(image, np.full((41, 640), scattered, np.float32))[..., 0]
        assert out.sum() == pytest.approx(1, abs=1e-4)
        spread.append(float(np.sqrt((out * (x * x + y * y)).sum() / 2)))
    np.testing.assert_allclose(spread, [MOST_BLUR / 3, MOST_BLUR * 2 / 3, MOST_BLUR], rtol=0.06)
    assert scatter(image, np.zeros((41, 640), np.float32)) is image


def test_near_things_stay_sharp_and_far_ones_blur() -> None:
    image = np.tile(np.array([0.2, 0.8], np.float32), (480, 320))[..., None]
    path = np.full((480, 640), 5.0, np.float32)
    path[:, 320:] = 400
    out = infrared_weather(image, path, 0.01, 0.5, share=1e-6, visible=0.01)[..., 0]
    near, far = (out[:, cut].std() / (0.3 * np.exp(-0.01 * d)) for cut, d in ((np.s_[:300], 5), (np.s_[340:], 400)))
    assert near > 0.85 and far < 0.2


def test_after_haze_the_near_scene_spans_the_range_again() -> None:
    """Near things at 10 m, the rest at 300 m: what is far pales, and the near ones span as much as before."""
    image = 0.2 + 0.6 * generator(2).random((120, 160, 1), dtype=np.float32)
    depth = np.full((120, 160), 10.0, np.float32)
    depth[:60] = 300
    kept = {"visibility": 80, "airlight": 1.0, "tint": 0.0, "ir_ratio": 0.3}
    spans: dict[float, tuple[float, float]] = {}
    for share in (1e-6, 1.0):
        out = Haze(**kept, ir_gain=share)(image, generator(0), Scene("infrared", depth))
        spans[share] = float(np.ptp(out[60:])), float(np.ptp(out[:60]))
    assert spans[1.0][0] == pytest.approx(float(np.ptp(image[60:])), rel=0.02)
    assert spans[1e-6][0] < 0.95 * spans[1.0][0]
    assert spans[1.0][1] < 0.3 * spans[1.0][0]


def test_steps_of_before_the_gain_control_have_a_uniform_blur() -> None:
    """0.5 + (x − 0.5) t, blurred by σ = 1.8 (1 − exp(−150 β)) everywhere: what was recorded then comes out again."""
    image = generator(3).random((48, 640, 1), dtype=np.float32)
    out = infrared_weather(image, np.full((48, 640), 20.0, np.float32), 0.002, 0.5, share=0.0, visible=0.01)
    veiled = np.float32(0.5) + (image - np.float32(0.5)) * np.float32(np.exp(-0.04))
    wanted = cv2.GaussianBlur(veiled, (0, 0), 1.8 * (1 - np.exp(-1.5)))[..., None]
    np.testing.assert_allclose(out, wanted, atol=1e-5)

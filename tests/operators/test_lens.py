"""Drops on the lens against Snell's and Fresnel's laws, their coverage, and their look in the infrared."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest

from clearfuse.synth.operators.base import Scene
from clearfuse.synth.operators.lens import DROPS, WATER, LensRain, cap_slope, draw_drops, footprints, through_drop
from clearfuse.synth.samples.chain import apply_steps
from clearfuse.synth.seeds import generator
from clearfuse.synth.types import Step

GLASS: dict[str, Any] = {"size": 0.015, "contact": 45.0, "blur": 2.0, "cooling": 0.5}


def test_a_caps_slope_is_the_spheres() -> None:
    rho = np.linspace(-0.999, 0.999, 41)
    sphere = 1 / math.sin(math.radians(40))
    slope = cap_slope(1 - rho**2, -2 * rho, 40.0)
    np.testing.assert_allclose(slope, -rho / np.sqrt(sphere**2 - rho**2), rtol=1e-9)
    assert math.degrees(math.atan(-cap_slope(np.zeros(1), np.full(1, -2.0), 40.0)[0])) == pytest.approx(40)


def test_a_drop_turns_the_ray_by_snells_law_and_the_view_upside_down() -> None:
    rho = np.linspace(-0.6, 0.6, 31)  # in radii of the sphere
    slope = -rho / np.sqrt(1 - rho**2)
    zero = np.zeros_like(rho)
    to_x, to_y, share = through_drop(zero, zero, slope, zero)
    wanted = np.arcsin(WATER * rho) - np.arcsin(rho)
    np.testing.assert_allclose(np.arctan(to_x), -wanted, atol=1e-9)
    np.testing.assert_allclose(to_y, 0, atol=1e-12)
    assert to_x[0] > 0 > to_x[-1], "what lies at the right is seen at the left"
    assert share[15] == pytest.approx(1 - ((WATER - 1) / (WATER + 1)) ** 2)
    assert (np.diff(share[15:]) < 0).all(), "darker towards the rim"


def test_a_flat_film_bends_nothing_and_the_critical_angle_is_dark() -> None:
    x, y, zero = np.float64([0.0, 0.4, -0.2]), np.float64([0.1, -0.3, 0.5]), np.zeros(3)
    to_x, to_y, _ = through_drop(x, y, zero, zero)
    np.testing.assert_allclose(to_x, x, atol=1e-12)
    np.testing.assert_allclose(to_y, y, atol=1e-12)
    critical = math.tan(math.asin(1 / WATER))
    one = np.zeros(1)
    assert through_drop(one, one, np.full(1, 1.01 * critical), one)[2][0] == 0
    assert through_drop(one, one, np.full(1, 0.98 * critical), one)[2][0] > 0.3


def test_in_the_frame_a_drop_shows_the_scene_inverted() -> None:
    image = np.zeros((240, 320, 3), np.float32)
    image[:120] = 1.0  # sky over ground
    drops = LensRain(cover=0.1, **(GLASS | {"blur": 0.0, "size": 0.05}))(image, generator(5), Scene())
    footprint = footprints(draw_drops(generator(5), 240, 320, 0.05, 0.1), 240, 320)[0]
    # Drops are bright in the ground half, in their lower parts, and dark in the sky half, in their upper parts.
    rows, columns = np.nonzero(footprint[150:] > 0)
    bright = drops[150:, :, 0][rows, columns]
    assert bright.max() > 0.5
    down = np.gradient(footprint, axis=0)[150:][rows, columns] < 0
    assert bright[down].mean() > 3 * bright[~down].mean()


@pytest.mark.parametrize("cover", [0.01, 0.05, 0.15])
def test_the_cover_is_the_drawn_one(cover: float) -> None:
    found = [
        float((footprints(draw_drops(generator(s), 480, 640, 0.012, cover), 480, 640)[0] > 0).mean()) for s in range(8)
    ]
    assert np.mean(found) == pytest.approx(cover, rel=0.15)


def test_more_cover_adds_drops_to_those_there_are() -> None:
    few, many = (draw_drops(generator(2), 480, 640, 0.015, cover) for cover in (0.02, 0.15))
    assert 0 < len(few.x) < len(many.x) < DROPS
    for name in ("x", "y", "radius", "stretch", "lobes"):
        np.testing.assert_array_equal(getattr(few, name), getattr(many, name)[: len(few.x)])


def test_the_generator_is_consumed_alike_at_every_cover() -> None:
    left = []
    for cover in (0.01, 0.15):
        rng = generator(4)
        LensRain(cover=cover, **GLASS)(np.full((30, 40, 3), 0.3, np.float32), rng, Scene())
        left.append(rng.random())
    assert left[0] == left[1]


def test_between_the_drops_the_image_is_untouched_and_sizes_agree() -> None:
    image = generator(1).random((480, 640, 3), dtype=np.float32)
    out = LensRain(cover=0.03, **GLASS)(image, generator(3), Scene())
    assert (out == image).all(axis=2).mean() > 0.9
    large = LensRain(cover=0.03, **GLASS)(np.full((960, 1280, 1), 0.5, np.float32), generator(3), Scene())
    small = LensRain(cover=0.03, **GLASS)(np.full((480, 640, 1), 0.5, np.float32), generator(3), Scene())
    assert np.abs(0.5 * (large[::2, ::2] + large[1::2, 1::2]) - small).max() < 0.03


def test_in_the_infrared_drops_have_one_level_and_refract_nothing() -> None:
    image = generator(2).random((240, 320, 1), dtype=np.float32)
    out = LensRain(cover=0.15, **(GLASS | {"blur": 1.0}))(image, generator(3), Scene("infrared"))
    middle, lower = np.percentile(image, [50, 25])
    footprint = footprints(draw_drops(generator(3), 240, 320, 0.015, 0.15), 240, 320)[0]
    np.testing.assert_allclose(
        out[cv2.erode(footprint, np.ones((5, 5), np.uint8)) > 0.3], 0.5 * (middle + lower), atol=0.01
    )
    even = np.full((120, 160, 1), 0.4, np.float32)
    np.testing.assert_allclose(LensRain(cover=0.15, **GLASS)(even, generator(3), Scene("infrared")), 0.4, atol=1e-5)


def test_two_exposures_of_one_camera_have_the_same_drops_and_two_cameras_have_not() -> None:
    step = Step("lens_rain", "both", LensRain(cover=0.1, **GLASS).params(), 9)
    image = (255 * generator(1).random((96, 128, 3))).astype(np.uint8)
    a, b = (apply_steps(image, [step], task="mef", name=name, beside=image) for name in ("a", "b"))
    np.testing.assert_array_equal(a, b)
    other = apply_steps(image, [step], task="vif", name="b")
    assert ((other != image).any(axis=2) != (a != image).any(axis=2)).mean() > 0.02

"""Defocus against its kernels and the thin-lens law, and light leakage across outlines."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from clearfuse.synth.operators.base import Scene
from clearfuse.synth.operators.defocus import DefocusBlur, aperture_kernel, circle_of_confusion, composite
from clearfuse.synth.operators.optics import convolve
from clearfuse.synth.operators.physics.fill import inverse_depth, nearest_known, pull_push
from clearfuse.synth.seeds import generator

ROUND: dict[str, Any] = {"blades": 0, "rotation": 0.0, "layout": "depth", "focus": 0.0}


def noise(h: int, w: int, c: int) -> np.ndarray:
    return generator(h + w + c).random((h, w, c), dtype=np.float32)


@pytest.mark.parametrize("radius", [0.1, 0.5, 0.7, 1.5, 3.3, 7.0, 10.0])
@pytest.mark.parametrize("blades", [None, 5, 6, 7, 8])
@pytest.mark.parametrize("rotation", [0.0, 0.37])
def test_kernel_is_normalised_centred_and_non_negative(radius: float, blades: int | None, rotation: float) -> None:
    k = aperture_kernel(radius, blades, rotation).astype(np.float64)
    assert k.shape[0] == k.shape[1]
    assert k.shape[0] % 2 == 1
    assert k.min() >= 0
    assert k.sum() == pytest.approx(1, abs=1e-6)
    n = k.shape[0] // 2
    y, x = np.mgrid[-n : n + 1, -n : n + 1]
    assert math.hypot((x * k).sum(), (y * k).sum()) < 0.01


@pytest.mark.parametrize("radius", [1.5, 4.0, 10.0])
def test_a_disk_has_its_area_and_second_moment(radius: float) -> None:
    k = aperture_kernel(radius).astype(np.float64)
    assert 1 / k.max() == pytest.approx(math.pi * radius**2, rel=0.01), "a full pixel's weight is 1/area"
    n = k.shape[0] // 2
    y, x = np.mgrid[-n : n + 1, -n : n + 1]
    # r²/2 of the disk, and on average 1/6 along each axis from the bilinear weights.
    assert ((x * x + y * y) * k).sum() == pytest.approx(radius**2 / 2 + 1 / 3, rel=0.01)


@pytest.mark.parametrize("blades", [5, 6, 7, 8])
def test_a_polygon_has_the_disks_area_and_a_turn_of_one_blade_changes_nothing(blades: int) -> None:
    k = aperture_kernel(9.0, blades, 0.2)
    assert 1 / k.max() == pytest.approx(math.pi * 81, rel=0.01)
    np.testing.assert_allclose(aperture_kernel(9.0, blades, 0.0), aperture_kernel(9.0, blades, 1.0), atol=1e-4)
    assert np.abs(k - aperture_kernel(9.0, blades, 0.6)).max() > 1e-4


def test_the_radius_follows_the_thin_lens() -> None:
    z = np.linspace(2, 50, 400, dtype=np.float32)[None].repeat(300, axis=0)
    signed = circle_of_confusion(1 / z, 0.25, 8.0)
    far, near = (float(v) for v in np.percentile(1 / z[::1], [1, 99]))
    z_f = 1 / (far + 0.25 * (near - far))
    wanted = 8 * (1 / z - 1 / z_f) / (near - 1 / z_f)
    inside = np.abs(wanted) < 8
    np.testing.assert_allclose(signed[inside], wanted[inside], atol=0.02)
    assert np.abs(signed).max() == pytest.approx(8, abs=1e-4)
    assert (signed[z < z_f - 0.5] > 0).all()
    assert (signed[z > z_f + 0.5] < 0).all()


def test_outside_of_the_frames_range_nothing_is_in_focus() -> None:
    inverse = np.linspace(0.02, 0.5, 400, dtype=np.float32)[None].repeat(50, axis=0)
    assert np.abs(circle_of_confusion(inverse, 2.0, 8.0)).min() == pytest.approx(4, rel=0.03)


@pytest.mark.parametrize("channels", [1, 3])
def test_without_depth_or_at_one_distance_it_is_the_convolution(channels: int) -> None:
    image = noise(50, 60, channels)
    wanted = convolve(image, aperture_kernel(6.0, 7, 0.3))
    op = DefocusBlur(radius=6.0, **(ROUND | {"blades": 7, "rotation": 0.3}))
    flat = np.full((50, 60), 9.0, np.float32)
    for depth in (None, flat, np.full((50, 60), np.inf, np.float32), np.full((50, 60), np.nan, np.float32)):
        out = op(image, generator(0), Scene("visible", depth, fov=1e-3))
        np.testing.assert_allclose(out, wanted, atol=1e-6)
    uniform = DefocusBlur(radius=6.0, **(ROUND | {"blades": 7, "rotation": 0.3, "layout": "uniform"}))
    np.testing.assert_array_equal(uniform(image, generator(0), Scene("visible", np.tile(flat[:1], (50, 1)))), wanted)


def layers(near_left: bool = True) -> np.ndarray:
    """2 m in the left half, 40 m in the right half."""
    depth = np.full((80, 120), 40.0, np.float32)
    depth[:, :60] = 2.0
    return depth if near_left else depth[:, ::-1].copy()


def test_no_light_of_a_sharp_foreground_leaks_into_the_background() -> None:
    image = np.zeros((80, 120, 3), np.float32)
    image[:, :60] = 1.0
    out = DefocusBlur(radius=8.0, **(ROUND | {"focus": 1.0}))(image, generator(0), Scene("visible", layers()))
    np.testing.assert_allclose(out[:, :58], 1, atol=1e-4)
    assert out[:, 63:].max() < 1e-4


def test_a_blurred_foreground_lets_the_sharp_background_through_its_edge() -> None:
    image = np.zeros((80, 120, 1), np.float32)
    image[:, 60:] = 1.0
    out = DefocusBlur(radius=8.0, **(ROUND | {"focus": 0.0}))(image, generator(0), Scene("visible", layers()))
    row = out[40, :, 0]
    assert row[:50].max() < 1e-3
    assert row[72:].min() > 0.999
    assert (np.diff(row[48:74]) > -0.01).all(), "the edge is a ramp, without a halo"
    assert np.interp(0.5, row[50:72], np.arange(50, 72)) == pytest.approx(59.5, abs=1.0)


@pytest.mark.parametrize("focus", [-1.0, 0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("near_left", [True, False])
def test_a_constant_image_stays(focus: float, near_left: bool) -> None:
    image = np.full((80, 120, 3), 0.4, np.float32)
    depth = layers(near_left)
    depth[:30] = np.linspace(3, 200, 120)
    depth[:10] = np.inf
    out = DefocusBlur(radius=10.0, **(ROUND | {"focus": focus}))(image, generator(0), Scene("visible", depth))
    np.testing.assert_allclose(out, 0.4, atol=2e-3)


def test_the_largest_blur_is_the_drawn_radius() -> None:
    image = np.zeros((101, 201, 1), np.float32)
    image[50, 150] = 1
    signed = np.full((101, 201), -8.0, np.float32)
    signed[:, :60] = 0
    out = composite(image, signed)[..., 0]
    y, x = np.indices(out.shape) - np.array([50, 150])[:, None, None]
    moment = ((x * x + y * y) * out).sum() / out.sum()
    assert moment == pytest.approx(8**2 / 2 + 2, rel=0.02), "half resolution adds some 2 px²"
    assert out.sum() == pytest.approx(1, rel=0.02)


def test_wider_is_blurrier_and_light_above_full_well_is_kept() -> None:
    image, depth = 3 * noise(90, 120, 3), np.tile(np.linspace(2, 60, 120, dtype=np.float32), (90, 1))
    left = [
        DefocusBlur(radius=r, **ROUND)(image, generator(0), Scene("visible", depth)).std()
        for r in (0.0, 1.5, 3.0, 5.0, 10.0)
    ]
    assert left == sorted(left, reverse=True)
    assert DefocusBlur(radius=1.5, **ROUND)(image, generator(0), Scene()).max() > 1


def test_pull_push_keeps_what_is_known_and_continues_constants() -> None:
    values = noise(37, 50, 3)
    known = (generator(1).random((37, 50)) < 0.2).astype(np.float32)
    out = pull_push(values * known[..., None], known)
    np.testing.assert_array_equal(out[known > 0], values[known > 0])
    np.testing.assert_allclose(pull_push(0.3 * known[..., None], known), 0.3, atol=1e-5)


def test_unknown_depth_takes_the_nearest_ones_and_the_axis_is_meant() -> None:
    values = np.float32([[1, 0, 0, 0, 5]])
    np.testing.assert_array_equal(nearest_known(values, values > 0), [[1, 1, 1, 5, 5]])
    depth = np.full((7, 101), 10.0, np.float32)
    depth[3, 50] = np.nan
    depth[0] = np.inf
    inverse = inverse_depth(Scene("visible", depth, fov=90.0))
    assert inverse is not None
    assert (inverse[0] == 0).all()
    assert inverse[3, 50] == pytest.approx(0.1, rel=1e-3)
    # At the edge of a 90 degree view a ray of 10 m ends at a depth of 7.07 m.
    assert 1 / inverse[3, 100] == pytest.approx(10 / math.sqrt(1 + (50 / 50.5) ** 2), rel=1e-3)
    assert inverse_depth(Scene("visible", np.full((2, 2), np.nan, np.float32))) is None

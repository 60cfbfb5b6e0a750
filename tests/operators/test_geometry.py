"""Misregistration against its homography and the parallax of two cameras."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from clearfuse.synth.operators.base import Scene
from clearfuse.synth.operators.geometry import (
    SLOPE,
    Misregistration,
    corners,
    disparity,
    homography,
    invert_shift,
    limit_slope,
    project,
    resample,
)
from clearfuse.synth.operators.physics.particles import focal_length
from clearfuse.synth.seeds import generator

STILL: dict[str, Any] = {
    "direction": 0.0, "turn": 0.0, "zoom": 0.0, "tilt_x": 0.0, "tilt_y": 0.0, "side": 0.0, "baseline": 0.0
}  # fmt: skip


def waves(h: int, w: int, dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """A smooth image sampled at (x − dx, y − dy), that is, shifted by (dx, dy)."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    x, y = x - dx, y - dy
    return (0.5 + 0.2 * np.sin(x / 7) + 0.2 * np.cos(y / 9 + x / 31)).astype(np.float32)[..., None]


@pytest.mark.parametrize("size", [(480, 640), (1024, 1280), (30, 200), (2, 2)])
@pytest.mark.parametrize("seed", range(6))
def test_the_corners_move_by_the_displacement_on_the_mean(size: tuple[int, int], seed: int) -> None:
    direction, *rest = generator(seed).uniform(-1, 1, 5)
    wanted = 12 * size[1] / 640
    matrix = homography(*size, wanted, 180 * direction, *rest)
    at = corners(*size)
    assert np.linalg.norm(project(matrix, at) - at, axis=1).mean() == pytest.approx(wanted, rel=1e-6)


def test_each_part_is_what_its_name_says() -> None:
    at = corners(480, 640)
    shift = project(homography(480, 640, 10.0, 90.0, 0, 0, 0, 0), at) - at
    np.testing.assert_allclose(shift, [[0, -10]] * 4, atol=1e-6)  # 90 degrees is up
    zoomed = homography(480, 640, 10.0, 0.0, 0.0, 1.0, 0, 0)
    assert zoomed[0, 0] == pytest.approx(zoomed[1, 1])
    assert zoomed[0, 0] > 1
    turned = homography(480, 640, 10.0, 0.0, 1.0, 0.0, 0, 0)
    assert turned[1, 0] == pytest.approx(-turned[0, 1])
    np.testing.assert_array_equal(homography(480, 640, 0.0, 20.0, 1, 1, 1, 1), np.eye(3))


def test_a_shift_moves_the_picture_by_its_pixels() -> None:
    op = Misregistration(displacement=6.4, **(STILL | {"direction": 30.0}))  # at a width of 200, 2 px
    out = op(waves(150, 200), generator(0), Scene())
    wanted = waves(150, 200, 2 * math.cos(math.pi / 6), -2 * math.sin(math.pi / 6))
    np.testing.assert_allclose(out[5:-5, 5:-5], wanted[5:-5, 5:-5], atol=3e-3)


def test_the_picture_is_where_the_homography_takes_it() -> None:
    image = np.zeros((240, 320, 1), np.float32)
    places = np.array([[60, 50], [260, 60], [160, 120], [80, 190], [250, 200]], np.float64)
    y, x = np.mgrid[0:240, 0:320]
    for px, py in places:
        image[..., 0] += np.exp(-((x - px) ** 2 + (y - py) ** 2) / 8)
    params = {"direction": 200.0, "turn": 0.8, "zoom": -0.6, "tilt_x": 0.5, "tilt_y": -0.9}
    out = Misregistration(displacement=20.0, **(STILL | params))(image, generator(0), Scene())[..., 0]
    for px, py in project(homography(240, 320, 10.0, 200.0, 0.8, -0.6, 0.5, -0.9), places):
        near = np.exp(-((x - px) ** 2 + (y - py) ** 2) / 200) * out
        assert (x * near).sum() / near.sum() == pytest.approx(px, abs=0.1)
        assert (y * near).sum() / near.sum() == pytest.approx(py, abs=0.1)


@pytest.mark.parametrize("side", [0.0, 90.0, 215.0])
def test_a_wall_is_displaced_by_f_b_over_z(side: float) -> None:
    z = 4.0
    # With a narrow view the ray's length equals the depth along the axis.
    scene = Scene("visible", np.full((150, 200), z, np.float32), fov=4.0)
    pixels = focal_length(200, 4.0) * 0.005 / z
    assert pixels == pytest.approx(3.58, abs=0.01)
    out = Misregistration(displacement=0.0, **(STILL | {"baseline": 0.005, "side": side}))(
        waves(150, 200), generator(0), scene
    )
    dx, dy = pixels * math.cos(math.radians(side)), -pixels * math.sin(math.radians(side))
    np.testing.assert_allclose(out[8:-8, 8:-8], waves(150, 200, dx, dy)[8:-8, 8:-8], atol=4e-3)


def test_near_things_move_farther_than_far_ones_and_the_sky_stays() -> None:
    depth = np.full((200, 300), np.inf, np.float32)
    depth[50:150, 100:200] = 5.0
    scene = Scene("visible", depth)
    expected = focal_length(300, 60.0) * 0.1 / 5.0
    image = np.full((200, 300, 1), 0.2, np.float32)
    image[50:150, 100:200] = 0.8
    image[:, 10:12] = 1.0
    out = Misregistration(displacement=0.0, **(STILL | {"baseline": 0.1}))(image, generator(0), scene)[..., 0]
    edge = np.interp(0.5, out[100, 90:130], np.arange(90, 130))
    assert edge - 99.5 == pytest.approx(expected, abs=0.6)  # at the edge the ray is slightly longer than the depth
    np.testing.assert_array_equal(out[:30], image[:30, :, 0])
    assert np.isclose(out[100], 0.2).sum() + np.isclose(out[100], 0.8).sum() > 290, "nothing is torn"


def test_disparity_is_f_b_over_z() -> None:
    np.testing.assert_allclose(disparity(np.float32([[0.0, 0.1, 0.5]]), 554.0, 0.1), [[0, 5.54, 27.7]], rtol=1e-6)


def test_limiting_the_slope_keeps_peaks() -> None:
    values = 20 * (generator(3).random((60, 80), dtype=np.float32) > 0.995).astype(np.float32)
    out = limit_slope(values, SLOPE)
    assert (out >= values).all()
    np.testing.assert_array_equal(out[values > 0], 20)
    assert max(np.abs(np.diff(out, axis=0)).max(), np.abs(np.diff(out, axis=1)).max()) <= SLOPE + 1e-5
    y, x = np.nonzero(values)
    rows, columns = np.mgrid[0:60, 0:80]
    apart = np.abs(rows[..., None] - y) + np.abs(columns[..., None] - x)
    np.testing.assert_allclose(out, np.maximum(20 - SLOPE * apart.min(axis=-1), 0), atol=1e-4)


@pytest.mark.parametrize("angle", [0.0, 45.0, 160.0])
def test_the_inverted_shift_maps_back(angle: float) -> None:
    values = 15 * (generator(3).random((60, 80), dtype=np.float32) > 0.999).astype(np.float32)
    shift = limit_slope(values, SLOPE)
    ux, uy = math.cos(math.radians(angle)), -math.sin(math.radians(angle))
    back = invert_shift(shift, ux, uy)
    again = invert_shift(shift, ux, uy)
    np.testing.assert_array_equal(back, again)
    y, x = np.mgrid[0:60, 0:80].astype(np.float32)
    there = resample(shift[..., None], x - back * ux, y - back * uy)[..., 0]
    assert np.abs(there - back)[20:-20, 20:-20].max() < 0.3


def test_bicubic_does_not_ring_around_a_lamp() -> None:
    image = np.full((40, 40, 3), 0.02, np.float32)
    image[18:22, 18:22] = 5.0
    out = Misregistration(displacement=24.0, **(STILL | {"direction": 33.0}))(image, generator(0), Scene())
    assert out.min() >= 0.02 - 1e-6
    assert out.max() <= 5.0


@pytest.mark.parametrize("channels", [1, 3])
def test_a_constant_image_stays_constant(channels: int) -> None:
    image = np.full((40, 60, channels), 0.7, np.float32)
    depth = np.tile(np.linspace(0.5, 30, 60, dtype=np.float32), (40, 1))
    params = STILL | {"turn": 1.0, "tilt_x": 1.0, "baseline": 0.04, "side": 70.0}
    out = Misregistration(displacement=60.0, **params)(image, generator(0), Scene("infrared", depth))
    np.testing.assert_allclose(out, 0.7, atol=1e-6)

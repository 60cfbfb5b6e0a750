"""Blur kernels against their equations, and the convolution against a plain sum."""

from __future__ import annotations

import numpy as np
import pytest

from clearfuse.synth.operators.base import Scene
from clearfuse.synth.operators.defocus import DefocusBlur
from clearfuse.synth.operators.optics import (
    GaussianBlur,
    MotionBlur,
    convolve,
    gaussian_kernel,
    gaussian_profile,
    path_kernel,
    shake_path,
)
from clearfuse.synth.seeds import generator


def centroid(kernel: np.ndarray) -> tuple[float, float]:
    """(x, y) of the kernel's mass, in pixels from the centre."""
    y, x = np.indices(kernel.shape, dtype=np.float64)
    mass = kernel.astype(np.float64)
    return (
        float((x * mass).sum() / mass.sum() - (kernel.shape[1] - 1) / 2),
        float((y * mass).sum() / mass.sum() - (kernel.shape[0] - 1) / 2),
    )


def plain_convolution(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Σ_d k(d) image(p − d), mirrored about the border pixels, in float64."""
    ry, rx = kernel.shape[0] // 2, kernel.shape[1] // 2
    h, w, _ = image.shape
    padded = np.pad(image.astype(np.float64), ((ry, ry), (rx, rx), (0, 0)), mode="reflect")
    out = np.zeros(image.shape)
    for (row, column), weight in np.ndenumerate(kernel):
        y, x = 2 * ry - row, 2 * rx - column
        out += weight * padded[y : y + h, x : x + w]
    return out


def noise(h: int, w: int, c: int) -> np.ndarray:
    return generator(h * w + c).random((h, w, c), dtype=np.float32)


@pytest.mark.parametrize("sigma", [0.0, 0.04, 0.06, 0.5, 1.7, 4.0, 20.0])
def test_profile_is_normalised_and_symmetric(sigma: float) -> None:
    k = gaussian_profile(sigma)
    assert len(k) % 2 == 1
    assert k.sum() == pytest.approx(1, abs=1e-6)
    assert np.array_equal(k, k[::-1])


@pytest.mark.parametrize("sigma", [0.5, 1.7, 4.0, 20.0])
@pytest.mark.parametrize("ratio", [0.6, 0.8, 1.0])
@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, 135.0])
def test_kernel_is_normalised_and_centred(sigma: float, ratio: float, angle: float) -> None:
    k = gaussian_kernel(sigma, ratio, angle)
    assert k.sum() == pytest.approx(1, abs=1e-5)
    assert np.hypot(*centroid(k)) < 0.01


def test_kernel_has_the_covariance_it_declares() -> None:
    sigma, ratio, angle = 3.0, 0.6, 30.0
    k = gaussian_kernel(sigma, ratio, angle).astype(np.float64)
    r = k.shape[0] // 2
    y, x = np.mgrid[r : -r - 1 : -1, -r : r + 1]
    a = np.radians(angle)
    rotation = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    wanted = rotation @ np.diag([sigma**2, (ratio * sigma) ** 2]) @ rotation.T
    found = [[(k * x * x).sum(), (k * x * y).sum()], [(k * x * y).sum(), (k * y * y).sum()]]
    np.testing.assert_allclose(found, wanted, rtol=0.01)


@pytest.mark.parametrize(("ratio", "angle"), [(1.0, 37.0), (0.7, 0.0), (0.7, 90.0), (0.7, 180.0), (0.7, 37.0)])
@pytest.mark.parametrize("sigma", [0.8, 3.0])
def test_blur_is_the_convolution_with_its_kernel(sigma: float, ratio: float, angle: float) -> None:
    image = noise(31, 42, 3)
    out = GaussianBlur(sigma=sigma, ratio=ratio, angle=angle)(image, generator(0), Scene())
    np.testing.assert_allclose(out, plain_convolution(image, gaussian_kernel(sigma, ratio, angle)), atol=5e-4)


def test_blurs_add_in_variance() -> None:
    image, rng, scene = noise(96, 96, 1), generator(0), Scene()
    twice = image
    for sigma in (1.5, 2.0):
        twice = GaussianBlur(sigma=sigma, ratio=1.0, angle=0.0)(twice, rng, scene)
    once = GaussianBlur(sigma=2.5, ratio=1.0, angle=0.0)(image, rng, scene)
    np.testing.assert_allclose(twice[20:-20, 20:-20], once[20:-20, 20:-20], atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1), (13, 8), (40, 50)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("kh", "kw", "share"), [(3, 5, 1.0), (11, 11, 0.3), (35, 21, 0.1), (21, 35, 1.0), (1, 25, 1.0)]
)
def test_every_path_of_convolve_is_the_plain_sum(
    size: tuple[int, int], channels: int, kh: int, kw: int, share: float
) -> None:
    rng = generator(kh * kw)
    kernel = (rng.random((kh, kw)) * (rng.random((kh, kw)) < share)).astype(np.float32)
    kernel /= kernel.sum()
    image = noise(*size, channels)
    np.testing.assert_allclose(convolve(image, kernel), plain_convolution(image, kernel), atol=3e-6)


@pytest.mark.parametrize("length", [0.0, 0.3, 1.0, 5.0, 12.5, 35.0, 100.0])
@pytest.mark.parametrize("shake", [0.0, 0.5, 1.0])
def test_motion_kernel_is_normalised_and_centred(length: float, shake: float) -> None:
    for seed in range(5):
        k = path_kernel(shake_path(length, 36.0 * seed, shake, generator(seed)))
        assert k.shape[0] % 2 == k.shape[1] % 2 == 1
        assert k.sum() == pytest.approx(1, abs=1e-5)
        assert k.min() >= 0
        assert np.hypot(*centroid(k)) < 0.01


@pytest.mark.parametrize("shake", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("length", [5.0, 35.0])
def test_the_paths_extent_is_its_length(length: float, shake: float) -> None:
    for seed in range(8):
        path = shake_path(length, 20.0 * seed, shake, generator(seed))
        extent = np.sqrt(((path[:, None] - path[None]) ** 2).sum(-1)).max()
        assert extent == pytest.approx(length, rel=0.03)


def test_without_shake_the_path_is_a_straight_line_at_even_speed() -> None:
    path = shake_path(20.0, 30.0, 0.0, generator(3))
    steps = np.diff(path, axis=0)
    np.testing.assert_allclose(np.degrees(np.arctan2(-steps[:, 1], steps[:, 0])), 30, atol=1e-6)
    speed = np.linalg.norm(steps, axis=1)
    np.testing.assert_allclose(speed, speed.mean(), rtol=1e-6)


def test_a_horizontal_line_is_a_box() -> None:
    k = path_kernel(shake_path(9.0, 0.0, 0.0, generator(0)))
    assert k.shape[0] == 1
    np.testing.assert_allclose(k[0, 2:-2], 1 / 9, rtol=0.02)


def test_shake_bends_the_path_and_length_only_scales_it() -> None:
    straight, bent = (shake_path(20.0, 0.0, s, generator(5)) for s in (0.0, 1.0))
    assert np.abs(straight[:, 1]).max() < 1e-9
    assert np.abs(bent[:, 1]).max() > 1
    short, long = (shake_path(n, 10.0, 0.7, generator(5)) for n in (10.0, 30.0))
    np.testing.assert_allclose(long[1::3], short * 3, rtol=0, atol=1e-3)


def test_light_above_full_well_is_kept_and_the_mean_stays() -> None:
    image = np.zeros((65, 65, 3), np.float32)
    image[32, 32] = 50.0
    for op in (GaussianBlur(sigma=3.0, ratio=0.7, angle=20.0), MotionBlur(length=15.0, angle=20.0, shake=1.0)):
        out = op(image, generator(1), Scene())
        assert out.max() > 1
        np.testing.assert_allclose(out.sum(axis=(0, 1)), 50, rtol=1e-4)


@pytest.mark.parametrize("width", [320, 640, 1280])
def test_shake_is_an_angle_and_so_as_long_as_the_frame_is_wide(width: int) -> None:
    image = np.zeros((3, width, 1), np.float32)
    image[1, width // 2] = 1
    out = MotionBlur(length=24, angle=0, shake=0, frame=640)(image, generator(0), Scene())
    assert (out[1] > 1e-4).sum() == pytest.approx(24 * width / 640, abs=2.1)
    own = MotionBlur(length=24, angle=0, shake=0)(image, generator(0), Scene())
    assert (own[1] > 1e-4).sum() == pytest.approx(24, abs=2.1), "a step of before the frame was recorded"


@pytest.mark.parametrize("width", [320, 1280])
def test_defocus_scales_with_the_focal_length_too(width: int) -> None:
    image = np.zeros((101, width, 1), np.float32)
    image[50, width // 2] = 1
    made = DefocusBlur(radius=8, blades=0, rotation=0, layout="uniform", focus=0.5, frame=640)
    area = (made(image, generator(0), Scene()) > 0.5 / (np.pi * (8 * width / 640) ** 2)).sum()
    assert area == pytest.approx(np.pi * (8 * width / 640) ** 2, rel=0.12)

"""Resampling keeps mean and position; JPEG compression is real, and files get smaller."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, JpegImagePlugin

from clearfuse.synth import color
from clearfuse.synth.operators.base import Scene
from clearfuse.synth.operators.codec import Downsample, Jpeg, jpeg_bytes
from clearfuse.synth.seeds import generator

KERNELS = ("area", "bilinear", "bicubic", "lanczos")
UPS = ("bilinear", "bicubic", "lanczos")


def photograph(h: int = 96, w: int = 128, c: int = 3) -> np.ndarray:
    """A smooth gradient with texture and an edge, which JPEG can compress."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    image = 0.3 + 0.2 * np.sin(x[..., None] / (5 + np.arange(c))) + 0.2 * (y[..., None] / h)
    image[:, w // 2 :] += 0.15
    return np.clip(image + 0.03 * generator(3).standard_normal((h, w, c)), 0, 1).astype(np.float32)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a.astype(np.float64) - b) ** 2)))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("up", UPS)
@pytest.mark.parametrize("factor", [1.5, 2.0, 3.3, 4.0])
def test_downsample_keeps_the_mean_and_the_place(kernel: str, up: str, factor: float) -> None:
    y, x = np.mgrid[0:90, 0:120].astype(np.float64)
    blob = np.exp(-(((x - 61.3) / 12) ** 2) - ((y - 40.7) / 10) ** 2)[..., None]
    out = Downsample(factor=factor, kernel=kernel, up=up)(blob.astype(np.float32), generator(0), Scene())
    mass = out[..., 0].astype(np.float64)
    assert mass.mean() == pytest.approx(blob.mean(), rel=2e-3)
    assert (x * mass).sum() / mass.sum() == pytest.approx(61.3, abs=0.03)
    assert (y * mass).sum() / mass.sum() == pytest.approx(40.7, abs=0.03)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 2), (31, 17)])
def test_downsample_keeps_constants_at_any_size(kernel: str, size: tuple[int, int]) -> None:
    image = np.full((*size, 3), 0.37, np.float32)
    out = Downsample(factor=16.0, kernel=kernel, up="lanczos")(image, generator(0), Scene())
    np.testing.assert_allclose(out, 0.37, atol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_downsample_does_not_alias(kernel: str) -> None:
    y, x = np.indices((64, 64))
    checks = ((x + y) % 2).astype(np.float32)[..., None]
    out = Downsample(factor=3.0, kernel=kernel, up="bilinear")(checks, generator(0), Scene())
    assert out[8:-8, 8:-8].std() < 0.08
    assert checks.std() == 0.5


def test_jpeg_file_shrinks_and_pixels_worsen_with_quality() -> None:
    image = photograph()
    codes = color.to_uint8(image)
    qualities = (100, 90, 70, 50, 30, 15, 5)
    sizes = [jpeg_bytes(codes, q, "4:2:0").size for q in qualities]
    fidelity = [psnr(image, Jpeg(quality=q, subsampling="4:2:0")(image, generator(0), Scene())) for q in qualities]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == len(sizes)
    assert fidelity == sorted(fidelity, reverse=True)
    assert sizes[-1] < codes.size / 15


@pytest.mark.parametrize(("subsampling", "code"), [("4:4:4", 0), ("4:2:0", 2)])
def test_jpeg_is_subsampled_as_it_says(subsampling: str, code: int) -> None:
    with Image.open(io.BytesIO(jpeg_bytes(color.to_uint8(photograph()), 50, subsampling).tobytes())) as file:
        assert file.format == "JPEG"
        assert file.mode == "RGB"
        assert JpegImagePlugin.get_sampling(file) == code


def test_chroma_subsampling_costs_colour_and_saves_bytes() -> None:
    codes = color.to_uint8(photograph())
    assert jpeg_bytes(codes, 70, "4:2:0").size < jpeg_bytes(codes, 70, "4:4:4").size


def test_grey_images_become_grey_files() -> None:
    with Image.open(io.BytesIO(jpeg_bytes(color.to_uint8(photograph(c=1)), 50, "4:2:0").tobytes())) as file:
        assert file.mode == "L"


def test_jpeg_keeps_the_order_of_the_channels() -> None:
    image = np.zeros((16, 16, 3), np.float32)
    image[..., 0], image[..., 2] = 0.8, 0.2
    out = Jpeg(quality=95, subsampling="4:2:0")(image, generator(0), Scene())
    np.testing.assert_allclose(out.mean(axis=(0, 1)), [0.8, 0.0, 0.2], atol=0.02)


def test_jpeg_repeats_bit_for_bit() -> None:
    image = photograph()
    op = Jpeg(quality=30, subsampling="4:2:0")
    np.testing.assert_array_equal(op(image, generator(0), Scene()), op(image, generator(1), Scene()))

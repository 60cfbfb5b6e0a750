"""Classical restorers on degradations of known clean images, and the table that selects them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import pytest

from clearfuse.synth.color import code_to_float, to_uint8
from clearfuse.synth.operators import OPERATORS
from clearfuse.synth.operators.codec import jpeg_bytes
from clearfuse.synth.operators.optics import convolve, gaussian_kernel
from clearfuse.synth.samples.chain import apply_steps
from clearfuse.synth.seeds import generator
from clearfuse.synth.shards.sample import Sample
from clearfuse.synth.types import Step
from clearfuse.train.evaluation.methods import restorers
from clearfuse.train.evaluation.methods.classical import CLASSICAL, Fault, point_spread, restore
from conftest import changed, sample_meta, textured


def scene(channels: int = 3) -> np.ndarray:
    """A synthetic image: float32 code values in [0, 1]."""
    return code_to_float(cv2.GaussianBlur(textured(3, channels=channels), (0, 0), 1.2).reshape(128, 160, channels))


def error(image: np.ndarray, truth: np.ndarray) -> float:
    return float(np.sqrt(np.mean((image.astype(np.float64) - truth) ** 2)))


def test_the_guided_filter_keeps_an_affine_image_and_averages_under_a_flat_guide() -> None:
    guide = generator(1).random((40, 50), dtype=np.float32)
    assert np.allclose(restorers.guided_filter(guide, 0.3 * guide + 0.2, 4, 1e-8), 0.3 * guide + 0.2, atol=1e-4)
    flat = restorers.guided_filter(np.full_like(guide, 0.5), guide, 4, 1e-3)
    mean = cv2.blur(cv2.blur(guide, (9, 9), borderType=cv2.BORDER_REFLECT), (9, 9), borderType=cv2.BORDER_REFLECT)
    assert np.allclose(flat, mean, atol=1e-5)


def test_haze_of_one_depth_is_lifted_where_the_dark_channel_is_dark() -> None:
    clean = scene()
    clean[::7, ::7] = 0  # something dark in every patch, as the prior has it
    air, t = np.float32([0.80, 0.82, 0.85]), np.float32(0.5)
    hazy = clean * t + air * (1 - t)
    hazy[:12] = air  # the sky, by which the airlight is known
    found = restorers.dehaze(hazy)
    assert error(found[40:], clean[40:]) < 0.35 * error(hazy[40:], clean[40:])
    assert found.dtype == np.float32 and found.min() >= 0 and found.max() <= 1


@pytest.mark.parametrize("sigma", [0.02, 0.1])
def test_noise_is_measured_and_averaged_out(sigma: float) -> None:
    clean = np.full((96, 96, 1), 0.5, np.float32)
    clean[:, 48:] = 0.8
    noisy = clean + np.float32(sigma) * generator(2).standard_normal(clean.shape, dtype=np.float32)
    assert restorers.noise_level(noisy) == pytest.approx(sigma, rel=0.1)
    assert error(restorers.denoise(np.clip(noisy, 0, 1), sigma), clean) < 0.35 * sigma
    assert np.array_equal(restorers.denoise(clean, 0.0), clean)
    assert restorers.noise_level(clean[:2]) == 0.0


@pytest.mark.parametrize("channels", [1, 3])
def test_deconvolution_undoes_its_own_kernel(channels: int) -> None:
    clean = scene(channels)
    psf = gaussian_kernel(2.0, 0.7, 30.0)
    blurred = convolve(clean, psf)
    assert error(restorers.wiener(blurred, psf, 1e-4), clean) < 0.3 * error(blurred, clean)
    assert error(restorers.richardson_lucy(blurred, psf, 30), clean) < 0.5 * error(blurred, clean)
    point = np.ones((1, 1), np.float32)
    assert np.allclose(restorers.wiener(clean, point, 0.0), clean, atol=1e-5)
    assert np.allclose(restorers.richardson_lucy(clean, point, 5), np.maximum(clean, 1e-4), atol=1e-5)


def test_a_constant_image_is_a_fixed_point() -> None:
    flat = np.full((64, 72, 3), 0.4, np.float32)
    psf = gaussian_kernel(1.5, 1.0, 0.0)
    kept: list[np.ndarray] = [
        restorers.wiener(flat, psf, 1e-3), restorers.richardson_lucy(flat, psf), restorers.destripe(flat),
        restorers.remove_particles(flat), restorers.back_project(flat, lambda x: x),
    ]  # fmt: skip
    assert all(np.allclose(image, flat, atol=2e-3) for image in kept)


def test_stripes_go_and_what_is_smooth_stays() -> None:
    clean = np.repeat(np.linspace(0.2, 0.8, 128, dtype=np.float32)[None, :, None], 96, axis=0)
    offset = np.float32(0.05) * generator(4).standard_normal(128, dtype=np.float32)
    striped = clean + offset[None, :, None]
    assert error(restorers.destripe(striped), clean) < 0.4 * error(striped, clean)
    assert restorers.running_median(np.array([1.0, 9, 1, 1]), 1).tolist() == [9, 1, 1, 1]


def test_thin_bright_streaks_go_and_dark_ones_stay() -> None:
    clean = np.full((64, 64, 3), 0.4, np.float32)
    rain = clean.copy()
    rain[10:40, 30] = 0.9
    rain[10:40, 50] = 0.1
    found = restorers.remove_particles(rain)
    assert np.allclose(found[10:40, 30], 0.4, atol=2e-3) and np.array_equal(found[:, 50], rain[:, 50])


def test_equalising_spreads_a_flat_histogram_and_keeps_hue() -> None:
    clean = scene()
    flat = 0.4 + 0.2 * (clean - 0.5)
    found = restorers.equalise(flat)
    assert found.std() > 1.3 * flat.std()
    inside = found.max(axis=2) < 0.99
    shares = [(image[..., 0] / image.sum(axis=2))[inside] for image in (found, flat)]
    assert np.allclose(*shares, atol=1e-3)


def test_jpeg_again_takes_blocks_away() -> None:
    clean = scene(1)
    coded = code_to_float(cv2.imdecode(jpeg_bytes(to_uint8(clean), 10, "4:4:4"), cv2.IMREAD_GRAYSCALE)[..., None])
    assert error(restorers.deblock(coded, 10), clean) < 0.92 * error(coded, clean)


def test_back_projection_agrees_with_what_was_seen() -> None:
    clean = scene()
    operator: Callable[[np.ndarray], np.ndarray] = lambda x: convolve(x, gaussian_kernel(1.5, 1.0, 0.0))  # noqa: E731
    seen = operator(clean)
    found = restorers.back_project(seen, operator, 6)
    assert error(found, clean) < 0.75 * error(seen, clean)


def made(op: str, params: dict[str, object], image: np.ndarray) -> tuple[Sample, Step]:
    """A sample whose visible image has had one step."""
    step = Step(op, "a", params, 7, 0.5)
    seen = apply_steps(image, [step], task="mef", name="a")
    return Sample("000000000", {"a": seen, "b": image}, None, "", sample_meta(task="mef", n=1, steps=(step,))), step


@pytest.mark.parametrize(
    ("op", "params"),
    [
        ("gaussian_blur", {"sigma": 1.5, "ratio": 0.8, "angle": 20.0}),
        ("motion_blur", {"length": 9.0, "angle": 40.0, "shake": 0.6}),
        ("gaussian_noise", {"sigma": 0.12, "colour": 0.5}),
        ("jpeg", {"quality": 20, "subsampling": "4:4:4"}),
    ],
)
def test_a_recorded_step_is_undone_and_the_other_image_left_alone(op: str, params: dict[str, object]) -> None:
    image = to_uint8(scene())
    sample, _ = made(op, params, image)
    found = restore(sample, "a", CLASSICAL)
    assert error(code_to_float(found), code_to_float(image)) < 0.95 * error(
        code_to_float(sample.images["a"]), code_to_float(image)
    )
    assert restore(sample, "b", CLASSICAL) is image


def test_a_kernel_is_what_the_step_makes_of_a_point() -> None:
    step = Step("gaussian_blur", "a", {"sigma": 2.0, "ratio": 0.7, "angle": 30.0}, 5)
    found = point_spread(Fault(step, "a", "visible", noisy=False))
    true = gaussian_kernel(2.0, 0.7, 30.0)
    cut = (true.shape[0] - found.shape[0]) // 2
    assert np.allclose(found, true[cut : true.shape[0] - cut, cut : true.shape[1] - cut], atol=1e-4)
    assert found.sum() == pytest.approx(1, abs=1e-6)


def test_what_comes_degraded_has_no_parameters_and_is_not_deconvolved() -> None:
    image = to_uint8(scene())
    sample, _ = made("gaussian_blur", {"sigma": 1.5, "ratio": 0.8, "angle": 20.0}, image)
    given = changed(sample, steps=(replace(sample.meta.steps[0], seed=None, params={}),))
    found = restore(given, "a", CLASSICAL)
    assert np.array_equal(found, sample.images["a"])


def test_the_table_names_operators() -> None:
    assert set(CLASSICAL) <= set(OPERATORS)

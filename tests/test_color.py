"""Transfer functions against IEC 61966-2-1, and rounding to 8 bit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from clearfuse.synth import color


@pytest.mark.parametrize(("code", "linear"), [(0.0, 0.0), (0.04045, 0.0031308), (0.5, 0.21404), (1.0, 1.0)])
def test_srgb_at_known_values(code: float, linear: float) -> None:
    assert color.srgb_to_linear(np.array([code])) == pytest.approx(linear, abs=2e-5)
    assert color.linear_to_srgb(np.array([linear])) == pytest.approx(code, abs=2e-5)


def test_every_code_survives_linear_light() -> None:
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert np.array_equal(color.to_uint8(color.linear_to_srgb(color.code_to_linear(codes))), codes)
    assert np.array_equal(color.to_uint8(color.code_to_float(codes)), codes)


def test_the_table_is_the_formula() -> None:
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert color.code_to_linear(codes) == pytest.approx(color.srgb_to_linear(color.code_to_float(codes)), abs=1e-6)


def test_rounding_is_half_up_and_clipped() -> None:
    values = np.array([-1.0, 0.0, 0.49999 / 255, 0.5 / 255, 1.0, 2.0], np.float32)
    assert color.to_uint8(values).tolist() == [0, 0, 0, 1, 255, 255]


def test_luma_of_grey_is_itself() -> None:
    grey = np.random.Generator(np.random.Philox(0)).random((5, 4, 1)).astype(np.float32)
    assert np.array_equal(color.luma(grey), grey[..., 0])
    assert color.luma(np.repeat(grey, 3, 2)) == pytest.approx(grey[..., 0], abs=1e-6)


@pytest.mark.parametrize("convert", [color.srgb_to_linear, color.linear_to_srgb, color.to_uint8])
@pytest.mark.parametrize("shape", [(40, 33, 3), (7, 300, 1), (501,), (3, 900)])
def test_strips_change_no_value(
    monkeypatch: pytest.MonkeyPatch, convert: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...]
) -> None:
    image = np.random.default_rng(0).random(shape, dtype=np.float32) * np.float32(1.2) - np.float32(0.1)
    whole = convert(image)
    monkeypatch.setattr(color, "STRIP", 500)
    assert np.array_equal(convert(image), whole) and convert(image).dtype == whole.dtype

"""Gradient correlation against cases with a known value."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from clearfuse.synth.samples.structure import (
    LOST,
    MOST_WHITE,
    became_white,
    gradient_correlation,
    keeps_structure,
)
from clearfuse.synth.seeds import generator
from conftest import textured

FLAT = np.full((120, 160, 3), 90, np.uint8)


def smooth_noise(seed: int) -> np.ndarray:
    """Noise of a standard deviation of about 30 codes and of a few pixels' size, uint8 ``(160, 160, 1)``."""
    field = cv2.GaussianBlur(generator(seed).standard_normal((160, 160)).astype(np.float32), (0, 0), 2)
    return np.clip(128 + 20 * field / field.std(), 0, 255).astype(np.uint8)[..., None]


def test_known_values() -> None:
    image = textured(1)
    assert gradient_correlation(image, image) == pytest.approx(1, abs=1e-6)
    assert gradient_correlation(image, 255 - image) == pytest.approx(-1, abs=1e-6)
    assert gradient_correlation(image, image // 4 + 60) == pytest.approx(1, abs=0.02)
    assert gradient_correlation(image, FLAT[:128]) == 0
    assert gradient_correlation(FLAT, FLAT) == gradient_correlation(FLAT, textured(2)[:120]) == 1


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_mixture_with_other_structure_has_the_correlation_of_its_share(share: float) -> None:
    """√s x + √(1 − s) y of equal energies and uncorrelated gradients has √s."""
    x, y = (smooth_noise(seed).astype(np.float32) - 128 for seed in (1, 2))
    mixed = (128 + np.sqrt(share) * x + np.sqrt(1 - share) * y).astype(np.uint8)
    assert gradient_correlation(smooth_noise(1), mixed) == pytest.approx(np.sqrt(share), abs=0.04)


def test_one_image_that_keeps_its_structure_is_enough() -> None:
    a, b, gone = textured(1), textured(2), np.full_like(textured(1), 90)
    assert keeps_structure((a, b), (a, gone)) and keeps_structure((a, b), (gone, b))
    assert not keeps_structure((a, b), (gone, gone))
    assert 0 < LOST < 1


def test_a_frame_that_went_white_is_lost_though_the_other_stays() -> None:
    a, white = textured(1), np.full_like(textured(1), 255)
    assert not keeps_structure((a, a), (a, white)) and not keeps_structure((a, a), (white, a))
    assert keeps_structure((a, white), (a, white))  # it was white before
    part = a.copy()
    part[: len(part) // 5] = 255
    assert became_white(a, part) == pytest.approx(0.2, abs=0.02) and keeps_structure((a, a), (a, part))
    part[: len(part) // 2] = 255
    assert became_white(a, part) > MOST_WHITE and not keeps_structure((a, a), (a, part))

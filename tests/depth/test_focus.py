"""Depth from two focus distances: the near side is near, whichever frame is focused on it; noise tells nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from clearfuse.synth.depth.focus import (
    CERTAIN,
    FAR_SIDE,
    LEAST,
    NEAR_SIDE,
    UNIFORM,
    WINDOW,
    compare,
    complete,
    noise_of,
    split_by_focus,
)
from clearfuse.synth.seeds import generator

H, W = 180, 240


def texture(seed: int = 3) -> np.ndarray:
    """A texture with a little less detail than white noise, on 8 bits."""
    noise = cv2.GaussianBlur(generator(seed).normal(0, 1, (H, W)).astype(np.float32), (0, 0), 0.8)
    return np.repeat((128 + 90 * np.clip(noise, -1.4, 1.4))[..., None], 3, axis=2).astype(np.float32)


def soft(image: np.ndarray, sigma: float = 2.5) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma)


def pair(near: np.ndarray, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Two planes, focused on the near and on the far one: out of focus, the near one spreads over its rim."""
    sharp, behind, mask = texture(3), texture(4), near[..., None].astype(np.float32)
    spilt = soft(mask)[..., None]
    frames = mask * sharp + (1 - mask) * soft(behind), soft(mask * sharp) + (1 - spilt) * behind
    rng = generator(9)
    a, b = (np.clip(frame + rng.normal(0, noise, frame.shape), 0, 255).astype(np.uint8) for frame in frames)
    return a, b


def person() -> np.ndarray:
    near = np.zeros((H, W), bool)
    near[40:, 80:160] = True  # head at the height of the far trees
    return near


def guess() -> np.ndarray:
    """An estimate by position: nearer towards the bottom of the image, sky in the upper fifth."""
    metres = np.repeat(np.geomspace(60, 2, H, dtype=np.float32)[:, None], W, axis=1)
    metres[: H // 5] = np.inf
    return metres


@pytest.mark.parametrize("swapped", [False, True])
def test_of_two_planes_the_one_in_front_is_near(swapped: bool) -> None:
    a, b = pair(person())
    metres = split_by_focus(guess(), *((b, a) if swapped else (a, b)))
    inside = cv2.erode(person().astype(np.uint8), np.ones((21, 21))) > 0
    outside = cv2.dilate(person().astype(np.uint8), np.ones((31, 31))) == 0
    outside[: H // 5] = False
    assert metres[inside].max() <= NEAR_SIDE * 1.05
    assert metres[outside].min() >= FAR_SIDE * 0.95
    assert np.isinf(metres[: H // 5]).all(), "the sky stays"
    assert (np.diff(metres[H // 5 :, 5]) <= 1e-4).all(), "the order of the estimate stays"


def test_what_is_in_focus_in_front_is_no_sky() -> None:
    near = person()
    near[10:40, 80:160] = True  # up into what the estimate takes for sky
    metres = split_by_focus(guess(), *pair(near))
    assert metres[25 : H // 5, 95:145].max() <= NEAR_SIDE * 1.05 and np.isinf(metres[: H // 5, :60]).all()


def test_the_order_of_the_frames_changes_nothing() -> None:
    a, b = pair(person())
    np.testing.assert_allclose(split_by_focus(guess(), a, b), split_by_focus(guess(), b, a), rtol=1e-5)


def test_flat_parts_follow_what_surrounds_them_up_to_an_edge() -> None:
    """A near shirt without texture, its outline alone told by focus, is near as a whole."""
    near = person()
    a, b = pair(near)
    plain = cv2.erode(near.astype(np.uint8), np.ones((25, 25))) > 0
    for frame in (a, b):
        frame[plain] = 140
    metres = split_by_focus(guess(), a, b)
    assert metres[cv2.erode(near.astype(np.uint8), np.ones((41, 41))) > 0].max() <= NEAR_SIDE * 1.2


@pytest.mark.parametrize("case", ["noise alone", "noise on one texture", "one soft", "gain"])
def test_one_focus_is_one_distance(case: str) -> None:
    rng, sharp = generator(5), texture()
    frames = {
        "noise alone": (np.full_like(sharp, 120),) * 2,
        "noise on one texture": (sharp, sharp),
        "one soft": (sharp, soft(sharp)),
        "gain": (sharp, 0.9 * sharp + 8),
    }[case]
    a, b = (np.clip(frame + rng.normal(0, 4, frame.shape), 0, 255).astype(np.uint8) for frame in frames)
    metres = split_by_focus(guess(), a, b)
    assert np.array_equal(np.isinf(metres), np.isinf(guess()))
    assert (metres[np.isfinite(metres)] == np.float32(UNIFORM)).all()


def test_two_halves_that_mirror_each_other_tell_no_near_side() -> None:
    """Side by side, blurred in turn along a straight seam, nothing says which half is in front."""
    sharp = texture()
    sharp[:, W // 2 :] = sharp[:, : W // 2][:, ::-1]
    left = np.zeros((H, W, 1), np.float32)
    left[:, : W // 2] = 1
    a, b = ((share * sharp + (1 - share) * soft(sharp)).astype(np.uint8) for share in (left, np.float32(1) - left))
    metres = split_by_focus(guess(), a, b)
    assert (metres[np.isfinite(metres)] == np.float32(UNIFORM)).all()


def test_noise_is_seldom_a_difference() -> None:
    """On noise alone differences beyond 3 σ and ``LEAST`` of the sum are as rare as the formula's normal law says."""
    rng = generator(7)
    a, b = (rng.normal(0.5, 0.02, (600, 600)).astype(np.float32) for _ in range(2))
    assert noise_of(a) == pytest.approx(0.02, rel=0.15)
    kernel = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], np.float32)
    energy = [cv2.blur(np.square(cv2.filter2D(y, -1, kernel)), (WINDOW, WINDOW)) for y in (a, b)]
    assert np.mean(energy) == pytest.approx(20 * 0.02**2, rel=0.02)
    difference = (energy[0] - energy[1])[WINDOW:-WINDOW, WINDOW:-WINDOW]
    wanted = np.sqrt(4 * 1.69 / WINDOW**2) * 20 * 0.02**2
    assert difference.std() == pytest.approx(wanted, rel=0.1)
    beyond = (np.abs(difference) > CERTAIN * wanted) & (np.abs(difference) > LEAST * (energy[0] + energy[1]).min())
    assert beyond.mean() < 0.006
    assert compare(a, b) is None


def test_texture_is_no_noise() -> None:
    noisy = np.full((256, 256), 0.5, np.float32) + generator(1).normal(0, 0.01, (256, 256)).astype(np.float32)
    noisy[:, 64:] += generator(2).normal(0, 0.2, (256, 192)).astype(np.float32)
    assert noise_of(noisy) == pytest.approx(0.01, rel=0.15)


def test_what_an_edge_separates_is_filled_from_its_own_side() -> None:
    guide = np.zeros((80, 100), np.float32)
    guide[:, 37:] = 0.6
    certain = np.zeros_like(guide)
    certain[30:34, 30:34], certain[60:64, 80:84] = 1, -1
    side = complete(certain, guide)
    assert side[:, :36].min() > 0.9 and side[:, 39:].max() < -0.9
    assert complete(certain, np.zeros_like(guide))[:, 37:60].max() > 0, "without an edge nearness decides"


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (9, 1), (40, 30)])
def test_any_size(size: tuple[int, int]) -> None:
    rng = generator(1)
    a, b = (rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(2))
    assert split_by_focus(np.full(size, 5, np.float32), a, b).shape == size

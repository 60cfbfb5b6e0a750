"""Where pixels come from, on images whose origin is known by construction."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from clearfuse.synth.seeds import generator
from clearfuse.train.evaluation.origins import COLOURS, origin_map, origin_picture
from clearfuse.train.metrics.base import codes, luma
from clearfuse.train.metrics.faithfulness import ORIGINS, RADIUS, Sources, shares


def grain(seed: int) -> np.ndarray:
    """Texture of two pixels' breadth, which no other seed's resembles in any window."""
    fine = cv2.GaussianBlur(generator(seed).standard_normal((128, 160)), (0, 0), 1.0)
    return np.clip(np.rint(128 + 130 * fine), 0, 255).astype(np.uint8)[..., None]


A, B = grain(1), grain(2)
HEIGHT, WIDTH = A.shape[:2]
PATCH = slice(40, 80), slice(20, 60)


def origin(fused: np.ndarray, a: np.ndarray = A, b: np.ndarray = B) -> np.ndarray:
    return np.array(ORIGINS)[origin_map(fused, a, b)]


def rounded(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def test_a_half_of_each_and_an_invented_patch_are_told_to_the_window() -> None:
    fused = np.where(np.arange(WIDTH)[None, :, None] < WIDTH // 2, A, B)
    fused[PATCH] = grain(3)[PATCH]
    found, wanted = origin(fused), np.full(A.shape[:2], "a", object)
    wanted[:, WIDTH // 2 :], wanted[PATCH] = "b", "neither"
    mixed = np.zeros(A.shape[:2], np.uint8)  # windows that see two origins
    mixed[PATCH], mixed[:, WIDTH // 2 :] = 1, 2
    side = np.ones((2 * RADIUS + 1,) * 2, np.uint8)
    whole = cv2.erode(mixed, side) == cv2.dilate(mixed, side)
    assert whole.mean() > 0.75 and (found[whole] == wanted[whole]).all()


@pytest.mark.parametrize("task", ["gain and offset", "noise", "blend", "agreement", "contrary", "negative"])
def test_what_the_regression_is_to_see_through(task: str) -> None:
    """Gain, offset and noise hide no source; a blend, and sources that agree, are of both; what is shown in reverse is
    of a source that shows it so, or of none."""
    a, b = A.astype(np.float64), B.astype(np.float64)
    flat = np.full_like(A, 90)
    noise = generator(1).normal(0, 3, a.shape)
    fused, sources, wanted = {
        "gain and offset": (0.5 * a + 60, (A, B), "a"),
        "noise": (b + noise, (A, B), "b"),
        "blend": (0.5 * a + 0.5 * b, (A, B), "both"),
        "agreement": (0.8 * a + 10, (A, rounded(0.6 * a + 50)), "both"),
        "contrary": (a, (A, 255 - A), "a"),
        "negative": (255 - a, (A, flat), "neither"),
    }[task]
    found = origin(rounded(fused), *sources)
    assert (found == wanted).mean() > 0.97, {name: (found == name).mean() for name in ORIGINS}


def test_flat_windows_come_from_the_sources_that_are_flat_there() -> None:
    flat = np.full_like(A, 120)
    for fused, sources, wanted in (
        (flat, (flat, flat // 2), "both"),
        (flat, (flat // 3, B), "a"),
        (flat, (A, flat), "b"),
        (flat, (A, B), "neither"),  # detail of both is lost
        (A, (flat, flat), "neither"),
    ):
        assert (origin(fused, *sources) == wanted).all()
    ripple = flat + (generator(2).random(A.shape) < 0.5).astype(np.uint8)  # a code value of noise, as rounding leaves
    assert (origin(ripple, flat, flat) == "both").all()
    assert (origin(A, rounded(A / 100.0), flat) == "neither").mean() > 0.9  # no gain of 100 is a source's


def test_the_regression_is_least_squares_without_negative_gains() -> None:
    """Against the fits of a few windows by the book."""
    fused = rounded(0.4 * A + 0.3 * B + 0.5 * grain(4))
    sources = Sources(*(luma(codes(image, "")) for image in (A, B)), stride=1)
    places = [(y, x) for y in range(0, HEIGHT, 17) for x in range(0, WIDTH, 13)]
    found = sources.origins(luma(codes(fused, "")))
    for y, x in places:
        at = tuple(slice(max(v - RADIUS, 0), v + RADIUS + 1) for v in (y, x))
        f, a, b = (image[at].astype(np.float64).ravel() for image in (fused, A, B))
        f, a, b = (v - v.mean() for v in (f, a, b))

        def left(*columns: np.ndarray, f: np.ndarray = f) -> float:
            gains = np.linalg.lstsq(np.stack(columns, 1), f)[0]
            return (
                float(((f - np.stack(columns, 1) @ gains) ** 2).mean()) if (gains >= 0).all() else float((f**2).mean())
            )

        only_a, only_b = left(a), left(b)
        joint = min(left(a, b), only_a, only_b)
        needs = only_b - joint > 0.1 * (f**2).mean(), only_a - joint > 0.1 * (f**2).mean()
        wanted = 3 if joint > 0.5 * (f**2).mean() else {(True, False): 0, (False, True): 1}.get(needs, 2)
        assert found[y, x] == wanted, (y, x)
    assert len({int(found[place]) for place in places}) > 1


def test_shares_of_every_fourth_window_are_those_of_all() -> None:
    fused = np.where(np.arange(WIDTH)[None, :, None] < WIDTH // 3, A, B)
    coarse = Sources(*(luma(codes(image, "")) for image in (A, B))).shares(luma(codes(fused, "")))
    assert coarse == pytest.approx(shares(origin_map(fused, A, B)), abs=0.02) and sum(coarse) == pytest.approx(1)


def test_the_picture_has_the_colours_and_a_legend() -> None:
    fused = np.where(np.arange(WIDTH)[None, :, None] < WIDTH // 2, A, B)
    picture = origin_picture(fused, origin_map(fused, A, B), "vif")
    assert picture.shape[1:] == (WIDTH, 3) and picture.shape[0] > HEIGHT
    shade = 0.4 * fused[60, 20, 0]
    assert picture[60, 20] == pytest.approx(0.6 * np.array(COLOURS["a"]) + shade, abs=1)
    legend = picture[HEIGHT:].reshape(-1, 3)
    assert all((legend == colour).all(1).any() for colour in COLOURS.values())

"""Depth from two focus distances: the near side is near, whichever image is focused on it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from clearfuse.synth.depth.focus import FAR_SIDE, NEAR_SIDE, split_by_focus
from clearfuse.synth.seeds import generator


def texture(h: int = 120, w: int = 160) -> np.ndarray:
    return generator(3).integers(0, 256, (h, w, 3), dtype=np.uint8)


def soft(image: np.ndarray) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), 2.5)


def pair(near: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Images focused on the near and on the far side of a texture; out of focus, the near part spreads."""
    sharp, mask = texture().astype(np.float32), near[..., None].astype(np.float32)
    spilt = soft(mask)[..., None]
    in_front, behind = mask * sharp + (1 - mask) * soft(sharp), spilt * soft(sharp) + (1 - spilt) * sharp
    return in_front.astype(np.uint8), behind.astype(np.uint8)


def guess() -> np.ndarray:
    """A prior: nearer towards the bottom of the image, sky in the upper fifth."""
    metres = np.repeat(np.geomspace(60, 2, 120, dtype=np.float32)[:, None], 160, axis=1)
    metres[:24] = np.inf
    return metres


@pytest.mark.parametrize("swapped", [False, True])
def test_what_the_near_focus_holds_is_near(swapped: bool) -> None:
    near = np.zeros((120, 160), bool)
    near[30:, 50:110] = True  # a person, head at the height of the far trees
    a, b = pair(near)
    metres = split_by_focus(guess(), *((b, a) if swapped else (a, b)))
    inside, outside = cv2.erode(near.astype(np.uint8), np.ones((15, 15))) > 0, cv2.dilate(near * 1.0, np.ones((15, 15)))
    assert metres[inside].max() <= NEAR_SIDE + 1e-3
    assert metres[(outside == 0) & (np.arange(120) >= 24)[:, None]].min() >= FAR_SIDE - 0.05
    assert np.isinf(metres[:15]).all()
    assert (np.diff(metres[30:, 5]) <= 0).all(), "the order of the guess stays"


def test_one_focus_tells_nothing() -> None:
    sharp = texture()
    for a, b in ((sharp, sharp), (sharp, soft(sharp)), (soft(sharp), sharp)):
        np.testing.assert_array_equal(split_by_focus(guess(), a, b), guess())

"""Two focus distances: selection of the sharper image by a focus measure and a consistent decision map.

Inside of a region the output equals one source exactly, since the sharp source is the ground truth there. Where the two
frames differ in gain or offset, the one that fills less of the output has the other's tone: else every seam shows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int32

from clearfuse.synth import color
from clearfuse.synth.fusers.pyramid.region import Region, Windows, padded_window
from clearfuse.synth.fusers.pyramid.tone import tone_between

Plane = Float32[np.ndarray, "h w"]

Islands = Callable[[Int32[np.ndarray, "h w"], bool], Bool[np.ndarray, " n"]]
"""Which labels of the connected regions of a, or of b, are islands."""

FINE = 1.2
"""Sigma in pixels of the window that localises edges."""

COARSE = ((6.0, 0.4), (24.0, 0.1))
"""Sigma in pixels and weight of the windows that decide where the finer ones see nothing but noise."""

STRIDE = 4
"""Pixels between the samples of the coarse windows, a ninth of their width or less."""

ISLAND = 0.001
"""Share of the image below which a region of the decision map is assigned to its surroundings."""

FLAT_ISLAND = 0.01
"""The same for regions that change the brightness more than the sharpness."""

SOFTNESS = 1.2
"""Sigma of the blending at seams, in pixels."""

WITHIN = np.float32(0.5 - 1e-4)
"""Distance from ½ below which a blending weight counts as one of a seam: the rest is less than a tenth of a code."""

SEAM = 8
"""Margin in pixels of the decision map that blending needs: 4 σ, rounded up, is 5."""


def fuse_focus(a: Float32[np.ndarray, "h w c"], b: Float32[np.ndarray, "h w d"]) -> Windows:
    """The fused image, in code values, window by window: ``decision`` selects a or b; seams are blended."""
    y_a, y_b = color.luma(a), color.luma(b)
    tone = tone_between(a, b, y_a, y_b)
    if tone is not None:
        y_a = tone.luma(a)
    chosen = decision(modified_laplacian(y_a) - modified_laplacian(y_b), y_a - y_b)
    if tone is not None and chosen.mean() >= 0.5:
        b = tone.inverse().apply(b)
    elif tone is not None:
        a = tone.apply(a)
    return partial(_select_window, a, b, chosen)


def _select_window(
    a: Float32[np.ndarray, "h w c"], b: Float32[np.ndarray, "h w d"], chosen: Bool[np.ndarray, "h w"], at: Region
) -> Float32[np.ndarray, "h_at w_at e"]:
    channels = max(a.shape[2], b.shape[2])
    share = blend_weight(chosen, at)
    a, b = a[at], b[at]
    a, b = (np.repeat(x, channels, axis=2) if x.shape[2] < channels else x for x in (a, b))
    out = color.as_hwc(cv2.copyTo(a, chosen[at].astype(np.uint8), b.copy()))
    # At seams alone: elsewhere the output is one source to the bit, and products of whole images take twice as long.
    seam = np.flatnonzero(np.abs(share - np.float32(0.5)) < WITHIN)
    weight = share.ravel()[seam, None]
    out.reshape(-1, channels)[seam] = a.reshape(-1, channels)[seam] * weight + b.reshape(-1, channels)[seam] * (
        1 - weight
    )
    return out


def modified_laplacian(y: Plane) -> Plane:
    """|2y − y(x−1) − y(x+1)| + |2y − y(·, y−1) − y(·, y+1)| (Nayar & Nakagawa, TPAMI 1994)."""
    kernel = np.array([[-1, 2, -1]], np.float32)
    return np.abs(cv2.filter2D(y, -1, kernel)) + np.abs(cv2.filter2D(y, -1, kernel.T))


def decision(difference: Plane, brightness: Plane | None = None) -> Bool[np.ndarray, "h w"]:
    """Where a is selected: the sign of the windowed sum of the focus measures' difference, without small regions.

    brightness: that of a less that of b, where regions that are noise are known by it.
    """
    score = cv2.GaussianBlur(difference, (0, 0), FINE)
    height, width = difference.shape
    small = cv2.resize(difference, (-(-width // STRIDE), -(-height // STRIDE)), interpolation=cv2.INTER_AREA)
    coarse = np.zeros_like(small)
    for sigma, weight in COARSE:
        coarse += np.float32(weight) * cv2.GaussianBlur(small, (0, 0), sigma / STRIDE)
    score += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    if brightness is None:
        return remove_islands(score >= 0, ISLAND)
    return remove_flat_islands(score >= 0, difference, brightness)


def blend_weight(chosen: Bool[np.ndarray, "h w"], at: Region) -> Float32[np.ndarray, "h_at w_at"]:
    """The blending weight of a in a window of the image."""
    outer, inner = padded_window(at, chosen.shape, SEAM, 1)
    return np.clip(cv2.GaussianBlur(chosen[outer].astype(np.float32), (0, 0), SOFTNESS)[inner], 0, 1)


def remove_islands(chosen: Bool[np.ndarray, "h w"], share: float) -> Bool[np.ndarray, "h w"]:
    """The map with connected regions smaller than ``share`` of the image inverted: first those of a, then of b."""
    return _invert(chosen, lambda labels, _: np.bincount(labels.ravel()) < share * labels.size)


def remove_flat_islands(
    chosen: Bool[np.ndarray, "h w"], difference: Plane, brightness: Plane
) -> Bool[np.ndarray, "h w"]:
    """``remove_islands`` below ``ISLAND``, and up to ``FLAT_ISLAND`` where brightness is at stake, not sharpness.

    That is where the mean of ``brightness`` (of a less that of b) over the region exceeds in magnitude the mean of the
    focus measure that the region gains: noise chose it, and its rim would be seen.
    """

    def islands(labels: Int32[np.ndarray, "h w"], of_a: bool) -> Bool[np.ndarray, " n"]:
        area = np.bincount(labels.ravel())
        small, large = area < ISLAND * labels.size, area <= FLAT_ISLAND * labels.size
        large[0] = False
        if (large & ~small).any():
            at = large.take(labels)
            inside = labels[at]
            gained = np.bincount(inside, difference[at], len(area)) * (1 if of_a else -1)
            large &= np.abs(np.bincount(inside, brightness[at], len(area))) > gained
        return small | large

    return _invert(chosen, islands)


def _invert(chosen: Bool[np.ndarray, "h w"], islands: Islands) -> Bool[np.ndarray, "h w"]:
    out = chosen.copy()
    for side in (True, False):
        # Not connectedComponentsWithStats: its statistics double the time.
        _, labels = cv2.connectedComponents((out == side).astype(np.uint8), connectivity=4)
        island = islands(labels, side)
        island[0] = False
        if island.any():
            out ^= island.take(labels)
    return out

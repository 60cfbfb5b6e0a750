"""Two focus distances: selection of the sharper image by a focus measure and a consistent decision map.

Inside of a region the output equals one source exactly, since the sharp source is the ground truth there.
"""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from clearfuse.synth import color
from clearfuse.synth.fusers.pyramid.region import Region, Windows, padded_window

Plane = Float32[np.ndarray, "h w"]

WINDOWS = ((1.2, 1.0), (6.0, 0.5))
"""Sigma in pixels and weight of the windows: the small one localises edges, the large one decides flat regions."""

ISLAND = 0.001
"""Share of the image below which a region of the decision map is assigned to its surroundings."""

SOFTNESS = 1.2
"""Sigma of the blending at seams, in pixels."""

SEAM = 8
"""Margin in pixels of the decision map that blending needs: 4 σ, rounded up, is 5."""


def fuse_focus(a: Float32[np.ndarray, "h w c"], b: Float32[np.ndarray, "h w d"]) -> Windows:
    """The fused image, in code values, window by window: ``decision`` selects a or b; seams are blended."""
    chosen = decision(modified_laplacian(color.luma(a)) - modified_laplacian(color.luma(b)))
    return partial(_select_window, a, b, chosen)


def _select_window(
    a: Float32[np.ndarray, "h w c"], b: Float32[np.ndarray, "h w d"], chosen: Bool[np.ndarray, "h w"], at: Region
) -> Float32[np.ndarray, "h_at w_at e"]:
    channels = max(a.shape[2], b.shape[2])
    # A plane for each channel: numpy's product over a last axis of three takes twice as long.
    share = color.as_hwc(cv2.merge([blend_weight(chosen, at)] * channels))
    a, b = a[at], b[at]
    a, b = (np.repeat(x, channels, axis=2) if x.shape[2] < channels else x for x in (a, b))
    # Not b + share (a − b), which for a share of 1 is not exactly a.
    return a * share + b * (1 - share)


def modified_laplacian(y: Plane) -> Plane:
    """|2y − y(x−1) − y(x+1)| + |2y − y(·, y−1) − y(·, y+1)| (Nayar & Nakagawa, TPAMI 1994)."""
    kernel = np.array([[-1, 2, -1]], np.float32)
    return np.abs(cv2.filter2D(y, -1, kernel)) + np.abs(cv2.filter2D(y, -1, kernel.T))


def decision(difference: Plane) -> Bool[np.ndarray, "h w"]:
    """Where a is selected: the sign of the windowed sum of the focus measures' difference, without small regions."""
    score = np.zeros_like(difference)
    for sigma, weight in WINDOWS:
        score += np.float32(weight) * cv2.GaussianBlur(difference, (0, 0), sigma)
    return remove_islands(score >= 0, ISLAND)


def blend_weight(chosen: Bool[np.ndarray, "h w"], at: Region) -> Float32[np.ndarray, "h_at w_at"]:
    """The blending weight of a in a window of the image."""
    outer, inner = padded_window(at, chosen.shape, SEAM, 1)
    return np.clip(cv2.GaussianBlur(chosen[outer].astype(np.float32), (0, 0), SOFTNESS)[inner], 0, 1)


def remove_islands(chosen: Bool[np.ndarray, "h w"], share: float) -> Bool[np.ndarray, "h w"]:
    """The map with connected regions smaller than ``share`` of the image inverted: first those of a, then of b."""
    out = chosen.copy()
    for side in (True, False):
        # Not connectedComponentsWithStats: its statistics double the time.
        _, labels = cv2.connectedComponents((out == side).astype(np.uint8), connectivity=4)
        island = np.bincount(labels.ravel()) < share * out.size
        island[0] = False
        if island.any():
            out ^= island.take(labels)
    return out

"""Two focus distances: the sharper image's own pixels, by a focus measure and a consistent decision map.

Selection, not blending: inside a region the output is one source bit for bit, because the sharp source is the truth.
"""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from clearfuse.synth import color
from clearfuse.synth.fusers.pyramid.region import Region, Windows, around

Plane = Float32[np.ndarray, "h w"]

WINDOWS = ((1.2, 1.0), (6.0, 0.5))
"""Sigma in pixels and weight of the windows: the small one places the boundary, the wide one decides flat regions."""

ISLAND = 0.001
"""Share of the picture: a smaller region of the decision map takes its surroundings' side."""

SOFTNESS = 1.2
"""Sigma in pixels of the seam."""

SEAM = 8
"""No pixel of the cleaned map farther off decides a share: 4 σ and the rounding of it are 5."""


def fuse_focus(a: Float32[np.ndarray, "h w c"], b: Float32[np.ndarray, "h w d"]) -> Windows:
    """Code values of the fused image: a and b selected by ``decision``, blended over a pixel or two at the seam."""
    chosen = decision(modified_laplacian(color.luma(a)) - modified_laplacian(color.luma(b)))
    return partial(_selected, a, b, chosen)


def _selected(
    a: Float32[np.ndarray, "h w c"], b: Float32[np.ndarray, "h w d"], chosen: Bool[np.ndarray, "h w"], at: Region
) -> Float32[np.ndarray, "h_at w_at e"]:
    channels = max(a.shape[2], b.shape[2])
    # A plane for each channel: numpy's product over a last axis of three takes twice as long.
    share = color.as_hwc(cv2.merge([softened(chosen, at)] * channels))
    a, b = a[at], b[at]
    a, b = (np.repeat(x, channels, axis=2) if x.shape[2] < channels else x for x in (a, b))
    # Not b + share (a − b): a share of 1 must give a exactly.
    return a * share + b * (1 - share)


def modified_laplacian(y: Plane) -> Plane:
    """|2y − y(x−1) − y(x+1)| + |2y − y(·, y−1) − y(·, y+1)| (Nayar & Nakagawa, TPAMI 1994)."""
    kernel = np.array([[-1, 2, -1]], np.float32)
    return np.abs(cv2.filter2D(y, -1, kernel)) + np.abs(cv2.filter2D(y, -1, kernel.T))


def decision(sharper: Plane) -> Bool[np.ndarray, "h w"]:
    """Where a is taken, from the difference of the focus measures: the sign of its windowed sum, cleaned."""
    score = np.zeros_like(sharper)
    for sigma, weight in WINDOWS:
        score += np.float32(weight) * cv2.GaussianBlur(sharper, (0, 0), sigma)
    return without_islands(score >= 0, ISLAND)


def softened(chosen: Bool[np.ndarray, "h w"], at: Region) -> Float32[np.ndarray, "h_at w_at"]:
    """Share of a in a window of the picture."""
    outer, inner = around(at, chosen.shape, SEAM, 1)
    return np.clip(cv2.GaussianBlur(chosen[outer].astype(np.float32), (0, 0), SOFTNESS)[inner], 0, 1)


def without_islands(chosen: Bool[np.ndarray, "h w"], share: float) -> Bool[np.ndarray, "h w"]:
    """The map with every connected region under ``share`` of the picture turned over: first a's islands, then b's."""
    out = chosen.copy()
    for side in (True, False):
        # Counted apart: cv2's own statistics take as long as its labels.
        _, labels = cv2.connectedComponents((out == side).astype(np.uint8), connectivity=4)
        island = np.bincount(labels.ravel()) < share * out.size
        island[0] = False
        if island.any():
            out ^= island.take(labels)
    return out

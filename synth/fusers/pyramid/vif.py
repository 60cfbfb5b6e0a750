"""Visible and infrared, on luma: the stronger source's fine details over the visible image with warm targets added.

Averaging the bases of both images washes out the visible one, and coarse bands of one source over the base of the
other cause halos. So only the two finest bands are selected; the base is the visible image in which warm pixels are
raised to the infrared's brightness.
"""

from __future__ import annotations

from functools import partial, reduce

import cv2
import numpy as np
from jaxtyping import Float32

from clearfuse.synth import color
from clearfuse.synth.fusers.pyramid.region import Region, Windows, padded_window

Plane = Float32[np.ndarray, "h w"]


LEVELS = 2
"""Number of finest bands that are selected."""

ACTIVITY = 2.0
"""Sigma in pixels of the window in which a band's energy is measured, for spatially consistent choices."""

INFRARED_BIAS = 0.65
"""Factor on the infrared's energy, below 1 since the visible image is the sharper one where both show an edge."""

WARM = (60.0, 98.0)
"""Percentiles of the infrared that count as background and as target."""

WARM_SPAN = 0.25
"""Least difference of the two in code values, so that a flat infrared image has no target."""


REACH = 48
"""Margin in pixels that a fused window needs: 4 σ + 5 pixels of the second level are 26, the rest is 13."""


def fuse_infrared(visible: Float32[np.ndarray, "h w c"], infrared: Float32[np.ndarray, "h w d"]) -> Windows:
    """The fused image, in code values, window by window; the chroma is the visible image's."""
    y, t = color.luma(visible), color.luma(infrared)
    return partial(_fuse_window, visible, y, t, warm_span(t), infrared.shape[2])


def _fuse_window(
    visible: Float32[np.ndarray, "h w c"],
    y: Plane,
    t: Plane,
    span: tuple[np.float32, np.float32],
    channels: int,
    at: Region,
) -> Float32[np.ndarray, "h_at w_at e"]:
    outer, inner = padded_window(at, y.shape, REACH, 2**LEVELS)
    fused = fuse_luma(y[outer], t[outer], span)[inner]
    if visible.shape[2] == 1:
        return np.repeat(fused[..., None], channels, axis=2)
    return with_luma(visible[at], y[at], fused)


def fuse_luma(y: Plane, t: Plane, span: tuple[np.float32, np.float32]) -> Plane:
    """The fused luma: the selected bands over the low-pass of ``add_warm_targets``."""
    base, details = add_warm_targets(y, t, span), []
    for _ in range(LEVELS):
        base, low_y, low_t = cv2.pyrDown(base), cv2.pyrDown(y), cv2.pyrDown(t)
        details.append(select_by_energy(y - _up(low_y, y), t - _up(low_t, t)))
        y, t = low_y, low_t
    for detail in reversed(details):
        base = _up(base, detail) + detail
    return np.clip(base, 0, 1)


def warm_span(t: Plane) -> tuple[np.float32, np.float32]:
    """The percentiles ``WARM`` of an infrared image, of every fourth row and column."""
    low, high = np.percentile(t[::4, ::4], WARM)
    return np.float32(low), np.float32(high)


def add_warm_targets(y: Plane, t: Plane, span: tuple[np.float32, np.float32]) -> Plane:
    """Visible luma raised to the infrared where that is brighter and warm: y + g max(t − y, 0).

    g = clip((t − p₆₀)/max(p₉₈ − p₆₀, ``WARM_SPAN``), 0, 1), with the percentiles of ``span``.
    """
    low, high = span
    warm = np.clip((t - low) / max(high - low, np.float32(WARM_SPAN)), 0, 1)
    return y + warm * np.maximum(t - y, 0)


def select_by_energy(band_y: Plane, band_t: Plane) -> Plane:
    """Per pixel, the band with more energy in the neighbourhood (Burt & Kolczynski, ICCV 1993)."""
    energy_y, energy_t = (cv2.GaussianBlur(band * band, (0, 0), ACTIVITY) for band in (band_y, band_t))
    return np.where(energy_y >= energy_t * np.float32(INFRARED_BIAS), band_y, band_t)


def _up(low: np.ndarray, like: np.ndarray) -> np.ndarray:
    return cv2.pyrUp(low, dstsize=(like.shape[1], like.shape[0]))


def with_luma(image: Float32[np.ndarray, "h w 3"], old: Plane, new: Plane) -> Float32[np.ndarray, "h w 3"]:
    """Replace the luma and keep the chroma (R−Y, G−Y, B−Y), scaled down where it leaves the gamut.

    s = min over channels of (1 − Y')/c for c > 0 and Y'/−c for c < 0, at most 1: the hue is kept, and no channel clips.
    """
    # Per plane: over a last axis of three, numpy's reduction takes fifty times as long, its product five times.
    chroma = [plane - old for plane in cv2.split(image)]
    peak, pit = reduce(np.maximum, chroma), -reduce(np.minimum, chroma)
    tiny = np.float32(1e-6)
    scale = np.minimum(np.minimum((1 - new) / np.maximum(peak, tiny), new / np.maximum(pit, tiny)), 1)
    return cv2.merge([new + plane * scale for plane in chroma])

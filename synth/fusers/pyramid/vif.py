"""Visible and infrared, on luma: the stronger source's fine details over the visible image with warm targets added.

Averaging the bases of both images washes out the visible one, and coarse bands of one source over the base of the
other cause halos. So only the two finest bands are selected; the base is the visible image in which warm pixels are
raised to the infrared's brightness. Of the infrared comes what stands above its noise, nothing comes into a saturated
sky, and its light has no colour.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial, reduce

import cv2
import numpy as np
from jaxtyping import Float32

from clearfuse.synth import color
from clearfuse.synth.fusers.pyramid.region import Region, Windows, padded_window

Plane = Float32[np.ndarray, "h w"]


LEVELS = 2
"""Number of finest bands that are selected."""

ACTIVITY = 0.7
"""Sigma of the window in which a band's energy is measured, in pixels of half the resolution, on top of the filter that
halves it: 2 pixels of the band with its upsampling, for spatially consistent choices."""

INFRARED_BIAS = 0.65
"""Factor on the infrared's energy, below 1 since the visible image is the sharper one where both show an edge."""

NOISE = 9.0
"""Energy in σ² of a band's noise below which the infrared shows nothing: three standard deviations."""

STRIPES = 0.5
"""Weight of the vertical band's σ beside the diagonal's: rows with offsets of their own leave no diagonal detail, and
horizontal edges of the scene raise it."""

SATURATED = (0.9, 0.97)
"""Brightness of the visible, in code values, between which the infrared's detail fades out: a white sky stays white."""

BRIGHT = 0.6
"""Brightness above which the visible keeps edges that have the opposite sign in the infrared: what stands before the
sky is darker than it in the visible and warmer in the infrared, and bands of both in turn look embossed."""

WARM = (60.0, 98.0)
"""Percentiles of the infrared that count as background and as target."""

WARM_SPAN = 0.25
"""Least difference of the two in code values, so that a flat infrared image has no target."""


REACH = 48
"""Margin in pixels that a fused window needs: a choice in the second band reaches 28, its upsampling and base 13."""


@dataclass(frozen=True)
class InfraredRange:
    """Figures of a whole infrared image. span: the percentiles ``WARM``; noise: σ in each of the ``LEVELS``."""

    span: tuple[np.float32, np.float32]
    noise: tuple[np.float32, ...]


def fuse_infrared(visible: Float32[np.ndarray, "h w c"], infrared: Float32[np.ndarray, "h w d"]) -> Windows:
    """The fused image, in code values, window by window; the hue is the visible image's."""
    y, t = color.luma(visible), color.luma(infrared)
    return partial(_fuse_window, visible, y, t, infrared_range(t), infrared.shape[2])


def _fuse_window(
    visible: Float32[np.ndarray, "h w c"],
    y: Plane,
    t: Plane,
    known: InfraredRange,
    channels: int,
    at: Region,
) -> Float32[np.ndarray, "h_at w_at e"]:
    outer, inner = padded_window(at, y.shape, REACH, 2**LEVELS)
    fused = fuse_luma(y[outer], t[outer], known)[inner]
    if visible.shape[2] == 1:
        return np.repeat(fused[..., None], channels, axis=2)
    return with_luma(visible[at], y[at], fused)


def fuse_luma(y: Plane, t: Plane, known: InfraredRange) -> Plane:
    """The fused luma: the selected bands over the low-pass of ``add_warm_targets``."""
    base, details = add_warm_targets(y, t, known.span), []
    for noise in known.noise:
        base, low_y, low_t = cv2.pyrDown(base), cv2.pyrDown(y), cv2.pyrDown(t)
        details.append(select_by_energy(y - _up(low_y, y), t - _up(low_t, t), low_y, noise))
        y, t = low_y, low_t
    for detail in reversed(details):
        base = _up(base, detail) + detail
    return np.clip(base, 0, 1)


def infrared_range(t: Plane) -> InfraredRange:
    """What is to be known of the whole infrared image: ``WARM`` of every fourth row and column, noise of each level."""
    low, high = np.percentile(t[::4, ::4], WARM)
    noise: list[np.float32] = []
    for level in range(LEVELS):
        t = cv2.pyrDown(t) if level else t
        noise.append(noise_of(t))
    return InfraredRange((np.float32(low), np.float32(high)), tuple(noise))


def noise_of(t: Plane) -> np.float32:
    """σ of an image's noise: median |d| / 0.6745 of its finest diagonal Haar band (Donoho, Johnstone, Biometrika 1994).

    Or ``STRIPES`` times that of the vertical band, where this is more. Of every fourth pair of rows: a hundredth of σ
    from that of all at 640×480. 0 below two rows or columns.
    """
    height, width = (side // 2 * 2 for side in t.shape)
    if not (height and width):
        return np.float32(0)
    step = t[0:height:8, :width] - t[1:height:8, :width]
    left, right = step[:, ::2], step[:, 1::2]
    diagonal, vertical = (float(np.median(np.abs(band))) / (2 * 0.6745) for band in (left - right, left + right))
    return np.float32(max(diagonal, STRIPES * vertical))


def add_warm_targets(y: Plane, t: Plane, span: tuple[np.float32, np.float32]) -> Plane:
    """Visible luma raised to the infrared where that is brighter and warm: y + g max(t − y, 0).

    g = clip((t − p₆₀)/max(p₉₈ − p₆₀, ``WARM_SPAN``), 0, 1), with the percentiles of ``span``.
    """
    low, high = span
    warm = np.clip((t - low) / max(high - low, np.float32(WARM_SPAN)), 0, 1)
    return y + warm * np.maximum(t - y, 0)


def select_by_energy(band_y: Plane, band_t: Plane, low_y: Float32[np.ndarray, "_ _"], noise: np.float32) -> Plane:
    """Of each neighbourhood the band with more energy (Burt & Kolczynski, ICCV 1993), chosen at half the resolution.

    Of the infrared's energy E, what is above ``NOISE`` σ² counts, E', and its band is scaled by √(E'/E): as spectral
    subtraction does (Boll, IEEE TASSP 1979). The visible's noise is not subtracted: weaker edges of the infrared would
    replace it. E' fades out between the brightnesses ``SATURATED``; above ``BRIGHT``, edges of opposite sign are the
    visible's. low_y: the visible's next coarser level, its brightness.
    """
    energy_y, energy_t, both = (
        cv2.GaussianBlur(cv2.pyrDown(product), (0, 0), ACTIVITY)
        for product in (band_y * band_y, band_t * band_t, band_y * band_t)
    )
    start, end = SATURATED
    clear = np.clip((np.float32(end) - low_y) * np.float32(1 / (end - start)), 0, 1)
    above = np.maximum(energy_t - np.float32(NOISE) * noise * noise, 0) * clear * clear
    infrared = (above * np.float32(INFRARED_BIAS) > energy_y) & ((both >= 0) | (low_y <= np.float32(BRIGHT)))
    share = infrared.astype(np.float32)
    scaled = share * np.sqrt(above / np.maximum(energy_t, np.float32(1e-12)))
    out = _up(scaled, band_t)
    out *= band_t
    kept = _up(share, band_y)
    np.subtract(1, kept, out=kept)
    kept *= band_y
    out += kept
    return out


def _up(low: np.ndarray, like: np.ndarray) -> np.ndarray:
    return cv2.pyrUp(low, dstsize=(like.shape[1], like.shape[0]))


def with_luma(image: Float32[np.ndarray, "h w 3"], old: Plane, new: Plane) -> Float32[np.ndarray, "h w 3"]:
    """Replace the luma; the chroma (R−Y, G−Y, B−Y) keeps its hue and is that of the old light with neutral light added.

    Neutral light leaves the differences of the linear channels, so those of code values shrink by the ratio of sRGB's
    slopes, here (Y/Y')^(5/4): within a quarter of it from code value 0.1 on. A darker pixel keeps its chroma. At most
    s = min over channels of (1 − Y')/c for c > 0 and Y'/−c for c < 0 besides, so that no channel clips.
    """
    # Per plane: over a last axis of three, numpy's reduction takes fifty times as long, its product five times. In
    # place, since memory that is new for each result takes as long as the arithmetic.
    chroma = [np.subtract(plane, old, out=plane) for plane in cv2.split(image)]
    scale = np.minimum(old, new)
    scale /= np.maximum(new, _TINY)
    root = np.sqrt(scale)
    scale *= np.sqrt(root, out=root)
    limit = reduce(np.maximum, chroma)
    np.minimum(scale, np.divide(1 - new, np.maximum(limit, _TINY, out=limit), out=limit), out=scale)
    limit = reduce(np.minimum, chroma)
    np.minimum(scale, np.divide(-new, np.minimum(limit, -_TINY, out=limit), out=limit), out=scale)
    for plane in chroma:
        plane *= scale
        plane += new
    return cv2.merge(chroma)


_TINY = np.float32(1e-6)

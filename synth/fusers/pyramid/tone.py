"""The gain and offset between two frames of one scene, as exposure and white balance leave them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from clearfuse.synth import color

Image = Float32[np.ndarray, "h w c"]
Plane = Float32[np.ndarray, "h w"]

CELL = 16
"""Side in pixels of the cells whose means are compared, well above the width of a defocused point."""

LEAST = 2 / 255
"""Root mean square in code values that the two frames must differ by, in one channel, to be matched: less is not seen,
and frames that need no matching are kept to the bit."""

CLIPPED = 2 / 255
"""Cells with a mean this close to black or white say nothing about gain."""

ROUNDS = 4
"""Iterations of the reweighting; weights settle after three."""

TUKEY = 4.685
"""The biweight's limit in standard deviations, at which it is 95 % efficient for normal errors."""


@dataclass(frozen=True)
class Tone:
    """y = gain x + offset in code values, a number a channel or one for all."""

    gain: Float64[np.ndarray, " c"]
    offset: Float64[np.ndarray, " c"]

    def apply(self, image: Image) -> Image:
        """The image with the tone of the other frame, clipped to [0, 1]."""
        channels = image.shape[2]
        matrix = np.zeros((channels, channels + 1))
        np.fill_diagonal(matrix, self.gain)
        matrix[:, channels] = self.offset
        out = color.as_hwc(cv2.transform(image, matrix))
        return np.clip(out, 0, 1, out=out)

    def luma(self, image: Image) -> Plane:
        """The luma of the image with the tone of the other frame, clipped to [0, 1] as a whole."""
        weights = np.array(color.LUMA if image.shape[2] == 3 else (1.0,))
        row = np.append(weights * self.gain, (weights * self.offset).sum())
        return np.clip(cv2.transform(image, row[None]), 0, 1)

    def inverse(self) -> Tone:
        """x from y."""
        return Tone(1 / self.gain, -self.offset / self.gain)


def tone_between(x: Image, y: Float32[np.ndarray, "h w d"], luma_x: Plane, luma_y: Plane) -> Tone | None:
    """The tone that takes x to y, by channel (of the luma where one is grey); None where they differ by too little.

    From the means of cells, each weighted by the inverse of its variance in both frames, since an edge that defocus or
    breathing moves across a cell's border shifts its mean. The line is the reduced major axis, g = σ_y/σ_x, which
    favours neither frame (Ricker, J. Fish. Res. Board Can. 30, 1973), reweighted by Tukey's biweight, so that cells
    whose content differs do not count.
    """
    variance = (_variance(luma_x) + _variance(luma_y)) / CELL + (1 / 255) ** 2
    if x.shape[2] != y.shape[2]:
        x, y = luma_x[..., None], luma_y[..., None]
    means_x, means_y = _means(x), _means(y)
    tone = _major_axes(means_x, means_y, variance)
    misfit = means_x * (tone.gain - 1)[:, None] + tone.offset[:, None]
    return tone if np.sqrt(np.mean(misfit**2, axis=1)).max() >= LEAST else None


def _means(image: Image) -> Float64[np.ndarray, "c n"]:
    """The mean of every channel in each cell."""
    return np.ascontiguousarray(_by_cell(image).reshape(-1, image.shape[2]).T, np.float64)


def _variance(luma: Plane) -> Float64[np.ndarray, " n"]:
    """The variance in each cell."""
    mean, square = _by_cell(luma), _by_cell(luma * luma)
    return np.maximum(square - mean * mean, 0).ravel().astype(np.float64)


def _by_cell(image: np.ndarray) -> np.ndarray:
    size = (max(image.shape[1] // CELL, 1), max(image.shape[0] // CELL, 1))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _major_axes(
    x: Float64[np.ndarray, "c n"], y: Float64[np.ndarray, "c n"], variance: Float64[np.ndarray, " n"]
) -> Tone:
    """The robust reduced major axis of each channel; gain 1 and offset 0 where every cell is clipped."""
    clear = (np.minimum(x, y) > CLIPPED) & (np.maximum(x, y) < 1 - CLIPPED)
    gain, offset = np.ones(len(x)), np.zeros(len(x))
    for c in np.flatnonzero(clear.any(axis=1)):
        u, v, trust = x[c, clear[c]], y[c, clear[c]], 1 / variance[clear[c]]
        weight = trust
        for _ in range(ROUNDS):
            share = weight / weight.sum()
            at_u, at_v = (share * u).sum(), (share * v).sum()
            # A variance far below a code's in both: two flat frames have gain 1.
            spread_u, spread_v = (share * (u - at_u) ** 2).sum() + 1e-8, (share * (v - at_v) ** 2).sum() + 1e-8
            gain[c] = np.sqrt(spread_v / spread_u)
            offset[c] = at_v - gain[c] * at_u
            square = (v - gain[c] * u - offset[c]) ** 2 * trust
            # σ = median |r| / 0.6745, kept above zero for frames that match exactly.
            limit = (TUKEY / 0.6745) ** 2 * max(float(np.median(square)), 1e-6)
            weight = np.maximum(1 - square / limit, 0) ** 2 * trust
    return Tone(gain, offset)

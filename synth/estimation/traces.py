"""Statistics of traces that a device or a codec leaves: JPEG's grid, resampling, columns, defective pixels."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from clearfuse.synth.estimation.tone import ends

_TABLE = np.array(
    [[16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55], [14, 13, 16, 24, 40, 57, 69, 56],
     [14, 17, 22, 29, 51, 87, 80, 62], [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
     [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99]], np.float64,
)  # fmt: skip
"""Luminance table of ITU-R T.81, annex K, which libjpeg scales by its quality."""

QUALITIES = (5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 22, 25, 30, 40, 50, 60, 70, 80, 90)
_LOW = tuple((i, j) for i in range(4) for j in range(4) if 0 < i + j < 4)
"""Frequencies at which multiples of the table's steps are looked for."""


ROWS = 160
"""Rows, about, of which a column's median is taken."""


def jpeg_table(quality: int) -> np.ndarray:
    """The luminance steps of a quality from 1 to 100, by libjpeg's rule."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip((_TABLE * scale + 50) // 100, 1, 255)


def _dct_matrix() -> np.ndarray:
    k, n = np.meshgrid(np.arange(8), np.arange(8), indexing="ij")
    basis = np.cos((2 * n + 1) * k * np.pi / 16) * np.sqrt(2 / 8)
    basis[0] /= np.sqrt(2)
    return basis.astype(np.float32)


_DCT = _dct_matrix()


def jpeg_statistics(codes: Float32[np.ndarray, "h w"]) -> list[float]:
    """How well the DCT of the 8 × 8 grid fits the steps of each quality, empty frequencies, and steps at the grid.

    codes: luma, 0 to 255, whose grid starts at the corner. The fit is the mean of cos(2π c/q) over coefficients c of
    more than half a step q: 1 where all are multiples, about 0 where none is (after Fan and de Queiroz, IEEE TIP 2003).
    """
    h, w = (side // 8 * 8 for side in codes.shape)
    blocks = (codes[:h, :w] - 128).reshape(h // 8, 8, w // 8, 8).transpose(0, 2, 1, 3).reshape(-1, 8, 8)
    coefficients = _DCT @ blocks @ _DCT.T
    low = np.stack([coefficients[:, i, j] for i, j in _LOW])
    fits: list[float] = []
    for quality in QUALITIES:
        steps = np.array([jpeg_table(quality)[i, j] for i, j in _LOW], np.float32)[:, None]
        beyond = np.abs(low) > steps * 0.5
        count = int(beyond.sum())
        fits.append(float(np.cos(2 * np.pi * (low / steps)[beyond]).mean()) if count >= 20 else 0.0)
    best = int(np.argmax(fits[:20]))
    empty = [float((np.abs(coefficients[:, band]) < 1.0).mean()) for band in _bands()]
    grid = [_at_grid(np.abs(np.diff(codes, axis=axis)), axis) for axis in (0, 1)]
    return [*fits, fits[best], QUALITIES[best] / 20 * max(fits[best], 0.0), *empty, *grid]


def _bands() -> list[np.ndarray]:
    """Four bands of the 8 × 8 frequencies without the mean, as masks."""
    i, j = np.indices((8, 8))
    return [(i + j >= low) & (i + j < high) for low, high in ((1, 3), (3, 6), (6, 9), (9, 15))]


def _at_grid(steps: np.ndarray, axis: int) -> float:
    """Log of the mean step over the grid's lines by that between them."""
    profile = steps.mean(1 - axis)
    at = np.arange(len(profile)) % 8 == 7
    return float(np.log((profile[at].mean() + 0.02) / (profile[~at].mean() + 0.02)))


def resampling_statistics(grey: Float32[np.ndarray, "h w"]) -> list[float]:
    """Periods of the interpolation error: the spectrum of mean |second difference| over its median, 8 bands an axis.

    Resampling by a factor makes it periodic (Mahdian and Saic, IEEE TIFS 2008).
    """
    out: list[float] = []
    for plane in (grey, grey.T):
        profile = np.abs(plane[:, :-2] - 2 * plane[:, 1:-1] + plane[:, 2:]).mean(0)
        profile = np.log(profile + 1e-4)
        n = len(profile) // 8 * 8
        smooth = profile[:n] - cv2.blur(profile[None, :n], (9, 1))[0]
        power = np.abs(np.fft.rfft(smooth * np.hanning(n)))[1:]
        frequency = np.arange(1, len(power) + 1) / n
        usual = np.median(power) + 1e-9
        for low in np.arange(0.2, 0.5, 0.0375):
            band = power[(frequency >= low) & (frequency < low + 0.0375)]
            out.append(float(np.log(band.max() / usual + 1e-6)) if band.size else 0.0)
    return out


def column_statistics(grey: Float32[np.ndarray, "h w"]) -> list[float]:
    """What whole columns and rows have in common beside their neighbours, at two widths, over the noise left."""
    out: list[float] = []
    for plane in (grey, np.ascontiguousarray(grey.T)):
        step = max(1, len(plane) // ROWS)
        for width in (5, 25):
            rest = (plane - cv2.blur(plane, (width, 1)))[::step]
            half = len(rest) // 2
            upper, lower = np.median(rest[:half], axis=0), np.median(rest[half:], axis=0)
            common = (upper + lower) / 2
            apart = np.median(np.abs(rest - common))
            quantiles = np.quantile(common, (0.01, 0.1, 0.9, 0.99))
            # How far both halves of the columns agree: a pattern of the read-out runs through, a scene does not.
            agreement = float((upper * lower).mean() / (upper.std() * lower.std() + 1e-6))
            spread = float(common.std())
            out += [np.log(spread + 1e-4), np.log((spread + 1e-4) / (apart + 1e-3)), agreement]
            out += [float(np.log(abs(q) + 1e-4)) for q in quantiles]
    return [float(x) for x in out]


def defect_statistics(image: UInt8[np.ndarray, "h w c"], grey: Float32[np.ndarray, "h w"]) -> list[float]:
    """Log shares of pixels that differ from the median of their neighbours, by how much and to which side."""
    codes = np.ascontiguousarray((grey * 255 + 0.5).astype(np.uint8))
    apart = codes.astype(np.int16) - cv2.medianBlur(codes, 5)
    busy = cv2.dilate(codes, np.ones((5, 5), np.uint8)).astype(np.int16) - cv2.erode(codes, np.ones((5, 5), np.uint8))
    out: list[float] = []
    for limit in (12, 24, 48, 96, 160):
        out += [float((side * apart > limit).mean()) for side in (1, -1)]
    least, most = ends(image)
    clipped = np.minimum(least, 255 - most) == 0
    out.append(float((clipped & (np.abs(apart) > 32)).mean()))
    out.append(float(((np.abs(apart) > 32) & (np.abs(apart) > 0.9 * busy)).mean()))
    return np.log(np.array(out) + 1e-5).tolist()

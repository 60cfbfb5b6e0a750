"""Registration check of two images of a scene, by phase correlation of their gradients."""

from __future__ import annotations

import numpy as np

SIDE = 256
"""Longest side, in pixels, at which images are compared."""

PEAK = 9.0
"""Height that a peak must reach, in standard deviations of the correlation; registered VIF pairs have 6 to 25."""

PROMINENCE = 1.5
"""Least ratio of a displaced peak to the maximum around zero."""

ZERO_CELLS = 3
"""Largest shift, in cells in each direction, that counts as registered: 1.2 % of the longest side."""


def displacement(a: np.ndarray, b: np.ndarray) -> tuple[int, int] | None:
    """Displacement (x, y) of b relative to a, in pixels; None where they are registered or it cannot be determined.

    a, b: uint8 (h, w, c) of equal size. Phase correlation (Kuglin and Hines, 1975) of the logarithm of the gradients'
    magnitude, whose edges agree across modalities, exposures and focus distances, smoothed by a Gaussian. A peak must
    be clearly above the noise and above the values around zero.
    """
    edges_a, edges_b = _edges(a), _edges(b)
    height, width = edges_a.shape
    window = np.outer(np.hanning(height), np.hanning(width))
    spectra = [np.fft.rfft2((edges - edges.mean()) * window) for edges in (edges_a, edges_b)]
    cross = spectra[1] * np.conj(spectra[0])
    y, x = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    smooth = np.exp(-(x**2 + y**2) / (2 * 0.12**2))
    surface = np.fft.irfft2(cross / (np.abs(cross) + 1e-6) * smooth, s=(height, width))
    deviation = float(surface.std())
    if deviation == 0:
        return None
    surface = surface / deviation
    top, left = np.unravel_index(int(surface.argmax()), surface.shape)
    down = int(top) - height if top > height / 2 else int(top)
    right = int(left) - width if left > width / 2 else int(left)
    near = np.arange(-ZERO_CELLS, ZERO_CELLS + 1)
    around = float(surface[np.ix_(near % height, near % width)].max())
    peak = float(surface.max())
    if max(abs(down), abs(right)) <= ZERO_CELLS or peak < PEAK or peak < PROMINENCE * around:
        return None
    scale = max(a.shape[:2]) / max(height, width)
    return round(right * scale), round(down * scale)


def _edges(image: np.ndarray) -> np.ndarray:
    """log(1 + |gradient| / (its median + 1)) of the mean channel, at most ``SIDE`` pixels a side."""
    import cv2

    grey = image.mean(axis=2, dtype=np.float32)
    height, width = grey.shape
    scale = min(1.0, SIDE / max(height, width))
    size = (max(8, round(width * scale)), max(8, round(height * scale)))
    grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    strength = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    return np.log1p(strength / (np.median(strength) + 1))

"""Fusion metrics with a model of human vision: the eye's contrast sensitivity, applied as a filter in the spectrum.

The filtering is circular: images are extended periodically.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Complex, Float, Float32, Float64

from clearfuse.train.metrics.planes import Planes, spectra
from clearfuse.train.metrics.statistics import total

BLOCK = 16
"""Pixels along a side of Qcv's blocks."""
QCV_DEGREES, QCB_DEGREES = 4.0, 15.0
"""The visual angle of the image's width, and of its height, for each metric."""
MASK = 1e-4
"""Z of Qcb's masking."""
VISIBLE = 1e-20
"""Pixels where the sum of both sources' squared masked contrasts is below this (a contrast of 2e-5) are left out."""

Plane = Float32[np.ndarray, "h w"]


def qcv(planes: Planes) -> float:
    """Qcv, the perceived difference to both sources: Σ λ D / Σ λ over 16×16 blocks and sources.

    λ = Σ over the block of g⁵, g the source's Sobel magnitude, zeros beyond the border; D = the block's mean of the
    squared difference F − S filtered by the contrast sensitivity 2.6 (0.0192 + 0.114 r) exp(−(0.114 r)^1.1) (Mannos,
    Sakrison, IEEE Trans. Information Theory 20(4), 1974), r in cycles per degree of an image 4° wide and 4° high.
    Blocks cut by the border count with the pixels they have. Squared code values; range [0, ∞); 0 where F equals both;
    **lower is better**. NaN where both sources are black. Any size. Source: Chen, Varshney, Information Fusion 8(2),
    2007. Toolboxes have 0.144 for 0.114, and stretch each image separately to 0..255 and round it.
    """
    shape = planes.fused.shape
    r = 0.114 * frequencies(shape, QCV_DEGREES)
    gain = (2.6 * (0.0192 + r) * np.exp(-(r**1.1))).astype(np.float32)
    fused, *source_spectra = planes.once(spectra)
    pixels = _blocks(np.ones(shape, np.float32))
    numerator = denominator = 0.0
    for source, spectrum in zip(planes.sources, source_spectra, strict=True):
        weight = _blocks(_salience(source))
        difference = filtered(fused - spectrum, gain, shape)
        numerator += total(weight * _blocks(np.square(difference, out=difference)) / pixels)
        denominator += total(weight)
    return numerator / denominator if denominator else math.nan


def qcb(planes: Planes) -> float:
    """Qcb, the preserved local contrast of the sources: mean of λA QA + λB QB.

    Images are filtered by the contrast sensitivity exp(−(r / 15.387)²) − 0.7622 exp(−(r / 1.3456)²), r in cycles per
    degree of an image 15° wide and 15° high; contrast C = |G₂ ∗ I / G₄ ∗ I − 1|, Gaussians of σ 2 and 4 (31×31, the
    border mirrored), masked: C′ = C³ / (C² + 10⁻⁴). QS = min(C′S, C′F) / max(C′S, C′F), λS = C′S² / (C′A² + C′B²);
    pixels where neither source has contrast are left out. No unit; range [0, 1]; 1 where F equals both; higher is
    better. NaN where both sources are constant. Any size. Source: Chen, Blum, Image and Vision Computing 27(10), 2009.
    Toolboxes stretch each image separately to 0..255, round it, and have black beyond the border.
    """
    shape = planes.fused.shape
    r = frequencies(shape, QCB_DEGREES)
    gain = (np.exp(-np.square(r / 15.3870)) - 0.7622 * np.exp(-np.square(r / 1.3456))).astype(np.float32)
    fused, *sources = (_contrast(filtered(spectrum, gain, shape)) for spectrum in planes.once(spectra))
    weights = [source * source for source in sources]
    total_weight = weights[0] + weights[1]
    visible = total_weight > VISIBLE
    if not visible.any():
        return math.nan
    kept = np.zeros(shape, np.float32)
    for weight, source in zip(weights, sources, strict=True):
        larger = np.maximum(source, fused)
        weight *= np.minimum(source, fused)
        kept += np.divide(weight, larger, out=weight, where=larger > 0)
    return total(np.divide(kept, total_weight, out=np.zeros_like(kept), where=visible)) / int(visible.sum())


def frequencies(shape: tuple[int, ...], degrees: float) -> Float64[np.ndarray, "h w2"]:
    """|f| in cycles per degree, on the half spectrum of a real image."""
    height, width = shape
    fy, fx = np.fft.fftfreq(height) * height / degrees, np.fft.rfftfreq(width) * width / degrees
    return np.hypot(fy[:, None], fx[None, :])


def filtered(spectrum: Complex[np.ndarray, "h w2"], gain: Float[np.ndarray, "h w2"], shape: tuple[int, ...]) -> Plane:
    """Filter a spectrum and transform it back to an image."""
    return np.fft.irfft2(spectrum * gain, shape)


def _salience(source: Plane) -> Plane:
    """The fifth power of the Sobel magnitude, zeros beyond the border."""
    sx, sy = (cv2.Sobel(source, cv2.CV_32F, *axis, borderType=cv2.BORDER_CONSTANT) for axis in ((1, 0), (0, 1)))
    sx *= sx
    sy *= sy
    sx += sy
    np.sqrt(sx, out=sy)
    sy *= sx
    sy *= sx
    return sy


def _blocks(image: Plane) -> Float64[np.ndarray, "rows columns"]:
    """Sums over blocks of BLOCK × BLOCK pixels, smaller at the lower and right border."""
    height, width = image.shape
    rows = np.add.reduceat(image, np.arange(0, height, BLOCK), axis=0, dtype=np.float64)
    return np.add.reduceat(rows, np.arange(0, width, BLOCK), axis=1)


def _contrast(image: Plane) -> Plane:
    """Masked contrast C³ / (C² + Z) of the local contrast C; 0 where the wider mean is 0."""
    near, far = (cv2.GaussianBlur(image, (31, 31), sigma, borderType=cv2.BORDER_REFLECT_101) for sigma in (2.0, 4.0))
    contrast = np.divide(near, far, out=near, where=far != 0)
    contrast[far == 0] = 1
    contrast -= 1
    np.abs(contrast, out=contrast)
    square = np.square(contrast, out=far)
    square /= square + np.float32(MASK)
    contrast *= square
    return contrast

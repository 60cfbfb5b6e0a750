"""Full-reference metrics: how close the fused image is to the ground truth. RGB, 0..255."""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64

from clearfuse.train.metrics.base import PEAK, gaussian_valid, strips

WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Exponents of MS-SSIM's scales, finest first."""
MS_SMALLEST = 161
"""The minimum side that leaves a window at the fifth scale: 161 -> 81 -> 41 -> 21 -> 11."""


def psnr(image: Float32[np.ndarray, "h w c"], reference: Float32[np.ndarray, "h w c"]) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(255² / MSE).

    MSE = mean (F − G)² over all pixels and channels together. Range [0, ∞]; infinite for equal images; higher is
    better.
    """
    mse = cv2.norm(image, reference, cv2.NORM_L2SQR) / image.size
    return math.inf if mse == 0 else 10 * math.log10(PEAK**2 / mse)


def ssim(image: Float32[np.ndarray, "h w c"], reference: Float32[np.ndarray, "h w c"]) -> float:
    """Structural similarity, mean over windows and channels.

    (2 μx μy + C1)(2 σxy + C2) / ((μx² + μy² + C1)(σx² + σy² + C2)), C1 = (0.01·255)², C2 = (0.03·255)², local moments
    under an 11×11 Gaussian of σ 1.5 (weighted by it, no n − 1), only windows inside the image, at full resolution (the
    2004 code downsamples large images first; this does not). Range [−1, 1]; 1 for equal images; higher is better.
    Source: Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13(4), 2004, equation 13.
    """
    return float(np.mean([value for value, _ in _similarity(image, reference)]))


def ms_ssim(image: Float32[np.ndarray, "h w c"], reference: Float32[np.ndarray, "h w c"]) -> float:
    """Multi-scale structural similarity: the product of SSIM's contrast and structure term at four scales and of the
    full SSIM at the fifth.

    Per channel Π max(CSₖ, 0)^wₖ over the four finer scales, times max(SSIM, 0)^w₅ at the coarsest: CS = the mean of
    (2 σxy + C2) / (σx² + σy² + C2), the rest as in ``ssim``; w = 0.0448, 0.2856, 0.3001, 0.2363, 0.1333; each scale
    averages 2×2 pixels of the previous one, an odd last row or column counting twice; mean over the channels. Range
    [0, 1]: a negative mean counts as 0; 1 for equal images; higher is better. At least 161×161, which leaves a window
    at the fifth scale; smaller images are refused rather than scored at fewer scales. Source: Wang, Simoncelli, Bovik,
    Asilomar Conference on Signals, Systems and Computers, 2003.
    """
    score = np.ones(image.shape[2])
    for scale, power in enumerate(SCALES):
        if scale:
            image, reference = mean_of_four(image), mean_of_four(reference)
        means = np.array(_similarity(image, reference))[:, 1 if scale + 1 < len(SCALES) else 0]
        score *= np.maximum(means, 0) ** power
    return float(score.mean())


def mean_of_four(image: Float[np.ndarray, "h w *c"]) -> Float[np.ndarray, "h2 w2 *c"]:
    """Downsample by averaging 2×2 pixels; an odd last row or column is repeated."""
    odd = ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0))[: image.ndim]
    padded = np.pad(image, odd, "edge") if image.shape[0] % 2 or image.shape[1] % 2 else image
    return (padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]) / 4


def _similarity(x: Float[np.ndarray, "h w c"], y: Float[np.ndarray, "h w c"]) -> list[tuple[float, float]]:
    """For each channel, the means of SSIM and of its contrast and structure term."""
    height, width, channels = x.shape
    windows = (height - WINDOW + 1) * (width - WINDOW + 1)
    means: list[tuple[float, float]] = []
    for c in range(channels):
        sums = np.zeros(2)
        for rows in strips(height, WINDOW):
            sums += _ssim_sums(x[rows, :, c].astype(np.float64), y[rows, :, c].astype(np.float64))
        means.append((float(sums[0]) / windows, float(sums[1]) / windows))
    return means


def _ssim_sums(x: Float64[np.ndarray, "h w"], y: Float64[np.ndarray, "h w"]) -> tuple[float, float]:
    """Σ l · cs and Σ cs, l = (n₁ + C1) / (d₁ + C1), cs = (n₂ + C2) / (d₂ + C2); in place, for speed.

    n₁ = 2 μx μy, n₂ = 2 σxy, d₁ = μx² + μy², d₂ = σx² + σy².
    """
    mx, my = gaussian_valid(x, WINDOW, SIGMA), gaussian_valid(y, WINDOW, SIGMA)
    n1 = mx * my
    n2 = gaussian_valid(x * y, WINDOW, SIGMA) - n1
    n1 *= 2
    n2 *= 2
    d1 = np.square(mx)
    d1 += np.square(my)
    np.square(x, out=x)
    x += np.square(y)
    d2 = gaussian_valid(x, WINDOW, SIGMA) - d1
    for term, constant in ((n1, C1), (n2, C2), (d1, C1), (d2, C2)):
        term += constant
    n2 /= d2
    n1 /= d1
    n1 *= n2
    return float(np.sum(n1)), float(np.sum(n2))

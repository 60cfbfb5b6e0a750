"""Full-reference metrics: how near the fused image is to the ground truth. RGB, 0..255."""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from train.metrics.base import PEAK, gaussian_valid, strips

WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * PEAK) ** 2, (0.03 * PEAK) ** 2


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
    under an 11×11 Gaussian of σ 1.5 (weighted by it, no n − 1), windows inside the image alone, at full resolution
    (the 2004 code halves large images first; this does not). Range [−1, 1]; 1 for equal images; higher is better.
    Source: Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13(4), 2004, equation 13.
    """
    height, width, channels = image.shape
    total = 0.0
    for rows in strips(height, WINDOW):
        for c in range(channels):
            total += _ssim_sum(image[rows, :, c].astype(np.float64), reference[rows, :, c].astype(np.float64))
    return total / ((height - WINDOW + 1) * (width - WINDOW + 1) * channels)


def _ssim_sum(x: Float64[np.ndarray, "h w"], y: Float64[np.ndarray, "h w"]) -> float:
    """Σ (n₁ + C1)(n₂ + C2) / ((d₁ + C1)(d₂ + C2)), n₁ = 2 μx μy, n₂ = 2 σxy; in place, for speed."""
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
    n1 *= n2
    d1 *= d2
    n1 /= d1
    return float(np.sum(n1))

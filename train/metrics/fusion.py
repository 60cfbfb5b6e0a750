"""Fusion metrics: how much of the two sources the fused image keeps. BT.601 luma, 0..255."""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64

from train.metrics.base import gaussian_valid, strips

VIF_WINDOWS = (17, 9, 5, 3)
VIF_NOISE = 2.0
VIF_SMALLEST = 41
"""The least side that leaves a window at the fourth scale: 41 -> 17 -> 7 -> 3."""


MEF_SCALES = (0.0448, 0.2856, 0.3001)
"""Exponents of the three scales, finest first; their sum is made 1."""
MEF_WINDOW = 11
MEF_SMALLEST = 4 * MEF_WINDOW


def vif(fused: Float32[np.ndarray, "h w"], a: Float32[np.ndarray, "h w"], b: Float32[np.ndarray, "h w"]) -> float:
    """Visual information fidelity, pixel domain, the SUM of the fidelities of both sources: VIFp(A, F) + VIFp(B, F).

    VIFp(S, F) = Σ log2(1 + g² σS² / (σv² + σn²)) / Σ log2(1 + σS² / σn²) over windows and four scales, with
    g = σSF / σS² (0 where negative), σv² = σF² − g σSF, σn² = 2, Gaussian windows of N = 17, 9, 5, 3 and σ = N/5,
    each scale the last one low-passed with its own window and taken every second pixel, windows inside the image
    alone. Range [0, ∞): 2 where F equals both sources, above it where contrast is enhanced; higher is better. Not a
    number where a source is constant: it holds nothing to keep. Halve it for the mean that some papers print.
    Source: Sheikh, Bovik, IEEE TIP 15(2), 2006 (LIVE's vifp_mscale); summed as fusion papers do.
    """
    if a.min() == a.max() or b.min() == b.max():
        return math.nan
    images: list[np.ndarray] = [fused, a, b]
    kept, held = np.zeros(2), np.zeros(2)
    for scale, size in enumerate(VIF_WINDOWS):
        if scale:
            images = [_halve(image, size) for image in images]
        for rows in strips(images[0].shape[0], size):
            strip_f, *sources = (image[rows].astype(np.float64) for image in images)
            for total, here in zip((kept, held), _information(strip_f, sources, size), strict=True):
                total += here
    return float(np.sum(kept / held))


def _halve(image: Float[np.ndarray, "h w"], size: int) -> Float64[np.ndarray, "h2 w2"]:
    """The next scale: low-passed with the window, every second pixel. STRIP is even, so strips keep the phase."""
    parts = [
        gaussian_valid(image[rows].astype(np.float64), size, size / 5)[::2, ::2]
        for rows in strips(image.shape[0], size)
    ]
    return np.concatenate(parts)


def _information(
    fused: Float64[np.ndarray, "h w"], sources: list[np.ndarray], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """What F keeps of each source's information, and what each source holds (nats), in a strip of one scale.

    With p = g σSF, the variance of F that S explains, the kept part is log(1 + p / (σF² − p + σn²)).
    """
    mean_f, variance_f = _moments(fused, size)
    kept, held = [], []
    for source in sources:
        mean_s, variance_s = _moments(source, size)
        mean_s *= mean_f
        explained = gaussian_valid(fused * source, size, size / 5) - mean_s
        np.maximum(explained, 0, out=explained)
        np.square(explained, out=explained)
        explained /= variance_s + 1e-10
        noise = variance_f - explained
        np.maximum(noise, 0, out=noise)
        noise += VIF_NOISE
        explained /= noise
        variance_s /= VIF_NOISE
        kept.append(_log_sum(explained))
        held.append(_log_sum(variance_s))
    return np.array(kept), np.array(held)


def _moments(image: Float64[np.ndarray, "h w"], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance under the window; fresh arrays."""
    mean = gaussian_valid(image, size, size / 5)
    variance = gaussian_valid(image * image, size, size / 5) - np.square(mean)
    return mean, np.maximum(variance, 0, out=variance)


def _log_sum(x: np.ndarray) -> float:
    """Σ log(1 + x); x is used up."""
    x += 1
    return float(np.sum(cv2.log(x, dst=x)))


def mef_ssim(fused: Float32[np.ndarray, "h w"], a: Float32[np.ndarray, "h w"], b: Float32[np.ndarray, "h w"]) -> float:
    """MEF-SSIM: how much the fused image has of the contrast and structure that two exposures offer, at three scales.

    In each 11×11 window the wanted patch is x̂ = max_k c_k · s̄/‖s̄‖, s̄ = Σ w_k s_k / Σ w_k, of the sources' contrasts
    c_k = ‖x_k − μ_k‖ + 0.001 and structures s_k = (x_k − μ_k)/c_k; w_k = (c_k/11)^p, p = tan(π R/2) ≤ 10, and
    R = ‖Σ x_k − μ_k‖ / Σ ‖x_k − μ_k‖ how alike they are. Then (2 σ_x̂f + C)/(σ_x̂² + σ_f² + C), C = (0.03 · 255)²,
    under a Gaussian of σ 1.5, averaged over windows inside the image; scales halve by means of 2×2, and multiply to the
    powers 0.0448, 0.2856, 0.3001 over their sum. Range [0, 1], 1 where F is what is wanted; higher is better. Source:
    Ma, Zeng, Wang, IEEE TIP 24(11), 2015, with the authors' constants.
    """
    images = [image.astype(np.float64) for image in (fused, a, b)]
    score, whole = 1.0, sum(MEF_SCALES)
    for scale, power in enumerate(MEF_SCALES):
        if scale:
            images = [_mean_of_four(image) for image in images]
        score *= max(_mef_quality(images[0], images[1:]), 0.0) ** (power / whole)
    return score


def _mean_of_four(image: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "h2 w2"]:
    """Means of 2×2 pixels; an odd last row or column stands twice."""
    padded = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2)), "edge")
    return (padded[::2, ::2] + padded[1::2, ::2] + padded[::2, 1::2] + padded[1::2, 1::2]) / 4


def _mef_quality(fused: Float64[np.ndarray, "h w"], sources: list[np.ndarray]) -> float:
    """The mean over the windows of one scale."""
    margin, pixels = MEF_WINDOW // 2, MEF_WINDOW**2

    def inside(values: np.ndarray) -> np.ndarray:
        return values[margin:-margin, margin:-margin]

    def even(values: np.ndarray) -> np.ndarray:
        return inside(cv2.boxFilter(values, -1, (MEF_WINDOW, MEF_WINDOW)))

    def bell(values: np.ndarray) -> np.ndarray:
        return inside(cv2.GaussianBlur(values, (MEF_WINDOW, MEF_WINDOW), 1.5))

    x, y = sources
    means = [even(source) for source in sources]
    products = [even(p) - m * n for p, m, n in ((x * x, *means[:1] * 2), (y * y, *means[1:] * 2), (x * y, *means))]
    power_x, power_y, shared = (pixels * product for product in products)
    contrast = [np.sqrt(np.maximum(power, 0)) for power in (power_x, power_y)]
    alike = np.sqrt(np.maximum(power_x + power_y + 2 * shared, 0)) / np.maximum(contrast[0] + contrast[1], 1e-12)
    exponent = np.minimum(np.tan(np.pi / 2 * np.clip(alike, 0, 1 - 1e-12)), 10)
    contrast = [each + 1e-3 for each in contrast]
    weights = [(each / MEF_WINDOW) ** exponent + 1e-16 for each in contrast]
    total = weights[0] + weights[1]
    u, v = (weight / total / each for weight, each in zip(weights, contrast, strict=True))
    norm = np.sqrt(np.maximum(u * u * power_x + v * v * power_y + 2 * u * v * shared, 0))
    gain = np.maximum(*contrast) / np.maximum(norm, 1e-12)
    u, v = u * gain, v * gain
    bx, by, bf = bell(x), bell(y), bell(fused)
    wanted = u * u * (bell(x * x) - bx * bx) + v * v * (bell(y * y) - by * by) + 2 * u * v * (bell(x * y) - bx * by)
    has = bell(fused * fused) - bf * bf
    both = u * (bell(x * fused) - bx * bf) + v * (bell(y * fused) - by * bf)
    steady = (0.03 * 255) ** 2
    return float(np.mean((2 * both + steady) / (wanted + has + steady)))

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

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

STRENGTH = (0.9994, -15.0, 0.5)
ORIENTATION = (0.9879, -22.0, 0.8)
"""Γ, κ and σ of Qabf's two sigmoids."""


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


def qabf(fused: Float32[np.ndarray, "h w"], a: Float32[np.ndarray, "h w"], b: Float32[np.ndarray, "h w"]) -> float:
    """Edge preservation: (Σ QAF gA + Σ QBF gB) / (Σ gA + Σ gB), g the Sobel strength of a source.

    QSF = Γg / (1 + exp(κg (G − σg))) · Γα / (1 + exp(κα (A − σα))); G = min(gS, gF) / max(gS, gF);
    A = 1 − |αS − αF| / (π/2), α = atan(sy / sx) in (−π/2, π/2], differences not wrapped; Γg 0.9994, κg −15, σg 0.5,
    Γα 0.9879, κα −22, σα 0.8; weights gS to the power 1; zeros beyond the border, as the toolboxes' conv2 'same'.
    Range [0, 0.975): not 1 for F = A = B, because of the sigmoids; higher is better. Where gS = gF, G is 1 (toolboxes
    put gF there, which differs on images in 0..1 alone). Not a number where both sources are constant at zero.
    Source: Xydeas, Petrović, Electronics Letters 36(4), 2000.
    """
    strength_f, angle_f = _edges(fused)
    kept = held = 0.0
    for source in (a, b):
        strength, angle = _edges(source)
        ratio = np.minimum(strength, strength_f)
        ratio /= np.maximum(np.maximum(strength, strength_f), np.float32(1e-12))
        aligned = cv2.absdiff(angle, angle_f)
        aligned *= np.float32(-2 / math.pi)
        aligned += 1
        preserved = _sigmoid(ratio, *STRENGTH)
        preserved *= _sigmoid(aligned, *ORIENTATION)
        preserved *= strength
        kept += float(np.sum(preserved, dtype=np.float64))
        held += float(np.sum(strength, dtype=np.float64))
    return kept / held if held else math.nan


def _edges(image: Float32[np.ndarray, "h w"]) -> tuple[np.ndarray, np.ndarray]:
    """Sobel strength and orientation in (−π/2, π/2], y upwards."""
    sx = cv2.Sobel(image, cv2.CV_32F, 1, 0, borderType=cv2.BORDER_CONSTANT)
    sy = cv2.Sobel(image, cv2.CV_32F, 0, 1, scale=-1, borderType=cv2.BORDER_CONSTANT)
    slope = np.divide(sy, sx, out=np.full_like(sx, np.inf), where=sx != 0)
    # Not cv2.magnitude, nor cv2.sumElems above: their last bits depend on where the array lies in memory.
    return np.sqrt(sx * sx + sy * sy), np.arctan(slope)


def _sigmoid(x: Float32[np.ndarray, "h w"], gain: float, slope: float, centre: float) -> Float32[np.ndarray, "h w"]:
    """Γ / (1 + exp(κ (x − σ))); x is used up."""
    x -= np.float32(centre)
    x *= np.float32(slope)
    cv2.exp(x, dst=x)
    x += 1
    return np.divide(np.float32(gain), x, out=x)

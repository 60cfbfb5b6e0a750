"""Fusion metrics: how much of the two sources the fused image preserves. BT.601 luma, 0..255."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64

from clearfuse.train.metrics.base import gaussian_valid, strips
from clearfuse.train.metrics.fidelity import mean_of_four, ssim
from clearfuse.train.metrics.planes import Planes

VIF_WINDOWS = (17, 9, 5, 3)
VIF_NOISE = 2.0
VIF_SMALLEST = 41
"""The minimum side that leaves a window at the fourth scale: 41 -> 17 -> 7 -> 3."""
VIFF_NOISE = 0.005 * 255**2
VIFF_WEIGHTS = np.array([1, 0, 0.15, 1])

MEF_SCALES = (0.0448, 0.2856, 0.3001)
"""Exponents of the three scales, finest first, before they are normalised to sum to 1."""
MEF_WINDOW = 11
MEF_SMALLEST = 4 * MEF_WINDOW
MEF_FLAT = 1e-7
"""A window whose squared deviations sum to less is flat: a step of 1/1024 gives ten times as much, rounding a tenth."""
MEF_OPPOSITE = 1e-4
"""The least ‖s̄‖: below, the sources' structures cancel each other, and what is left is rounding."""


@dataclass
class Fidelity:
    """Sums over windows, in nats. vif_kept, vif_total: VIF's numerator and denominator by source, over all scales;
    viff: VIFF's numerator and denominator by scale.
    """

    vif_kept: Float64[np.ndarray, "2"] = field(default_factory=lambda: np.zeros(2))
    vif_total: Float64[np.ndarray, "2"] = field(default_factory=lambda: np.zeros(2))
    viff: Float64[np.ndarray, "4 2"] = field(default_factory=lambda: np.zeros((4, 2)))


def vif(planes: Planes) -> float:
    """Visual information fidelity in the pixel domain, the SUM over both sources: VIFp(A, F) + VIFp(B, F).

    VIFp(S, F) = Σ log2(1 + g² σS² / (σv² + σn²)) / Σ log2(1 + σS² / σn²) over windows and four scales, with
    g = σSF / σS² (0 where negative), σv² = σF² − g σSF, σn² = 2, Gaussian windows of N = 17, 9, 5, 3 and σ = N/5, each
    scale the previous one low-passed with its window and subsampled by 2, only windows inside the image. Range [0, ∞):
    2 where F equals both sources, above 2 where contrast is enhanced; higher is better. NaN where a source is constant:
    it has no information to preserve. Halve it for the mean that some papers print. At least 41×41. Source: Sheikh,
    Bovik, IEEE TIP 15(2), 2006 (LIVE's vifp_mscale); summed as fusion papers do.
    """
    if any(source.min() == source.max() for source in planes.sources):
        return math.nan
    sums = planes.once(fidelity)
    return float(np.sum(sums.vif_kept / sums.vif_total))


def vif_authors(
    fused: Float32[np.ndarray, "h w _"], a: Float32[np.ndarray, "h w _"], b: Float32[np.ndarray, "h w _"]
) -> float:
    """VIF-authors, VIF with its roles exchanged, as the code of MMAIF's authors calls it: VIFp(F, A) + VIFp(F, B).

    The *fused* image is the reference and each source the distorted one, with VIFp as in ``vif``, on each channel of
    RGB alone, mean over the channels; a grey source counts in each. Range [0, ∞). It rewards low contrast and hardly
    punishes blur: F = (A + B) / 2 at half its contrast scores about 1.8 times as much as F itself. NaN where a channel
    of F is constant. For comparison with that paper's tables alone; at least 41×41. Source: 294coder/RWKVFusion at
    9aa135c, utils/fusion_index/metric_VIS_IR.py, which hands torchmetrics' (preds, target) = (source, fused).
    """
    channels = max(image.shape[2] for image in (fused, a, b))
    images = (np.broadcast_to(image, (*image.shape[:2], channels)) for image in (fused, a, b))
    values = [
        sum(_vifp(reference, distorted) for distorted in sources)
        for reference, *sources in zip(*(np.moveaxis(image, 2, 0) for image in images), strict=True)
    ]
    return float(np.mean(values))


def _vifp(reference: Float32[np.ndarray, "h w"], distorted: Float32[np.ndarray, "h w"]) -> float:
    """VIFp of a distorted image; NaN where the reference is constant."""
    if reference.min() == reference.max():
        return math.nan
    sums = _fidelity(np.ascontiguousarray(distorted), [np.ascontiguousarray(reference)])
    return float(sums.vif_kept[0] / sums.vif_total[0])


def viff(planes: Planes) -> float:
    """VIFF, visual information fidelity for fusion: Σ p_k F_k over VIFp's four scales, p = (1, 0, 0.15, 1) / 2.15.

    F_k = Σ log(1 + g² σS² / (σv² + σn²)) / Σ log(1 + σS² / σn²) over the windows of a scale, S in each window the
    source with the smaller g, the other quantities as in ``vif``, but σn² = 0.005 · 255². Range [0, ∞): 1 where F
    equals both sources, above 1 where contrast is enhanced; higher is better. NaN where the sources chosen at a scale
    have no information (a constant source has g = 0, so it is chosen). At least 41×41. Source: Han, Cai, Cao, Xu,
    Information Fusion 14(2), 2013, with the authors' weights; on luma, where theirs is on CIELAB's L.
    """
    kept, available = planes.once(fidelity).viff.T
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.where(VIFF_WEIGHTS > 0, VIFF_WEIGHTS * kept / available, 0)
        return float(np.sum(ratios)) / float(np.sum(VIFF_WEIGHTS))


def fidelity(planes: Planes) -> Fidelity:
    """The sums of VIF, and of VIFF where it is asked for: both use the same windows and moments."""
    return _fidelity(planes.fused, planes.sources, "VIFF" in planes.asked)


def _fidelity(fused: np.ndarray, sources: Sequence[np.ndarray], with_viff: bool = False) -> Fidelity:
    images, sums = [fused, *sources], Fidelity()
    for scale, size in enumerate(VIF_WINDOWS):
        if scale:
            images = [_halve(image, size) for image in images]
        for rows in strips(images[0].shape[0], size):
            strip_f, *others = (image[rows].astype(np.float64) for image in images)
            _add_strip(sums, scale if with_viff and VIFF_WEIGHTS[scale] else None, strip_f, others, size)
    return sums


def _halve(image: Float[np.ndarray, "h w"], size: int) -> Float64[np.ndarray, "h2 w2"]:
    """The next scale: low-passed with the window, every second pixel. STRIP is even, so strips keep the
    sampling phase.
    """
    parts = [
        gaussian_valid(image[rows].astype(np.float64), size, size / 5)[::2, ::2]
        for rows in strips(image.shape[0], size)
    ]
    return np.concatenate(parts)


def _add_strip(
    sums: Fidelity, scale: int | None, fused: Float64[np.ndarray, "h w"], sources: list[np.ndarray], size: int
) -> None:
    """Add the windows of a strip. scale: the index of VIFF's sums, None without VIFF. The logarithm's base cancels.

    With p = g σSF, the variance of F that S explains, the preserved information is log(1 + p / (σF² − p + σn²)).
    """
    mean_f, variance_f = _moments(fused, size)
    parts: list[tuple[np.ndarray, ...]] = []
    for k, source in enumerate(sources):
        mean_s, variance_s = _moments(source, size)
        mean_s *= mean_f
        shared = gaussian_valid(fused * source, size, size / 5) - mean_s
        np.maximum(shared, 0, out=shared)
        gain = shared / (variance_s + 1e-10)
        explained = np.multiply(shared, gain, out=shared)
        noise = variance_f - explained
        np.maximum(noise, 0, out=noise)
        sums.vif_kept[k] += _log_sum(explained / (noise + VIF_NOISE))
        sums.vif_total[k] += _log_sum(variance_s / VIF_NOISE)
        parts.append((gain, explained, noise, variance_s))
    if scale is not None:
        (gain_a, *terms_a), (gain_b, *terms_b) = parts
        choose_a = gain_a < gain_b
        explained, noise, variance = (np.where(choose_a, x, y) for x, y in zip(terms_a, terms_b, strict=True))
        sums.viff[scale] += _log_sum(explained / (noise + VIFF_NOISE)), _log_sum(variance / VIFF_NOISE)


def _moments(image: Float64[np.ndarray, "h w"], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance under the window, as new arrays."""
    mean = gaussian_valid(image, size, size / 5)
    variance = gaussian_valid(image * image, size, size / 5) - np.square(mean)
    return mean, np.maximum(variance, 0, out=variance)


def _log_sum(x: np.ndarray) -> float:
    """Σ log(1 + x); overwrites x."""
    x += 1
    return float(np.sum(cv2.log(x, dst=x)))


def ssim_sum(planes: Planes) -> float:
    """SSIM-sum: SSIM(A, F) + SSIM(B, F) on luma, with SSIM as in ``clearfuse.train.metrics.fidelity.ssim``.

    Range [−2, 2]; 2 where F equals both sources; higher is better. At least 11×11. Defined for constant images too.
    Source: Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13(4), 2004; summed as in VIFB and most fusion tables.
    """
    return planes.once(_similarities)


def ssim_mean(planes: Planes) -> float:
    """SSIM-mean: half of ``ssim_sum``, which other fusion tables print: range [−1, 1]; 1 where F equals
    both sources.
    """
    return planes.once(_similarities) / 2


def _similarities(planes: Planes) -> float:
    return sum(ssim(planes.fused[..., None], source[..., None]) for source in planes.sources)


def mef_ssim(fused: Float32[np.ndarray, "h w"], a: Float32[np.ndarray, "h w"], b: Float32[np.ndarray, "h w"]) -> float:
    """MEF-SSIM: how well the fused image preserves the contrast and structure of two exposures, at three scales.

    In each 11×11 window the desired patch is x̂ = max_k c_k · s̄/‖s̄‖, s̄ = Σ w_k s_k / Σ w_k, from the sources'
    contrasts c_k = ‖x_k − μ_k‖ + 0.001 and structures s_k = (x_k − μ_k)/c_k; w_k = (c_k/11)^p, p = tan(π R/2) ≤ 10, and
    R = ‖Σ x_k − μ_k‖ / Σ ‖x_k − μ_k‖ their consistency. Then (2 σ_x̂f + C)/(σ_x̂² + σ_f² + C), C = (0.03 · 255)², under
    a Gaussian of σ 1.5, averaged over windows inside the image; each scale averages 2×2 pixels of the previous one, and
    the scales' means are multiplied, to the powers 0.0448, 0.2856, 0.3001 over their sum. x̂ is flat where both sources
    are, or are each other's negative. Range [0, 1]; 1 where F is the desired image; higher is better. Source: Ma, Zeng,
    Wang, IEEE TIP 24(11), 2015, with the authors' constants.
    """
    images = [image.astype(np.float64) for image in (fused, a, b)]
    score, exponents = 1.0, sum(MEF_SCALES)
    for scale, power in enumerate(MEF_SCALES):
        if scale:
            images = [mean_of_four(image) for image in images]
        score *= max(_mef_quality(images[0], images[1:]), 0.0) ** (power / exponents)
    return score


def _mef_quality(fused: Float64[np.ndarray, "h w"], sources: list[np.ndarray]) -> float:
    """The mean over the windows of one scale."""
    windows = (fused.shape[0] - MEF_WINDOW + 1) * (fused.shape[1] - MEF_WINDOW + 1)
    parts = (_mef_sum(fused[rows], [s[rows] for s in sources]) for rows in strips(fused.shape[0], MEF_WINDOW))
    return sum(parts) / windows


def _mef_sum(fused: Float64[np.ndarray, "h w"], sources: list[np.ndarray]) -> float:
    """The sum over the windows of a strip."""
    margin, pixels = MEF_WINDOW // 2, MEF_WINDOW**2

    def inside(values: np.ndarray) -> np.ndarray:
        return values[margin:-margin, margin:-margin]

    def box(values: np.ndarray) -> np.ndarray:
        return inside(cv2.boxFilter(values, -1, (MEF_WINDOW, MEF_WINDOW)))

    def gaussian(values: np.ndarray) -> np.ndarray:
        return inside(cv2.GaussianBlur(values, (MEF_WINDOW, MEF_WINDOW), 1.5))

    x, y = sources
    means = [box(source) for source in sources]
    products = [box(p) - m * n for p, m, n in ((x * x, *means[:1] * 2), (y * y, *means[1:] * 2), (x * y, *means))]
    power_x, power_y, shared = (pixels * product for product in products)
    for power in (power_x, power_y):
        shared[power < MEF_FLAT] = 0
        power[power < MEF_FLAT] = 0
    contrast = [np.sqrt(power) for power in (power_x, power_y)]
    consistency = np.sqrt(np.maximum(power_x + power_y + 2 * shared, 0)) / np.maximum(contrast[0] + contrast[1], 1e-12)
    exponent = np.minimum(np.tan(np.pi / 2 * np.clip(consistency, 0, 1 - 1e-12)), 10)
    contrast = [c + 1e-3 for c in contrast]
    weights = [(c / MEF_WINDOW) ** exponent + 1e-16 for c in contrast]
    total = weights[0] + weights[1]
    u, v = (weight / total / c for weight, c in zip(weights, contrast, strict=True))
    norm = np.sqrt(np.maximum(u * u * power_x + v * v * power_y + 2 * u * v * shared, 0))
    gain = np.divide(np.maximum(*contrast), norm, out=np.zeros_like(norm), where=norm > MEF_OPPOSITE)
    u, v = u * gain, v * gain
    bx, by, bf = gaussian(x), gaussian(y), gaussian(fused)
    desired = (
        u * u * (gaussian(x * x) - bx * bx)
        + v * v * (gaussian(y * y) - by * by)
        + 2 * u * v * (gaussian(x * y) - bx * by)
    )
    variance_f = gaussian(fused * fused) - bf * bf
    covariance = u * (gaussian(x * fused) - bx * bf) + v * (gaussian(y * fused) - by * bf)
    constant = (0.03 * 255) ** 2
    return float(np.sum((2 * covariance + constant) / (desired + variance_f + constant)))

"""The metrics of the VIFB toolbox as its code computes them, errors included: the values in its published tables.

Each is a metric of (fused, a, b), float64 code values 0..255, averaged over the colour channels; a is the visible
image. Only ``spatial_frequency`` takes the channels side by side. Source: Zhang, Ye, Xiao, CVPR workshops 2020; the
definitions are those of its MATLAB functions. Differences from the literature that are reproduced:

- ``psnr`` and ``rmse`` divide the root of the sum of squared errors by the number of pixels: about 40 dB too high.
- ``mutual_information`` is in nats, on images that are stretched separately to 0..255.
- ``cross_entropy`` omits the grey levels that one of the histograms lacks, so that it can be negative.
- ``qabf`` uses the gradient itself for the ratio of two equal gradients; orientation differences are not wrapped.
- ``spatial_frequency`` includes the difference between one channel's last column and the next one's first.
- ``variance`` is the standard deviation; ``cross_entropy`` and ``psnr`` average over the sources, ``ssim`` and
  ``mutual_information`` sum over them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from jaxtyping import Float, Float64

from clearfuse.train.metrics.base import PEAK, Direction, Metric, gaussian_valid

Plane = Float64[np.ndarray, "h w"]
ChannelMetric = Callable[[Plane, Plane, Plane], float]

BLOCK = 16
"""Pixels along a side of Qcv's blocks."""


def by_channel(metric: ChannelMetric) -> Callable[[np.ndarray, np.ndarray, np.ndarray], float]:
    """The mean of a metric over the fused image's channels; a grey source is compared with each of them."""

    def mean(fused: Float[np.ndarray, "h w c"], a: Float[np.ndarray, "h w _"], b: Float[np.ndarray, "h w _"]) -> float:
        """Score (h, w, c) images on 0..255."""
        planes = [
            [image[..., min(k, image.shape[2] - 1)].astype(np.float64) for image in (fused, a, b)]
            for k in range(fused.shape[2])
        ]
        return float(np.mean([metric(*three) for three in planes]))

    mean.__doc__ = metric.__doc__
    return mean


def _histogram(image: Plane) -> Float64[np.ndarray, "256"]:
    """Relative frequencies of the grey levels."""
    return np.bincount(image.astype(np.int64).ravel(), minlength=256) / image.size


def _entropy_nats(p: Float64[np.ndarray, "..."]) -> float:
    """−Σ p ln p with 0 log 0 = 0."""
    p = p[p > 0]
    return float(-np.sum(p * np.log(p)))


def _stretch(image: Plane) -> Plane:
    """Stretch to 0..255, not rounded; a constant image becomes 0."""
    low, high = image.min(), image.max()
    return (image - low) / (high - low) * PEAK if high > low else np.zeros_like(image)


def stretch_and_round(image: Plane) -> Plane:
    """Stretch to 0..255 and round half up; NaN for a constant image that is not black."""
    if image.max() == image.min():
        return image if image.max() == 0 else np.full_like(image, math.nan)
    return np.floor(_stretch(image) + 0.5)


def cross_entropy(fused: Plane, a: Plane, b: Plane) -> float:
    """½ Σ over the sources of Σ p log2(p/q), p of the source, q of the fused image, where neither is 0. Lower is
    better.
    """
    q = _histogram(fused)
    total = 0.0
    for source in (a, b):
        p = _histogram(source)
        both = (p > 0) & (q > 0)
        total += float(np.sum(p[both] * np.log2(p[both] / q[both])))
    return total / 2


def entropy(fused: Plane, a: Plane, b: Plane) -> float:
    """−Σ q log2 q of the fused image's 256 grey levels."""
    return _entropy_nats(_histogram(fused)) / math.log(2)


def mutual_information(fused: Plane, a: Plane, b: Plane) -> float:
    """Σ over the sources of H(S) + H(F) − H(S, F), nats, 256 levels, each image stretched separately."""
    f = np.floor(_stretch(fused) + 0.5).astype(np.int64).ravel()
    total = 0.0
    for source in (a, b):
        s = np.floor(_stretch(source) + 0.5).astype(np.int64).ravel()
        joint = np.bincount(s * 256 + f, minlength=65536).reshape(256, 256) / f.size
        total += _entropy_nats(joint.sum(1)) + _entropy_nats(joint.sum(0)) - _entropy_nats(joint)
    return total


def rmse(fused: Plane, a: Plane, b: Plane) -> float:
    """½ Σ over the sources of √(Σ (S − F)²) / (h w): the root of the sum, not of the mean. Lower is better."""
    return sum(math.sqrt(float(np.sum(np.square(source - fused)))) / fused.size for source in (a, b)) / 2


def psnr(fused: Plane, a: Plane, b: Plane) -> float:
    """20 log10(255 / √e), with ``rmse`` for the mean squared error e."""
    error = rmse(fused, a, b)
    return math.inf if error == 0 else 20 * math.log10(PEAK / math.sqrt(error))


def average_gradient(fused: Plane, a: Plane, b: Plane) -> float:
    """Σ √((dx² + dy²)/2) / ((h − 1)(w − 1)), central differences, one-sided at the border."""
    dy, dx = np.gradient(fused)
    return float(np.sum(np.sqrt((dx * dx + dy * dy) / 2))) / ((fused.shape[0] - 1) * (fused.shape[1] - 1))


def edge_intensity(fused: Plane, a: Plane, b: Plane) -> float:
    """Mean of the Sobel magnitude, the border repeated."""
    dx, dy = (
        cv2.Sobel(fused, cv2.CV_64F, *axis, ksize=3, borderType=cv2.BORDER_REPLICATE) for axis in ((1, 0), (0, 1))
    )
    return float(np.mean(np.sqrt(dx * dx + dy * dy)))


def variance(fused: Plane, a: Plane, b: Plane) -> float:
    """The standard deviation, divided by the number of pixels, not by n − 1."""
    return float(fused.std())


def spatial_frequency(fused: Float[np.ndarray, "h w c"], a: np.ndarray, b: np.ndarray) -> float:
    """√(RF² + CF²) of the channels side by side as one image; sums of squared differences over the number of values."""
    row = np.concatenate([fused[..., k] for k in range(fused.shape[2])], axis=1).astype(np.float64)
    steps = float(np.sum(np.square(np.diff(row, axis=0)))) + float(np.sum(np.square(np.diff(row, axis=1))))
    return math.sqrt(steps / row.size)


def ssim(fused: Plane, a: Plane, b: Plane) -> float:
    """SSIM(A, F) + SSIM(B, F), Wang et al. 2004: 11×11 Gaussian of σ 1.5, windows inside the image, K 0.01, 0.03 of
    255.
    """
    return ssim_sum(fused, (a, b), lambda image: gaussian_valid(image, 11, 1.5), PEAK)


def ssim_sum(fused: Plane, sources: Sequence[Plane], window: Callable[[np.ndarray], np.ndarray], span: float) -> float:
    """Σ over the sources of their mean SSIM under ``window``, K 0.01 and 0.03 of ``span``."""
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    mean_f = window(fused)
    power_f = window(fused * fused) - mean_f * mean_f
    total = 0.0
    for source in sources:
        mean = window(source)
        power, shared = window(source * source) - mean * mean, window(source * fused) - mean * mean_f
        numerator = (2 * mean * mean_f + c1) * (2 * shared + c2)
        total += float(np.mean(numerator / ((mean * mean + mean_f * mean_f + c1) * (power + power_f + c2))))
    return total


def _edges(image: Plane) -> tuple[Plane, Plane]:
    """Magnitude and orientation in (−π/2, π/2] of the Sobel gradient, y upwards, zeros beyond the border."""
    dx, dy = (cv2.Sobel(image, cv2.CV_64F, *axis, ksize=3, borderType=cv2.BORDER_CONSTANT) for axis in ((1, 0), (0, 1)))
    with np.errstate(divide="ignore", invalid="ignore"):
        angle = np.where(dx == 0, np.pi / 2, np.arctan(-dy / dx))
    return np.sqrt(dx * dx + dy * dy), angle


def qabf(fused: Plane, a: Plane, b: Plane) -> float:
    """Xydeas and Petrović 2000 with Γg 0.9994, κg −15, σg 0.5, Γα 0.9879, κα −22, σα 0.8, weights g."""
    return edges_kept(fused, a, b, PEAK)  # the toolbox computes on 255 × 0..255


def edges_kept(fused: Plane, a: Plane, b: Plane, scale: float) -> float:
    """Qabf of the images times ``scale``, which matters where two gradients are equal: the toolboxes use the gradient
    itself for their ratio.
    """
    strength_f, angle_f = _edges(fused)
    numerator = denominator = 0.0
    for source in (a, b):
        strength, angle = _edges(source)
        low, high = np.minimum(strength, strength_f), np.maximum(strength, strength_f)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(strength == strength_f, strength_f * scale, low / high)
        agreement = 1 - np.abs(angle - angle_f) / (np.pi / 2)
        quality = 0.9994 / (1 + np.exp(-15 * (ratio - 0.5))) * 0.9879 / (1 + np.exp(-22 * (agreement - 0.8)))
        numerator, denominator = numerator + float(np.sum(quality * strength)), denominator + float(np.sum(strength))
    return numerator / denominator if denominator else math.nan


def _frequencies(height: int, width: int, unit_y: float, unit_x: float) -> Plane:
    """|f| in the order of ``fft2``: each axis from −1 to 1 (Nyquist), times its unit."""
    fy, fx = 2 * np.fft.fftfreq(height) * unit_y, 2 * np.fft.fftfreq(width) * unit_x
    return np.hypot(fy[:, None], fx[None, :])


def _filter(image: Plane, gain: Plane) -> Plane:
    return np.fft.ifft2(np.fft.fft2(image) * gain).real


def qcv(fused: Plane, a: Plane, b: Plane) -> float:
    """Chen and Varshney 2007: Σ λ D / Σ λ over 16×16 blocks and sources. Lower is better; unbounded.

    λ = Σ over the block of G⁵, G the Sobel magnitude, zeros beyond the border; D = the block's mean of the squared
    difference under the contrast sensitivity 2.6 (0.0192 + 0.144 r) exp(−(0.144 r)^1.1) (Mannos, Sakrison 1974), r in
    units of an eighth of each side; blocks that cross the border are padded with zeros. Images are stretched to 0..255
    and rounded.
    """
    f, *sources = (stretch_and_round(image) for image in (fused, a, b))
    height, width = f.shape
    r = 0.144 * _frequencies(height, width, height / 8, width / 8)
    gain = 2.6 * (0.0192 + r) * np.exp(-(r**1.1))
    numerator = denominator = 0.0
    for source in sources:
        strength, _ = _edges(source)
        weight = _blocks(strength**5)
        error = _blocks(np.square(_filter(source - f, gain))) / BLOCK**2
        numerator, denominator = numerator + float(np.sum(weight * error)), denominator + float(np.sum(weight))
    return numerator / denominator if denominator else math.nan


def _blocks(image: Plane) -> Float64[np.ndarray, "rows columns"]:
    """Sums over blocks of BLOCK × BLOCK pixels, zeros beyond the border."""
    height, width = image.shape
    padded = np.pad(image, ((0, -height % BLOCK), (0, -width % BLOCK)))
    return padded.reshape(padded.shape[0] // BLOCK, BLOCK, padded.shape[1] // BLOCK, BLOCK).sum((1, 3))


def qcb(fused: Plane, a: Plane, b: Plane) -> float:
    """Chen and Blum 2009: preserved masked local contrast of each source, weighted by that contrast squared.

    Images stretched to 0..255 and rounded are filtered by exp(−(r/15.387)²) − 0.7622 exp(−(r/1.3456)²), r in units of a
    thirtieth of each side; contrast C = |G₂ ∗ I / G₄ ∗ I − 1| (Gaussians of σ 2 and 4, 31×31, zeros beyond the border)
    is masked to C³/(C² + 10⁻⁴); Q = Σ λ min/max, λ a source's squared masked contrast over the sum of both. Range
    [0, 1].
    """
    height, width = fused.shape
    r = _frequencies(height, width, height / 30, width / 30)
    gain = np.exp(-np.square(r / 15.3870)) - 0.7622 * np.exp(-np.square(r / 1.3456))
    contrast_f, contrast_a, contrast_b = (
        _masked_contrast(_filter(stretch_and_round(image), gain)) for image in (fused, a, b)
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = [np.where(c < contrast_f, c / contrast_f, contrast_f / c) for c in (contrast_a, contrast_b)]
        total = contrast_a * contrast_a + contrast_b * contrast_b
        return float(np.mean(contrast_a * contrast_a / total * kept[0] + contrast_b * contrast_b / total * kept[1]))


def _masked_contrast(image: Plane) -> Plane:
    """Masked contrast C³/(C² + 10⁻⁴) of the local contrast C."""
    offsets = np.arange(-15, 16)
    near, far = (
        cv2.sepFilter2D(image, cv2.CV_64F, kernel, kernel, borderType=cv2.BORDER_CONSTANT)
        for kernel in (np.exp(-(offsets**2) / (2 * s * s)) / (math.sqrt(2 * math.pi) * s) for s in (2.0, 4.0))
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        contrast = np.abs(near / far - 1)
    return contrast**3 / (contrast**2 + 1e-4)


def _metric(
    name: str, function: ChannelMetric, direction: Direction, doc: str, smallest: int = 1, digits: int = 4
) -> Metric:
    return Metric(name, by_channel(function), direction, "fusion", f"{doc}, by channel", smallest, digits, "colour")


VIFB: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _metric("CE", cross_entropy, "lower", "cross entropy with the sources, bits, a mean of both"),
        _metric("EN", entropy, "higher", "entropy, bits"),
        _metric("MI", mutual_information, "higher", "mutual information, nats, of stretched images, a sum"),
        _metric("PSNR", psnr, "higher", "against the sources, 20 log10(255/√(√SSE/N)): not a PSNR", digits=3),
        _metric("AG", average_gradient, "higher", "average gradient", 2),
        _metric("EI", edge_intensity, "higher", "edge intensity", digits=3),
        _metric("Qabf", qabf, "higher", "edges kept of both sources", 3),
        _metric("SD", variance, "higher", "standard deviation", digits=3),
        Metric("SF", spatial_frequency, "higher", "fusion", "spatial frequency, channels side by side", 2, 3, "colour"),
        _metric("RMSE", rmse, "lower", "against the sources, √SSE/N: not an RMSE"),
        _metric("SSIM", ssim, "higher", "structure of both sources, a sum", 11),
        _metric("Qcb", qcb, "higher", "local contrast kept of both sources"),
        _metric("Qcv", qcv, "lower", "perceived difference to both sources", digits=2),
    )
}
"""The profile's metrics, in the order of the published tables."""

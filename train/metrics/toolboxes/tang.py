"""The metrics of Linfeng Tang's toolbox (Evaluation-for-Image-Fusion) as its code computes them, errors included.

Each is computed on grey images, colour converted to grey and rounded to 8 bit first, with code values 0..255. The
definitions are those of its MATLAB functions; its first source is the infrared image, here b. Differences from the
literature that are reproduced:

- ``CC`` subtracts the mean of the first source from both sources in the numerator, where it cancels.
- ``MI`` counts the joint histogram of images plus 1, which saturates in 8 bit: there the two brightest levels are one.
- ``MSE`` is on 0..1, and ``PSNR`` is 20 log10(255/√MSE) of it: 48.13 dB too high.
- ``Qabf`` uses the gradient itself for the ratio of two equal gradients; orientation differences are not wrapped.
- ``AG`` sums h w central differences over (h − 1)(w − 1); ``SF`` averages over the differences that exist.
- ``SSIM`` is MATLAB's on doubles, whose range is assumed to be 1: its constants are 65,025 times too small for 0..255.
- ``MS-SSIM`` is MEF-SSIM, ``FMI-pixel`` is FMI of binary edges; in the three FMI φ may exceed 1.

Its published sheet of TNO agrees with this code for EN, MI, MSE, PSNR, AG, SCD and CC; its SD is from saturated 8-bit
arithmetic, its SF on 0..1, and its VIF and Qabf are from code that is not in the toolbox.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import cv2
import numpy as np
from jaxtyping import Float, Float64

from clearfuse.train.metrics.base import Direction, Metric, luma, needs_nothing
from clearfuse.train.metrics.fusion import MEF_SMALLEST, VIF_SMALLEST, mef_ssim
from clearfuse.train.metrics.fusion import vif as fidelity_sum
from clearfuse.train.metrics.information import entropy_bits
from clearfuse.train.metrics.planes import LEVELS, Planes
from clearfuse.train.metrics.statistics import pearson
from clearfuse.train.metrics.toolboxes import vifb
from clearfuse.train.metrics.toolboxes.mefb import edges

Plane = Float64[np.ndarray, "h w"]
GreyMetric = Callable[[Plane, Plane, Plane], float]


def of_grey(metric: GreyMetric) -> Callable[[np.ndarray, np.ndarray, np.ndarray], float]:
    """A metric of grey images as one of (h, w, c) images, whose lumas are rounded to 8 bit."""

    def grey(fused: Float[np.ndarray, "h w _"], a: Float[np.ndarray, "h w _"], b: Float[np.ndarray, "h w _"]) -> float:
        """Score (h, w, c) images on 0..255."""
        return metric(*(np.floor(luma(np.asarray(i, np.float32)).astype(np.float64) + 0.5) for i in (fused, a, b)))

    grey.__doc__ = metric.__doc__
    return grey


def mutual_information(fused: Plane, a: Plane, b: Plane) -> float:
    """Σ over the sources of H(S) + H(F) − H(S, F), bits; the joint histogram merges levels 254 and 255."""
    total = 0.0
    f = fused.astype(np.int64)
    for source in (a, b):
        s = source.astype(np.int64)
        marginal = sum(entropy_bits(np.bincount(image.ravel(), minlength=LEVELS) / f.size) for image in (s, f))
        pairs = np.minimum(s, LEVELS - 2) * LEVELS + np.minimum(f, LEVELS - 2)
        total += marginal - entropy_bits(np.bincount(pairs.ravel()) / f.size)
    return total


def mse(fused: Plane, a: Plane, b: Plane) -> float:
    """The mean squared difference from the sources on 0..1, averaged over both."""
    return sum(float(np.mean(np.square((fused - source) / 255))) for source in (a, b)) / 2


def psnr(fused: Plane, a: Plane, b: Plane) -> float:
    """20 log10(255 / √MSE), MSE on 0..1."""
    error = mse(fused, a, b)
    return 20 * math.log10(255 / math.sqrt(error)) if error else math.inf


def spatial_frequency(fused: Plane, a: Plane, b: Plane) -> float:
    """√(mean squared vertical difference + mean squared horizontal difference)."""
    return math.sqrt(float(np.mean(np.square(np.diff(fused, axis=0)))) + float(np.mean(np.square(np.diff(fused)))))


def vif(fused: Plane, a: Plane, b: Plane) -> float:
    """VIFp(A, F) + VIFp(B, F)."""
    return fidelity_sum(Planes(*(image.astype(np.float32) for image in (fused, a, b))))


def correlation(fused: Plane, a: Plane, b: Plane) -> float:
    """The mean of both correlations, with the infrared image's mean subtracted from both sources in the numerator."""
    f, centred_b = fused - fused.mean(), b - b.mean()
    spread = [math.sqrt(float(np.square(s - s.mean()).sum()) * float(np.square(f).sum())) for s in (b, a)]
    if not all(spread):
        return math.nan
    return (float((centred_b * f).sum()) / spread[0] + float(((a - b.mean()) * f).sum()) / spread[1]) / 2


def difference_correlation(fused: Plane, a: Plane, b: Plane) -> float:
    """r(F − B, A) + r(F − A, B)."""
    pairs = ((fused - b, a), (fused - a, b))
    return sum(pearson(x - x.mean(), y - y.mean()) for x, y in pairs)


def qabf(fused: Plane, a: Plane, b: Plane) -> float:
    """Xydeas and Petrović 2000 with the constants that all toolboxes use."""
    return vifb.edges_kept(fused, a, b, 1.0)


def nabf(fused: Plane, a: Plane, b: Plane) -> float:
    """Artefacts (Shreyamsha Kumar 2013): Σ (1 − QS) wS over pixels where F has the strongest gradient, over Σ wS.

    QS = √(0.9999 / (1 + exp(−19 (G − 0.5))) · 0.9995 / (1 + exp(−22 (A − 0.5)))); w = g^1.5 where g ≥ 2, else 0.001.
    """
    strength_f, angle_f = _sobel(fused)
    gradients = [_sobel(source) for source in (a, b)]
    strongest = np.logical_and.reduce([strength_f > strength for strength, _ in gradients])
    numerator = denominator = 0.0
    for strength, angle in gradients:
        larger = np.maximum(strength, strength_f)
        ratio = np.divide(np.minimum(strength, strength_f), larger, out=np.zeros_like(larger), where=larger > 0)
        agreement = np.abs(np.abs(angle - angle_f) - math.pi / 2) * 2 / math.pi
        kept = 0.9999 / (1 + np.exp(-19 * (ratio - 0.5))) * 0.9995 / (1 + np.exp(-22 * (agreement - 0.5)))
        weight = np.where(strength >= 2, strength**1.5, 0.001)
        numerator, denominator = (
            numerator + float((strongest * (1 - np.sqrt(kept)) * weight).sum()),
            denominator + float(weight.sum()),
        )
    return numerator / denominator


def _sobel(image: Plane) -> tuple[Plane, Plane]:
    """Magnitude and atan(sx / sy) of the Sobel gradient over 8, the border mirrored; the angle is 0 where both are."""
    sx, sy = (
        cv2.Sobel(image, cv2.CV_64F, *axis, scale=1 / 8, borderType=cv2.BORDER_REFLECT_101) for axis in ((1, 0), (0, 1))
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        angle = np.arctan(sx / sy)
    angle[(sx == 0) & (sy == 0)] = 0
    return np.sqrt(sx * sx + sy * sy), angle


def ssim(fused: Plane, a: Plane, b: Plane) -> float:
    """The mean of both SSIM, K 0.01 and 0.03 of a range of 1, the border repeated, averaged over all pixels."""

    def window(image: Plane) -> Plane:
        return cv2.GaussianBlur(image, (11, 11), 1.5, borderType=cv2.BORDER_REPLICATE)

    return vifb.ssim_sum(fused, (a, b), window, 1.0) / 2


def mef(fused: Plane, a: Plane, b: Plane) -> float:
    """MEF-SSIM of the two sources."""
    return mef_ssim(Planes(*(image.astype(np.float32) for image in (fused, a, b))))


def fmi_of(feature: Callable[[Plane], np.ndarray]) -> GreyMetric:
    """The Fast-FMI metric of a feature, 3×3 windows."""

    def score(fused: Plane, a: Plane, b: Plane) -> float:
        """The mean over the windows."""
        from clearfuse.train.metrics.windows import mean_information

        return mean_information(*(feature(image).astype(np.float64) for image in (fused, a, b)), False)

    return score


def dct(image: Plane) -> Plane:
    """The orthonormal two-dimensional DCT-II."""
    for axis in (0, 1):
        n = image.shape[axis]
        rows = np.moveaxis(image, axis, -1)
        mirrored = np.fft.rfft(np.concatenate([rows, rows[..., ::-1]], -1))[..., :n]
        coefficients = (mirrored * np.exp(-1j * np.pi * np.arange(n) / (2 * n))).real / math.sqrt(2 * n)
        coefficients[..., 0] /= math.sqrt(2)
        image = np.moveaxis(coefficients, -1, axis)
    return image


def wavelet(image: Plane) -> Plane:
    """The four subbands of a discrete Meyer transform side by side, scaled to 0..1."""
    low, (across, down, both) = import_module("pywt").dwt2(image, "dmey")
    subbands = np.block([[low, across], [down, both]])
    least, most = subbands.min(), subbands.max()
    return (subbands - least) / (most - least) if most > least else np.ones_like(subbands)


def wavelet_missing() -> str:
    """Why the discrete Meyer transform can't run here, or ""."""
    return "" if find_spec("pywt") else "needs the discrete Meyer filter of PyWavelets: pip install PyWavelets"


def _metric(
    name: str,
    function: GreyMetric,
    direction: Direction,
    doc: str,
    smallest: int = 1,
    digits: int = 4,
    missing: Callable[[], str] = needs_nothing,
) -> Metric:
    return Metric(name, of_grey(function), direction, "fusion", f"{doc}, grey", smallest, digits, "colour", missing)


TANG: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _metric("EN", vifb.entropy, "higher", "entropy, bits"),
        _metric("MI", mutual_information, "higher", "mutual information, bits, a sum"),
        _metric("SD", vifb.variance, "higher", "standard deviation", digits=3),
        _metric("SF", spatial_frequency, "higher", "spatial frequency", 2, 3),
        _metric("MSE", mse, "lower", "mean squared difference on 0..1, a mean of both"),
        _metric("PSNR", psnr, "higher", "against the sources, 48.13 dB too high", digits=3),
        _metric("VIF", vif, "higher", "information kept of both sources, a sum", VIF_SMALLEST),
        _metric("AG", vifb.average_gradient, "higher", "average gradient", 2),
        _metric("SCD", difference_correlation, "higher", "correlations of differences, a sum"),
        _metric("CC", correlation, "higher", "correlation with both sources, one mean for both"),
        _metric("Qabf", qabf, "higher", "edges kept of both sources", 3),
        _metric("Nabf", nabf, "lower", "artefacts", 2),
        _metric("SSIM", ssim, "higher", "structure of both sources, a mean, of a range of 1", 2),
        _metric("MS-SSIM", mef, "higher", "the best of two exposures: MEF-SSIM", MEF_SMALLEST),
        _metric("FMI-pixel", fmi_of(edges), "higher", "mutual information of binary edges in windows", 3),
        _metric("FMI-dct", fmi_of(dct), "higher", "mutual information of DCT coefficients in windows", 3),
        _metric("FMI-w", fmi_of(wavelet), "higher", "of wavelet coefficients in windows", 3, missing=wavelet_missing),
    )
}
"""The profile's metrics, in the order of the toolbox."""

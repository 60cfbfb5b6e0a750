"""The metrics of the MEFB toolbox as its code computes them, errors included: the values in its published tables.

Each is a metric of (fused, a, b), float64 code values 0..255, averaged over the colour channels; a is the under-exposed
image. For a colour image fused from two grey ones only the first channel counts, for AG its grey version. Source:
Zhang, Information Fusion 74, 2021; the definitions are those of its MATLAB functions. Differences from the literature
that are reproduced:

- ``CE``, ``PSNR``, ``Qabf``, ``Qcb``, ``Qcv``, ``AG`` are the VIFB toolbox's, with its errors.
- ``NMI``, ``Qncie`` and ``TE`` stretch each image separately to 0..255 and round it.
- ``TE`` divides by the two images' marginals interchanged.
- ``Qw`` uses only gradient magnitudes; ``Qc`` replaces the value by 0 or 1 where a weight is outside [0, 1].
- ``FMI`` is computed on binary edge maps, not on the gradient; φ may exceed 1.
- ``VIF`` is Han's VIFF of each channel, not of lightness.
- ``MEF-SSIM`` is computed on luma rounded to 8 bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float64

from clearfuse.train.metrics.base import Direction, Metric, gaussian_valid, luma
from clearfuse.train.metrics.fusion import MEF_SMALLEST, VIF_SMALLEST, VIF_WINDOWS, VIFF_WEIGHTS, fidelity, mef_ssim
from clearfuse.train.metrics.information import entropy_bits
from clearfuse.train.metrics.planes import LEVELS, Planes
from clearfuse.train.metrics.toolboxes import vifb
from clearfuse.train.metrics.toolboxes.phase import qp

Plane = Float64[np.ndarray, "h w"]
ChannelMetric = Callable[[Plane, Plane, Plane], float]

TSALLIS = 1.85
YANG = 2e-16
ALIKE = 0.75
"""From this SSIM of the two sources on, Qy averages their similarities to F; below, it takes the better one."""


def by_channel(metric: ChannelMetric) -> Callable[[np.ndarray, np.ndarray, np.ndarray], float]:
    """The mean of a metric over the channels; for a colour image fused from two grey ones, of the first channel."""
    mean = vifb.by_channel(metric)

    def first(fused: Float[np.ndarray, "h w c"], a: Float[np.ndarray, "h w _"], b: Float[np.ndarray, "h w _"]) -> float:
        """Score (h, w, c) images on 0..255."""
        return mean(fused[..., :1] if a.shape[2] == b.shape[2] == 1 else fused, a, b)

    first.__doc__ = metric.__doc__
    return first


def average_gradient(
    fused: Float[np.ndarray, "h w c"], a: Float[np.ndarray, "h w _"], b: Float[np.ndarray, "h w _"]
) -> float:
    """VIFB's average gradient, but on the luma of a colour image that was fused from two grey ones."""
    if fused.shape[2] == 3 and a.shape[2] == b.shape[2] == 1:
        fused = luma(np.asarray(fused, np.float32))[..., None]
    return vifb.by_channel(vifb.average_gradient)(fused, a, b)


def mef(fused: Float[np.ndarray, "h w c"], a: Float[np.ndarray, "h w _"], b: Float[np.ndarray, "h w _"]) -> float:
    """MEF-SSIM on luma rounded to 8 bit."""
    return mef_ssim(Planes(*(np.floor(luma(np.asarray(i, np.float32)) + np.float32(0.5)) for i in (fused, a, b))))


def _joint(x: Plane, y: Plane) -> Float64[np.ndarray, "256 256"] | None:
    """The joint histogram of two images, each stretched and rounded; None where one is undefined."""
    levels = [vifb.stretch_and_round(image) for image in (x, y)]
    if any(np.isnan(image).any() for image in levels):
        return None
    pairs = (levels[0] * LEVELS + levels[1]).astype(np.int64).ravel()
    return np.bincount(pairs, minlength=LEVELS**2).reshape(LEVELS, LEVELS) / x.size


def _shared(x: Plane, y: Plane) -> tuple[float, float]:
    """I(X; Y) and H(X) + H(Y) in bits."""
    joint = _joint(x, y)
    if joint is None:
        return math.nan, math.nan
    total = entropy_bits(joint.sum(0)) + entropy_bits(joint.sum(1))
    return total - entropy_bits(joint), total


def normalised_mutual_information(fused: Plane, a: Plane, b: Plane) -> float:
    """Hossny et al. 2008: 2 Σ over the sources of I / (H(S) + H(F))."""
    pairs = [_shared(source, fused) for source in (a, b)]
    return 2 * sum(shared / total if total else math.nan for shared, total in pairs)


def qncie(fused: Plane, a: Plane, b: Plane) -> float:
    """Wang et al. 2008: 1 + Σ (r/3) log256(r/3), r the eigenvalues of the matrix of I / 8 bits between the images."""
    pairs = [_shared(x, y)[0] / 8 for x, y in ((a, b), (a, fused), (b, fused))]
    if any(math.isnan(pair) for pair in pairs):
        return math.nan
    matrix = np.array([[1, pairs[0], pairs[1]], [pairs[0], 1, pairs[2]], [pairs[1], pairs[2], 1]])
    eigenvalues = np.linalg.eigvalsh(matrix) / 3
    return 1 - entropy_bits(eigenvalues) / 8


def tsallis(fused: Plane, a: Plane, b: Plane) -> float:
    """Cvejic et al. 2006, q = 1.85: Σ over the sources of (1 − Σ p(s, f)^q / (p(f) p(s))^(q−1)) / (1 − q).

    The marginals are interchanged: p(f) is taken at the source's level, p(s) at the fused image's.
    """
    total = 0.0
    for source in (a, b):
        joint = _joint(source, fused)
        if joint is None:
            return math.nan
        product = np.outer(joint.sum(0), joint.sum(1))
        positive = product > 0
        total += (1 - float(np.sum(joint[positive] ** TSALLIS / product[positive] ** (TSALLIS - 1)))) / (1 - TSALLIS)
    return total


def edge_information(fused: Plane, a: Plane, b: Plane) -> float:
    """Haghighat's Fast-FMI on binary edge maps, 3×3 windows."""
    from clearfuse.train.metrics.windows import mean_information

    return mean_information(*(edges(image).astype(np.float64) for image in (fused, a, b)), False)


def edges(image: Plane) -> Bool[np.ndarray, "h w"]:
    """MATLAB's ``edge``: Sobel over 8, squared magnitudes above four times their mean, thinned across the stronger
    direction; no edges along the border.
    """
    sx, sy = (
        np.abs(cv2.Sobel(image, cv2.CV_64F, *axis, scale=1 / 8, borderType=cv2.BORDER_REPLICATE))
        for axis in ((1, 0), (0, 1))
    )
    strength = sx * sx + sy * sy
    inner = strength[1:-1, 1:-1]
    across = (sx >= sy - 100 * np.finfo(float).eps)[1:-1, 1:-1]
    down = (sy >= sx - 100 * np.finfo(float).eps)[1:-1, 1:-1]
    across &= (strength[1:-1, :-2] <= inner) & (inner > strength[1:-1, 2:])
    down &= (strength[:-2, 1:-1] <= inner) & (inner > strength[2:, 1:-1])
    return np.pad((inner > 4 * strength.mean()) & (across | down), 1)


def spatial_frequency(fused: Plane, a: Plane, b: Plane) -> float:
    """√(RF² + CF²), sums of squared differences over the number of pixels."""
    steps = float(np.sum(np.square(np.diff(fused, axis=0)))) + float(np.sum(np.square(np.diff(fused))))
    return math.sqrt(steps / fused.size)


def _similarity(
    x: Plane, y: Plane, size: int, c1: float, c2: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Maps of SSIM, both variances and the covariance under a Gaussian of σ 1.5, for windows inside the image."""
    mx, my = gaussian_valid(x, size, 1.5), gaussian_valid(y, size, 1.5)
    vx, vy = gaussian_valid(x * x, size, 1.5) - mx * mx, gaussian_valid(y * y, size, 1.5) - my * my
    shared = gaussian_valid(x * y, size, 1.5) - mx * my
    with np.errstate(invalid="ignore", divide="ignore"):
        ssim = (2 * mx * my + c1) * (2 * shared + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return ssim, vx, vy, shared


def qc(fused: Plane, a: Plane, b: Plane) -> float:
    """Cvejic et al. 2005: SSIM without constants, weighted by the covariances with F; 0 or 1 where a weight is outside
    [0, 1]; undefined windows left out.
    """
    ssim_a, _, _, shared_a = _similarity(a, fused, 7, YANG, YANG)
    ssim_b, _, _, shared_b = _similarity(b, fused, 7, YANG, YANG)
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = shared_a / (shared_a + shared_b)
    values = weight * ssim_a + (1 - weight) * ssim_b
    values[weight < 0] = 0
    values[weight > 1] = 1
    return float(np.mean(values[~np.isnan(values)])) if not np.isnan(values).all() else math.nan


def qy(fused: Plane, a: Plane, b: Plane) -> float:
    """Yang et al. 2008: where the sources are similar, their SSIM with F weighted by variance, elsewhere
    the greater.
    """
    ssim_ab, va, vb, _ = _similarity(a, b, 7, YANG, YANG)
    ssim_a, ssim_b = (_similarity(source, fused, 7, YANG, YANG)[0] for source in (a, b))
    with np.errstate(invalid="ignore", divide="ignore"):
        weight = va / (va + vb)
    average = weight * ssim_a + (1 - weight) * ssim_b
    # The toolbox adds both cases times their masks: a window where the first is NaN is left out in either case.
    values = average * (ssim_ab >= ALIKE) + np.fmax(ssim_a, ssim_b) * ~(ssim_ab >= ALIKE)
    return float(np.mean(values[~np.isnan(values)])) if not np.isnan(values).all() else math.nan


def qw(fused: Plane, a: Plane, b: Plane) -> float:
    """Piella and Heijmans 2003, on gradient magnitudes: SSIM with F weighted by variance, windows by the
    greater one.
    """
    f, x, y = (_prewitt(image) for image in (fused, a, b))
    constants = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    _, vx, vy, _ = _similarity(x, y, 11, *constants)
    flat = (vx + vy == 0) * 0.5
    vx, vy = vx + flat, vy + flat
    ssim_x, ssim_y = (_similarity(f, source, 11, *constants)[0] for source in (x, y))
    share, weight = vx / (vx + vy), np.maximum(vx, vy)
    return float(np.sum(weight / weight.sum() * (share * ssim_x + (1 - share) * ssim_y)))


def _prewitt(image: Plane) -> Plane:
    """Prewitt gradient magnitude, zeros beyond the border."""
    difference, box = np.array([1.0, 0, -1]), np.ones(3)
    dx, dy = (
        cv2.sepFilter2D(image, cv2.CV_64F, *pair, borderType=cv2.BORDER_CONSTANT)
        for pair in ((difference, box), (box, difference))
    )
    return np.sqrt(dx * dx + dy * dy)


def vif(fused: Plane, a: Plane, b: Plane) -> float:
    """Han et al. 2013: VIFF, with 10⁻⁷ added to both logarithms of each window."""
    planes = Planes(*(image.astype(np.float32) for image in (fused, a, b)), asked=frozenset({"VIFF"}))
    sums = planes.together(fidelity).viff / math.log(10)
    height, width = fused.shape
    score = 0.0
    for scale, size in enumerate(VIF_WINDOWS):
        if scale:
            height, width = (height - size + 2) // 2, (width - size + 2) // 2
        kept, available = sums[scale] + 1e-7 * (height - size + 1) * (width - size + 1)
        score += float(VIFF_WEIGHTS[scale]) * kept / available
    return score / 2.15


def _metric(
    name: str, function: ChannelMetric, direction: Direction, doc: str, smallest: int = 1, digits: int = 4
) -> Metric:
    return Metric(name, by_channel(function), direction, "fusion", f"{doc}, by channel", smallest, digits, "colour")


MEFB: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _metric("CE", vifb.cross_entropy, "lower", "cross entropy with the sources, bits, a mean of both"),
        _metric("EN", vifb.entropy, "higher", "entropy, bits"),
        _metric("FMI", edge_information, "higher", "mutual information of binary edges in windows", 3),
        _metric("NMI", normalised_mutual_information, "higher", "mutual information over entropies, stretched"),
        _metric("PSNR", vifb.psnr, "higher", "against the sources, 20 log10(255/√(√SSE/N)): not a PSNR", digits=3),
        _metric("Qncie", qncie, "higher", "nonlinear correlation, stretched"),
        _metric("TE", tsallis, "higher", "Tsallis entropy, stretched, marginals interchanged", digits=1),
        Metric("AG", average_gradient, "higher", "fusion", "average gradient, by channel", 2, takes="colour"),
        _metric("EI", vifb.edge_intensity, "higher", "edge intensity", digits=3),
        _metric("Qabf", vifb.qabf, "higher", "edges kept of both sources", 3),
        _metric("Qp", qp, "higher", "phase congruency kept of both sources", 16),
        _metric("SD", vifb.variance, "higher", "standard deviation", digits=3),
        _metric("SF", spatial_frequency, "higher", "spatial frequency", digits=3),
        _metric("Qc", qc, "higher", "structure by covariance", 11),
        _metric("Qw", qw, "higher", "structure of gradients by variance", 11),
        _metric("Qy", qy, "higher", "structure, the better where sources differ", 11),
        Metric("MEF-SSIM", mef, "higher", "fusion", "the best of two exposures, luma", MEF_SMALLEST, takes="colour"),
        _metric("Qcb", vifb.qcb, "higher", "local contrast kept of both sources"),
        _metric("Qcv", vifb.qcv, "lower", "perceived difference to both sources", digits=2),
        _metric("VIF", vif, "higher", "information for fusion: Han's VIFF", VIF_SMALLEST),
    )
}
"""The profile's metrics, in the order of the toolbox."""

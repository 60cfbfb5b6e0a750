"""Fusion metrics on tensors: ``clearfuse.train.metrics.fusion``, and Qabf of ``clearfuse.synth.fusers.quality``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from clearfuse.synth.fusers.quality import ORIENTATION, STRENGTH
from clearfuse.train.metrics.fusion import (
    MEF_FLAT,
    MEF_OPPOSITE,
    MEF_SCALES,
    MEF_WINDOW,
    VIF_NOISE,
    VIF_WINDOWS,
    VIFF_NOISE,
    VIFF_WEIGHTS,
)
from clearfuse.train.metrics.tensors.fidelity import positive_power, similarity
from clearfuse.train.metrics.tensors.filters import (
    Filtered,
    gaussian,
    mean_of_four,
    ratio,
    root,
    separable,
    sobel,
    undefined,
    with_zeros,
)
from clearfuse.train.metrics.tensors.images import Images, Plane, Values, constant


@dataclass
class Fidelity:
    """Sums over windows, in nats. kept, total: VIF's numerator and denominator by source, over all scales; scales:
    VIFF's, of the scales that weigh anything.
    """

    kept: list[Tensor]
    total: list[Tensor]
    scales: list[tuple[float, Tensor, Tensor]]


def vif(images: Images) -> Values:
    """VIFp(A, F) + VIFp(B, F)."""
    sums, (_, a, b) = images.once(_fidelity_of_lumas), images.lumas
    values = sum(map(ratio, sums.kept, sums.total), torch.zeros_like(sums.total[0]))
    return undefined(values, constant(a) | constant(b))


def vif_authors(images: Images) -> Values:
    """VIFp(F, A) + VIFp(F, B), by channel."""
    fused, a, b = torch.broadcast_tensors(images.fused, images.a, images.b)
    found = [_fidelity(source, [fused]) for source in (a, b)]
    values = sum((ratio(one.kept[0], one.total[0]) for one in found), torch.zeros_like(found[0].total[0]))
    return undefined(values, constant(fused)).mean(1)


def viff(images: Images) -> Values:
    """Σ p_k F_k over the scales."""
    scales = images.once(_fidelity_of_lumas).scales
    values = torch.stack([weight * ratio(kept, available) for weight, kept, available in scales]).sum(0)
    nothing = torch.stack([available == 0 for _, _, available in scales]).any(0)
    return undefined(values / float(VIFF_WEIGHTS.sum()), nothing)


def _fidelity_of_lumas(images: Images) -> Fidelity:
    fused, a, b = images.lumas
    return _fidelity(fused, [a, b], "VIFF" in images.asked)


def _fidelity(fused: Plane, sources: Sequence[Plane], with_viff: bool = False) -> Fidelity:
    planes = [fused, *sources]
    zero = fused.new_zeros(fused.shape[:-2])
    sums = Fidelity([zero] * len(sources), [zero] * len(sources), [])
    for scale, size in enumerate(VIF_WINDOWS):
        if scale:
            planes = [gaussian(plane, size, size / 5)[..., ::2, ::2] for plane in planes]
        weight = float(VIFF_WEIGHTS[scale])
        _add_scale(sums, weight if with_viff else 0.0, planes[0], planes[1:], size)
    return sums


def _add_scale(sums: Fidelity, weight: float, fused: Plane, sources: Sequence[Plane], size: int) -> None:
    """Add the windows of a scale. weight: VIFF's, 0 where it is not wanted.

    With p = g σSF, the variance of F that S explains, the preserved information is log(1 + p / (σF² − p + σn²)).
    """
    mean_f, variance_f = _moments(fused, size)
    parts: list[tuple[Tensor, ...]] = []
    for k, source in enumerate(sources):
        mean_s, variance_s = _moments(source, size)
        shared = (gaussian(fused * source, size, size / 5) - mean_f * mean_s).clamp(min=0)
        gain = shared / (variance_s + 1e-10)
        explained = shared * gain
        noise = (variance_f - explained).clamp(min=0)
        sums.kept[k] = sums.kept[k] + _log_sum(explained / (noise + VIF_NOISE))
        sums.total[k] = sums.total[k] + _log_sum(variance_s / VIF_NOISE)
        parts.append((gain, explained, noise, variance_s))
    if weight:
        (gain_a, *terms_a), (gain_b, *terms_b) = parts
        explained, noise, variance = (torch.where(gain_a < gain_b, x, y) for x, y in zip(terms_a, terms_b, strict=True))
        sums.scales.append(
            (weight, _log_sum(explained / (noise + VIFF_NOISE)), _log_sum(variance / VIFF_NOISE)),
        )


def _moments(plane: Plane, size: int) -> tuple[Filtered, Filtered]:
    """Mean and variance under the window."""
    mean = gaussian(plane, size, size / 5)
    return mean, (gaussian(plane.square(), size, size / 5) - mean.square()).clamp(min=0)


def _log_sum(x: Plane) -> Tensor:
    """Σ log(1 + x)."""
    return torch.log1p(x).sum((-2, -1))


def ssim_sum(images: Images) -> Values:
    """SSIM(A, F) + SSIM(B, F)."""
    return images.once(_similarities)


def ssim_mean(images: Images) -> Values:
    """Half of ``ssim_sum``."""
    return images.once(_similarities) / 2


def _similarities(images: Images) -> Values:
    fused, a, b = images.lumas
    return similarity(fused, a)[0] + similarity(fused, b)[0]


def qabf(images: Images) -> Values:
    """(Σ QAF gA + Σ QBF gB) / (Σ gA + Σ gB)."""
    fused, *sources = images.lumas
    strength_f, angle_f = _edges(fused)
    preserved = total = torch.zeros_like(strength_f[..., 0, 0])
    for source in sources:
        strength, angle = _edges(source)
        alike = torch.minimum(strength, strength_f) / torch.maximum(strength, strength_f).clamp(min=1e-12)
        aligned = 1 - (angle - angle_f).abs() * (2 / math.pi)
        quality = _sigmoid(alike, *STRENGTH) * _sigmoid(aligned, *ORIENTATION)
        preserved = preserved + (quality * strength).sum((-2, -1))
        total = total + strength.sum((-2, -1))
    return undefined(ratio(preserved, total), total == 0)


def _edges(plane: Plane) -> tuple[Plane, Plane]:
    """Sobel strength and orientation in (−π/2, π/2], y upwards, zeros beyond the border."""
    right, down = sobel(with_zeros(plane, 1))
    steep = right == 0
    angle = torch.atan(-down / torch.where(steep, 1.0, right))
    return root(right.square() + down.square()), torch.where(steep, math.pi / 2, angle)


def _sigmoid(x: Plane, gain: float, slope: float, centre: float) -> Plane:
    """Γ / (1 + exp(κ (x − σ)))."""
    return gain * torch.sigmoid(-slope * (x - centre))


def mef_ssim(images: Images) -> Values:
    """The best of two exposures, at three scales."""
    planes, exponents = list(images.lumas), sum(MEF_SCALES)
    score = torch.ones_like(planes[0][..., 0, 0])
    for scale, power in enumerate(MEF_SCALES):
        if scale:
            planes = [mean_of_four(plane) for plane in planes]
        score = score * positive_power(_mef_quality(*planes), power / exponents)
    return score


def _mef_quality(fused: Plane, x: Plane, y: Plane) -> Tensor:
    """The mean over the windows of one scale; the desired patch is u x + v y but for a constant."""
    u, v = _desired(x, y)

    def blurred(plane: Plane) -> Filtered:
        return gaussian(plane, MEF_WINDOW, 1.5)

    bx, by, bf = blurred(x), blurred(y), blurred(fused)
    desired = (
        u.square() * (blurred(x.square()) - bx.square())
        + v.square() * (blurred(y.square()) - by.square())
        + 2 * u * v * (blurred(x * y) - bx * by)
    )
    variance_f = blurred(fused.square()) - bf.square()
    covariance = u * (blurred(x * fused) - bx * bf) + v * (blurred(y * fused) - by * bf)
    constant_term = (0.03 * 255) ** 2
    return ((2 * covariance + constant_term) / (desired + variance_f + constant_term)).mean((-2, -1))


def _desired(x: Plane, y: Plane) -> tuple[Filtered, Filtered]:
    """The factors of the sources in the desired patch of each window."""
    pixels, taps = MEF_WINDOW**2, [1 / MEF_WINDOW] * MEF_WINDOW
    means = [separable(plane, taps, taps) for plane in (x, y)]
    power_x, power_y, shared = (
        pixels * (separable(product, taps, taps) - m * n)
        for product, m, n in ((x * x, means[0], means[0]), (y * y, means[1], means[1]), (x * y, *means))
    )
    flat_x, flat_y = power_x < MEF_FLAT, power_y < MEF_FLAT
    power_x, power_y = power_x.masked_fill(flat_x, 0), power_y.masked_fill(flat_y, 0)
    shared = shared.masked_fill(flat_x | flat_y, 0)
    contrast_x, contrast_y = root(power_x), root(power_y)
    consistency = root(power_x + power_y + 2 * shared) / (contrast_x + contrast_y).clamp(min=1e-12)
    exponent = torch.tan(math.pi / 2 * consistency.clamp(0, 1 - 1e-12)).clamp(max=10)
    contrast_x, contrast_y = contrast_x + 1e-3, contrast_y + 1e-3
    weight_x, weight_y = ((contrast / MEF_WINDOW) ** exponent + 1e-16 for contrast in (contrast_x, contrast_y))
    u, v = (weight / (weight_x + weight_y) / c for weight, c in ((weight_x, contrast_x), (weight_y, contrast_y)))
    norm = root(u * u * power_x + v * v * power_y + 2 * u * v * shared)
    gain = ratio(torch.maximum(contrast_x, contrast_y), norm.masked_fill(norm <= MEF_OPPOSITE, 0))
    return u * gain, v * gain

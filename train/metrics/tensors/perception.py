"""Metrics with the eye's contrast sensitivity on tensors: ``clearfuse.train.metrics.perception``."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clearfuse.train.metrics.perception import BLOCK, MASK, QCB_DEGREES, QCV_DEGREES, VISIBLE, frequencies
from clearfuse.train.metrics.tensors.filters import (
    Filtered,
    bordered,
    gaussian,
    ratio,
    root,
    sobel,
    undefined,
    with_zeros,
)
from clearfuse.train.metrics.tensors.images import Images, Plane, Values


def qcv(images: Images) -> Values:
    """Σ λ D / Σ λ over 16×16 blocks and sources."""
    r = 0.114 * frequencies(images.shape, QCV_DEGREES)
    gain = 2.6 * (0.0192 + r) * np.exp(-(r**1.1))
    fused, *spectra = images.once(_spectra)
    pixels = _blocks(torch.ones_like(images.lumas[0]))
    numerator = denominator = torch.zeros_like(pixels[..., 0, 0])
    for source, spectrum in zip(images.lumas[1:], spectra, strict=True):
        across, down = sobel(with_zeros(source, 1))
        weight = _blocks(root(across.square() + down.square()) ** 5)
        difference = _filtered(fused - spectrum, gain, images.shape)
        numerator = numerator + (weight * _blocks(difference.square()) / pixels).sum((-2, -1))
        denominator = denominator + weight.sum((-2, -1))
    return undefined(ratio(numerator, denominator), denominator == 0)


def qcb(images: Images) -> Values:
    """The mean of λA QA + λB QB over the pixels where a source has contrast."""
    r = frequencies(images.shape, QCB_DEGREES)
    gain = np.exp(-np.square(r / 15.3870)) - 0.7622 * np.exp(-np.square(r / 1.3456))
    fused, *sources = (_contrast(_filtered(spectrum, gain, images.shape)) for spectrum in images.once(_spectra))
    weights = [source.square() for source in sources]
    total = weights[0] + weights[1]
    visible = total > VISIBLE
    kept = torch.zeros_like(total)
    for weight, source in zip(weights, sources, strict=True):
        kept = kept + weight * ratio(torch.minimum(source, fused), torch.maximum(source, fused))
    share = torch.where(visible, kept / torch.where(visible, total, 1.0), 0.0)
    count = visible.sum((-2, -1))
    return undefined(share.sum((-2, -1)) / count.clamp(min=1), count == 0)


def _spectra(images: Images) -> tuple[Tensor, ...]:
    """Discrete Fourier transforms of fused, a and b, the half spectrum of a real image."""
    return tuple(torch.fft.rfft2(plane) for plane in images.lumas)


def _filtered(spectrum: Tensor, gain: np.ndarray, shape: tuple[int, int]) -> Plane:
    """Filter a spectrum and transform it back to an image."""
    gains = torch.from_numpy(gain).to(spectrum.real.dtype).to(spectrum.device)
    return torch.fft.irfft2(spectrum * gains, s=shape)


def _blocks(plane: Plane) -> Filtered:
    """Sums over blocks of BLOCK × BLOCK pixels, smaller at the lower and right border."""
    height, width = plane.shape[-2:]
    padded = torch.nn.functional.pad(plane, (0, -width % BLOCK, 0, -height % BLOCK))
    return padded.unflatten(-1, (-1, BLOCK)).unflatten(-3, (-1, BLOCK)).sum((-3, -1))


def _contrast(plane: Plane) -> Plane:
    """Masked contrast C³ / (C² + Z) of the local contrast C; 0 where the wider mean is 0."""
    wide = bordered(plane, 15, 15, "reflect")
    near, far = (gaussian(wide, 31, sigma) for sigma in (2.0, 4.0))
    contrast = torch.where(far != 0, ratio(near, far) - 1, 0.0).abs()
    return contrast**3 / (contrast.square() + MASK)

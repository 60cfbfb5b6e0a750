"""Differences of neighbouring pixels, and moments, on tensors: ``clearfuse.train.metrics.statistics``."""

from __future__ import annotations

import torch

from clearfuse.train.metrics.tensors.filters import bordered, ratio, root, sobel, undefined
from clearfuse.train.metrics.tensors.images import Images, Plane, Values


def standard_deviation(images: Images) -> Values:
    """√(Σ (F − mean F)² / N)."""
    return root(images.once(_centred)[0].square().mean((-2, -1)))


def spatial_frequency(images: Images) -> Values:
    """√(RF² + CF²)."""
    fused = images.lumas[0]
    power = sum((fused.diff(dim=dim).square().sum((-2, -1)) for dim in (-2, -1)), torch.zeros_like(fused[..., 0, 0]))
    return root(power / fused[0].numel())


def average_gradient(images: Images) -> Values:
    """The mean of √((Δx² + Δy²) / 2)."""
    fused = images.lumas[0]
    here = fused[..., :-1, :-1]
    across, down = fused[..., :-1, 1:] - here, fused[..., 1:, :-1] - here
    return root((across.square() + down.square()) / 2).mean((-2, -1))


def edge_intensity(images: Images) -> Values:
    """The mean Sobel magnitude, the border repeated."""
    across, down = sobel(bordered(images.lumas[0], 1, 1, "edge"))
    return root(across.square() + down.square()).mean((-2, -1))


def rmse(images: Images) -> Values:
    """The mean of both sources' √(Σ (S − F)² / N)."""
    fused, a, b = images.lumas
    return (root((fused - a).square().mean((-2, -1))) + root((fused - b).square().mean((-2, -1)))) / 2


def correlation(images: Images) -> Values:
    """The mean of r(A, F) and r(B, F)."""
    fused, a, b = images.once(_centred)
    return (pearson(a, fused) + pearson(b, fused)) / 2


def difference_correlation(images: Images) -> Values:
    """r(F − B, A) + r(F − A, B)."""
    fused, a, b = images.lumas
    _, centred_a, centred_b = images.once(_centred)
    return pearson(centre(fused - b), centred_a) + pearson(centre(fused - a), centred_b)


def _centred(images: Images) -> tuple[Plane, Plane, Plane]:
    """fused, a and b minus their means."""
    fused, a, b = (centre(plane) for plane in images.lumas)
    return fused, a, b


def centre(plane: Plane) -> Plane:
    """Subtract the mean: exactly 0 for a constant plane, since lumas and their differences are multiples of 1/1024."""
    return plane - plane.mean((-2, -1), keepdim=True)


def pearson(x: Plane, y: Plane) -> Values:
    """Pearson's correlation coefficients of zero-mean planes; NaN where one is 0 throughout."""
    power = x.square().sum((-2, -1)) * y.square().sum((-2, -1))
    return undefined(ratio((x * y).sum((-2, -1)), root(power)), power == 0)

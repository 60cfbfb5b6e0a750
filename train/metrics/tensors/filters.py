"""Separable filters by sums over shifted arrays, borders, and arithmetic with finite gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Plane = Float[Tensor, "*n h w"]
Filtered = Float[Tensor, "*n h2 w2"]
Numbers = Float[Tensor, "..."]
Border = Literal["edge", "reflect", "symmetric"]
"""``numpy.pad``'s names."""

SMOOTH, DIFFERENCE = (1.0, 2.0, 1.0), (-1.0, 0.0, 1.0)


def correlate(x: Plane, taps: Sequence[float], dim: int, step: int = 1) -> Filtered:
    """Σ taps[k] x[step i + k] along a dimension, where all taps lie inside."""
    last = (x.shape[dim] - len(taps)) // step
    parts = (x.narrow(dim, k, step * last + 1) for k in range(len(taps)))
    if step > 1:
        every = [slice(None)] * x.ndim
        every[dim] = slice(None, None, step)
        parts = (part[tuple(every)] for part in parts)
    first, *rest = parts
    total = first * taps[0]
    for tap, part in zip(taps[1:], rest, strict=True):
        if tap:
            total.add_(part, alpha=tap)
    return total


def separable(x: Plane, down: Sequence[float], across: Sequence[float]) -> Filtered:
    """Correlate with the outer product of two vectors, inside."""
    return correlate(correlate(x, across, -1), down, -2)


def bell(size: int, sigma: float) -> list[float]:
    """A Gaussian of so many taps that sums to 1."""
    taps = [math.exp(-((k - (size - 1) / 2) ** 2) / (2 * sigma**2)) for k in range(size)]
    return [tap / sum(taps) for tap in taps]


def gaussian(x: Plane, size: int, sigma: float) -> Filtered:
    """Filter with a ``size`` × ``size`` Gaussian that sums to 1, inside."""
    taps = bell(size, sigma)
    return separable(x, taps, taps)


def bordered(x: Plane, before: int, after: int, border: Border) -> Filtered:
    """Extend both sides of each axis, more than once where the image is smaller than the border."""
    for dim in (-2, -1):
        places = np.pad(np.arange(x.shape[dim]), (before, after), mode=border)
        x = x.index_select(x.ndim + dim, torch.from_numpy(places).to(x.device))
    return x


def with_zeros(x: Plane, margin: int) -> Filtered:
    """Extend by zeros."""
    return torch.nn.functional.pad(x, (margin,) * 4)


def sobel(x: Plane) -> tuple[Filtered, Filtered]:
    """Sobel's derivatives to the right and downwards, inside; positive weights sum to 4."""
    return separable(x, SMOOTH, DIFFERENCE), separable(x, DIFFERENCE, SMOOTH)


def mean_of_four(x: Plane) -> Filtered:
    """Downsample by averaging 2×2 pixels; an odd last row or column is repeated."""
    for dim in (-2, -1):
        if x.shape[dim] % 2:
            x = torch.cat([x, x.narrow(dim, x.shape[dim] - 1, 1)], dim)
    return correlate(correlate(x, (0.5, 0.5), -2, 2), (0.5, 0.5), -1, 2)


def root(x: Numbers) -> Numbers:
    """√x, 0 where x is not positive, where the gradient is 0 too."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)


def ratio(x: Numbers, y: Numbers) -> Numbers:
    """x / y, 0 where y is 0."""
    return torch.where(y != 0, x / torch.where(y != 0, y, 1.0), 0.0)


def undefined(values: Numbers, where: Tensor) -> Numbers:
    """The values, NaN with a gradient of 0 where they are undefined."""
    return values.masked_fill(where, math.nan)

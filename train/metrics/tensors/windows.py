"""Mutual information of 3×3 windows on tensors: ``clearfuse.train.metrics.windows``.

It has no gradient of use: the smallest of a window's features has probability 0, where entropy is infinitely steep.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from clearfuse.train.metrics.tensors.filters import ratio, root
from clearfuse.train.metrics.tensors.images import Plane, Values
from clearfuse.train.metrics.windows import POSITIONS

AT_ONCE = 1 << 15
"""Windows that are in memory at a time, about 300 numbers each."""

Shares = Float[Tensor, "w 9"]


@dataclass(frozen=True)
class Windows:
    """Of each window: its features, their shares p, column by column, the cumulative ones, the entropy of p in bits,
    √Σ (p − 1/9)² and the standard deviation of the position.
    """

    features: Shares
    p: Shares
    cdf: Shares
    entropy: Float[Tensor, " w"]
    norm: Float[Tensor, " w"]
    deviation: Float[Tensor, " w"]


def gradient(plane: Plane) -> Plane:
    """√(Δx² + Δy²) by central differences, one-sided at the border."""
    down, across = torch.gradient(plane, dim=(-2, -1))
    return (down.square() + across.square()).sqrt()


def mean_information(fused: Plane, a: Plane, b: Plane) -> Values:
    """The mean of 2 I / (H + H) over all 3×3 windows and both sources, for each image; strips of rows in turn."""
    count, height, width = fused.shape
    rows = max(AT_ONCE // (width - 2), 1)
    totals: list[Tensor] = []
    for k in range(count):
        total = fused.new_zeros(())
        for top in range(0, height - 2, rows):
            strip = slice(top, min(top + rows, height - 2) + 2)
            of_f, *others = (_windows(features[k, strip]) for features in (fused, a, b))
            total = total + _information(of_f, others[0]).sum() + _information(of_f, others[1]).sum()
        totals.append(total)
    return torch.stack(totals) / (2 * (height - 2) * (width - 2))


def _windows(features: Float[Tensor, "h w"]) -> Windows:
    """The windows of a plane of features."""
    values = features.unfold(0, 3, 1).unfold(1, 3, 1).transpose(-1, -2).reshape(-1, POSITIONS)
    raised = values - values.amin(1, keepdim=True)
    total = raised.sum(1, keepdim=True)
    flat = total == 0
    p = torch.where(flat, 1 / POSITIONS, ratio(raised, total))
    place = torch.arange(POSITIONS, device=p.device)
    norm = torch.where(flat[:, 0], 0.0, root((p - 1 / POSITIONS).square().sum(1)))
    deviation = root((p * place.square()).sum(1) - _mean_place(p).square())
    return Windows(values, p, p.cumsum(1), _bits(p).sum(1), norm, deviation)


def _bits(p: Tensor) -> Tensor:
    """−p log2 p."""
    return torch.xlogy(p, p) / -math.log(2)


def _information(x: Windows, y: Windows) -> Float[Tensor, " w"]:
    """2 I / (H + H) of windows; 1 for equal ones, 0 where there is no correlation.

    M has mass in 18 cells at most, on a staircase through the steps of both cumulative distributions. Without them H of
    φ M + (1 − φ) p q is that of (1 − φ) p q, (1 − φ) (H + H − log2(1 − φ)); they are put in its place one by one.
    """
    total, norms = x.entropy + y.entropy, x.norm * y.norm
    c = ratio(((x.p - 1 / POSITIONS) * (y.p - 1 / POSITIONS)).sum(1), norms)
    upper = (c > 0)[:, None]
    q = torch.where(upper, y.p, y.p.flip(1))  # the lower bound is the upper one of p and q in reverse order
    steps, order = torch.cat([x.cdf, q.cumsum(1)], 1).sort(1)
    mass = F.pad(steps, (1, 0)).diff(dim=1).clamp(min=0)
    of_x = F.pad((order < POSITIONS).long().cumsum(1)[:, :-1], (1, 0))  # the steps of p before each cell
    of_y = torch.arange(2 * POSITIONS, device=of_x.device) - of_x
    i, j = of_x.clamp(max=POSITIONS - 1), of_y.clamp(max=POSITIONS - 1)
    bound = (mass * i * j).sum(1) - _mean_place(x.p) * _mean_place(q)  # the covariance of places under M
    phi = ratio(c.abs() * x.deviation * y.deviation, bound).clamp(0, 1)
    share = 1 - phi
    product = share[:, None] * x.p.gather(1, i) * q.gather(1, j)
    staircase = (_bits(phi[:, None] * mass + product) - _bits(product)).sum(1)
    joint = share * total + _bits(share) + staircase
    related = (norms * x.deviation * y.deviation * c) != 0
    shared = torch.where(related, ratio(2 * (total - joint), total), 0.0)
    return torch.where((x.features == y.features).all(1), 1.0, shared)


def _mean_place(p: Shares) -> Float[Tensor, " w"]:
    return (p * torch.arange(POSITIONS, device=p.device)).sum(1)

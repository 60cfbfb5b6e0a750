"""BRISQUE and pyiqa's metrics on tensors: ``clearfuse.train.metrics.noreference``. They have no gradients."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from clearfuse.train.metrics import noreference
from clearfuse.train.metrics.base import PEAK
from clearfuse.train.metrics.noreference import CUBIC_TAPS, NEIGHBOURS, SHAPES
from clearfuse.train.metrics.tensors.filters import Filtered, bordered, correlate, gaussian, undefined, with_zeros
from clearfuse.train.metrics.tensors.images import Batch, Images, Plane, Values, constant

Numbers = Float[Tensor, "*n"]
Fit = tuple[Numbers, Numbers, Numbers, Numbers]


def brisque(images: Images) -> Values:
    """The regression on 36 features at two scales."""
    fused, model = images.lumas[0], noreference.regression()
    values = features(torch.floor(fused + 0.5))
    low, high, vectors, coefficients = (
        as_tensor(array, fused) for array in (model.low, model.high, model.vectors, model.coefficients)
    )
    x = 2 * (values - low) / (high - low) - 1
    kernel = torch.exp(-model.gamma * (vectors - x[:, None]).square().sum(2))
    return undefined((coefficients * kernel).sum(1) - model.rho, constant(fused))


def features(plane: Float[Tensor, "n h w"]) -> Float[Tensor, "n 36"]:
    """The 36 features, in the order of LIVE's code."""
    values: list[Tensor] = []
    for scale in range(2):
        if scale:
            plane = downsample(plane)
        x = normalised(plane, with_zeros(plane, 3))
        values += _fit_symmetric(x)
        for step in NEIGHBOURS:
            values += fit_asymmetric(x * torch.roll(x, step, (-2, -1)))
    return torch.stack(values, 1)


def normalised(plane: Plane, wide: Filtered) -> Plane:
    """(I − μ) / (σ + 1) under a 7×7 Gaussian of σ 7/6. wide: the plane with a border of 3."""
    mean, power = gaussian(wide, 7, 7 / 6), gaussian(wide.square(), 7, 7 / 6)
    return (plane - mean) / ((power - mean.square()).abs().sqrt() + 1)


def downsample(plane: Plane) -> Filtered:
    """Downsample by 2 with an antialiased cubic, an odd side rounded up."""
    distance = np.abs(np.arange(CUBIC_TAPS) - 3.5) / 2
    near, far = 1.5 * distance**3 - 2.5 * distance**2 + 1, -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    taps = np.where(distance <= 1, near, far)
    taps = (taps / taps.sum()).tolist()
    height, width = plane.shape[-2:]
    half = correlate(correlate(bordered(plane, 3, 5, "symmetric"), taps, -2, 2), taps, -1, 2)
    return half[..., : (height + 1) // 2, : (width + 1) // 2]


def _fit_symmetric(x: Plane) -> list[Tensor]:
    """Shape and variance of the generalised Gaussian with x's E[x²] / E[|x|]²."""
    variance, deviation = x.square().mean((-2, -1)), x.abs().mean((-2, -1))
    table = as_tensor(noreference.ratios()[0][::-1], x)
    found = len(SHAPES) - 1 - nearest(table, variance / deviation.square())
    return [as_tensor(SHAPES, x)[found], variance]


def fit_asymmetric(x: Plane) -> Fit:
    """Shape, mean, left and right variance of the asymmetric generalised Gaussian fitted to x; NaN for one-sided x."""
    (left, none_left), (right, none_right) = side_power(x, x < 0), side_power(x, x > 0)
    skew = (left / right).sqrt()
    share = x.abs().mean((-2, -1)).square() / x.square().mean((-2, -1))
    share = share * (skew**3 + 1) * (skew + 1) / (skew.square() + 1).square()
    first, second = (as_tensor(table, x) for table in noreference.ratios())
    best = nearest(1 / first, share)
    mean = (right.sqrt() - left.sqrt()) * second[best]
    shape, mean, left, right = (
        undefined(values, none_left | none_right) for values in (as_tensor(SHAPES, x)[best], mean, left, right)
    )
    return shape, mean, left, right


def side_power(x: Plane, side: Tensor) -> tuple[Numbers, Tensor]:
    """The mean of x² over a side, and whether that is empty (then 0 / 0)."""
    count = side.sum((-2, -1))
    return torch.where(side, x.square(), 0.0).sum((-2, -1)) / count, count == 0


def nearest(table: Float[Tensor, " m"], values: Numbers) -> Int[Tensor, "*n"]:
    """The index of the entry nearest to each value in a rising table; any for NaN."""
    above = torch.searchsorted(table, values.contiguous()).clamp(1, len(table) - 1)
    return torch.where((values - table[above - 1]) <= (table[above] - values), above - 1, above)


def as_tensor(array: np.ndarray, like: Tensor) -> Tensor:
    """An array in the type and on the device of a tensor."""
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.dtype).to(like.device)


def raim(images: Images) -> Values:
    """``noreference.raim``."""
    pair = images.against_truth()
    return noreference.raim_score(*(by_pyiqa(name, *pair) for name in ("psnr", "ssim", "lpips")))


def by_pyiqa(name: str, *batches: Batch) -> Values:
    """A metric of pyiqa by name, on RGB in [0, 1]: of the fused images, or of them and the ground truths."""
    colour = [(batch.expand(-1, 3, -1, -1) / PEAK).float() for batch in batches]
    with torch.no_grad():
        values = noreference.network(name, str(batches[0].device))(*colour)
    return values.reshape(-1).to(batches[0].dtype)

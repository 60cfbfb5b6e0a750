"""Full-reference metrics on tensors, RGB: ``clearfuse.train.metrics.fidelity``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from clearfuse.train.metrics.base import PEAK
from clearfuse.train.metrics.fidelity import C1, C2, SCALES, SIGMA, WINDOW
from clearfuse.train.metrics.tensors.filters import gaussian, mean_of_four
from clearfuse.train.metrics.tensors.images import Images, Plane, Values


def psnr(images: Images) -> Values:
    """10 log10(255² / MSE); infinite, without a gradient, for equal images."""
    fused, gt = images.against_truth()
    mse = (fused - gt).square().mean((1, 2, 3))
    differs = mse > 0
    return torch.where(differs, 10 * torch.log10(PEAK**2 / torch.where(differs, mse, 1.0)), math.inf)


def ssim(images: Images) -> Values:
    """The mean over windows and channels."""
    return similarity(*images.against_truth())[0].mean(1)


def ms_ssim(images: Images) -> Values:
    """The product over five scales, mean over the channels; a mean that is negative counts as 0."""
    x, y = images.against_truth()
    score = torch.ones_like(x[:, :, 0, 0])
    for scale, power in enumerate(SCALES):
        if scale:
            x, y = mean_of_four(x), mean_of_four(y)
        mean = similarity(x, y)[1 if scale + 1 < len(SCALES) else 0]
        score = score * positive_power(mean, power)
    return score.mean(1)


def positive_power(x: Tensor, power: float) -> Tensor:
    """max(x, 0) to a power, with a gradient of 0 where x is not positive."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0) ** power, 0.0)


def similarity(x: Plane, y: Plane) -> tuple[Tensor, Tensor]:
    """The means over windows of SSIM and of its contrast and structure term."""
    mean_x, mean_y = (gaussian(image, WINDOW, SIGMA) for image in (x, y))
    product, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
    covariance = gaussian(x * y, WINDOW, SIGMA) - product
    variances = gaussian(x.square() + y.square(), WINDOW, SIGMA) - squares
    structure = (2 * covariance + C2) / (variances + C2)
    return (structure * (2 * product + C1) / (squares + C1)).mean((-2, -1)), structure.mean((-2, -1))

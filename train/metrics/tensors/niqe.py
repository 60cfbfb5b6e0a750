"""NIQE on tensors: ``clearfuse.train.metrics.niqe``. It has no gradient."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from clearfuse.train.metrics import niqe as arrays
from clearfuse.train.metrics.niqe import BLOCK
from clearfuse.train.metrics.noreference import NEIGHBOURS, SHAPES
from clearfuse.train.metrics.tensors.filters import bordered, undefined
from clearfuse.train.metrics.tensors.images import Images, Plane, Values
from clearfuse.train.metrics.tensors.noreference import as_tensor, downsample, fit_asymmetric, normalised, side_power


def niqe(images: Images) -> Values:
    """√(Δᵀ ((Σ₁ + Σ₂)/2)⁺ Δ) of the blocks' features."""
    fused = images.lumas[0]
    mean, covariance = (as_tensor(array, fused) for array in arrays.model())
    rows = block_features(torch.floor(fused + 0.5))
    complete = rows.isfinite().all(2, keepdim=True)
    count = complete.sum(1)
    centre = torch.where(complete, rows, 0.0).sum(1) / count.clamp(min=1)
    spread = torch.where(complete, rows - centre[:, None], 0.0)
    pooled = (spread.mT @ spread / (count - 1).clamp(min=1)[..., None] + covariance) / 2
    difference = rows.nanmean(1) - mean
    distance = torch.einsum("ni,nij,nj->n", difference, torch.linalg.pinv(pooled, rtol=1e-15), difference)
    return undefined(distance.clamp(min=0).sqrt(), count[:, 0] < 2)


def block_features(plane: Float[Tensor, "n h w"]) -> Float[Tensor, "n blocks 36"]:
    """The 36 features of each block; NaN where no Gaussian can be fitted."""
    rows, columns = (side // BLOCK for side in plane.shape[1:])
    plane = plane[:, : rows * BLOCK, : columns * BLOCK]
    scales: list[Tensor] = []
    for side in (BLOCK, BLOCK // 2):
        if side < BLOCK:
            plane = downsample(plane)
        x = normalised(plane, bordered(plane, 3, 3, "edge"))
        blocks = x.unflatten(2, (columns, side)).unflatten(1, (rows, side)).transpose(2, 3)
        scales.append(_features(blocks.flatten(1, 2)))
    return torch.cat(scales, 2)


def _features(x: Plane) -> Tensor:
    """The 18 features of blocks at one scale."""
    shape, _, left, right = _fit(x)
    values = [shape, (left + right) / 2]
    for step in NEIGHBOURS:
        values += _fit(x * torch.roll(x, step, (-2, -1)))
    return torch.stack(values, -1)


def _fit(x: Plane) -> tuple[Tensor, ...]:
    """Shape α, mean, left and right scale of the asymmetric generalised Gaussian fitted to x."""
    shape, mean, left, right = fit_asymmetric(x)
    one_sided = shape.isnan()
    shape = torch.where(one_sided, float(SHAPES[0]), shape)
    left, right = (
        torch.where(one_sided, side_power(x, side)[0], known) for side, known in ((x < 0, left), (x > 0, right))
    )
    scale = torch.exp((torch.lgamma(1 / shape) - torch.lgamma(3 / shape)) / 2)
    return shape, mean, left.sqrt() * scale, right.sqrt() * scale

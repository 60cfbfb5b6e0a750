"""Scores batches of tensors: ``clearfuse.evaluate`` where it is given tensors, and a metric as a loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from clearfuse.synth.types import UserError
from clearfuse.train.metrics.base import Metric
from clearfuse.train.metrics.tensors.images import Images, Values, codes


def check_tensors(given: Mapping[str, Any]) -> tuple[int, int]:
    """Height and width of the images by name. Raises ValueError where they can't be scored together."""
    for name, image in given.items():
        if not isinstance(image, Tensor):
            raise ValueError(f"{name} is a {type(image).__name__}: give all images as arrays, or all as torch tensors")
        shape = tuple(image.shape)
        if image.ndim not in (3, 4) or shape[-3] not in (1, 3):
            raise ValueError(f"{name}: shape {shape} is not (n, c, h, w) or (c, h, w) with c 1 or 3")
        if image.numel() == 0:
            raise ValueError(f"{name}: shape {shape} has no pixel")
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise ValueError(f"{name}: {image.dtype} is not taken: give uint8, or floating point in [0, 1]")
        first = given["fused"]
        if image.shape[-2:] != first.shape[-2:]:
            size, other = (f"{one.shape[-1]}x{one.shape[-2]}" for one in (image, first))
            raise ValueError(f"{name} is {size}, fused {other}: all images must have one size")
        if (count := _count(image)) != _count(first):
            raise ValueError(f"{name}: {count} in the batch, fused {_count(first)}: give a source for each fused image")
        if image.device != first.device:
            raise ValueError(f"{name} is on {image.device}, fused on {first.device}: all must be on one device")
    floats = {name: image for name, image in given.items() if image.dtype != torch.uint8}
    for name, (low, high) in zip(floats, _ranges([*floats.values()]), strict=True):
        if not (low >= 0.0 and high <= 1.0):
            raise ValueError(f"{name}: floating point must lie in [0, 1], found {low:g} to {high:g}: clamp it")
    return given["fused"].shape[-2], given["fused"].shape[-1]


def _count(image: Tensor) -> int:
    return image.shape[0] if image.ndim == 4 else 1


def _ranges(images: list[Tensor]) -> list[tuple[float, float]]:
    """Least and largest value of each: the one time that numbers are read back from the device."""
    ends = [torch.stack(image.detach().float().aminmax()) for image in images]
    return [(low, high) for low, high in torch.stack(ends).tolist()] if ends else []


def score_tensors(given: Mapping[str, Tensor], chosen: Mapping[str, Metric]) -> dict[str, Tensor]:
    """The values (n,) by name as asked, of images in [0, 1] or uint8: float64 where fused is, else float32.

    Those of metrics that are not differentiable have no gradient. Raises UserError for one without a form for tensors.
    """
    device = given["fused"].device
    result = torch.float64 if given["fused"].dtype == torch.float64 else torch.float32
    with torch.autocast(device.type, enabled=False):
        batches = {name: codes(image) for name, image in given.items()}
        images = Images(**batches, asked=frozenset(metric.name for metric in chosen.values()))
        still = images.detached()
        return {
            name: tensor_form(metric)(images if metric.differentiable else still).to(result)
            for name, metric in chosen.items()
        }


def tensor_form(metric: Metric) -> Callable[[Images], Values]:
    """The function of ``Images``. Raises UserError where there is none."""
    if metric.tensor is None:
        raise UserError(f"{metric.name}: its form of this profile takes no tensors: give NumPy arrays")
    return metric.tensor


def metric_loss(metric: Metric, fused: Tensor, a: Tensor, b: Tensor, gt: Tensor) -> Tensor:
    """A loss to minimise: the mean over the batch of the value, its negative where higher is better.

    Images are in [0, 1]; fused may leave the range. Images for which the metric is undefined or infinite count as 0, so
    that a flat source does not end a training. Raises UserError where the images are smaller than the metric takes.
    """
    height, width = fused.shape[-2:]
    if min(height, width) < metric.smallest:
        least = f"{metric.smallest}x{metric.smallest}"
        raise UserError(f"{metric.name} needs images of {least} or more, not {width}x{height}")
    truth = {"gt": gt} if metric.kind == "full-reference" else {}
    values = score_tensors({"fused": fused, "a": a, "b": b, **truth}, {metric.name: metric})[metric.name]
    known = torch.where(values.isfinite(), values, 0.0).mean()
    return -known if metric.direction == "higher" else known

"""The values of a sample's fused images: on arrays one after another, on a device's tensors all methods in batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64

from clearfuse.synth.color import as_hwc
from clearfuse.synth.types import UserError
from clearfuse.train.metrics import evaluate, evaluate_each, find_metric

LARGEST = 1 << 22
"""Pixels of a batch on a device, at most, but for a single image: a metric holds dozens of planes in float64."""


def measure(
    fused: Mapping[str, np.ndarray],
    a: np.ndarray,
    b: np.ndarray,
    gt: np.ndarray | None,
    names: Sequence[str],
    profile: str = "strict",
    device: str | None = None,
) -> dict[str, Float64[np.ndarray, " metrics"]]:
    """The values of fused images by method, in the order of the names.

    fused, a, b, gt: images as ``evaluate`` takes them. device: None for arrays; else the torch device on which metrics
    that have a form for tensors are computed, within 1e-4 of arrays. Raises ValueError, which names the method.
    """
    on_device = [name for name in names if device is not None and find_metric(name, profile).tensor is not None]
    on_arrays = [name for name in names if name not in on_device]
    values: dict[str, dict[str, float]] = {method: {} for method in fused}
    if on_arrays or device is None:
        try:
            values = evaluate_each(fused, a, b, gt, on_arrays, profile)
        except UserError as error:
            raise ValueError(str(error)) from None
    if on_device:
        for method, image in fused.items():
            if image.shape[:2] != a.shape[:2]:
                sizes = (f"{x.shape[1]}x{x.shape[0]}" for x in (image, a))
                raise ValueError(f"{method}: fused is {{}}, a {{}}: all images must have one size".format(*sizes))
        most = max(1, LARGEST // (a.shape[0] * a.shape[1]))
        methods = [*fused]
        for start in range(0, len(methods), most):
            part = methods[start : start + most]
            scored = _in_batch([fused[method] for method in part], a, b, gt, on_device, profile, str(device))
            for number, method in enumerate(part):
                values[method] |= {name: row[number] for name, row in scored.items()}
    return {method: np.array([row[name] for name in names], np.float64) for method, row in values.items()}


def _in_batch(
    images: Sequence[np.ndarray],
    a: np.ndarray,
    b: np.ndarray,
    gt: np.ndarray | None,
    names: Sequence[str],
    profile: str,
    device: str,
) -> dict[str, list[float]]:
    """The values by name, one an image; a grey image among colour ones is three equal channels."""
    import torch

    def tensor(image: np.ndarray) -> Any:
        planes = np.ascontiguousarray(as_hwc(image).transpose(2, 0, 1))
        return torch.from_numpy(planes).to(device)

    sources = {"a": a, "b": b} | ({} if gt is None else {"gt": gt})
    widest = max(as_hwc(image).shape[2] for image in images)
    fused = torch.stack([tensor(image).expand(widest, -1, -1) for image in images])
    batch = {name: tensor(image).expand(len(images), -1, -1, -1) for name, image in sources.items()}
    with torch.inference_mode():
        found: Mapping[str, Any] = evaluate(fused, batch["a"], batch["b"], batch.get("gt"), [*names], profile)
        rows = _read(torch.stack([found[name].double() for name in names]))
    return dict(zip(names, rows, strict=True))


def _read(values: Any) -> list[list[float]]:
    """The values of a tensor, a row a metric: the one time that the device is waited for."""
    return values.tolist()

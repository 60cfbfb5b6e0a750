"""``Metric``, and the images in the form that metrics take: RGB or grey on the scale 0..255, and their luma."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from clearfuse.synth.color import LUMA, as_hwc

PEAK = 255.0
STRIP = 64
GRID = 1024.0
"""Float images and lumas are rounded to 1/1024 of a code value, a grid that is exact in float32: an image has the same
gradients, and the same score, as uint8 and as float."""

Direction = Literal["higher", "lower"]
Kind = Literal["full-reference", "fusion", "no-reference"]
Takes = Literal["luma", "colour", "planes"]


def needs_nothing() -> str:
    """``Metric.missing`` of a metric without optional requirements: ""."""
    return ""


@dataclass(frozen=True)
class Metric:
    """A metric of a fused image.

    function: if ``kind`` is full-reference, ``(fused, gt)`` on images ``(h, w, c)``; if it is fusion ``(fused, a, b)``
    and if it is no-reference ``(fused)``, on lumas ``(h, w)`` or, if it ``takes`` colour, on images ``(h, w, c)``; all
    float32 on 0..255. If it takes planes: ``(Planes)``, which caches what several metrics share. direction: which value
    is better. smallest: the minimum side of an image, pixels. digits: decimals to print. missing: why it can't run here
    and what to do, or "". A value may be infinite; it is NaN where the images leave it undefined. tensor: its form for
    torch tensors, from ``clearfuse.train.metrics.tensors.images.Images`` of n images to n values, None without one;
    differentiable: whether that has gradients to the fused images.
    """

    name: str
    function: Callable[..., float]
    direction: Direction
    kind: Kind
    doc: str
    smallest: int = 1
    digits: int = 4
    takes: Takes = "luma"
    missing: Callable[[], str] = needs_nothing
    tensor: Callable[[Any], Any] | None = None
    differentiable: bool = False


def fault_of(metric: Any) -> str:
    """What a metric of a user's own has wrong, in words for its author; "" where nothing is."""
    if not isinstance(metric, Metric):
        return "must be a clearfuse.train.metrics.Metric"
    for name, choices in (("direction", Direction), ("kind", Kind), ("takes", Takes)):
        if (said := getattr(metric, name)) not in get_args(choices):
            return f"its {name} is {said!r}: must be one of {', '.join(get_args(choices))}"
    return ""


def codes(image: np.ndarray, name: str) -> Float32[np.ndarray, "h w c"]:
    """Convert uint8, or float in [0, 1], to float32 on 0..255. Raises ValueError, with ``name``, for other images."""
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3)):
        raise ValueError(f"{name}: shape {image.shape} is not (h, w), (h, w, 1) or (h, w, 3)")
    if image.size == 0:
        raise ValueError(f"{name}: shape {image.shape} has no pixel")
    if image.dtype == np.uint8:
        return as_hwc(image).astype(np.float32)
    if not np.issubdtype(image.dtype, np.floating):
        raise ValueError(f"{name}: {image.dtype} is not taken: give uint8, or float in [0, 1]")
    low, high = float(image.min()), float(image.max())
    if not (low >= 0.0 and high <= 1.0):
        raise ValueError(f"{name}: float images must lie in [0, 1], found {low:g} to {high:g}; give 0..255 as uint8")
    return (np.rint(as_hwc(image).astype(np.float64) * (PEAK * GRID)) / GRID).astype(np.float32)


def luma(image: Float32[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h w"]:
    """BT.601 luma 0.299 R + 0.587 G + 0.114 B on 0..255, rounded to ``GRID``; of a grey image its channel."""
    if image.shape[2] == 1:
        return np.ascontiguousarray(image[..., 0])
    y = cv2.transform(image, np.asarray([LUMA], np.float32) * np.float32(GRID))
    np.rint(y, out=y)
    y /= np.float32(GRID)
    return y.reshape(image.shape[:2])


def gaussian_valid(image: Float64[np.ndarray, "h w *c"], size: int, sigma: float) -> Float64[np.ndarray, "h2 w2 *c"]:
    """Filter with a ``size`` x ``size`` Gaussian that sums to 1, keeping only windows inside the image."""
    margin = size // 2
    rows, columns = image.shape[0] - margin, image.shape[1] - margin
    return cv2.GaussianBlur(image, (size, size), sigma).reshape(image.shape)[margin:rows, margin:columns]


def strips(rows: int, size: int) -> Iterator[slice]:
    """Slices of rows: overlapping strips whose valid regions under a ``size`` window are STRIP rows each and tile the
    image's.

    The arrays of a strip fit the processor's cache and reuse memory, where those of the whole image would allocate new
    pages for every product.
    """
    valid = rows - size + 1
    for top in range(0, valid, STRIP):
        yield slice(top, min(top + STRIP, valid) + size - 1)

"""``Images``: what tensor metrics take, a batch of fused images and their sources as code values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from clearfuse.synth.color import LUMA
from clearfuse.train.metrics.base import GRID, PEAK

Batch = Float[Tensor, "n _ h w"]
"""Code values 0..255, one or three channels."""
Plane = Float[Tensor, "*n h w"]
Values = Float[Tensor, " n"]
T = TypeVar("T")


class Images:
    """A batch of fused images, their sources and, for full-reference metrics, their ground truths, as ``codes``.

    asked: names of the metrics to compute. Only the fused images have gradients.
    """

    def __init__(
        self, fused: Batch, a: Batch, b: Batch, gt: Batch | None = None, asked: frozenset[str] = frozenset()
    ) -> None:
        self.fused, self.asked = fused, asked
        self.a, self.b, self.gt = a.detach(), b.detach(), None if gt is None else gt.detach()
        self._cache: dict[Callable[..., Any], Any] = {}

    def detached(self) -> Images:
        """The same without gradients: itself where there are none."""
        if not self.fused.requires_grad:
            return self
        return Images(self.fused.detach(), self.a, self.b, self.gt, self.asked)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.fused.shape[2], self.fused.shape[3]

    @property
    def lumas(self) -> tuple[Plane, Plane, Plane]:
        """BT.601 lumas of fused, a and b, (n, h, w), see ``clearfuse.train.metrics.base.luma``."""
        return self.once(_lumas)

    def against_truth(self) -> tuple[Batch, Batch]:
        """The fused images and the ground truths with as many channels."""
        assert self.gt is not None
        fused, gt = torch.broadcast_tensors(self.fused, self.gt)
        return fused, gt

    def once(self, compute: Callable[[Images], T]) -> T:
        """``compute(self)``, computed on the first call and cached."""
        if compute not in self._cache:
            self._cache[compute] = compute(self)
        return self._cache[compute]


def widest(device: torch.device) -> torch.dtype:
    """float64, or float32 on a device without it (Apple's MPS)."""
    return torch.float32 if device.type == "mps" else torch.float64


def codes(image: Tensor) -> Batch:
    """uint8, or floating point with white at 1, as code values: (c, h, w) as a batch of one, (n, c, h, w) as it is.

    Floating-point values are rounded to 1/1024 of a code value as arrays are; the gradient is that without rounding.
    """
    batch = image[None] if image.ndim == 3 else image
    wide = batch.to(widest(batch.device))
    return wide if image.dtype == torch.uint8 else on_grid(wide * PEAK)


def on_grid(x: Float[Tensor, "*dims"]) -> Float[Tensor, "*dims"]:
    """Round to 1/1024, with the gradient of the identity: x + (round(x) − x) is round(x) exactly."""
    return x + (torch.round(x * GRID) / GRID - x).detach()


def _lumas(images: Images) -> tuple[Plane, Plane, Plane]:
    fused, a, b = (luma(image) for image in (images.fused, images.a, images.b))
    return fused, a, b


def luma(image: Batch) -> Plane:
    """0.299 R + 0.587 G + 0.114 B, rounded to 1/1024; of grey images their channel."""
    if image.shape[1] == 1:
        return image[:, 0]
    red, green, blue = image.unbind(1)
    return on_grid(LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)


def constant(plane: Plane) -> Tensor:
    """Whether a plane has one value, for each."""
    return plane.amax((-2, -1)) == plane.amin((-2, -1))

"""The lumas of one evaluation, and what several fusion metrics make of them, each made once, when first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Complex, Float32, Float64, Int32

LEVELS = 256

Luma = Float32[np.ndarray, "h w"]
T = TypeVar("T")


class Planes:
    """BT.601 lumas on 0..255 of the fused image and its two sources. asked: the names of the metrics wanted, so that
    what one of them alone needs is not made for the others.
    """

    def __init__(self, fused: Luma, a: Luma, b: Luma, asked: frozenset[str] = frozenset()) -> None:
        self.fused, self.a, self.b, self.asked = fused, a, b, asked
        self._made: dict[Callable[..., Any], Any] = {}

    @property
    def sources(self) -> tuple[np.ndarray, np.ndarray]:
        """a and b."""
        return self.a, self.b

    @property
    def images(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The fused image, a and b."""
        return self.fused, self.a, self.b

    def once(self, make: Callable[[Planes], T]) -> T:
        """``make(self)``, made once for all the metrics."""
        if make not in self._made:
            self._made[make] = make(self)
        return self._made[make]


def levels(planes: Planes) -> tuple[Int32[np.ndarray, "h w"], ...]:
    """The grey levels 0..255 of fused, a and b: lumas rounded, halves up."""
    return tuple((image + np.float32(0.5)).astype(np.int32) for image in planes.images)


def joint(planes: Planes) -> tuple[Float64[np.ndarray, "256 256"], ...]:
    """Shares of the pairs (level of the source, level of the fused image), for a and for b."""
    fused, *sources = planes.once(levels)
    pairs = (np.bincount((source * LEVELS + fused).ravel(), minlength=LEVELS**2) for source in sources)
    return tuple(each.reshape(LEVELS, LEVELS) / fused.size for each in pairs)


def histograms(planes: Planes) -> tuple[Float64[np.ndarray, "256"], ...]:
    """Shares of the grey levels of fused, a and b."""
    of_a, of_b = planes.once(joint)
    return of_a.sum(0), of_a.sum(1), of_b.sum(1)


def spectra(planes: Planes) -> tuple[Complex[np.ndarray, "h w2"], ...]:
    """Discrete Fourier transforms of fused, a and b: the half that a real image's has."""
    return tuple(np.fft.rfft2(image) for image in planes.images)

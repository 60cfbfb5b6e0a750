"""The lumas that a fused image is scored on, and a cache of the quantities that several metrics derive from them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Complex, Float32, Float64, Int32

LEVELS = 256

Luma = Float32[np.ndarray, "h w"]
T = TypeVar("T")


class Group:
    """Lumas of images fused of one pair, and a cache of what metrics compute of all of them at once, so that what comes
    from the sources alone is computed once. asked: see ``Planes``.
    """

    def __init__(self, fused: Sequence[Luma], a: Luma, b: Luma, asked: frozenset[str] = frozenset()) -> None:
        self.fused, self.a, self.b, self.asked = tuple(fused), a, b, asked
        self._cache: dict[Callable[..., Any], Any] = {}

    def once(self, compute: Callable[[Group], T]) -> T:
        """``compute(self)``, computed on the first call and cached."""
        if compute not in self._cache:
            self._cache[compute] = compute(self)
        return self._cache[compute]

    def planes(self) -> list[Planes]:
        """The planes of each fused image."""
        return [Planes(image, self.a, self.b, self.asked, self, place) for place, image in enumerate(self.fused)]


class Planes:
    """BT.601 lumas on 0..255 of the fused image and its two sources. asked: names of the metrics to compute, so that
    what only one of them needs is left out for the others. group: the images that are scored together, this one at
    ``place``; without one it is alone.
    """

    def __init__(
        self,
        fused: Luma,
        a: Luma,
        b: Luma,
        asked: frozenset[str] = frozenset(),
        group: Group | None = None,
        place: int = 0,
    ) -> None:
        self.fused, self.a, self.b, self.asked = fused, a, b, asked
        self.group, self.place = group or Group((fused,), a, b, asked), place
        self._cache: dict[Callable[..., Any], Any] = {}

    @property
    def sources(self) -> tuple[np.ndarray, np.ndarray]:
        """a and b."""
        return self.a, self.b

    @property
    def images(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The fused image, a and b."""
        return self.fused, self.a, self.b

    def once(self, compute: Callable[[Planes], T]) -> T:
        """``compute(self)``, computed on the first call and cached."""
        if compute not in self._cache:
            self._cache[compute] = compute(self)
        return self._cache[compute]

    def together(self, compute: Callable[[Group], Sequence[T]]) -> T:
        """This image's of ``compute(group)``, which is computed once for all images of the group."""
        return self.group.once(compute)[self.place]


def levels(planes: Planes) -> tuple[Int32[np.ndarray, "h w"], ...]:
    """The grey levels 0..255 of fused, a and b: lumas rounded half up."""
    return tuple((image + np.float32(0.5)).astype(np.int32) for image in planes.images)


def joint_histograms(planes: Planes) -> tuple[Float64[np.ndarray, "256 256"], ...]:
    """Relative frequencies of the pairs (grey level of the source, grey level of the fused image), for a and for b."""
    fused, *sources = planes.once(levels)
    counts = (np.bincount((source * LEVELS + fused).ravel(), minlength=LEVELS**2) for source in sources)
    return tuple(count.reshape(LEVELS, LEVELS) / fused.size for count in counts)


def histograms(planes: Planes) -> tuple[Float64[np.ndarray, "256"], ...]:
    """Relative frequencies of the grey levels of fused, a and b."""
    joint_a, joint_b = planes.once(joint_histograms)
    return joint_a.sum(0), joint_a.sum(1), joint_b.sum(1)


def spectra(planes: Planes) -> tuple[Complex[np.ndarray, "h w2"], ...]:
    """Discrete Fourier transforms of fused, a and b, the half spectrum of a real image."""
    return tuple(np.fft.rfft2(image) for image in planes.images)

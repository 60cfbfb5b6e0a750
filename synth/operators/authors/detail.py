"""Blur, noise, resolution and JPEG of the authors' pipeline, on code values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Float32

from clearfuse.synth.color import as_hwc
from clearfuse.synth.operators.authors.tone import SOURCE, stretched
from clearfuse.synth.operators.base import Image, Operator, Scene, Stage, choice, free, severe
from clearfuse.synth.operators.codec import Jpeg as OurJpeg
from clearfuse.synth.operators.sensor import normal_field

ROWS, COLUMNS = 5, 31
"""Shape of the Gaussian kernel: kornia reads the pair (5, 31), meant as a range, as rows and columns."""


def profile(sigma: float, side: int) -> Float32[np.ndarray, " k"]:
    """k(i) ∝ exp(−i²/(2σ²)) on an odd number of pixels, unit sum: truncated where 3σ is beyond them."""
    i = np.arange(side) - side // 2
    k = np.exp(-(i**2) / (2 * sigma**2))
    return (k / k.sum()).astype(np.float32)


def blurred(image: Image, sigma: float, rows: int, columns: int) -> Image:
    """The image convolved with a Gaussian of that many rows and columns, mirrored about its border pixels."""
    out = cv2.sepFilter2D(image, -1, profile(sigma, columns), profile(sigma, rows), borderType=cv2.BORDER_REFLECT_101)
    return np.clip(as_hwc(out), 0, 1)


def line_kernel(reach: int, angle: float, direction: float) -> Float32[np.ndarray, "k k"]:
    """A line of 2 reach + 1 pixels, turned counter-clockwise by the angle in degrees, sampled at the nearest pixel.

    Its weights go linearly from s = (direction + 1)/2 to 1 − s along the line; the kernel has unit sum.
    """
    share = (direction + 1) / 2
    weights = np.linspace(share, 1 - share, 2 * reach + 1)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along, across = np.rint(c * x - s * y).astype(int), np.rint(s * x + c * y).astype(int)
    on = (across == 0) & (np.abs(along) <= reach)
    kernel = np.where(on, weights[np.clip(along + reach, 0, 2 * reach)], 0)
    return (kernel / kernel.sum()).astype(np.float32)


def resized(image: Image, height: int, width: int) -> Float32[np.ndarray, "nh nw c"]:
    """Bilinear interpolation between pixel centres, the corner pixels on the corner pixels; no low-pass before it."""
    for axis, count in ((0, height), (1, width)):
        at = np.linspace(0, image.shape[axis] - 1, count)
        low = np.floor(at).astype(int)
        high = np.minimum(low + 1, image.shape[axis] - 1)
        share = (at - low).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        below, above = image.take(low, axis), image.take(high, axis)
        image = below + (above - below) * share
    return image


@dataclass(frozen=True)
class Blur(Operator):
    """The authors' Gaussian blur: a kernel of 5 rows by 31 columns, so that it is cut off vertically from σ = 1 on."""

    name: ClassVar[str] = "authors:gaussian_blur"
    stage: ClassVar[Stage] = "processing"
    source: ClassVar[str] = SOURCE

    sigma: float = severe(1.0, 3.0, "standard deviation", low=0.1, high=20.0, unit="px")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        return blurred(image, self.sigma, ROWS, COLUMNS)


@dataclass(frozen=True)
class Motion(Operator):
    """The authors' motion blur: a line of 5 to 29 px with weights that fall along it; zeros beyond the border.

    So the edges of the picture darken, and since the weights are uneven it shifts.
    """

    name: ClassVar[str] = "authors:motion_blur"
    stage: ClassVar[Stage] = "processing"
    source: ClassVar[str] = SOURCE

    reach: int = severe(2, 14, "half of the line: it has 2 reach + 1 pixels", low=1, high=50, unit="px", integer=True)
    angle: float = free(-35.0, 35.0, "counter-clockwise from horizontal", low=-90.0, high=90.0, unit="deg")
    direction: float = free(-0.5, 0.5, "how much the weights fall along the line", low=-1.0, high=1.0)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        kernel = line_kernel(self.reach, self.angle, self.direction)
        out = cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_CONSTANT)
        return np.clip(as_hwc(out), 0, 1)


@dataclass(frozen=True)
class Noise(Operator):
    """The authors' noise: out = x + σ z on code values, σ = 15/255 always; out of range the whole picture is stretched.

    Independent in the two images; whether theirs was is not known.
    """

    name: ClassVar[str] = "authors:gaussian_noise"
    stage: ClassVar[Stage] = "processing"
    source: ClassVar[str] = SOURCE

    sigma: float = free(15 / 255, 15 / 255, "standard deviation", low=0.0, high=1.0, identity=0.0)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        return stretched(image + np.float32(self.sigma) * normal_field(image.shape, rng))


@dataclass(frozen=True)
class Downsample(Operator):
    """The authors' loss of resolution: bilinear down by the scale and up again, corners aligned, no low-pass before."""

    name: ClassVar[str] = "authors:downsample"
    stage: ClassVar[Stage] = "processing"
    source: ClassVar[str] = SOURCE

    scale: float = severe(1.0, 2.0, "ratio of the sides", low=1.0, high=16.0, identity=1.0)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        h, w, _ = image.shape
        small = resized(image, max(1, int(h / self.scale)), max(1, int(w / self.scale)))
        return np.clip(resized(small, h, w), 0, 1)


@dataclass(frozen=True)
class Jpeg(OurJpeg):
    """The authors' JPEG compression: qualities 5 to 50, by libjpeg where they have kornia's differentiable form."""

    name: ClassVar[str] = "authors:jpeg"
    stage: ClassVar[Stage] = "processing"
    source: ClassVar[str] = SOURCE

    quality: int = severe(50.0, 5.0, "libjpeg quality", low=1.0, high=100.0, integer=True, identity=100)
    subsampling: str = choice("4:2:0", doc="chroma subsampling")

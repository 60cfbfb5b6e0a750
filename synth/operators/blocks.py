"""Operators that damage one block of a picture, where the other picture of the pair keeps it whole.

Source of the operators and of their ranges: DiTFuse, multi-degradation masked-image modelling (Li, Jiang, Jiang, Liang,
Ma and Nie, Towards unified semantic and controllable image fusion: a diffusion transformer approach, TPAMI 2025, and
the data script that its authors published). All act on code values, within the block alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from clearfuse.synth import color
from clearfuse.synth.operators.base import Image, Operator, Scene, Stage, choice, free

SOURCE = "DiTFuse (Li et al., TPAMI 2025), section on M3 and its data script"
KERNELS = (3, 5, 7, 9, 11)


@dataclass(frozen=True)
class _Block(Operator):
    """What all have in common."""

    stage: ClassVar[Stage] = "processing"
    source: ClassVar[str] = SOURCE


@dataclass(frozen=True)
class Mask(_Block):
    """The block becomes noise, uniform over all codes: nothing of it is left."""

    name: ClassVar[str] = "block_mask"

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        return color.code_to_float(rng.integers(0, 256, image.shape, np.uint8))


@dataclass(frozen=True)
class Gaussian(_Block):
    """x + n, n ~ N(0, σ²), independent by pixel and channel."""

    name: ClassVar[str] = "block_gaussian_noise"
    sigma: float = free(10.0, 35.0, "standard deviation", unit="codes")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        return image + rng.standard_normal(image.shape, np.float32) * np.float32(self.sigma / 255)


@dataclass(frozen=True)
class SaltAndPepper(_Block):
    """A share p of the pixels is replaced, half by white, half by black."""

    name: ClassVar[str] = "block_salt_pepper"
    share: float = free(0.01, 0.03, "share p of the pixels")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        drawn = rng.random(image.shape[:2])[..., None]
        return np.where(drawn < self.share, np.where(drawn < self.share / 2, np.float32(1), np.float32(0)), image)


@dataclass(frozen=True)
class GaussianBlur(_Block):
    """Convolution with a Gaussian of k × k pixels, the block mirrored about its border pixels."""

    name: ClassVar[str] = "block_gaussian_blur"
    kernel: int = choice(*KERNELS, doc="side k of the kernel in pixels")
    sigma: float = free(0.8, 3.0, "standard deviation", unit="px")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        side = (self.kernel, self.kernel)
        return color.as_hwc(cv2.GaussianBlur(image, side, self.sigma, None, self.sigma, cv2.BORDER_REFLECT_101))


@dataclass(frozen=True)
class BoxBlur(_Block):
    """The mean of k × k pixels, the block mirrored about its border pixels."""

    name: ClassVar[str] = "block_box_blur"
    kernel: int = choice(*KERNELS, doc="side k of the kernel in pixels")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        return color.as_hwc(cv2.blur(image, (self.kernel, self.kernel), borderType=cv2.BORDER_REFLECT_101))


@dataclass(frozen=True)
class MedianBlur(_Block):
    """The median of k × k pixels by channel, on 8 bits, the block continued by its border pixels."""

    name: ClassVar[str] = "block_median_blur"
    kernel: int = choice(*KERNELS, doc="side k of the kernel in pixels")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        return color.code_to_float(color.as_hwc(cv2.medianBlur(color.to_uint8(image), self.kernel)))


BLOCK_OPERATORS: dict[str, type[Operator]] = {
    cls.name: cls for cls in (Mask, Gaussian, SaltAndPepper, GaussianBlur, BoxBlur, MedianBlur)
}

BLOCK_WEIGHTS = {
    "block_mask": 1 / 3, "block_gaussian_noise": 1 / 6, "block_salt_pepper": 1 / 6,
    "block_gaussian_blur": 1 / 9, "block_box_blur": 1 / 9, "block_median_blur": 1 / 9,
}  # fmt: skip
"""How often each is drawn: mask, noise and blur alike, and each of their kinds alike."""

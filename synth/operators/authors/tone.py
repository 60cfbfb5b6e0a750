"""Exposure and contrast of the authors' pipeline: kornia's brightness, a sum, and kornia's contrast, a product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from clearfuse.synth.operators.base import Image, Operator, Scene, Stage, severe

SOURCE = "vg219/EDACA-Net at 5706ff1624a3, task_datasets/DIF (December 2024)"
"""Where the form and the range of each operator were read."""


def shifted(image: Image, shift: float) -> Image:
    """out = clip(x + shift, 0, 1), code values."""
    return np.clip(image + np.float32(shift), 0, 1)


def multiplied(image: Image, gain: float) -> Image:
    """out = clip(gain · x, 0, 1), code values."""
    return np.clip(image * np.float32(gain), 0, 1)


def stretched(image: Image) -> Image:
    """(x − min) / (max − min) where a value leaves [0, 1], else x: how the authors store what is out of range.

    min and max are of the whole image, all channels together.
    """
    low, high = float(image.min()), float(image.max())
    if low >= 0 and high <= 1:
        return image
    out = (image - np.float32(low)) * np.float32(1 / (high - low)) if high > low else image
    return np.clip(out, 0, 1)


@dataclass(frozen=True)
class LowExposure(Operator):
    """The authors' low exposure: out = clip(x + shift, 0, 1), shift < 0, code values: a sum, where light multiplies."""

    name: ClassVar[str] = "authors:low_exposure"
    stage: ClassVar[Stage] = "processing"
    source: ClassVar[str] = SOURCE

    shift: float = severe(-0.1, -0.5, "added to the code values", low=-1.0, high=0.0, identity=0.0)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        return shifted(image, self.shift)


@dataclass(frozen=True)
class HighExposure(Operator):
    """The authors' high exposure: out = clip(x + shift, 0, 1), shift > 0, code values: black becomes grey."""

    name: ClassVar[str] = "authors:high_exposure"
    stage: ClassVar[Stage] = "processing"
    source: ClassVar[str] = SOURCE

    shift: float = severe(0.1, 0.5, "added to the code values", low=0.0, high=1.0, identity=0.0)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        return shifted(image, self.shift)


@dataclass(frozen=True)
class LowContrast(Operator):
    """The authors' low contrast: out = clip(gain · x, 0, 1), gain < 1, code values: about black, so it darkens too."""

    name: ClassVar[str] = "authors:low_contrast"
    stage: ClassVar[Stage] = "processing"
    source: ClassVar[str] = SOURCE

    gain: float = severe(0.8, 0.2, "factor of the code values", low=0.0, high=1.0, identity=1.0)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        return multiplied(image, self.gain)


@dataclass(frozen=True)
class HighContrast(Operator):
    """The authors' high contrast: out = clip(gain · x, 0, 1), gain > 1, code values: brighter too, and clipped."""

    name: ClassVar[str] = "authors:high_contrast"
    stage: ClassVar[Stage] = "processing"
    source: ClassVar[str] = SOURCE

    gain: float = severe(1.6, 2.6, "factor of the code values", low=1.0, high=10.0, identity=1.0)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        return multiplied(image, self.gain)

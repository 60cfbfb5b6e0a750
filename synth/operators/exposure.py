"""How much light the frame got (linear light, not clipped here), and how much contrast the camera left of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from synth.color import code_to_float, to_uint8
from synth.operators.base import Image, Operator, Scene, Stage, free, severe
from synth.types import Modality

DRIFT = 0.5
"""Share of the way from the image's mean to the drawn level at which the pedestal lies."""


def expose(image: Image, ev: float) -> Image:
    """out = image · 2^EV, in linear light; the chain clips at full well, after the exposure."""
    return image * np.float32(2.0**ev)


def compress(image: Image, contrast: float, pedestal: float) -> Image:
    """out = p + c (x − p): every value a share ``1 - c`` of the way nearer to the pedestal ``p``."""
    return image * np.float32(contrast) + np.float32((1 - contrast) * pedestal)


@dataclass(frozen=True)
class LowExposure(Operator):
    """Too little light: out = image · 2^ev, ev < 0, in linear light. Noise comes after it, as in a camera."""

    name: ClassVar[str] = "low_exposure"
    stage: ClassVar[Stage] = "exposure"
    unclipped: ClassVar[bool] = True
    modalities: ClassVar[frozenset[Modality]] = frozenset({"visible"})
    source: ClassVar[str] = "exposure value: ISO 12232, one EV a factor of two; range of low-light sets, −1 to −4 EV"

    ev: float = severe(-1.0, -4.0, "exposure value", low=-10.0, high=0.0, unit="EV", identity=0.0)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        return expose(image, self.ev)


@dataclass(frozen=True)
class HighExposure(Operator):
    """Too much light: out = image · 2^ev, ev > 0, in linear light; what exceeds full well is cut by the chain."""

    name: ClassVar[str] = "high_exposure"
    stage: ClassVar[Stage] = "exposure"
    unclipped: ClassVar[bool] = True
    modalities: ClassVar[frozenset[Modality]] = frozenset({"visible"})
    source: ClassVar[str] = "exposure value: ISO 12232, one EV a factor of two; range of exposure brackets, 1 to 3 EV"

    ev: float = severe(1.0, 3.0, "exposure value", low=0.0, high=10.0, unit="EV", identity=0.0)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        return expose(image, self.ev)


@dataclass(frozen=True)
class LowContrast(Operator):
    """A flat picture: out = floor(255 (p + c (x − p)) + 0.5) / 255, on code values, p = mean + (level − mean) / 2.

    The rounding to 8 bit is the point: about 255 c grey levels are left, and no stretch brings the others back.
    """

    name: ClassVar[str] = "low_contrast"
    stage: ClassVar[Stage] = "processing"
    source: ClassVar[str] = "Hendrycks and Dietterich, ImageNet-C, ICLR 2019 (contrast), about a drifting pedestal"

    contrast: float = severe(0.7, 0.25, "share of the contrast that is left", low=0.0, high=1.0, identity=1.0)
    pedestal: float = free(0.2, 0.6, "level toward which the image's mean drifts, half of the way", low=0.0, high=1.0)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        mean = float(image.mean(dtype=np.float64))
        pedestal = mean + DRIFT * (self.pedestal - mean)
        return code_to_float(to_uint8(compress(image, self.contrast, pedestal)))

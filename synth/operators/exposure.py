"""How much light the frame got (linear light, not clipped here), and how much contrast the camera left of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from clearfuse.synth.color import code_to_float
from clearfuse.synth.operators.base import Image, Operator, Scene, Stage, free, severe
from clearfuse.synth.operators.sensor import read_variance, shot_and_read
from clearfuse.synth.types import Modality

DRIFT = 0.5
"""Share of the way from the image's mean to the drawn level at which the pedestal lies."""

BASE_SHOT = 1e-4
"""k_s at the base ISO, a full well of 10,000 photo-electrons: the low end of the law of ``sensor_noise``."""


def expose(image: Image, ev: float) -> Image:
    """out = image · 2^EV, in linear light; the chain clips at full well, after the exposure."""
    return image * np.float32(2.0**ev)


def compress(image: Image, contrast: float, pedestal: float) -> Image:
    """out = p + c (x − p): every value a share ``1 - c`` of the way nearer to the pedestal ``p``."""
    return image * np.float32(contrast) + np.float32((1 - contrast) * pedestal)


def requantised(image: Image, contrast: float, pedestal: float) -> Image:
    """floor(255 (p + c (x − p)) + 0.5) / 255: ``compress`` in 8 bit, x and p in [0, 1], c at most 1."""
    codes = image * np.float32(255 * contrast)
    codes += np.float32(255 * (1 - contrast) * pedestal + 0.5)
    return code_to_float(codes.astype(np.uint8))  # positive: the conversion is the floor


def mean_level(image: Image) -> float:
    """The mean, summed in pairs in single precision: within 1e-6, in a third of double precision's time."""
    return float(image.mean(dtype=np.float32))


def gain_variances(ev: float) -> tuple[float, float]:
    """k_s and k_r of the darkened signal d: σ²(d) = k_s0 d + k_r(g k_s0)/g², with the gain g = 2^−ev.

    At the ISO that restores the light, y = g d has k_s = g k_s0, since an electron counts for g times as much, and the
    read variance k_r(g k_s0) of the law's middle. In terms of d both variances are g² times smaller: as many electrons
    as at the base ISO make the shot noise, and the read noise, in electrons, is all but the same.
    """
    gain = 2.0**-ev
    return BASE_SHOT, read_variance(gain * BASE_SHOT, 0.5) / gain**2


@dataclass(frozen=True)
class LowExposure(Operator):
    """Too little light: out = image · 2^ev, ev < 0, in linear light. Noise comes after it, as in a camera.

    With ``gain_noise`` γ > 0 the frame also has γ times the shot and read noise, σ² = γ² (k_s0 d + k_r(g k_s0)/g²) on
    d = image · 2^ev, that the gain g = 2^−ev would bring out: what brightens the frame by −ev meets the noise of a
    camera at that ISO. Clipped at 0. Not beside ``sensor_noise``, which is the same noise again.
    """

    name: ClassVar[str] = "low_exposure"
    stage: ClassVar[Stage] = "exposure"
    unclipped: ClassVar[bool] = True
    modalities: ClassVar[frozenset[Modality]] = frozenset({"visible"})
    source: ClassVar[str] = (
        "exposure value: ISO 12232, one EV a factor of two; range of low-light sets, −1 to −4 EV; "
        "noise of the gain: Brooks et al., CVPR 2019, k_s proportional to the gain"
    )

    ev: float = severe(-1.0, -4.0, "exposure value", low=-10.0, high=0.0, unit="EV", identity=0.0)
    gain_noise: float = free(
        0.0,
        0.0,
        "share of the noise at the ISO that would restore the light; 0 unless a recipe sets it",
        low=0.0,
        high=1.0,
        identity=0.0,
        default=0.0,
    )

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        out = expose(image, self.ev)
        if self.gain_noise == 0:
            return out
        shot, read = (self.gain_noise**2 * variance for variance in gain_variances(self.ev))
        return shot_and_read(out, shot, read, rng, full_well=math.inf)


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
        mean = mean_level(image)
        return requantised(image, self.contrast, mean + DRIFT * (self.pedestal - mean))


@dataclass(frozen=True)
class HighContrast(Operator):
    """A harsh tone curve: out = clip(p + c (x − p), 0, 1), c > 1, code values, p = m + pivot · m (1 − m), m the mean.

    What lies more than p/c below the pivot p is crushed to black, what lies more than (1 − p)/c above it burns out,
    and colours, of which each channel is stretched by itself, gain saturation. The pivot keeps to the mean of a dark
    or a bright frame, which a fixed one would make all black or all white.
    """

    name: ClassVar[str] = "high_contrast"
    stage: ClassVar[Stage] = "processing"
    source: ClassVar[str] = "Gonzalez and Woods, Digital Image Processing, section 3.2 (contrast stretching, saturated)"

    contrast: float = severe(1.25, 2.5, "contrast gain", low=1.0, high=10.0, identity=1.0)
    pivot: float = free(-0.5, 0.5, "how far the pivot lies from the mean m, in m (1 − m)", low=-1.0, high=1.0)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        mean = mean_level(image)
        out = compress(image, self.contrast, mean + self.pivot * mean * (1 - mean))
        return np.clip(out, 0, 1, out=out)


@dataclass(frozen=True)
class IrLowContrast(Operator):
    """Automatic gain gone wrong: out = floor(255 (p + c (x − p)) + 0.5) / 255, c the scene's share of the span.

    The gain maps the span of what is in view to the full scale. A flame or the sun widens that span at its hot end, the
    clear sky at its cold end, and the scene gets the share c of it; p is the cold part of what was added. At p = 0
    the scene sinks to near black, at p = 1 it lies near white, and nothing clips. About 255 c grey levels are left.
    Unlike ``low_contrast``, whose grey veil keeps the picture about its own mean: here the level is the extremes'.
    """

    name: ClassVar[str] = "ir_low_contrast"
    stage: ClassVar[Stage] = "processing"
    modalities: ClassVar[frozenset[Modality]] = frozenset({"infrared"})
    source: ClassVar[str] = (
        "linear automatic gain by the extremes (direct scaling), as in Silverman et al., Real-time automated scene "
        "display for infrared cameras, US 5,249,241, 1993"
    )

    contrast: float = severe(
        0.7, 0.1, "the scene's share of the span that the gain spreads", low=0.0, high=1.0, identity=1.0
    )
    pedestal: float = free(0.0, 1.0, "the cold part of what is added to the span")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        return requantised(image, self.contrast, self.pedestal)

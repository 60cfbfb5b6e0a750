"""Exposure, in linear light and not clipped here, and contrast, on code values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from clearfuse.synth.color import code_to_float, code_to_linear, luma
from clearfuse.synth.operators.base import Image, Operator, Range, Scene, Stage, free, severe
from clearfuse.synth.operators.sensor import read_variance, shot_and_read
from clearfuse.synth.types import Modality

DRIFT = 0.5
"""Position of the pedestal between the image's mean (0) and the drawn level (1)."""

BASE_SHOT = 1e-4
"""k_s at the base ISO, a full well of 10,000 photo-electrons."""


LEAST_MEDIAN = 0.004
"""Linear light that the median of an under-exposed picture keeps: one code of 8 bit holds 0.0003, and read noise of a
small sensor 0.002; below it most of the picture is a few codes."""

MOST_CLIPPED = 0.4
"""Largest share of the pixels that over-exposure clips."""

SAMPLED = 1 << 16
"""Pixels, about, from which a picture's quantiles are taken."""


def level_at(clean: np.ndarray, share: float, *, brightest: bool = False) -> float:
    """The linear light that a share of the pixels of a uint8 picture stay below.

    Of the luminance, or with ``brightest`` of the brightest channel, which clips first.
    """
    step = max(1, math.isqrt(clean.shape[0] * clean.shape[1] // SAMPLED))
    light = code_to_linear(np.ascontiguousarray(clean[::step, ::step]))
    return float(np.quantile(light.max(2) if brightest else luma(light), share))


def limited(ranges: Mapping[str, Range], bound: float) -> Mapping[str, Range] | None:
    """The ranges with ``ev`` no farther from 0 than ``bound``, which has its sign; None where none of it is left."""
    ev = ranges["ev"]
    bound = float(f"{bound:.6g}")
    if abs(ev.mild) > abs(bound) or ev.mild * bound < 0:
        return None
    strong = math.copysign(min(abs(ev.strong), abs(bound)), bound)
    return {**ranges, "ev": replace(ev, strong=strong)}


def expose(image: Image, ev: float) -> Image:
    """out = image · 2^EV, in linear light; clipping at the full well comes later in the chain."""
    return image * np.float32(2.0**ev)


def compress(image: Image, contrast: float, pedestal: float) -> Image:
    """out = p + c (x − p): contrast scaled by c about the pedestal p."""
    return image * np.float32(contrast) + np.float32((1 - contrast) * pedestal)


def compress_to_8bit(image: Image, contrast: float, pedestal: float) -> Image:
    """floor(255 (p + c (x − p)) + 0.5) / 255: ``compress`` in 8 bit, x and p in [0, 1], c at most 1."""
    codes = image * np.float32(255 * contrast)
    codes += np.float32(255 * (1 - contrast) * pedestal + 0.5)
    return code_to_float(codes.astype(np.uint8))  # positive: the conversion is the floor


def mean_level(image: Image) -> float:
    """The mean by pairwise summation in single precision: accurate to 1e-6, three times as fast as in double."""
    return float(image.mean(dtype=np.float32))


def gain_variances(ev: float) -> tuple[float, float]:
    """k_s and k_r of the darkened signal d: σ²(d) = k_s0 d + k_r(g k_s0)/g², with the gain g = 2^−ev.

    At the ISO that restores the brightness, y = g d has k_s = g k_s0, since an electron counts g times as much, and the
    median read variance k_r(g k_s0) of the law. In terms of d both variances are g² times smaller: the shot noise is
    that of the same number of electrons as at the base ISO, and the read noise, in electrons, is almost the same.
    """
    gain = 2.0**-ev
    return BASE_SHOT, read_variance(gain * BASE_SHOT, 0.5) / gain**2


@dataclass(frozen=True)
class LowExposure(Operator):
    """Underexposure: out = image · 2^ev, ev < 0, in linear light. Noise is added later in the chain, as in a camera.

    With ``gain_noise`` γ > 0 it also adds γ times the shot and read noise, σ² = γ² (k_s0 d + k_r(g k_s0)/g²) on
    d = image · 2^ev, of a camera at the ISO with gain g = 2^−ev, so that restoring the brightness reveals that noise.
    Clipped at 0. Not to be combined with ``sensor_noise``, which would add the same noise again.
    """

    name: ClassVar[str] = "low_exposure"
    stage: ClassVar[Stage] = "exposure"
    unclipped: ClassVar[bool] = True
    modalities: ClassVar[frozenset[Modality]] = frozenset({"visible"})
    source: ClassVar[str] = (
        "exposure value: ISO 12232, one EV a factor of two; what of low-light sets, −1 to −4 EV, 8 bit can bear; "
        "noise of the gain: Brooks et al., CVPR 2019, k_s proportional to the gain"
    )

    ev: float = severe(-0.5, -3.0, "exposure value", low=-10.0, high=0.0, unit="EV", identity=0.0)
    gain_noise: float = free(
        0.0,
        0.0,
        "noise relative to that at the ISO that would restore the brightness; 0 unless a recipe sets it",
        low=0.0,
        high=1.0,
        identity=0.0,
        default=0.0,
    )

    @classmethod
    def fit(cls, ranges: Mapping[str, Range], clean: np.ndarray, scene: Scene) -> Mapping[str, Range] | None:
        """Such that the median of the picture's linear light stays above ``LEAST_MEDIAN``."""
        return limited(ranges, math.log2(LEAST_MEDIAN / max(level_at(clean, 0.5), LEAST_MEDIAN)))

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        out = expose(image, self.ev)
        if self.gain_noise == 0:
            return out
        shot, read = (self.gain_noise**2 * variance for variance in gain_variances(self.ev))
        return shot_and_read(out, shot, read, rng, full_well=math.inf)


@dataclass(frozen=True)
class HighExposure(Operator):
    """Overexposure: out = image · 2^ev, ev > 0, in linear light; the chain clips it at the full well."""

    name: ClassVar[str] = "high_exposure"
    stage: ClassVar[Stage] = "exposure"
    unclipped: ClassVar[bool] = True
    modalities: ClassVar[frozenset[Modality]] = frozenset({"visible"})
    source: ClassVar[str] = (
        "exposure value: ISO 12232, one EV a factor of two; of exposure brackets, 1 to 3 EV, what leaves detail"
    )

    ev: float = severe(0.5, 2.0, "exposure value", low=0.0, high=10.0, unit="EV", identity=0.0)

    @classmethod
    def fit(cls, ranges: Mapping[str, Range], clean: np.ndarray, scene: Scene) -> Mapping[str, Range] | None:
        """Such that at most the share ``MOST_CLIPPED`` of the pixels has a channel at the full well."""
        return limited(ranges, -math.log2(max(level_at(clean, 1 - MOST_CLIPPED, brightest=True), 1e-6)))

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        return expose(image, self.ev)


@dataclass(frozen=True)
class LowContrast(Operator):
    """Low contrast: out = floor(255 (p + c (x − p)) + 0.5) / 255, on code values, p = mean + (level − mean) / 2.

    The rounding to 8 bit is essential: about 255 c grey levels remain, and no contrast stretch restores the others.
    """

    name: ClassVar[str] = "low_contrast"
    stage: ClassVar[Stage] = "processing"
    source: ClassVar[str] = "Hendrycks and Dietterich, ImageNet-C, ICLR 2019 (contrast), about a drifting pedestal"

    contrast: float = severe(0.7, 0.3, "remaining share of the contrast", low=0.0, high=1.0, identity=1.0)
    pedestal: float = free(0.2, 0.6, "level towards which the image's mean moves, half of the way", low=0.0, high=1.0)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        mean = mean_level(image)
        return compress_to_8bit(image, self.contrast, mean + DRIFT * (self.pedestal - mean))


@dataclass(frozen=True)
class HighContrast(Operator):
    """Excessive contrast: out = clip(p + c (x − p), 0, 1), c > 1, code values, p = m + pivot · m (1 − m), m the mean.

    Values more than p/c below the pivot p are clipped to black, those more than (1 − p)/c above it to white; since
    each channel is stretched independently, colours gain saturation. The pivot follows the mean, since a fixed one
    would turn dark frames all black and bright ones all white.
    """

    name: ClassVar[str] = "high_contrast"
    stage: ClassVar[Stage] = "processing"
    source: ClassVar[str] = "Gonzalez and Woods, Digital Image Processing, section 3.2 (contrast stretching, saturated)"

    contrast: float = severe(1.25, 2.5, "contrast gain", low=1.0, high=10.0, identity=1.0)
    pivot: float = free(-0.5, 0.5, "distance of the pivot from the mean m, in units of m (1 − m)", low=-1.0, high=1.0)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        mean = mean_level(image)
        out = compress(image, self.contrast, mean + self.pivot * mean * (1 - mean))
        return np.clip(out, 0, 1, out=out)


@dataclass(frozen=True)
class IrLowContrast(Operator):
    """Automatic gain misled by extremes: out = floor(255 (p + c (x − p)) + 0.5) / 255, c the scene's share of the span.

    Automatic gain maps the range of temperatures in view to the full scale. A flame or the sun extends that range at
    its hot end, the clear sky at its cold end, and the scene gets a share c of it; p is the cold part of the extension.
    At p = 0 the scene is near black, at p = 1 near white, and nothing clips. About 255 c grey levels remain. Unlike
    ``low_contrast``, which stays near the image's own mean, the level is set by the extremes.
    """

    name: ClassVar[str] = "ir_low_contrast"
    stage: ClassVar[Stage] = "processing"
    modalities: ClassVar[frozenset[Modality]] = frozenset({"infrared"})
    source: ClassVar[str] = (
        "linear automatic gain by the extremes (direct scaling), as in Silverman et al., Real-time automated scene "
        "display for infrared cameras, US 5,249,241, 1993"
    )

    contrast: float = severe(
        0.7, 0.1, "the scene's share of the range that the gain maps to full scale", low=0.0, high=1.0, identity=1.0
    )
    pedestal: float = free(0.0, 1.0, "share of the range's extension at its cold end")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        return compress_to_8bit(image, self.contrast, self.pedestal)

"""Haze, rain and snow of the authors' pipeline, on code values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Float, Float32

from clearfuse.synth import color
from clearfuse.synth.operators.authors.detail import blurred
from clearfuse.synth.operators.authors.tone import SOURCE, stretched
from clearfuse.synth.operators.base import Image, Operator, Scene, Stage, free, severe
from clearfuse.synth.operators.physics.air import through_particles
from clearfuse.synth.operators.weather import Rain as OurRain
from clearfuse.synth.seeds import generator
from clearfuse.synth.types import Modality

CONTRAST = 3.912
"""−ln 0.02: the contrast left at the visual range is 2 %."""
AIR = 4.0
"""Airlight over the mean grey."""


def pseudo_distance(depth: Float[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """d = 1 − D/355, D = 0 … 255 the inverse depth stretched to the frame: 0.28 (near) to 1 (far).

    depth: metres along the ray, infinity for the sky, where the inverse is 0. A frame of one depth is all far.
    """
    inverse = 1 / np.maximum(depth.astype(np.float32), np.float32(1e-3))
    low, high = inverse.min(), inverse.max()
    codes = 255 * (inverse - low) / (high - low) if high > low else np.zeros_like(inverse)
    return np.float32(1) - codes / np.float32(355)


def unbounded_srgb(linear: Image) -> Image:
    """The sRGB transfer of linear light without its clip at 1: 1.055 x^(1/2.4) − 0.055 goes on."""
    high = cv2.pow(np.maximum(linear, 0), 1 / 2.4).reshape(linear.shape) * np.float32(1.055) - np.float32(0.055)
    return np.where(linear <= 0.0031308, linear * np.float32(12.92), high)


@dataclass(frozen=True)
class Haze(Operator):
    """The authors' haze: I = J t + A (1 − t) in linear light, t = exp(−β d), β = 3.912/V, d = 1 − D/355, A = 4 × mean.

    D is the inverse depth, stretched to 0 … 255, so that d has no unit and V is no visibility; t is between 0.27 and
    0.93. A is four times the mean of the picture's luma, in code values and above 1 for most of the day's pictures:
    what leaves [0, 1] is stretched. The infrared is blurred instead, by a kernel of 5 rows by 17 columns.
    """

    name: ClassVar[str] = "authors:haze"
    stage: ClassVar[Stage] = "processing"
    needs_depth: ClassVar[bool] = True
    event: ClassVar[bool] = True
    modalities: ClassVar[frozenset[Modality]] = frozenset({"visible"})
    source: ClassVar[str] = f"{SOURCE}; after Zhang, Ding and Sharma, HazeRD, ICIP 2017"

    visual_range: float = severe(15.0, 3.0, "V, in the unit of d", low=0.1, high=1000.0)
    ir_sigma: float = free(1.0, 2.0, "standard deviation of the infrared's blur", low=0.1, high=20.0, unit="px")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        if scene.modality == "infrared":
            return blurred(image, self.ir_sigma, 5, 17)
        clear = cv2.exp(pseudo_distance(scene.metres()) * np.float32(-CONTRAST / self.visual_range))[..., None]
        air = np.float32(AIR * float(color.luma(image).mean(dtype=np.float32)))
        return stretched(unbounded_srgb(color.srgb_to_linear(image) * clear + air * (1 - clear)))


@dataclass(frozen=True)
class Rain(Operator):
    """The authors' rain: out = clip(x + m, 0, 1), a mask of streaks m added to the luma, the chroma as it was.

    Theirs are photographs of streaks, which are not published; here m is the opacity of our streaks, seen through the
    depth, with their slant of ±10°.
    """

    name: ClassVar[str] = "authors:rain"
    stage: ClassVar[Stage] = "processing"
    needs_depth: ClassVar[bool] = True
    modalities: ClassVar[frozenset[Modality]] = frozenset({"visible"})
    source: ClassVar[str] = f"{SOURCE}; the streaks are this package's rain"

    rate: float = severe(5, 100, "rain rate of the streaks", low=0, high=200, unit="mm/h", log=True, identity=0.0)
    wind: float = free(-10, 10, "slant of a 3 mm drop's path in the image, from vertical", unit="degrees")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        if self.rate == 0:
            return image.copy()
        return np.clip(image + self.mask(rng, scene), 0, 1)

    def mask(self, rng: np.random.Generator, scene: Scene) -> Float32[np.ndarray, "h w 1"]:
        """The opacity of the streaks, 0 to 1: their picture before black, lit by 1."""
        depth = scene.metres()
        ours = OurRain.draw(generator(0), 0.5).params() | {"rate": self.rate, "wind": self.wind}
        streaks = OurRain(**ours)._streaks(rng, depth, scene.fov)
        black, white = np.zeros((*depth.shape, 1), np.float32), np.ones(1, np.float32)
        return through_particles(black, depth, 0.0, np.zeros(1, np.float32), streaks, white)


@dataclass(frozen=True)
class Snow(Operator):
    """The authors' snow: where the lightness L = (max + min)/2 is under the level, it becomes min(gain L, 1).

    There are no flakes. Hue and saturation of HLS stay: x' = L' + (x − L) (1 − |2L' − 1|) / (1 − |2L − 1|).
    """

    name: ClassVar[str] = "authors:snow"
    stage: ClassVar[Stage] = "processing"
    modalities: ClassVar[frozenset[Modality]] = frozenset({"visible"})
    source: ClassVar[str] = SOURCE

    gain: float = severe(3.0, 5.0, "factor of the lightness of dark pixels", low=1.0, high=20.0, identity=1.0)
    level: float = free(0.15, 0.25, "lightness under which a pixel is lifted", low=0.0, high=0.5)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        light = (image.max(2, keepdims=True) + image.min(2, keepdims=True)) * np.float32(0.5)
        lifted = np.minimum(light * np.float32(self.gain), 1)
        chroma = (1 - np.abs(2 * lifted - 1)) / np.maximum(1 - np.abs(2 * light - 1), np.float32(1e-6))
        out = np.where(light < self.level, lifted + (image - light) * chroma, image)
        return np.clip(out, 0, 1).astype(np.float32, copy=False)

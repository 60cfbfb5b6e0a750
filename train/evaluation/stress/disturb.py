"""What is done to a good fusion, at rising strengths. Images are uint8 ``(h, w, c)``; equations in the docstrings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from clearfuse.synth import color
from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.seeds import generator
from clearfuse.synth.types import Task

Image = UInt8[np.ndarray, "h w _"]
SEED = 7
AIRLIGHT = 0.8
"""Of the veil, linear light."""
HALO = 10.0
"""The σ of what a halo is the overshoot of, pixels; that of over-sharpening is 1."""


@dataclass(frozen=True)
class Scene:
    """A pair and its good fusion."""

    task: Task
    a: Image
    b: Image
    fused: Image


@dataclass(frozen=True)
class Disturbance:
    """A disturbance. strengths: rising, in ``unit``; of(scene, strength): the fused image, disturbed."""

    name: str
    unit: str
    strengths: tuple[float, ...]
    of: Callable[[Scene, float], Image]


def noise(scene: Scene, sigma: float) -> Image:
    """F + σ n with independent Gaussian n in each channel: the same n at every strength."""
    drawn = generator(SEED).standard_normal(scene.fused.shape, dtype=np.float32)
    return _rounded(scene.fused + np.float32(sigma) * drawn)


def haze(scene: Scene, veil: float) -> Image:
    """(1 − v) J + v A∞ in linear light: Koschmieder's law for a scene at one distance, v = 1 − exp(−β d)."""
    light = color.srgb_to_linear(color.code_to_float(scene.fused))
    veiled = (1 - np.float32(veil)) * light + np.float32(veil * AIRLIGHT)
    return color.to_uint8(color.linear_to_srgb(veiled))


def blur(scene: Scene, sigma: float) -> Image:
    """Gaussian of σ pixels."""
    return _rounded(_low(scene.fused.astype(np.float32), sigma))


def sharpening(scene: Scene, amount: float) -> Image:
    """F + k (F − G₁ F): unsharp masking."""
    return _unsharp(scene.fused, 1.0, amount)


def halos(scene: Scene, amount: float) -> Image:
    """F + k (F − G₁₀ F): unsharp masking so wide that it leaves bright and dark seams along edges."""
    return _unsharp(scene.fused, HALO, amount)


def misregistration(scene: Scene, shift: float) -> Image:
    """The fusion of a with b that lies so many pixels to the right, what it leaves free mirrored."""
    moved = np.float32([[1, 0, shift], [0, 1, 0]])
    size = scene.b.shape[1], scene.b.shape[0]
    b = cv2.warpAffine(scene.b, moved, size, borderMode=cv2.BORDER_REFLECT).reshape(scene.b.shape)
    return PyramidFuser()(scene.a, b, scene.task)


DISTURBANCES: dict[str, Disturbance] = {
    one.name: one
    for one in (
        Disturbance("noise", "σ, code values", (3, 8, 15, 25), noise),
        Disturbance("haze", "share of the veil", (0.1, 0.25, 0.45, 0.7), haze),
        Disturbance("blur", "σ, pixels", (0.7, 1.2, 2, 4), blur),
        Disturbance("over-sharpening", "gain of detail", (0.5, 1, 2, 4), sharpening),
        Disturbance("halos", "gain of detail", (0.25, 0.5, 1, 2), halos),
        Disturbance("misregistration", "shift, pixels", (1, 2, 4, 8), misregistration),
    )
}


def _unsharp(fused: Image, sigma: float, amount: float) -> Image:
    image = fused.astype(np.float32)
    return _rounded(image + np.float32(amount) * (image - _low(image, sigma)))


def _low(image: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101).reshape(image.shape)


def _rounded(image: np.ndarray) -> Image:
    return np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8)

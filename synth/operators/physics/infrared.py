"""The thermal camera: weather in front of it, and the gain control that maps its counts to 8 bit."""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Float32

from clearfuse.synth import color
from clearfuse.synth.operators.base import Image
from clearfuse.synth.operators.physics.air import koschmieder, transmission

MOST_GAIN = 4.0
"""Limit of the gain that stretches a scene of little contrast: beyond it, the picture would be noise."""

MOST_BLUR = 1.8
"""σ in pixels of a 640-pixel-wide frame of the blur where all light is scattered."""

BLURS = 3
"""Blurred versions between which a blur that varies over the frame is interpolated."""


def air_radiance(image: Image) -> float:
    """Thermal radiance of the air: the image's median, since most of a scene is near the air's temperature."""
    return float(np.median(image))


def gain_control(counts: Image, like: Image, share: float = 1.0) -> Image:
    """Automatic gain: counts mapped, in place, linearly so that their extremes are those of ``like``; nothing clips.

    ``like``: the undisturbed picture, which the same camera has stretched already, so that undisturbed counts do not
    change. share: of the stretch, geometrically: 0 keeps the gain at 1, 1 restores the full span, within ``MOST_GAIN``.
    A picture of one level has no span to restore, and clips.
    """
    low, high, least, most = (float(v) for x in (counts, like) for v in (x.min(), x.max()))
    if high - low < 1e-6 or most - least < 1e-6:
        return np.clip(counts, 0, 1, out=counts)
    gain = min(((most - least) / (high - low)) ** share, MOST_GAIN)
    if share < 1 or gain == MOST_GAIN:  # the level, too, moves by that share: the middle of the span stays inside
        span = gain * (high - low)
        middle = (0.5 * (low + high)) * (1 - share) + 0.5 * (least + most) * share
        least = min(max(middle - 0.5 * span, 0.0), max(1.0 - span, 0.0))
    counts *= np.float32(gain)
    counts += np.float32(least - gain * low)
    return np.clip(counts, 0, 1, out=counts)


def scatter(image: Image, scattered: Float32[np.ndarray, "h w"]) -> Image:
    """Small-angle scattering: a Gaussian blur of σ = 1.8 · (1 − t) pixels of a 640-pixel-wide frame at each pixel.

    scattered: 1 − t, the share of the light that is scattered on its way. Linear between ``BLURS`` blurred versions.
    """
    largest = MOST_BLUR * image.shape[1] / 640
    if largest * float(scattered.max()) < 0.05:
        return image
    place = scattered * np.float32(BLURS)
    out = image * np.maximum(1 - place, 0)[..., None]
    for k in range(1, BLURS + 1):
        weight = np.maximum(1 - np.abs(place - np.float32(k)), 0)
        if weight.any():
            out += color.as_hwc(cv2.GaussianBlur(image, (0, 0), largest * k / BLURS)) * weight[..., None]
    return out


def infrared_weather(
    image: Image,
    path: Float32[np.ndarray, "h w"],
    extinction: float,
    air: float,
    *,
    share: float,
    visible: float,
    like: Image | None = None,
) -> Image:
    """Weather in a thermal image: I t + B (1 − t), t = exp(−β_ir d), scattered, then stretched by the gain control.

    path in metres, extinction β_ir in 1/m; air: B. share: of the gain control's stretch, see ``gain_control``. like:
    the picture whose span it restores; None: ``image``. A fogged frame of a real camera spans as many codes as a clear
    one: what is near fills the range, and what is far away lies near the air's level, blurred. With a share of 0 there
    is no gain control, and the blur is uniform, σ = 1.8 (1 − exp(−β 150 m)) with β = ``visible``, the extinction of
    visible light in 1/m: steps recorded before the gain control was modelled replay so.
    """
    clear = transmission(path, extinction)
    out = koschmieder(image, clear, np.full(image.shape[2], air, np.float32))
    if share == 0:
        sigma = MOST_BLUR * -math.expm1(-150 * visible) * image.shape[1] / 640
        return color.as_hwc(cv2.GaussianBlur(out, (0, 0), sigma)) if sigma > 0.05 else out
    return gain_control(scatter(out, 1 - clear), image if like is None else like, share)

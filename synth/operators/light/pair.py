"""The light of a scene estimated from two exposures: by the darker frame, whose highlights are not clipped."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
from jaxtyping import Float, Float32

from clearfuse.synth import color
from clearfuse.synth.operators.light.ambient import Frame, Light
from clearfuse.synth.operators.light.estimate import above, darkness, estimate_light, shrink, upper_median

SATURATED = 0.955
"""Linear value, code 250, from which a channel counts as clipped."""
DARKEST = 0.1
"""Albedo of dark things: soil, trunks, dark wood."""


def darkness_of_pair(dark: Frame, bright: Frame, ratio: float) -> float:
    """``darkness`` of a scene from two exposures, of which one is always dark: judged at √k, half-way between.

    Interiors with windows have a low median there too. Two exposures a factor of two or more apart show the range that
    tells: a night has lamps, which are few and far brighter than all else (99.9th percentile over 8 to 16 times the
    90th), and an upper quarter darker than the median (under 0.55 to 0.45 times). Of 53 real pairs two are nights.
    """
    short, long = (color.luma(shrink(frame)) for frame in (dark, bright))
    found = darkness(short * np.float32(math.sqrt(ratio)))
    if ratio < 2 or found == 0:
        return found
    radiance = np.where(long < 0.8, long / np.float32(ratio), short)
    most, high = np.quantile(radiance, [0.999, 0.9])
    lamps = math.log2(max(float(most), 1e-9) / max(8 * float(high), 1e-9))
    top = upper_median(radiance[: max(len(radiance) // 4, 1)]) / max(upper_median(radiance), 1e-9)
    return found * min(max(lamps, 0.0), 1.0) * min(max((0.55 - top) / 0.1, 0.0), 1.0)


def exposure_ratio(dark: Frame, bright: Frame) -> float:
    """How much longer the second frame of a scene was exposed: k = median(b / a) of the mid-tones, in linear light.

    Mid-tones: above code 39 in the darker frame, since cameras lift shadows, and not near the clip in the brighter;
    with fewer than 1 % of them above code 10, then above code 2; with none, the ratio of the means.
    """
    step = max(1, round(max(dark.shape[:2]) / 320))
    a, b = (color.luma(np.ascontiguousarray(frame[::step, ::step])) for frame in (dark, bright))
    open_ = bright[::step, ::step].max(axis=2) < 0.85
    for floor in (0.02, 0.003, 0.0006):
        tones = open_ & (a > floor)
        if np.count_nonzero(tones) > 0.01 * tones.size:
            return float(np.median(b[tones] / a[tones]))
    return float(b.mean() / max(float(a.mean()), 1e-6))


def light_of_pair(
    image: Frame, beside: Float32[np.ndarray, "h w d"] | None, depth: Float[np.ndarray, "h w"] | None
) -> tuple[Light, Frame]:
    """The light of a scene, and the image with the radiance that its camera clipped.

    beside: the other exposure of the scene, linear; None where there is none. The light is that of the darker frame,
    times the exposure ratio k for the brighter, in whose clipped pixels k times the darker frame is put. So what
    weather does to a scene does not depend on the exposure: one frame is k times the other until the full well clips.
    """
    if beside is None:
        light = estimate_light(image, depth)
        return light, light.restored(image)
    if image.shape[2] != beside.shape[2]:  # a grey frame beside one in colour
        beside = color.luma(beside)[..., None] if image.shape[2] == 1 else np.repeat(beside, 3, 2)
    dark, bright = (image, beside) if color.luma(image).mean() <= color.luma(beside).mean() else (beside, image)
    ratio = exposure_ratio(dark, bright)
    light = estimate_light(dark, depth, darkness_of_pair(dark, bright, ratio))
    light = dataclasses.replace(light, shade=shade_of_pair(dark, bright, ratio, light.airlight))
    radiance = light.restored(dark)
    if image is dark:
        return light, radiance
    clipped = above(image, SATURATED) > 0
    full = image.copy()
    full[clipped] = np.maximum(image[clipped], np.float32(ratio) * radiance[clipped])
    return dataclasses.replace(light, exposure=ratio), full


def shade_of_pair(
    dark: Frame, bright: Frame, ratio: float, airlight: Float32[np.ndarray, " c"]
) -> Float32[np.ndarray, "sh sw 1"]:
    """Share of the day's light that reaches the air before each cell, in [0, 1].

    Two exposures show a range that one cannot: a room beside its window, the inside of a shed. Air there is lit by what
    lights the things around it, L on average, and scatters what a white thing would: L / ``DARKEST`` at most, A at
    most, 1 − exp(−L / (``DARKEST`` A)) of A in between.
    """
    short, long = (color.luma(shrink(frame)) for frame in (dark, bright))
    radiance = np.where(long < 0.8, long / np.float32(ratio), short)
    around = cv2.GaussianBlur(radiance, (0, 0), max(0.1 * max(radiance.shape), 0.5))
    return -np.expm1(-around / np.float32(max(DARKEST * float(airlight.mean()), 1e-9)))[..., None]

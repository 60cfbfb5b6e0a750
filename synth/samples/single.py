"""Pairs made of a single clean picture, which is their exact ground truth: two exposures, or two focus distances."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from clearfuse.synth import color
from clearfuse.synth.depth.metres import Metres
from clearfuse.synth.fusers.pyramid.mff import remove_islands
from clearfuse.synth.operators.base import Image, Scene
from clearfuse.synth.operators.defocus import composite
from clearfuse.synth.operators.physics.fill import inverse_depth
from clearfuse.synth.shards.records import Exposed, Focused, Origin
from clearfuse.synth.types import BadPair, Task

UNDER, OVER = (-3.0, -1.5), (1.0, 2.5)
"""Ranges of the stops of a and b from the picture, uniform."""

EXPONENT, SHOULDER = (0.9, 0.1), (0.6, 0.1)
"""Mean and standard deviation of a camera curve's n and σ, cut at two deviations; see ``response``."""

BLUR = (0.008, 0.02)
"""Range of the largest radius of the blur, as a share of the longer side: Lytro's pairs have about 0.01."""

LEAST_BLUR = 3.0
"""Pixels: least value of that largest radius, below which a small picture has no visible blur."""

MILDEST = 0.4
"""Least blur of a side that is out of focus, as a share of the largest: its parts near the boundary are blurred too."""

BLADES = (0, 5, 6, 7, 8)

GREY_LEVELS = 16
"""Least range of a picture's luma in code values, from percentile 1 to 99: a flatter one shows neither."""

TWO_SIDES = 1.3
"""Least ratio of the median depths of the two sides."""

SMALLEST_SIDE = 0.05
"""Least share of the picture that either side has."""

ISLAND = 0.01
"""Share of the picture below which a region counts as part of what surrounds it."""

Picture = UInt8[np.ndarray, "h w c"]


class Made(NamedTuple):
    """A pair made of a picture: uint8 ``(h, w, c)``, and how."""

    a: Picture
    b: Picture
    how: Exposed | Focused


def pair_of(picture: Picture, task: Task, metres: Metres | None, source: Origin, rng: np.random.Generator) -> Made:
    """The pair of a picture. metres: its depth along the ray, of ``source``, for MFF.

    Raises BadPair where the picture is flat, or its depth has no two sides.
    """
    low, high = np.percentile(color.luma(picture.astype(np.float32)), [1, 99])
    if high - low < GREY_LEVELS:
        raise BadPair(f"the picture is flat: its luma spans {high - low:.0f} grey levels, under {GREY_LEVELS}")
    if task == "mef":
        how = draw_exposures(rng)
        return Made(*expose(picture, how), how)
    assert task == "mff" and metres is not None, f"{task}: single pictures make mef and mff, the latter by depth"
    return refocus(picture, metres, source, rng)


def draw_exposures(rng: np.random.Generator) -> Exposed:
    """The stops and the camera curve of a pair."""
    n, sigma = (
        float(np.clip(rng.normal(mean, deviation), mean - 2 * deviation, mean + 2 * deviation))
        for mean, deviation in (EXPONENT, SHOULDER)
    )
    ev_a, ev_b = (float(rng.uniform(*stops)) for stops in (UNDER, OVER))
    return Exposed(n=round(n, 4), sigma=round(sigma, 4), ev_a=round(ev_a, 3), ev_b=round(ev_b, 3))


def response(light: np.ndarray, how: Exposed) -> np.ndarray:
    """The camera curve: code values in [0, 1] of linear light, which is clipped at 1, as by a full sensor.

    y = (1 + σ) Hⁿ / (Hⁿ + σ), n about N(0.9, 0.1) and σ about N(0.6, 0.1): Eilertsen, Kronander, Denes, Mantiuk and
    Unger, HDR image reconstruction from a single exposure using deep CNNs, ACM TOG 36, 2017, who fitted it to the
    curves of Grossberg and Nayar, What is the space of camera response functions?, CVPR 2003.
    """
    power = np.clip(light, 0, 1) ** how.n
    return (1 + how.sigma) * power / (power + how.sigma)


def light_of(values: np.ndarray, how: Exposed) -> np.ndarray:
    """The linear light of code values in [0, 1], the inverse of ``response``: H = (σ y / (1 + σ − y))^(1/n)."""
    return (how.sigma * values / (1 + how.sigma - values)) ** (1 / how.n)


def expose(picture: Picture, how: Exposed) -> tuple[Picture, Picture]:
    """The darker and the brighter exposure: the picture's light times 2^EV, clipped, through the curve, to 8 bit."""
    light = light_of(np.arange(256) / 255, how)
    tables = (np.floor(255 * response(light * 2.0**ev, how) + 0.5).astype(np.uint8) for ev in (how.ev_a, how.ev_b))
    under, over = (color.as_hwc(cv2.LUT(picture, table)) for table in tables)
    return under, over


def refocus(picture: Picture, metres: Metres, source: Origin, rng: np.random.Generator) -> Made:
    """The near-focused and the far-focused image of a thin lens, each side of the depth sharp as a whole in one.

    The planes in focus are the medians of 1/z of the two sides; the side out of focus is blurred by A |1/z − 1/z_f|
    with the same aperture A in both images, the larger blur being the drawn one, and composited in linear light
    (``operators.defocus.composite``), so that a blurred near side spreads over the far one. The side in focus is
    within the depth of field: its pixels are the picture's. Raises BadPair where there are no two sides.
    """
    inverse = inverse_depth(Scene(depth=metres))
    if inverse is None:
        raise BadPair("its depth is unknown everywhere, so there is no near and far side")
    near = near_side(inverse)
    u_near, u_far = float(np.median(inverse[near])), max(float(np.median(inverse[~near])), 1e-3)
    radius = max(float(rng.uniform(*BLUR)) * max(picture.shape[:2]), LEAST_BLUR)
    blades, rotation = int(rng.choice(BLADES)), round(float(rng.random()), 4)
    # Robust ends, so that no single point has the largest blur and all others none.
    nearest, farthest = float(np.percentile(inverse[near], 95)), float(np.percentile(inverse[~near], 5))
    aperture = radius / max(nearest - u_far, u_near - farthest)
    cut = 0.5 * (float(inverse[near].min()) + float(inverse[~near].max()))
    how = Focused(
        cut=round(1 / cut, 4), near=round(1 / u_near, 4), far=round(1 / u_far, 4), aperture=round(aperture, 4),
        blades=blades, rotation=rotation, depth=source,
    )  # fmt: skip
    light = color.code_to_linear(picture)
    blurs = (
        np.clip(np.abs(inverse - np.float32(u)) * np.float32(aperture), MILDEST * radius, radius)
        for u in (u_near, u_far)
    )
    of_far, of_near = (blur.astype(np.float32) for blur in blurs)
    a = _photograph(light, np.where(near, np.float32(0), -of_far), blades, rotation)
    b = _photograph(light, np.where(near, of_near, np.float32(0)), blades, rotation)
    return Made(a, b, how)


def near_side(inverse: Float32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The near side of 1/z: Otsu's threshold (1979) on log z, the sky being as far as the farthest ground.

    Raises BadPair where the sides are hardly at two depths, or one of them is small.
    """
    ground = inverse[inverse > 0]
    if not ground.size:
        raise BadPair("its depth has no two sides: all is sky")
    log_z = -np.log(np.maximum(inverse, np.float32(1e-6)))
    first, last = (-math.log(float(v)) for v in np.percentile(ground, [99, 1]))
    if last - first < math.log(TWO_SIDES):
        raise BadPair(f"its depth has no two sides: the far end is {math.exp(last - first):.2f} times the near end")
    scaled = np.clip((log_z - np.float32(first)) * np.float32(255 / (last - first)), 0, 255).astype(np.uint8)
    threshold, _ = cv2.threshold(scaled, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    near = remove_islands(scaled <= threshold, ISLAND)
    share = float(near.mean())
    if not SMALLEST_SIDE <= share <= 1 - SMALLEST_SIDE:
        raise BadPair(f"its depth has no two sides: {100 * share:.0f} % of it is near")
    ratio = math.exp(float(np.median(log_z[~near]) - np.median(log_z[near])))
    if ratio < TWO_SIDES:
        raise BadPair(f"its depth has no two sides: the far one is {ratio:.2f} times as far as the near one")
    return near


def _photograph(light: Image, signed: Float32[np.ndarray, "h w"], blades: int, rotation: float) -> Picture:
    return color.to_uint8(color.linear_to_srgb(composite(light, signed, blades or None, rotation)))

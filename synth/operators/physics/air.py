"""Atmosphere, in linear light: extinction, the veil, and weather in the infrared."""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Float, Float32

from clearfuse.synth import color
from clearfuse.synth.operators import kernels
from clearfuse.synth.operators.base import NEAREST, SKY_PATH, Image
from clearfuse.synth.operators.physics.fill import per_channel
from clearfuse.synth.operators.physics.particles import Fall
from clearfuse.synth.seeds import generator, seed_of


def transmission(path: Float32[np.ndarray, "h w"], extinction: float) -> Float32[np.ndarray, "h w"]:
    """Beer-Lambert: t = exp(−β d), β in 1/m, d in m along the ray."""
    return cv2.exp(path * np.float32(-extinction)).reshape(path.shape)


def koschmieder(image: Image, clear: Float32[np.ndarray, "h w"], airlight: Float32[np.ndarray, "*any c"]) -> Image:
    """I = J t + A (1 − t): attenuated light of the scene plus airlight (Koschmieder 1924).

    clear: the transmission t. airlight: A, a colour (c,) or a map (h, w, c).
    """
    h, w, c = image.shape
    rows = image.reshape(h, w * c)
    # One row of interleaved channels: numpy is slow over a last axis of three.
    air = np.tile(airlight, w) if airlight.ndim == 1 else airlight.reshape(h, w * c)
    out = rows - air
    out *= clear if c == 1 else cv2.merge([clear] * c).reshape(h, w * c)
    out += air
    return out.reshape(h, w, c)


LAMP_BLUR = 2.5
"""σ of the blur of lamps in fog, in pixels of a frame 640 wide."""


def soften_lamps(out: Image, image: Image, clear: Float32[np.ndarray, "h w"], full: float = 1.0) -> None:
    """Blur what lamps have beyond ``full`` in ``out`` = ``koschmieder(image, clear, …)``, in place.

    The phase function of droplets has a peak of a degree (diffraction) that the grid of the glow does not resolve: of
    the light e t that arrives from an excess e over 1, the share 1 − t has been scattered into it. The sum stays.
    """
    rows = np.flatnonzero(image.reshape(len(image), -1).max(axis=1) > full)
    if not rows.size:
        return
    sigma = LAMP_BLUR * image.shape[1] / 640
    pad = math.ceil(4 * sigma)
    box = np.s_[max(rows[0] - pad, 0) : rows[-1] + pad + 1]
    t = clear[box]
    moved = np.maximum(image[box] - np.float32(full), 0)
    moved *= per_channel(t * (1 - t), image.shape[2])
    out[box] += color.as_hwc(cv2.GaussianBlur(moved, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)) - moved


def through_particles(
    image: Image,
    depth: Float[np.ndarray, "h w"],
    extinction: float,
    airlight: Float32[np.ndarray, "*any c"],
    fall: Fall,
    glow: Float32[np.ndarray, "*some c"],
) -> Image:
    """(J t + A (1 − t)) (1 − a) + L a: the scene behind a veil, and particles of radiance L with coverage a in front.

    depth in metres, extinction in 1/m; airlight A and glow L: a colour (c,) or a map (h, w, c).
    """
    h, w, c = image.shape
    airlight, glow = (np.ascontiguousarray(v.reshape(h if v.ndim > 1 else 1, -1)) for v in (airlight, glow))
    out = np.empty((h, w, c), np.float32)
    rows, to = image.reshape(h, w * c), out.reshape(h, w * c)
    kernels.through_particles(rows, depth, extinction, NEAREST, SKY_PATH, fall.clear, fall.step, airlight, glow, to)
    return out


def haze_extinction(visibility: float) -> float:
    """β = −ln(0.05) / V ≈ 2.996 / V, in 1/m: the contrast left at the meteorological optical range V is 5 %."""
    return -math.log(0.05) / visibility


def rain_extinction(rate: float) -> float:
    """β = 0.312 R^0.67 per km, here in 1/m; R in mm/h."""
    return 0.312e-3 * rate**0.67


def snow_extinction(rate: float, wetness: float, wavelength: float = 550.0) -> float:
    """β = a S^b / 4.343 per km, here in 1/m, between dry (wetness 0) and wet snow (1); S in mm/h, λ in nm.

    Dry: a = 5.42e−5 λ + 5.50, b = 1.38; wet: a = 1.023e−4 λ + 3.79, b = 0.72. a S^b is in dB/km.
    """
    dry = (5.42e-5 * wavelength + 5.50) * rate**1.38
    wet = (1.023e-4 * wavelength + 3.79) * rate**0.72
    return (dry + (wet - dry) * wetness) / 4343


FIELD_CELLS = 5
"""Cells of the density field over the frame's height: haze patches of about a fifth of it."""


def density_field(size: tuple[int, int], patchiness: float, which: float) -> Float32[np.ndarray, "h w"]:
    """Relative density of the air along each ray: ρ = exp(p g − p²/2), of mean about 1.

    g: smooth noise of zero mean and unit variance, twice as long horizontally as vertically; p: the patchiness, the
    standard deviation of ln ρ. which: seed of the field, the same for both frames of a pair.
    """
    h, w = size
    cells = (FIELD_CELLS + 3, max(round(0.5 * FIELD_CELLS * w / h), 1) + 3)
    coarse = generator(seed_of("density", which)).standard_normal(cells).astype(np.float32)
    small = cv2.resize(coarse, (160, 120), interpolation=cv2.INTER_CUBIC)
    small = (small - small.mean()) / max(float(small.std()), 1e-6)
    return cv2.resize(np.exp(patchiness * small - 0.5 * patchiness**2), (w, h), interpolation=cv2.INTER_LINEAR)

"""Atmosphere, in linear light: extinction, the veil, and the ambient light that air and particles scatter."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32

from clearfuse.synth import color
from clearfuse.synth.operators import kernels
from clearfuse.synth.operators.base import NEAREST, SKY_PATH, Image
from clearfuse.synth.operators.physics.particles import Fall
from clearfuse.synth.seeds import generator, seed_of

ANALYSIS_WIDTH = 96
"""Longest side, in pixels, of the image on which the airlight and the ambient light are estimated."""
NIGHT = (0.03, 0.12)
"""Mean linear luminance below which a scene counts as lit only by lamps, and above which only by the sky."""


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


@dataclass(frozen=True)
class Light:
    """Ambient light estimated from an image, in linear radiance."""

    airlight: Float32[np.ndarray, " c"]
    """Radiance of an infinitely long path."""
    mean: float
    """Mean luminance, with the brightest 2 % clipped."""
    bright: float
    """98th percentile of the luminance: the sky by day."""
    night: float
    """0 where the scene is lit by the sky, 1 where only by lamps."""
    small: Float32[np.ndarray, "sh sw c"]
    """The image, downsampled."""

    @functools.cached_property
    def around(self) -> Float32[np.ndarray, "gh gw c"]:
        """The smoothed light around each pixel, which air and particles scatter at night."""
        h, w = self.small.shape[:2]
        coarse = (-(-w // 4), -(-h // 4))
        light = color.as_hwc(cv2.resize(np.minimum(self.small, 1), coarse, interpolation=cv2.INTER_AREA))
        return color.as_hwc(cv2.GaussianBlur(light, (0, 0), max(0.08 * max(coarse), 0.5)))

    def air(self, size: tuple[int, int], gain: Float32[np.ndarray, " c"]) -> Float32[np.ndarray, "*any c"]:
        """The airlight times ``gain``: a colour (c,); at night a map (h, w, c), since lamps light the air near them."""
        if self.night == 0:
            return np.minimum(self.airlight * gain, 1)
        night = np.float32(self.night)
        return _enlarge((self.airlight * (1 - 0.4 * night) + 0.8 * night * self.around) * gain, size)

    def on_particles(self, size: tuple[int, int]) -> Float32[np.ndarray, "*any c"]:
        """Radiance of a drop or flake, which scatters light from all around: the sky's by day, the lamps' at night.

        A colour (c,); at night a map (h, w, c).
        """
        # An overcast sky is brighter overhead, out of view, than at the horizon.
        level = max(self.bright, min(2.5 * self.mean, 1.15 * self.bright))
        day = self.airlight * np.float32(level / max(float(self.airlight.mean()), 1e-6))
        day = np.minimum(np.maximum(day, self.airlight), 1)
        if self.night == 0:
            return day
        lamps = 3 * self.around + np.float32(3 * self.mean)
        return _enlarge(day + np.float32(self.night) * (lamps - day), size)


def _enlarge(small: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return color.as_hwc(cv2.resize(np.minimum(small, 1), size[::-1], interpolation=cv2.INTER_LINEAR))


def estimate_light(image: Image, depth: Float[np.ndarray, "h w"]) -> Light:
    """Estimate the airlight, after the dark channel prior (He, Sun and Tang 2011), and the ambient light.

    depth: metres. Candidates are the sky where there is one, else distant pixels with a bright dark channel. The
    estimate is limited to 1.5 (at night 2.5) to 4.5 times the mean light, since air only scatters the available light
    and stays dark at night. Haze is greyer than the scene, so its colour is partly desaturated.
    """
    h, w = image.shape[:2]
    scale = min(1.0, ANALYSIS_WIDTH / max(h, w))
    small_size = (max(1, round(w * scale)), max(1, round(h * scale)))
    small = np.empty((*small_size[::-1], image.shape[2]), np.float32)
    kernels.shrink(image, small)
    sampled = cv2.resize(depth, small_size, interpolation=cv2.INTER_NEAREST).ravel()
    far = np.minimum(np.fmax(sampled, NEAREST), SKY_PATH)
    luminance = color.luma(small)
    bright = float(np.partition(luminance, rank := int(0.98 * (luminance.size - 1)), axis=None)[rank])
    mean = float(np.minimum(luminance, bright).mean())
    night = 1 - min(max((mean - NIGHT[0]) / (NIGHT[1] - NIGHT[0]), 0.0), 1.0)
    candidates = far >= 0.5 * SKY_PATH
    if np.count_nonzero(candidates) <= 0.01 * far.size:
        dark = cv2.erode(functools.reduce(np.minimum, cv2.split(small)), np.ones((7, 7), np.uint8)).ravel()
        score = dark * (0.25 + far / far.max())
        candidates = score >= np.quantile(score, 0.98)
    chosen = small.reshape(-1, small.shape[2])[np.nonzero(candidates)[0]]
    estimate = np.array([np.partition(plane, plane.size // 2)[plane.size // 2] for plane in chosen.T], np.float64)
    level = float(estimate.mean())
    limited = min(max(level, (1.5 + night) * mean), 4.5 * mean, 0.95)
    chroma = 1 + 0.6 * (np.clip(estimate / max(level, 1e-6), 0.5, 1.5) - 1)
    return Light((limited * chroma).astype(np.float32), mean, bright, night, small)

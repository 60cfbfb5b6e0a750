"""Weather between the scene and the camera, in linear light: haze, rain and snow, for the visible and the infrared.

Weather is one event for a pair. What the two frames share (visibility, rate, wind, shutter) is a parameter; where the
single drops and flakes are comes from the generator, which is each frame's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Float32

from synth import color
from synth.operators import particles
from synth.operators.base import SKY_PATH, Image, Operator, Scene, Stage, free, severe

ANALYSIS_WIDTH = 160
"""Pixels: the airlight and the light around are estimated on an image this wide."""
NIGHT = (0.03, 0.12)
"""Mean linear luminance from which a scene counts as lit by lamps alone, and from which by the sky alone."""


def transmission(path: Float32[np.ndarray, "h w"], extinction: float) -> Float32[np.ndarray, "h w"]:
    """Beer-Lambert: t = exp(−β d), β in 1/m, d in m along the ray."""
    return np.exp(path * np.float32(-extinction))


def koschmieder(image: Image, clear: Float32[np.ndarray, "h w"], airlight: Float32[np.ndarray, "*any c"]) -> Image:
    """I = J t + A (1 − t): light from the scene through the air, and light that the air scatters in (Koschmieder 1924).

    clear: the transmission t.
    """
    h, w, c = image.shape
    wide = image.reshape(h, w * c)
    # One row of interleaved channels: numpy is slow over a last axis of three.
    air = np.tile(airlight, w) if airlight.ndim == 1 else airlight.reshape(h, w * c)
    out = wide - air
    out *= clear if c == 1 else cv2.merge([clear] * c).reshape(h, w * c)
    out += air
    return out.reshape(h, w, c)


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


@dataclass(frozen=True)
class Light:
    """What an image tells of the light on the scene's air and particles: linear radiances."""

    airlight: Float32[np.ndarray, " c"]
    """What a path of infinite length looks like."""
    mean: float
    """Mean luminance without the brightest 2 %."""
    bright: float
    """Luminance that 2 % exceed: the sky by day."""
    night: float
    """0 under the sky, 1 where lamps are all the light."""
    around: Float32[np.ndarray, "sh sw c"]
    """The light around each place, smooth and small: what the air and the particles there scatter at night."""

    def air(self, size: tuple[int, int], gain: Float32[np.ndarray, " c"]) -> Float32[np.ndarray, "*any c"]:
        """The airlight times ``gain``; at night as a map of (h, w), since lamps light the air around them."""
        if self.night == 0:
            return np.minimum(self.airlight * gain, 1)
        night = np.float32(self.night)
        return _enlarged((self.airlight * (1 - 0.4 * night) + 0.8 * night * self.around) * gain, size)

    def on_particles(self, size: tuple[int, int]) -> Float32[np.ndarray, "*any c"]:
        """Radiance of a drop or flake, which scatters light of a wide view: the sky's by day, the lamps' at night."""
        # An overcast sky is brighter overhead, where the camera does not look, than above the horizon.
        level = max(self.bright, min(2.5 * self.mean, 1.15 * self.bright))
        day = self.airlight * np.float32(level / max(float(self.airlight.mean()), 1e-6))
        day = np.minimum(np.maximum(day, self.airlight), 1)
        if self.night == 0:
            return day
        lamps = 3 * self.around + np.float32(3 * self.mean)
        return _enlarged(day + np.float32(self.night) * (lamps - day), size)


def _enlarged(small: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return color.as_hwc(cv2.resize(np.minimum(small, 1), size[::-1], interpolation=cv2.INTER_LINEAR))


def estimate_light(image: Image, path: Float32[np.ndarray, "h w"]) -> Light:
    """Estimate the airlight, after the dark channel prior (He, Sun and Tang 2011), and the light around.

    Candidates are the sky where there is one, else the brightest of the dark channel among far places. The estimate
    is held between 1.5 (at night 2.5) and 4.5 times the mean light, since air scatters the light that there is: at
    night it stays dark. Haze is greyer than what it hides, so a part of the colour is taken out.
    """
    h, w = image.shape[:2]
    scale = min(1.0, ANALYSIS_WIDTH / max(h, w))
    small_size = (max(1, round(w * scale)), max(1, round(h * scale)))
    small = color.as_hwc(cv2.resize(image, small_size, interpolation=cv2.INTER_AREA))
    far = cv2.resize(path, small_size, interpolation=cv2.INTER_NEAREST).ravel()
    luminance = color.luma(small)
    bright = float(np.percentile(luminance, 98))
    mean = float(np.minimum(luminance, bright).mean())
    night = 1 - min(max((mean - NIGHT[0]) / (NIGHT[1] - NIGHT[0]), 0.0), 1.0)
    dark = cv2.erode(small.min(axis=2), np.ones((7, 7), np.uint8)).ravel()
    sky = far >= 0.5 * SKY_PATH
    score = dark * (0.25 + far / far.max())
    candidates = sky if sky.mean() > 0.01 else score >= np.quantile(score, 0.98)
    estimate = np.median(small.reshape(-1, small.shape[2])[candidates], axis=0).astype(np.float64)
    level = float(estimate.mean())
    held = min(max(level, (1.5 + night) * mean), 4.5 * mean, 0.95)
    chroma = 1 + 0.6 * (np.clip(estimate / max(level, 1e-6), 0.5, 1.5) - 1)
    coarse = (-(-small_size[0] // 4), -(-small_size[1] // 4))
    surroundings = color.as_hwc(cv2.resize(np.minimum(small, 1), coarse, interpolation=cv2.INTER_AREA))
    return Light(
        airlight=(held * chroma).astype(np.float32),
        mean=mean,
        bright=bright,
        night=night,
        around=color.as_hwc(cv2.GaussianBlur(surroundings, (0, 0), max(0.08 * max(coarse), 0.5))),
    )


def air_radiance(image: Image) -> float:
    """Thermal radiance of the air in the path: the scene's median, since most of it is near the air's temperature."""
    return float(np.median(image))


def infrared_weather(
    image: Image, path: Float32[np.ndarray, "h w"], extinction: float, air: float, blur: float
) -> Image:
    """What weather does to a thermal image: I t + B (1 − t), softened by scattering at small angles.

    blur: the Gaussian's σ in pixels of a 640-pixel-wide frame.
    """
    out = koschmieder(image, transmission(path, extinction), np.full(image.shape[2], air, np.float32))
    sigma = blur * image.shape[1] / 640
    return color.as_hwc(cv2.GaussianBlur(out, (0, 0), sigma)) if sigma > 0.05 else out


def scatter_blur(extinction: float) -> float:
    """σ of the infrared's softening, in pixels of a 640-pixel-wide frame: 1.8 (1 − exp(−β 150 m))."""
    return 1.8 * -math.expm1(-150 * extinction)


@dataclass(frozen=True)
class Haze(Operator):
    """Haze: I = J t + A (1 − t), t = exp(−β d), β = 2.996 / V.

    V is the visibility in metres, d the metres of air along the ray, A the airlight: estimated from the image, then
    scaled and tinted. At night the airlight is low and takes on the glow of the lamps around. In the infrared the
    extinction is ``ir_ratio`` β, the path radiates as the air does, and small-angle scattering softens the image.
    """

    name: ClassVar[str] = "haze"
    stage: ClassVar[Stage] = "scene"
    needs_depth: ClassVar[bool] = True
    unclipped: ClassVar[bool] = True
    event: ClassVar[bool] = True
    source: ClassVar[str] = (
        "Koschmieder 1924; 5 % contrast at the meteorological optical range (WMO No. 8); airlight after the dark "
        "channel of He, Sun and Tang 2011; far-infrared extinction in haze 0.05 to 0.3 of the visible"
    )

    visibility: float = severe(
        2000, 80, "meteorological optical range", low=20, high=1e12, unit="m", log=True, identity=1e12
    )
    airlight: float = free(0.85, 1.15, "airlight over its estimate from the image")
    tint: float = free(-1, 1, "colour of the airlight, from cool (-1) to warm (1)")
    ir_ratio: float = free(0.05, 0.3, "infrared extinction over visible extinction")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        path = scene.path()
        extinction = haze_extinction(self.visibility)
        if scene.modality == "infrared":
            blur = scatter_blur(extinction)
            return infrared_weather(image, path, self.ir_ratio * extinction, air_radiance(image), blur)
        light = estimate_light(image, path)
        airlight = light.air(path.shape, np.float32(self.airlight) * self._tint(image.shape[2]))
        return koschmieder(image, transmission(path, extinction), airlight)

    def _tint(self, channels: int) -> np.ndarray:
        warm = np.array([1 + 0.05 * self.tint, 1, 1 - 0.05 * self.tint], np.float32)
        return warm if channels == 3 else np.ones(1, np.float32)


@dataclass(frozen=True)
class Rain(Operator):
    """Rain: streaks of the drops that are near enough to be seen, over the veil of all that are not.

    Drops have Marshall-Palmer sizes N(D) = 8000 e^(−ΛD) m⁻³ mm⁻¹, Λ = 4.1 R^−0.21, and fall at
    v = 9.65 − 10.3 e^(−0.6 D) m/s, leaning with the wind. In an exposure T a drop of d pixels draws a streak of
    len = v T f / z pixels and covers each place for a = d / (len + d) of the time: out = (1 − a) bg + a L, where L,
    the drop's radiance, is the light of its wide view: the sky's by day, the lamps' at night. ``contrast`` multiplies
    a: rain falls in gusts and cells, and its drops glint, where the formula has an even rain of dull ones.
    Streaks are drawn where d ≥ 0.3 px. The veil's extinction is 0.312 R^0.67 per km.
    In the infrared there is the veil, contrast lost to wet surfaces, a softening, and no streak.
    """

    name: ClassVar[str] = "rain"
    stage: ClassVar[Stage] = "scene"
    needs_depth: ClassVar[bool] = True
    unclipped: ClassVar[bool] = True
    event: ClassVar[bool] = True
    source: ClassVar[str] = (
        "Marshall and Palmer 1948; Atlas, Srivastava and Sekhon 1973; Garg and Nayar 2007 (streak compositing); "
        "extinction after Weber, Weiss and Wilson 2015, as in Halder, Lalonde and de Charette 2019"
    )

    rate: float = severe(5, 100, "rain rate", low=0, high=200, unit="mm/h", log=True, identity=0.0)
    wind: float = free(-25, 25, "lean of a 3 mm drop's fall in the image", unit="degrees")
    exposure: float = free(1 / 250, 1 / 60, "exposure time", unit="s", log=True)
    contrast: float = free(2.5, 5, "opacity of the streaks over that of an even rain at the mean rate")
    ir_ratio: float = free(0.8, 1.1, "infrared extinction over visible extinction")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        path = scene.path()
        if self.rate == 0:
            return image.copy()
        extinction = rain_extinction(self.rate)
        if scene.modality == "infrared":
            air = air_radiance(image)
            # Wet surfaces evaporate towards one temperature: a loss of contrast that no distance explains.
            wet = np.float32(0.75 + 0.25 * math.exp(-200 * extinction))
            even = air + (image - np.float32(air)) * wet
            return infrared_weather(even, path, self.ir_ratio * extinction, air, scatter_blur(extinction))
        light = estimate_light(image, path)
        veiled = koschmieder(image, transmission(path, extinction), light.air(path.shape, np.ones_like(light.airlight)))
        cover = self._streaks(rng, path, scene.fov)
        return koschmieder(veiled, 1 - cover, light.on_particles(path.shape))

    def _streaks(self, rng: np.random.Generator, path: np.ndarray, fov: float) -> np.ndarray:
        focal = particles.focal_length(path.shape[1], fov)
        drops = particles.draw_field(
            rng,
            path.shape,
            focal,
            intercept=8000.0,
            slope=4.1 * self.rate**-0.21,
            smallest=0.5,
            largest=5.0,
            smallest_px=0.3,
            travel=9.0 * self.exposure,
        )
        speed = particles.terminal_velocity(drops.diameter)
        width = drops.diameter * 1e-3 * focal / drops.z
        length = speed * self.exposure * focal / drops.z
        # One wind moves all drops, the slow ones further off the vertical; gusts spread them by some 3 degrees.
        gale = math.tan(math.radians(self.wind)) * 8.0
        lean = gale / np.maximum(speed, 4.0) + 0.05 * (2 * drops.u - 1)
        return particles.splat_streaks(
            drops,
            path.shape,
            length=length,
            lean=lean,
            width=np.maximum(np.hypot(width, particles.defocus(drops.z, focal)), 1.0),
            cover=width * width / (length + width) * self.contrast * (0.6 + 0.8 * drops.v),
            depth=path,
        )


@dataclass(frozen=True)
class Snow(Operator):
    """Snow: flakes by distance, out of focus when near, over the veil of all that are too far to be seen.

    Melted diameters follow N(D) = 3800 S^−0.87 e^(−ΛD) m⁻³ mm⁻¹, Λ = 2.55 S^−0.48; a flake is wider than its melted
    drop by its density to the power −1/3 (dry 0.03, wet 0.25). It falls at 0.8 (dry) to 2 m/s (wet), draws a short
    streak in the exposure, has an optical depth of about 1.2 (dry) to 0.8 (wet) and is nearly as bright as the air that
    lights it. The veil's extinction is a S^b / 4.343 per km.
    In the infrared there is the veil, a little colder than the air, a softening, and faint dark flakes.
    """

    name: ClassVar[str] = "snow"
    stage: ClassVar[Stage] = "scene"
    needs_depth: ClassVar[bool] = True
    unclipped: ClassVar[bool] = True
    event: ClassVar[bool] = True
    source: ClassVar[str] = "Gunn and Marshall 1958 (sizes); ITU-R P.1817 (extinction); flakes drawn from smooth noise"

    rate: float = severe(0.5, 8, "snowfall, as water", low=0, high=20, unit="mm/h", log=True, identity=0.0)
    crowding: float = free(1.5, 3, "flakes in view over those of an even snowfall at the mean rate")
    wetness: float = free(0, 1, "from dry and fluffy (0) to wet (1)")
    wind: float = free(-35, 35, "lean of the fall in the image", unit="degrees")
    exposure: float = free(1 / 500, 1 / 125, "exposure time", unit="s", log=True)
    ir_ratio: float = free(0.8, 1.1, "infrared extinction over visible extinction")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        path = scene.path()
        if self.rate == 0:
            return image.copy()
        extinction = snow_extinction(self.rate, self.wetness)
        if scene.modality == "infrared":
            air = air_radiance(image)
            # Flakes are soft in the infrared: half of the resolution holds them.
            h, w = path.shape
            half = cv2.resize(path, (max(1, w // 2), max(1, h // 2)), interpolation=cv2.INTER_NEAREST)
            cover = cv2.resize(self._flakes(rng, half, scene.fov), (w, h), interpolation=cv2.INTER_LINEAR)
            flaked = image + np.minimum(np.float32(0.6 * air) - image, 0) * (0.25 * cover[..., None])
            return infrared_weather(flaked, path, self.ir_ratio * extinction, 0.9 * air, scatter_blur(extinction))
        cover = self._flakes(rng, path, scene.fov)
        light = estimate_light(image, path)
        veiled = koschmieder(image, transmission(path, extinction), light.air(path.shape, np.ones_like(light.airlight)))
        return koschmieder(veiled, 1 - cover, light.on_particles(path.shape))

    def _flakes(self, rng: np.random.Generator, path: np.ndarray, fov: float) -> np.ndarray:
        focal = particles.focal_length(path.shape[1], fov)
        shapes = particles.flake_shapes(rng)
        speed = 0.8 + 1.2 * self.wetness
        drift = speed / math.cos(math.radians(self.wind))
        flakes = particles.draw_field(
            rng,
            path.shape,
            focal,
            intercept=self.crowding * 3800 * self.rate**-0.87,
            slope=2.55 * self.rate**-0.48,
            smallest=0.4,
            largest=8.0,
            smallest_px=0.3,
            travel=drift * self.exposure,
        )
        swell = (0.03 + 0.22 * self.wetness) ** (-1 / 3)
        width = flakes.diameter * 1e-3 * swell * focal / flakes.z
        return particles.splat_flakes(
            flakes,
            path.shape,
            radius=width / 2,
            blur=particles.defocus(flakes.z, focal) / 2 + 0.5,
            streak=drift * self.exposure * focal / flakes.z,
            lean=math.tan(math.radians(self.wind)),
            cover=(1.5 - 0.5 * self.wetness) * (0.6 + 0.4 * flakes.v),
            shapes=shapes,
            depth=path,
        )

"""Haze, rain and snow between scene and camera, in linear light, for visible and infrared images.

Weather is one event for a pair: what both frames share (visibility, rate, wind, exposure time) is a parameter. The
positions of single drops and flakes come from the generator, which differs between the frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from clearfuse.synth.operators.base import Image, Operator, Scene, Stage, free, severe
from clearfuse.synth.operators.physics import particles
from clearfuse.synth.operators.physics.air import (
    density_field,
    estimate_light,
    haze_extinction,
    koschmieder,
    rain_extinction,
    snow_extinction,
    through_particles,
    transmission,
)
from clearfuse.synth.operators.physics.infrared import air_radiance, infrared_weather


@dataclass(frozen=True)
class Haze(Operator):
    """Haze: I = J t + A (1 − t), t = exp(−β d), β = 2.996 / V.

    V is the visibility in metres, d the metres of air along the ray, A the airlight: estimated from the image, then
    scaled and tinted. At night the airlight is low and takes on the glow of nearby lamps. In the infrared extinction is
    ``ir_ratio`` β, the path emits the air's thermal radiance, small-angle scattering blurs what is far, and the
    camera's gain control stretches what contrast is left.
    With ``patchiness`` the density varies over the field of view: t = exp(−β d ρ), ρ log-normal of mean 1.
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
    airlight: float = free(0.85, 1.15, "airlight relative to its estimate from the image")
    tint: float = free(-1, 1, "colour of the airlight, from cool (-1) to warm (1)")
    ir_ratio: float = free(0.05, 0.3, "infrared extinction relative to visible extinction")
    patchiness: float = free(
        0.0, 0.0, "standard deviation of the log of the air's density; 0 unless a recipe sets it",
        low=0.0, high=2.0, default=0.0,
    )  # fmt: skip
    field: float = free(0.0, 1.0, "selects the density field, the same for both frames", default=0.0)
    ir_gain: float = free(
        0.5,
        1.0,
        "share of the contrast that the infrared camera's gain control restores; 0: none, and a uniform blur",
        low=0.0,
        default=0.0,
    )

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        path = scene.path()
        if self.patchiness > 0:
            path = path * density_field(path.shape, self.patchiness, self.field)
        extinction = haze_extinction(self.visibility)
        if scene.modality == "infrared":
            return infrared_weather(
                image, path, self.ir_ratio * extinction, air_radiance(image), share=self.ir_gain, visible=extinction
            )
        light = estimate_light(image, path)
        airlight = light.air(path.shape, np.float32(self.airlight) * self._tint(image.shape[2]))
        return koschmieder(image, transmission(path, extinction), airlight)

    def _tint(self, channels: int) -> np.ndarray:
        warm = np.array([1 + 0.05 * self.tint, 1, 1 - 0.05 * self.tint], np.float32)
        return warm if channels == 3 else np.ones(1, np.float32)


@dataclass(frozen=True)
class Rain(Operator):
    """Rain: streaks of the drops that are near enough to be resolved, in front of the veil of all others.

    Drops have Marshall-Palmer sizes N(D) = 8000 e^(−ΛD) m⁻³ mm⁻¹, Λ = 4.1 R^−0.21, and fall at
    v = 9.65 − 10.3 e^(−0.6 D) m/s, slanted by the wind. In an exposure T a drop of d pixels draws a streak of
    len = v T f / z pixels and covers each place for a = d / (len + d) of the time: out = (1 − a) bg + a L, where L,
    the drop's radiance, is the light that it refracts from a wide angle: the sky's by day, the lamps' at night.
    ``contrast`` multiplies a: real rain is gusty and its drops sparkle, where the formula has uniform, dull ones.
    Streaks are drawn where d ≥ 0.3 px. The veil's extinction is 0.312 R^0.67 per km.
    In the infrared there are the veil, a loss of contrast of wet surfaces and blur, but no streaks.
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
    wind: float = free(-25, 25, "slant of a 3 mm drop's path in the image, from vertical", unit="degrees")
    exposure: float = free(1 / 250, 1 / 60, "exposure time", unit="s", log=True)
    contrast: float = free(2.5, 5, "opacity of the streaks relative to uniform rain at the mean rate")
    ir_ratio: float = free(0.8, 1.1, "infrared extinction over visible extinction")
    ir_gain: float = free(
        0.5,
        1.0,
        "share of the contrast that the infrared camera's gain control restores; 0: none, and a uniform blur",
        low=0.0,
        default=0.0,
    )

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        if self.rate == 0:
            return image.copy()
        depth = scene.metres()
        extinction = rain_extinction(self.rate)
        if scene.modality == "infrared":
            air = air_radiance(image)
            # Wet surfaces cool by evaporation towards one temperature: a loss of contrast at any distance.
            wet = np.float32(0.75 + 0.25 * math.exp(-200 * extinction))
            even = air + (image - np.float32(air)) * wet
            return infrared_weather(
                even, scene.path(), self.ir_ratio * extinction, air, share=self.ir_gain, visible=extinction, like=image
            )
        light = estimate_light(image, depth)
        air = light.air(depth.shape, np.ones_like(light.airlight))
        streaks = self._streaks(rng, depth, scene.fov)
        return through_particles(image, depth, extinction, air, streaks, light.on_particles(depth.shape))

    def _streaks(self, rng: np.random.Generator, depth: np.ndarray, fov: float) -> particles.Fall:
        focal = particles.focal_length(depth.shape[1], fov)
        drops = particles.draw_field(
            rng,
            depth.shape,
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
        # The wind deflects slow drops more; gusts spread the angles by about 3 degrees.
        gale = math.tan(math.radians(self.wind)) * 8.0
        slant = gale / np.maximum(speed, 4.0) + 0.05 * (2 * drops.u - 1)
        return particles.splat_streaks(
            drops,
            depth.shape,
            length=length,
            slant=slant,
            width=np.maximum(np.hypot(width, particles.defocus(drops.z, focal)), 1.0),
            cover=width * width / (length + width) * self.contrast * (0.6 + 0.8 * drops.v),
            depth=depth,
        )


@dataclass(frozen=True)
class Snow(Operator):
    """Snow: flakes by distance, near ones out of focus, in front of the veil of all that are too far to be resolved.

    Melted diameters follow N(D) = 3800 S^−0.87 e^(−ΛD) m⁻³ mm⁻¹, Λ = 2.55 S^−0.48; a flake is wider than its melted
    drop by its density to the power −1/3 (dry 0.03, wet 0.25). It falls at 0.8 (dry) to 2 m/s (wet), draws a short
    streak during the exposure, has an optical depth of about 1.2 (dry) to 0.8 (wet) and is nearly as bright as the air
    that lights it. The veil's extinction is a S^b / 4.343 per km.
    In the infrared there are the veil, slightly colder than the air, blur, and faint dark flakes.
    """

    name: ClassVar[str] = "snow"
    stage: ClassVar[Stage] = "scene"
    needs_depth: ClassVar[bool] = True
    unclipped: ClassVar[bool] = True
    event: ClassVar[bool] = True
    source: ClassVar[str] = "Gunn and Marshall 1958 (sizes); ITU-R P.1817 (extinction); flakes drawn from smooth noise"

    rate: float = severe(0.5, 8, "snowfall, as water", low=0, high=20, unit="mm/h", log=True, identity=0.0)
    crowding: float = free(1.5, 3, "visible flakes relative to uniform snowfall at the mean rate")
    wetness: float = free(0, 1, "from dry and fluffy (0) to wet (1)")
    wind: float = free(-35, 35, "slant of the flakes' path in the image, from vertical", unit="degrees")
    exposure: float = free(1 / 500, 1 / 125, "exposure time", unit="s", log=True)
    ir_ratio: float = free(0.8, 1.1, "infrared extinction over visible extinction")
    ir_gain: float = free(
        0.5,
        1.0,
        "share of the contrast that the infrared camera's gain control restores; 0: none, and a uniform blur",
        low=0.0,
        default=0.0,
    )

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        if self.rate == 0:
            return image.copy()
        depth = scene.metres()
        extinction = snow_extinction(self.rate, self.wetness)
        if scene.modality == "infrared":
            air = air_radiance(image)
            # Flakes are blurred in the infrared: half of the resolution is enough.
            h, w = depth.shape
            half = cv2.resize(depth, (max(1, w // 2), max(1, h // 2)), interpolation=cv2.INTER_NEAREST)
            clear = cv2.resize(self._flakes(rng, half, scene.fov).clear, (w, h), interpolation=cv2.INTER_LINEAR)
            flaked = image + np.minimum(np.float32(0.6 * air) - image, 0) * (0.25 * (1 - clear[..., None]))
            return infrared_weather(
                flaked,
                scene.path(),
                self.ir_ratio * extinction,
                0.9 * air,
                share=self.ir_gain,
                visible=extinction,
                like=image,
            )
        flakes = self._flakes(rng, depth, scene.fov)
        light = estimate_light(image, depth)
        air = light.air(depth.shape, np.ones_like(light.airlight))
        return through_particles(image, depth, extinction, air, flakes, light.on_particles(depth.shape))

    def _flakes(self, rng: np.random.Generator, depth: np.ndarray, fov: float) -> particles.Fall:
        focal = particles.focal_length(depth.shape[1], fov)
        speed = 0.8 + 1.2 * self.wetness
        drift = speed / math.cos(math.radians(self.wind))
        flakes = particles.draw_field(
            rng,
            depth.shape,
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
            depth.shape,
            radius=width / 2,
            blur=particles.defocus(flakes.z, focal) / 2 + 0.5,
            streak=drift * self.exposure * focal / flakes.z,
            slant=math.tan(math.radians(self.wind)),
            cover=(1.5 - 0.5 * self.wetness) * (0.6 + 0.4 * flakes.v),
            depth=depth,
        )

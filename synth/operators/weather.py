"""Haze, rain and snow between scene and camera, in linear light, for visible and infrared images.

Weather is one event for a pair: what both frames share (visibility, rate, wind, exposure time) is a parameter. The
positions of single drops and flakes come from the generator, which differs between the frames.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np

from clearfuse.synth.operators.base import Image, Operator, Scene, Stage, free, severe
from clearfuse.synth.operators.light.ambient import Light
from clearfuse.synth.operators.light.estimate import estimate_light
from clearfuse.synth.operators.physics import ground, particles
from clearfuse.synth.operators.physics.air import (
    density_field,
    haze_extinction,
    koschmieder,
    rain_extinction,
    snow_extinction,
    soften_lamps,
    through_particles,
    transmission,
)
from clearfuse.synth.operators.physics.infrared import air_radiance, infrared_weather

FORWARD = 0.95
"""Henyey and Greenstein's parameter of rain and snow: particles much larger than the wavelength (Narasimhan and Nayar
2003)."""

DROPS_GATHER, FLAKES_GATHER = 3.0, 6.0
"""Radiance at night of a drop, which refracts the light of half of all directions, and of a flake, which scatters that
of all of them, over the mean radiance of the scene in the frame: lamps are mostly out of it."""

SNOW_LIMIT = 0.95
"""Radiance of snow on the ground, at most, over that of a white ground."""


def option(doc: str) -> Any:
    """A sign of weather beyond what air and particles do: 0 unless a recipe sets it, in [0, 1]."""
    return free(0.0, 0.0, f"{doc}; 0 unless a recipe sets it", low=0.0, high=1.0, default=0.0)


def ir_gain_share() -> Any:
    """How far the infrared camera's gain control stretches what contrast the weather leaves."""
    doc = "share of the contrast that the infrared camera's gain control restores; 0: none, and a uniform blur"
    return free(0.5, 1.0, doc, low=0.0, default=0.0)


def _light(image: Image, scene: Scene, cool_sky: float) -> Light:
    """The light of the event, estimated from this image where the chain has not done so."""
    light = estimate_light(image, scene.metres()) if scene.light is None else scene.light
    return light.overcast(cool_sky)


def _through(
    image: Image, scene: Scene, extinction: float, fall: particles.Fall, light: Light, gathered: float
) -> Image:
    """The scene through the veil of rain or snow, and its particles in front, lit by what is around them."""
    size = image.shape[:2]
    focal = particles.focal_length(size[1], scene.fov)
    even = np.ones_like(light.airlight)
    air = light.air(size, even, extinction=extinction, forward=FORWARD, focal=focal)
    depth = light.path(scene.metres())
    return through_particles(image, depth, extinction, air, fall, light.on_particles(size, gathered))


@dataclass(frozen=True)
class Haze(Operator):
    """Haze: I = J t + A (1 − t), t = exp(−β d), β = 2.996 / V.

    V is the visibility in metres, d the metres of air along the ray, A the airlight: estimated from the image, or for
    two exposures from the darker and carried by their ratio, then scaled and tinted. At night A is that of the light
    around, about the scene's mean, plus the glow of lamps: what they have beyond the clip, 10 to 50 times it, arrives
    attenuated by t, and its share 1 − t spread by the atmosphere's point spread
    I(T, μ) = Σ (g_m + g_(m+1)) L_m(μ), g_m = exp(−(2m + 1)/m (1 − q^(m−1)) T − (m + 1) ln T), T = β d of the lamp, μ
    the cosine of the angle to it, q the forward scattering. In the infrared extinction is ``ir_ratio`` β, the path
    emits the air's thermal radiance, small-angle scattering blurs what is far, and the camera's gain control stretches
    what contrast is left.
    With ``patchiness`` the density varies over the field of view: t = exp(−β d ρ), ρ log-normal of mean 1.
    """

    name: ClassVar[str] = "haze"
    stage: ClassVar[Stage] = "scene"
    needs_depth: ClassVar[bool] = True
    unclipped: ClassVar[bool] = True
    restores: ClassVar[bool] = True
    event: ClassVar[bool] = True
    source: ClassVar[str] = (
        "Koschmieder 1924; 5 % contrast at the meteorological optical range (WMO No. 8); airlight after the dark "
        "channel of He, Sun and Tang 2011; lamps after Narasimhan and Nayar, Shedding light on the weather, CVPR 2003; "
        "far-infrared extinction in haze 0.05 to 0.3 of the visible"
    )

    visibility: float = severe(
        2000, 80, "meteorological optical range", low=20, high=1e12, unit="m", log=True, identity=1e12,
        reciprocal=True,
    )  # fmt: skip
    airlight: float = free(0.85, 1.15, "airlight relative to its estimate from the image")
    tint: float = free(-1, 1, "colour of the airlight, from cool (-1) to warm (1)")
    ir_ratio: float = free(0.05, 0.3, "infrared extinction relative to visible extinction")
    patchiness: float = free(
        0.0, 0.0, "standard deviation of the log of the air's density; 0 unless a recipe sets it",
        low=0.0, high=2.0, default=0.0,
    )  # fmt: skip
    field: float = free(0.0, 1.0, "selects the density field, the same for both frames", default=0.0)
    ir_gain: float = ir_gain_share()
    forward: float = free(
        0.8, 0.95, "forward scattering of the air, Henyey and Greenstein's q: haze 0.8 to 0.85, fog to 0.95",
        low=0.0, high=0.99, default=0.9,
    )  # fmt: skip
    cool_sky: float = option("colour of the sky, from the image's (0) to that of a closed cover of clouds (1), by day")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        path = scene.path()
        if self.patchiness > 0:
            path = path * density_field(path.shape, self.patchiness, self.field)
        extinction = haze_extinction(self.visibility)
        if scene.modality == "infrared":
            return infrared_weather(
                image, path, self.ir_ratio * extinction, air_radiance(image), share=self.ir_gain, visible=extinction
            )
        light = _light(image, scene, self.cool_sky)
        airlight = light.air(
            image.shape[:2],
            np.float32(self.airlight) * self._tint(image.shape[2]),
            extinction=extinction,
            forward=self.forward,
            focal=particles.focal_length(image.shape[1], scene.fov),
        )
        clear = transmission(light.path(path), extinction)
        out = koschmieder(image, clear, airlight)
        if light.lamps is not None:
            soften_lamps(out, image, clear, light.exposure)
        return out

    def _tint(self, channels: int) -> np.ndarray:
        warm = np.array([1 + 0.05 * self.tint, 1, 1 - 0.05 * self.tint], np.float32)
        return warm if channels == 3 else np.ones(1, np.float32)


@dataclass(frozen=True)
class Rain(Operator):
    """Rain: streaks of the drops that are near enough to be resolved, in front of the veil of all others.

    Drops have Marshall-Palmer sizes N(D) = 8000 e^(−ΛD) m⁻³ mm⁻¹, Λ = 4.1 R^−0.21, and fall at
    v = 9.65 − 10.3 e^(−0.6 D) m/s, slanted by the wind. In an exposure T a drop of d pixels draws a streak of
    len = v T f / z pixels and covers each place for a = d / (len + d) of the time: out = (1 − a) bg + a L, where L,
    the drop's radiance, is the light that it refracts from a wide angle: the sky's by day; at night three times the
    scene's around it and the lamps' near by, which glow in the veil as in haze.
    ``contrast`` multiplies a: real rain is gusty and its drops sparkle, where the formula has uniform, dull ones.
    Streaks are drawn where d ≥ 0.3 px. The veil's extinction is 0.312 R^0.67 per km.
    With ``wet_ground`` the plane fitted to the depth is darker by Ångström's law and mirrors the scene by Fresnel's.
    In the infrared there are the veil, a loss of contrast of wet surfaces and blur, but no streaks.
    """

    name: ClassVar[str] = "rain"
    stage: ClassVar[Stage] = "scene"
    needs_depth: ClassVar[bool] = True
    unclipped: ClassVar[bool] = True
    restores: ClassVar[bool] = True
    event: ClassVar[bool] = True
    source: ClassVar[str] = (
        "Marshall and Palmer 1948; Atlas, Srivastava and Sekhon 1973; Garg and Nayar 2007 (streak compositing); "
        "extinction after Weber, Weiss and Wilson 2015, as in Halder, Lalonde and de Charette 2019; wet ground after "
        "Lekner and Dorf 1988"
    )

    rate: float = severe(5, 100, "rain rate", low=0, high=200, unit="mm/h", log=True, identity=0.0)
    wind: float = free(-25, 25, "slant of a 3 mm drop's path in the image, from vertical", unit="degrees")
    exposure: float = free(1 / 250, 1 / 60, "exposure time", unit="s", log=True)
    contrast: float = free(2.5, 5, "opacity of the streaks relative to uniform rain at the mean rate")
    ir_ratio: float = free(0.8, 1.1, "infrared extinction over visible extinction")
    ir_gain: float = ir_gain_share()
    cool_sky: float = option("colour of the sky, from the image's (0) to that of a closed cover of clouds (1), by day")
    wet_ground: float = option("how wet the ground is: darker, and a mirror at grazing angles")
    field: float = free(0.0, 1.0, "selects where puddles are, the same for both frames", default=0.0)

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
        light = _light(image, scene, self.cool_sky)
        if self.wet_ground > 0 and (plane := ground.find_ground(scene)) is not None:
            image = ground.wet(image, scene, plane, self.wet_ground, light.white, self.field)
        return _through(image, scene, extinction, self._streaks(rng, depth, scene.fov), light, DROPS_GATHER)

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
    that lights it; at night about six times as bright as the scene, and more near lamps. The veil's extinction is
    a S^b / 4.343 per km. With ``snow_cover`` snow lies on a share of the plane fitted to the depth, 4 times as bright.
    In the infrared there are the veil and the snow on the ground, slightly colder than the air, blur, and faint dark
    flakes.
    """

    name: ClassVar[str] = "snow"
    stage: ClassVar[Stage] = "scene"
    needs_depth: ClassVar[bool] = True
    unclipped: ClassVar[bool] = True
    restores: ClassVar[bool] = True
    event: ClassVar[bool] = True
    source: ClassVar[str] = "Gunn and Marshall 1958 (sizes); ITU-R P.1817 (extinction); flakes drawn from smooth noise"

    rate: float = severe(0.5, 8, "snowfall, as water", low=0, high=20, unit="mm/h", log=True, identity=0.0)
    crowding: float = free(1.5, 3, "visible flakes relative to uniform snowfall at the mean rate")
    wetness: float = free(0, 1, "from dry and fluffy (0) to wet (1)")
    wind: float = free(-35, 35, "slant of the flakes' path in the image, from vertical", unit="degrees")
    exposure: float = free(1 / 500, 1 / 125, "exposure time", unit="s", log=True)
    ir_ratio: float = free(0.8, 1.1, "infrared extinction over visible extinction")
    ir_gain: float = ir_gain_share()
    cool_sky: float = option("colour of the sky, from the image's (0) to that of a closed cover of clouds (1), by day")
    snow_cover: float = option("share of the ground under snow, in both modalities")
    field: float = free(0.0, 1.0, "selects where snow lies, the same for both frames", default=0.0)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        if self.rate == 0:
            return image.copy()
        depth = scene.metres()
        plane = ground.find_ground(scene) if self.snow_cover > 0 else None
        extinction = snow_extinction(self.rate, self.wetness)
        if scene.modality == "infrared":
            air = air_radiance(image)
            if plane is not None:
                # Snow lies at the temperature of the air or below, the same everywhere.
                share = ground.snow_share(depth.shape, plane, self.snow_cover, self.field)
                image = image + (np.float32(0.92 * air) - image) * share[..., None]
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
        light = _light(image, scene, self.cool_sky)
        if plane is not None:
            image = ground.snowy(image, plane, self.snow_cover, SNOW_LIMIT * light.white, self.field)
        return _through(image, scene, extinction, self._flakes(rng, depth, scene.fov), light, FLAKES_GATHER)

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

"""The light of a scene: airlight, night or day, lamps brighter than the camera could record, light on particles.

All in linear radiance. ``estimate`` and ``pair`` estimate it, once for an event of weather.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int

from clearfuse.synth import color
from clearfuse.synth.operators.light import glow

Frame = Float32[np.ndarray, "h w c"]

SKY_PATH = 10_000.0
"""Metres of air in front of the sky: a slant path through a surface layer; finite, so that thin haze vanishes."""
NEAREST = 0.25
"""Least distance of a scene point from the camera, in metres."""
SKY = 0.5 * SKY_PATH
"""Metres of path from which a pixel counts as sky."""
OVERCAST = (0.93, 1.0, 1.07)
"""Linear sRGB of daylight of 7500 K, scaled to a mean of 1."""


@dataclass(frozen=True)
class Lamps:
    """The pixels of lamps: flat indices into the frame and the grid of cells, radiance (n, c) beyond the recorded one,
    and the distance in metres. ``share``: pixels per cell.
    """

    at: Int[np.ndarray, " n"]
    cell: Int[np.ndarray, " n"]
    radiance: Float32[np.ndarray, "n c"]
    distance: Float32[np.ndarray, " n"]
    share: float


@dataclass(frozen=True)
class Light:
    """Ambient light estimated from an image, in linear radiance times ``exposure``.

    All other radiances are those of the frame from which they were estimated; ``exposure`` is the frame's to which the
    light belongs, relative to that one.
    """

    airlight: Float32[np.ndarray, " c"]
    """Radiance of an infinitely long path by day."""
    mean: float
    """Mean luminance, with the brightest 2 % clipped."""
    bright: float
    """98th percentile of the luminance: the sky by day."""
    night: float
    """0 where the scene is lit by the sky, 1 where only by lamps."""
    small: Float32[np.ndarray, "sh sw c"]
    """The image, downsampled."""
    far: Float32[np.ndarray, "sh sw"]
    """Metres of air in front of it."""
    lamps: Lamps | None
    """None by day, and where there are none."""
    exposure: float = 1.0
    shade: Float32[np.ndarray, "sh sw 1"] | None = None
    """Share of the day's light that reaches the air in front of each pixel, in a room, say; None: all everywhere."""

    @property
    def white(self) -> float:
        """Radiance of a white ground: of a hazy horizon by day, at night of one below a lamp."""
        return (float(self.airlight.mean()) * (1 - self.night) + self.night) * self.exposure

    def overcast(self, amount: float) -> Light:
        """The light under a closed cover of clouds: a share ``amount`` of the airlight's colour is that of daylight of
        7500 K (Wyszecki and Stiles: overcast skies have 6500 to 7500 K), its level stays.
        """
        if amount == 0 or self.airlight.size == 1:
            return self
        grey = np.float32(OVERCAST) * self.airlight.mean()
        return dataclasses.replace(self, airlight=self.airlight + np.float32(amount) * (grey - self.airlight))

    @functools.cached_property
    def around(self) -> Float32[np.ndarray, "gh gw c"]:
        """The smoothed light around each pixel, which air and particles scatter at night."""
        h, w = self.small.shape[:2]
        coarse = (-(-w // 4), -(-h // 4))
        light = color.as_hwc(cv2.resize(np.minimum(self.small, 1), coarse, interpolation=cv2.INTER_AREA))
        return color.as_hwc(cv2.GaussianBlur(light, (0, 0), max(0.08 * max(coarse), 0.5)))

    @functools.cached_property
    def lamplight(self) -> Float32[np.ndarray, "sh sw c"]:
        """Light of the lamps, as mean radiance of cells, spread over a twelfth of the frame: on what is near them."""
        if self.lamps is None:
            return np.zeros_like(self.small)
        return color.as_hwc(cv2.GaussianBlur(self._cells(self.lamps.radiance), (0, 0), max(self.small.shape) / 12))

    def _cells(self, radiance: Float32[np.ndarray, "n c"]) -> Float32[np.ndarray, "sh sw c"]:
        assert self.lamps is not None
        n, where = self.small.shape[0] * self.small.shape[1], self.lamps.cell
        planes = [np.bincount(where, plane, n) for plane in radiance.T]
        return np.stack(planes, axis=-1).reshape(self.small.shape).astype(np.float32) / np.float32(self.lamps.share)

    def restored(self, image: Frame) -> Frame:
        """The frame from which this was estimated with the radiance of its lamps, which the camera had clipped."""
        if self.lamps is None:
            return image
        out = image.copy()
        out.reshape(-1, image.shape[2])[self.lamps.at] += self.lamps.radiance
        return out

    def path(self, depth: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
        """The depth in metres, with the distance to a lamp where it stands out against the sky."""
        if self.lamps is None or not (high := depth.ravel()[self.lamps.at] >= SKY).any():
            return depth
        out = depth.copy()
        out.reshape(-1)[self.lamps.at[high]] = self.lamps.distance[high]
        return out

    def air(
        self,
        size: tuple[int, int],
        gain: Float32[np.ndarray, " c"],
        *,
        extinction: float,
        forward: float,
        focal: float,
    ) -> Float32[np.ndarray, "*any c"]:
        """The airlight times ``gain``: a colour (c,); a map (h, w, c) at night, when lamps light the air near them, and
        where there is shade.

        extinction: 1/m. forward: Henyey and Greenstein's parameter of the air. focal: focal length in pixels.
        """
        gain = gain * np.float32(self.exposure)
        if self.night == 0:
            return self._shaded(self.airlight * gain, size)
        night = np.float32(self.night)
        # Fog at night scatters what light there is around: hardly brighter than the scene, and of its colour.
        ambient = self.around * np.float32(0.6) + self._colour() * np.float32(0.5 * self.mean)
        h, w = self.small.shape[:2]
        ambient = color.as_hwc(cv2.resize(ambient, (w, h), interpolation=cv2.INTER_LINEAR))
        air = self.airlight * (1 - night) + night * ambient
        if self.lamps is not None:
            air += self.halo(extinction, forward, focal * w / size[1])
        return _enlarge(air * gain, size)

    def _shaded(self, radiance: Float32[np.ndarray, " c"], size: tuple[int, int]) -> Float32[np.ndarray, "*any c"]:
        """A colour of the day's light where all of it arrives; as a map (h, w, c) where there is shade."""
        return radiance if self.shade is None else _enlarge(radiance * self.shade, size)

    def halo(self, extinction: float, forward: float, focal: float) -> Float32[np.ndarray, "sh sw c"]:
        """The lamps' glow as an airlight A, (sh, sw, c), to be weighted by 1 − t like any other.

        A lamp of radiance E at the optical thickness T = β d keeps E e^(−T); the other 1 − e^(−T) of its light, none
        of which air absorbs, arrives spread by the atmosphere (``glow``). Where the scene is nearer than the lamp, less
        of the glowing air is in front of it. focal: in cells.
        """
        assert self.lamps is not None
        thickness = extinction * self.lamps.distance
        scattered = -np.expm1(-thickness)
        level = np.clip(np.log2(np.maximum(thickness, 1e-9) / glow.THINNEST), 0, len(glow.LEVELS) - 1)
        veil = -np.expm1(np.float32(-extinction) * self.far)[..., None]
        out = np.zeros_like(self.small)
        for k in range(len(glow.LEVELS)):
            share = np.maximum(1 - np.abs(level - k), 0)
            if not share.any():
                continue
            light = self._cells(self.lamps.radiance * (share * scattered).astype(np.float32)[:, None])
            typical = np.float32(np.average(scattered, weights=share))
            out += glow.spread(light, k, forward, focal) / np.maximum(np.maximum(veil, typical), np.float32(1e-12))
        return out

    def _colour(self) -> Float32[np.ndarray, " c"]:
        """Colour of the scene's light, of mean 1: half as saturated as the scene, since it has come from all of it."""
        mean = np.minimum(self.small, 1).reshape(-1, self.small.shape[2]).mean(axis=0)
        return (1 + 0.5 * (np.clip(mean / max(float(mean.mean()), 1e-6), 0.3, 2) - 1)).astype(np.float32)

    def on_particles(self, size: tuple[int, int], gathered: float) -> Float32[np.ndarray, "*any c"]:
        """Radiance of a drop or flake, which scatters light from all around: the sky's by day, the lamps' at night.

        gathered: its radiance at night over the scene's around it. A colour (c,); at night a map (h, w, c).
        """
        # An overcast sky is brighter overhead, out of view, than at the horizon.
        level = max(self.bright, min(2.5 * self.mean, 1.15 * self.bright))
        day = self.airlight * np.float32(level / max(float(self.airlight.mean()), 1e-6))
        day = np.minimum(np.maximum(day, self.airlight), 1)
        exposure = np.float32(self.exposure)
        if self.night == 0:
            return self._shaded(day * exposure, size)
        lit = self._colour() * np.float32(0.7 * self.mean) + np.float32(0.3) * self.around
        h, w = self.small.shape[:2]
        lit = color.as_hwc(cv2.resize(lit * np.float32(gathered), (w, h), interpolation=cv2.INTER_LINEAR))
        lit = np.minimum(lit + self.lamplight, 1)
        return _enlarge((day + np.float32(self.night) * (lit - day)) * exposure, size)


def _enlarge(small: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return color.as_hwc(cv2.resize(small, size[::-1], interpolation=cv2.INTER_LINEAR))

"""The light of a scene: airlight, night or day, lamps brighter than the camera could record, light on particles.

Estimated once for an event of weather: from the image, or for two frames of one scene from the darker, whose
highlights are not clipped. All in linear radiance.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from clearfuse.synth import color
from clearfuse.synth.operators import kernels
from clearfuse.synth.operators.light import glow

Frame = Float32[np.ndarray, "h w c"]

SKY_PATH = 10_000.0
"""Metres of air in front of the sky: a slant path through a surface layer; finite, so that thin haze vanishes."""
NEAREST = 0.25
"""Least distance of a scene point from the camera, in metres."""
ANALYSIS_WIDTH = 96
"""Longest side, in pixels, of the image on which the airlight and the ambient light are estimated."""
SKY = 0.5 * SKY_PATH
"""Metres of path from which a pixel counts as sky."""
SATURATED = 0.955
"""Linear value, code 250, from which a channel counts as clipped."""
NIGHT = (0.022, 0.05)
"""Median luminance below which a frame counts as lit by lamps alone, and above which by the sky."""
SHOULDER = 0.8
"""Linear value, code 231, from which a channel may be compressed on its way to the clip."""
OVERCAST = (0.93, 1.0, 1.07)
"""Linear sRGB of daylight of 7500 K, scaled to a mean of 1."""
DARKEST = 0.1
"""Albedo of dark things: soil, trunks, dark wood."""
LAMP = (10.0, 50.0)
"""Radiance of lamps relative to the clipped value, for a point and from ``LAMP_RADIUS`` on."""
LAMP_RADIUS = 6.0
"""Radius in pixels of a frame 640 wide from which a lamp has the greater radiance of ``LAMP``."""
LAMP_AREA = 0.004
"""Share of the frame from which a clipped region is more likely a lit surface than a lamp."""


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


def estimate_light(image: Frame, depth: Float[np.ndarray, "h w"] | None, night: float | None = None) -> Light:
    """Estimate the airlight, after the dark channel prior (He, Sun and Tang 2011), and the ambient light.

    depth: metres; None where unknown. Candidates are the sky where there is one, else
    distant pixels with a bright dark channel. The estimate is limited to 1.5 to 4.5 times the mean light, since air
    only scatters the available light. Haze is greyer than the scene, so its colour is partly desaturated.
    night: as ``Light.night`` where it is known from elsewhere; None: told by ``darkness``.
    """
    small = _shrink(image)
    small_size = small.shape[1::-1]
    if depth is None:
        far = np.ones(small.shape[:2], np.float32)
    else:
        sampled = cv2.resize(depth, small_size, interpolation=cv2.INTER_NEAREST)
        far = np.minimum(np.fmax(sampled, np.float32(NEAREST)), np.float32(SKY_PATH)).astype(np.float32, copy=False)
    luminance = color.luma(small)
    bright = float(np.partition(luminance, rank := int(0.98 * (luminance.size - 1)), axis=None)[rank])
    mean = float(np.minimum(luminance, bright).mean())
    night = darkness(luminance) if night is None else night
    candidates = far.ravel() >= SKY
    if np.count_nonzero(candidates) <= 0.01 * far.size:
        dark = cv2.erode(functools.reduce(np.minimum, cv2.split(small)), np.ones((7, 7), np.uint8)).ravel()
        score = dark * (0.25 + far.ravel() / far.max())
        candidates = score >= np.quantile(score, 0.98)
    chosen = small.reshape(-1, small.shape[2])[np.nonzero(candidates)[0]]
    estimate = np.array([_median(plane) for plane in chosen.T], np.float64)
    level = float(estimate.mean())
    limited = min(max(level, 1.5 * mean), 4.5 * mean, 0.95)
    chroma = 1 + 0.6 * (np.clip(estimate / max(level, 1e-6), 0.5, 1.5) - 1)
    lamps = None if night == 0 else find_lamps(image, depth, night, small.shape[:2])
    return Light((limited * chroma).astype(np.float32), mean, bright, night, small, far, lamps)


def darkness_of_pair(dark: Frame, bright: Frame, ratio: float) -> float:
    """``darkness`` of a scene from two exposures, of which one is always dark: judged at √k, half-way between.

    Interiors with windows have a low median there too. Two exposures a factor of two or more apart show the range that
    tells: a night has lamps, which are few and far brighter than all else (99.9th percentile over 8 to 16 times the
    90th), and an upper quarter darker than the median (under 0.55 to 0.45 times). Of 53 real pairs two are nights.
    """
    short, long = (color.luma(_shrink(frame)) for frame in (dark, bright))
    found = darkness(short * np.float32(math.sqrt(ratio)))
    if ratio < 2 or found == 0:
        return found
    radiance = np.where(long < 0.8, long / np.float32(ratio), short)
    most, high = np.quantile(radiance, [0.999, 0.9])
    lamps = math.log2(max(float(most), 1e-9) / max(8 * float(high), 1e-9))
    top = _median(radiance[: max(len(radiance) // 4, 1)]) / max(_median(radiance), 1e-9)
    return found * min(max(lamps, 0.0), 1.0) * min(max((0.55 - top) / 0.1, 0.0), 1.0)


def _shrink(image: Frame) -> Float32[np.ndarray, "sh sw c"]:
    """The image on the grid of cells."""
    h, w = image.shape[:2]
    scale = min(1.0, ANALYSIS_WIDTH / max(h, w))
    small = np.empty((max(1, round(h * scale)), max(1, round(w * scale)), image.shape[2]), np.float32)
    kernels.shrink(image, small)
    return small


def _median(values: Float32[np.ndarray, "*s"]) -> float:
    """The upper median."""
    return float(np.partition(values, values.size // 2, axis=None)[values.size // 2])


def darkness(luminance: Float32[np.ndarray, "h w"]) -> float:
    """How far a frame was taken at night: 0 by day, 1 where only lamps light the scene.

    By the median m of the luminance, which lamps hardly change: it is lowered towards half where m is less than half of
    the mean (few bright things in the dark), and 0 where the upper quarter of the frame is mostly brighter than the
    mean (a sky). Of 56 real nights and 55 real days all but two have 1 and 0: a night of 0.95 and, at dusk, a day of
    0.28.
    """
    values = np.minimum(luminance, 1)
    mean, median, top = float(values.mean()), _median(values), _median(values[: max(len(values) // 4, 1)])
    median *= min(max(2 * median / max(mean, 1e-9), 0.5), 1.0)
    median /= max(min((1.2 - top / max(mean, 1e-9)) / 0.5, 1.0), 1e-9)
    return min(max(math.log(NIGHT[1] / max(median, 1e-9)) / math.log(NIGHT[1] / NIGHT[0]), 0.0), 1.0)


def find_lamps(
    image: Frame, depth: Float[np.ndarray, "h w"] | None, night: float, cells: tuple[int, int]
) -> Lamps | None:
    """The lamps of a frame and the light that the camera could not record.

    A clipped region of area A is a lamp with the likelihood p = 1 / (1 + (A / A_0)²), A_0 = ``LAMP_AREA`` of the frame:
    larger ones are lit walls and windows. Its radiance rises from the recorded one at the rim to
    1 + p s (F − 1) times it in the middle, F between the two of ``LAMP`` by its size, times the degree of night. The
    share s is how far the channels are above ``SHOULDER``, the brightest, and at the clip, on average: a white lamp has
    more than a coloured sign. A lamp in front of the sky is as far as the next thing below it, on which it stands.
    """
    h, w, c = image.shape
    mask = above(image, SHOULDER)
    at = np.flatnonzero(mask)
    if not at.size:
        return None
    count, labels, stats, centres = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_32S)
    label = labels.ravel()[at]
    area = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    inside = cv2.distanceTransform(cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_REPLICATE), cv2.DIST_L2, 3)
    inside = inside[1:-1, 1:-1].ravel()[at]
    deepest = np.ones(count, np.float32)
    np.maximum.at(deepest, label, inside)
    likely = 1 / (1 + (area / (LAMP_AREA * h * w)) ** 2)
    radius = np.sqrt(area / math.pi) * 640 / max(h, w)
    factor = LAMP[0] + (LAMP[1] - LAMP[0]) * np.minimum(radius / LAMP_RADIUS, 1)
    more = (night * likely * (factor - 1))[label] * np.minimum(inside / deepest[label], 1)
    values = image.reshape(-1, c)[at]
    clipped = np.minimum((values.max(axis=1) - SHOULDER) / (1 - SHOULDER), 1) * (np.minimum(values, 1) ** 2).mean(
        axis=1
    )
    more = (more * clipped).astype(np.float32)
    distance = np.ones(at.size, np.float32) if depth is None else _distances(depth, at, label, centres)
    rows, columns = np.divmod(at, w)
    cell = rows * cells[0] // h * cells[1] + columns * cells[1] // w
    return Lamps(at, cell, values * more[:, None], distance, h * w / (cells[0] * cells[1]))


def above(image: Frame, level: float) -> UInt8[np.ndarray, "h w"]:
    """255 where a channel is above a level, else 0."""
    return cv2.bitwise_not(cv2.inRange(image, (-1.0,) * image.shape[2], (level,) * image.shape[2]))


def _distances(
    depth: Float[np.ndarray, "h w"],
    at: Int[np.ndarray, " n"],
    label: Int[np.ndarray, " n"],
    centres: Float[np.ndarray, "k 2"],
) -> Float32[np.ndarray, " n"]:
    """Metres to the lamps: the mean over each region; of one in front of the sky, that of the next thing below it."""
    n, where = len(centres), np.minimum(np.fmax(depth.ravel()[at], NEAREST), SKY_PATH)
    mean = np.bincount(label, where, n) / np.maximum(np.bincount(label, minlength=n), 1)
    x, y = (np.clip(np.rint(v), 0, most - 1).astype(int) for v, most in zip(centres.T, depth.shape[::-1], strict=True))
    (high,) = np.nonzero(mean >= SKY)
    if high.size:
        below = (depth[:, x[high]] < SKY) & (np.arange(len(depth))[:, None] > y[high])
        foot = depth[below.argmax(axis=0), x[high]]
        mean[high] = np.where(below.any(axis=0), foot, mean[high])
    return mean[label].astype(np.float32)


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
    short, long = (color.luma(_shrink(frame)) for frame in (dark, bright))
    radiance = np.where(long < 0.8, long / np.float32(ratio), short)
    around = cv2.GaussianBlur(radiance, (0, 0), max(0.1 * max(radiance.shape), 0.5))
    return -np.expm1(-around / np.float32(max(DARKEST * float(airlight.mean()), 1e-9)))[..., None]

"""Sky and sky light: time of day, sun, clouds, stars, moon."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from clearfuse.synth.scenes.rendering.faces import Rgb
from clearfuse.synth.scenes.rendering.materials import mip_levels
from clearfuse.synth.scenes.rendering.renderer import Frame, Light
from clearfuse.synth.scenes.rendering.view import View

HOURS = ("noon", "morning", "overcast", "dusk")


@dataclass(frozen=True)
class Sky:
    """The sky: radiance at the zenith, at the horizon and of the clouds, cloud cover in [0, 1], radiance of the sun's
    glow, thermal emissivity at the zenith.
    """

    zenith: Rgb
    horizon: Rgb
    cloud: Rgb
    cover: float
    glow: Rgb
    emissivity: float
    stars: bool = False


def day(rng: np.random.Generator, hour: str | None = None) -> tuple[Sky, Light]:
    """A daytime sky and its light. hour: one of ``HOURS``; None draws it."""
    hour = str(rng.choice(HOURS, p=(0.35, 0.3, 0.2, 0.15))) if hour is None else hour
    azimuth = rng.uniform(-math.pi, math.pi)
    air = float(rng.uniform(280, 295))
    if hour == "noon":
        height, sun, ambient = rng.uniform(0.75, 1.05), (3.0, 2.85, 2.6), (0.42, 0.52, 0.68)
        sky = Sky((0.16, 0.34, 0.80), (0.78, 0.95, 1.12), (1.75, 1.75, 1.72), rng.uniform(0.1, 0.6), sun, 0.3)
    elif hour == "morning":
        height, sun, ambient = rng.uniform(0.38, 0.6), (2.7, 2.25, 1.6), (0.36, 0.42, 0.55)
        sky = Sky((0.2, 0.36, 0.72), (1.15, 1.0, 0.85), (1.6, 1.42, 1.22), rng.uniform(0.15, 0.65), sun, 0.32)
    elif hour == "overcast":
        height, sun, ambient = 0.9, (0.22, 0.22, 0.22), (0.85, 0.88, 0.92)
        sky = Sky((0.75, 0.79, 0.86), (1.05, 1.08, 1.1), (1.25, 1.26, 1.27), 0.85, sun, 0.6)
    else:
        height, sun, ambient = rng.uniform(0.22, 0.3), (1.5, 0.85, 0.42), (0.26, 0.28, 0.38)
        sky = Sky((0.12, 0.18, 0.42), (1.25, 0.72, 0.42), (1.1, 0.68, 0.52), rng.uniform(0.2, 0.6), sun, 0.32)
    sun_from = (math.sin(azimuth) * math.cos(height), math.sin(height), math.cos(azimuth) * math.cos(height))
    bounce = tuple(0.16 * (s * math.sin(height) + k) for s, k in zip(sun, ambient, strict=True))
    mirror = tuple(0.5 * (a + b) for a, b in zip(sky.zenith, sky.horizon, strict=True))
    cooling = 0.8 if hour == "overcast" else 1.5
    return sky, Light(sun, sun_from, ambient, bounce, mirror, air, cooling, -0.12)  # type: ignore[arg-type]


def night(rng: np.random.Generator, dusk: bool = False) -> tuple[Sky, Light]:
    """A night sky and its faint light. dusk: brighter, without stars."""
    k = rng.uniform(7, 12) if dusk else rng.uniform(0.7, 1.3)
    zenith, horizon = (0.0008 * k, 0.0013 * k, 0.0030 * k), (0.0042 * k, 0.0036 * k, 0.0040 * k)
    if dusk:
        horizon = (0.010 * k, 0.0068 * k, 0.0062 * k)
    sky = Sky(
        zenith,
        horizon,
        (0.004 * k, 0.0036 * k, 0.004 * k),
        rng.uniform(0.2, 0.7),
        (0.0, 0.0, 0.0),
        0.3,
        not dusk,
    )
    ambient = (0.0024 * k, 0.0028 * k, 0.0042 * k)
    moon = (0.0012 * k, 0.0014 * k, 0.0019 * k)
    moon_from = (rng.uniform(-0.6, 0.6), 0.7, rng.uniform(-0.6, 0.6))
    bounce = tuple(0.3 * c for c in ambient)
    return sky, Light(
        moon, moon_from, ambient, bounce, (0.002 * k, 0.0024 * k, 0.0036 * k), float(rng.uniform(276, 290)), 2.5, -0.1
    )  # type: ignore[arg-type]


def start_frame(view: View, sky: Sky, light: Light, rng: np.random.Generator) -> Frame:
    """A frame that shows only the sky; all but stars and moon is computed at half the resolution."""
    shape = (view.height, view.width)
    rows = min(max(math.ceil(view.horizon) + 2, 1), view.height)
    rx, ry = view.rays(0, view.width + view.width % 2, 0, rows + rows % 2)
    rx, ry = (rx[::2] + rx[1::2]) / 2, (ry[::2] + ry[1::2]) / 2
    inverse_length = 1 / np.sqrt(1 + rx[None, :] ** 2 + ry[:, None] ** 2)
    up = np.maximum(ry[:, None] * inverse_length, 0)
    mix = cv2.exp(up * np.float32(-1 / 0.22))
    cover = _clouds(rx, ry, rng, sky.cover)
    ends = zip(sky.zenith, sky.horizon, sky.cloud, strict=True)
    clear = ((np.float32(top) + np.float32(low - top) * mix, np.float32(cloud)) for top, low, cloud in ends)
    sheet = [plane + (cloud - plane) * cover for plane, cloud in clear]
    sun = view.turned(np.array(light.sun_from, float)).astype(np.float32)
    if not sky.stars and sun[2] > 0:
        angle = 1 - (rx[None, :] * sun[0] + ry[:, None] * sun[1] + sun[2]) * inverse_length
        near = cv2.exp(angle * np.float32(-50)) * np.float32(0.9) + cv2.exp(angle / np.float32(-0.0012)) * np.float32(3)
        near += 600 * (angle < 0.00004)
        sheet = [plane + near * np.float32(0.5 * glow) for plane, glow in zip(sheet, sky.glow, strict=True)]
    cold = sky_temperature(up, cover, sky.emissivity, float(light.air))

    def whole(half: np.ndarray) -> np.ndarray:
        size = (2 * half.shape[1], 2 * half.shape[0])
        return cv2.resize(half, size, interpolation=cv2.INTER_LINEAR)[:rows, : view.width]

    radiance = np.empty((*shape, 3), np.float32)
    radiance[:rows] = whole(cv2.merge(sheet))
    radiance[rows:] = sky.horizon
    if sky.stars:
        _stars(radiance[:rows], rng, view, 1 - whole(cover))
    temperature = np.full(shape, light.air, np.float32)
    temperature[:rows] = whole(cold)
    far = np.full(shape, np.inf, np.float32)
    ones = np.ones(shape, np.float32)
    return Frame(view, light, radiance, far, temperature, ones, ones.copy())


def sky_temperature(up: np.ndarray, cover: np.ndarray, zenith: float, air: float) -> np.ndarray:
    """The sky's apparent temperature in kelvin, e^(1/4) times the air's, coldest at the zenith.

    e = 1 - (1 - e_z)^(1/up), up the sine of the elevation (Granqvist and Hjortsberg 1981, J. Appl. Phys. 52). Clouds
    are nearer to the air's temperature (Berger et al. 1984, Infrared Phys. 24). zenith: e_z. cover: clouds in [0, 1].
    """
    emissivity = 1 - cv2.exp(np.float32(math.log(1 - zenith)) / np.maximum(up, np.float32(0.03)))
    clear = cv2.sqrt(cv2.sqrt(emissivity)) - 1
    return np.float32(air) * (1 + clear * (1 - np.float32(0.6) * cover))


def _clouds(rx: np.ndarray, ry: np.ndarray, rng: np.random.Generator, cover: float) -> np.ndarray:
    """Coverage of a cloud layer at one height, in perspective; fades towards the horizon."""
    height = np.maximum(ry, 0.02)[:, None]
    offset = rng.uniform(0, 512, 2).astype(np.float32)
    mx = ((rx[None, :] / (height + 0.12)) * 90 + offset[0]) % 512
    my = np.broadcast_to((1 / (height + 0.12)) * 90 + offset[1], mx.shape) % 512
    tile = mip_levels("noise")[0]
    mx, my = mx.astype(np.float32), np.ascontiguousarray(my, np.float32)
    field = cv2.remap(tile, mx, my, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    field += 0.35 * (cv2.remap(tile, mx * 3 % 512, my * 3 % 512, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP) - 1)
    edge = np.clip((field - (1.28 - 0.5 * cover)) / 0.3, 0, 1)
    return edge * edge * (3 - 2 * edge) * np.clip(0.35 + ry * 2.2, 0.3, 0.92)[:, None]


def _stars(sheet: np.ndarray, rng: np.random.Generator, view: View, clear: np.ndarray) -> None:
    """Add stars, and sometimes a moon, to the sky, in place."""
    rows = len(sheet)
    canvas = np.zeros((rows, view.width), np.float32)
    count = 70
    u, v = rng.uniform(0, view.width, count), rng.uniform(0, 1, count) ** 1.3 * view.horizon
    power = rng.exponential(1, count)
    for x, y, p in zip(u, v, power, strict=True):
        if y < rows:
            canvas[int(y), min(int(x), view.width - 1)] = p
    light = cv2.GaussianBlur(canvas, (0, 0), 0.6) * clear
    sheet += cv2.merge([light * np.float32(c) for c in (0.02, 0.022, 0.026)])
    moon, mu, mv = rng.random(), rng.uniform(0.1, 0.9), rng.uniform(0.08, 0.35)
    if moon < 0.4:
        centre = (int(mu * view.width * 16), int(mv * view.horizon * 16))
        soft = np.zeros(sheet.shape[:2], np.uint8)
        cv2.circle(soft, centre, int(view.focal * 0.016 * 16), 255, -1, cv2.LINE_AA, 4)
        disc = soft.astype(np.float32) * np.float32(1 / 255)
        sheet += cv2.merge([disc * np.float32(c) for c in (1.6, 1.5, 1.3)])

"""Sprites: flat cutouts, such as trees and people, composited into the rendered frame."""

from __future__ import annotations

import math

import cv2
import numpy as np

from clearfuse.synth.scenes.rendering.imaging import repeated
from clearfuse.synth.scenes.rendering.lamps import Lamps, lamp_light
from clearfuse.synth.scenes.rendering.projection import SAMPLES
from clearfuse.synth.scenes.rendering.renderer import CLASSES, Cutout, Frame
from clearfuse.synth.scenes.rendering.view import View


def paste(frame: Frame, item: Cutout, lamps: Lamps | None, painted: np.ndarray, before: int) -> None:
    """Composite a sprite (Porter and Duff's over, in linear light) where no later face occludes it.

    Depth and class are the sprite's where it covers more than half of the pixel.
    """
    view, light, base = frame.view, item.light, item.base
    u, v = view.pixels(base)
    size = item.width * view.focal / base[2]
    sprite = next((level for level in reversed(item.levels) if level.shape[1] >= size), item.levels[0])
    k = size / sprite.shape[1]
    rows, cols = sprite.shape[:2]
    left, top = u - cols * k / 2, v - rows * k
    x0, x1 = max(int(left), 0), min(int(left + cols * k) + 1, view.width)
    y0, y1 = max(int(top), 0), min(int(top + rows * k) + 1, view.height)
    if x1 <= x0 or y1 <= y0:
        return
    free = (painted[y0 * SAMPLES : y1 * SAMPLES, x0 * SAMPLES : x1 * SAMPLES] <= before).view(np.uint8)
    visible = cv2.resize(free * np.uint8(255), (x1 - x0, y1 - y0), interpolation=cv2.INTER_AREA)
    if not visible.any():
        return
    on_y, on_x = np.flatnonzero(visible.any(1)), np.flatnonzero(visible.any(0))
    visible = visible[on_y[0] : on_y[-1] + 1, on_x[0] : on_x[-1] + 1]
    x0, x1, y0, y1 = x0 + int(on_x[0]), x0 + int(on_x[-1]) + 1, y0 + int(on_y[0]), y0 + int(on_y[-1]) + 1
    warp = np.array([[k, 0, left - x0], [0, k, top - y0]], np.float64)
    if item.flip:
        warp[0] = (-k, 0, left - x0 + (cols - 1) * k)
    drawn = cv2.warpAffine(sprite, warp, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    if visible.min() < 255:
        drawn *= repeated(visible.astype(np.float32) * np.float32(1 / 255), 4)
    cover = np.minimum(drawn[..., 3], 1)
    at = np.s_[y0:y1, x0:x1]
    heat = np.float32(light.air + item.warmth - 1.0) * cover + cv2.transform(drawn, np.array([[0.5, 0.5, 0.5, 0]]))
    frame.temperature[at] *= 1 - cover
    frame.temperature[at] += heat
    frame.radiance[at] *= repeated(1 - cover)
    frame.radiance[at] += cv2.cvtColor(drawn, cv2.COLOR_BGRA2BGR) * _sprite_light(item, lamps, view, (x0, x1, y0, y1))
    np.copyto(frame.z[at], np.float32(base[2]), where=cover > 0.5)
    np.copyto(frame.classes[at], np.uint8(CLASSES.index(item.shows)), where=cover > 0.5)
    np.copyto(frame.objects[at], np.uint16(0), where=cover > 0.5)


def _centres(length: int, step: float) -> np.ndarray:
    """The centres of equal parts, each at most ``step`` pixels long, of a row; pixel centres are at whole numbers."""
    count = math.ceil(length / step)
    return (np.arange(count, dtype=np.float32) + np.float32(0.5)) * np.float32(length / count) - np.float32(0.5)


def _sprite_light(item: Cutout, lamps: Lamps | None, view: View, box: tuple[int, int, int, int]) -> np.ndarray:
    """The tint times the light on a sprite; the lamps' light is interpolated from every fourth pixel or fewer."""
    light = item.light
    sun = view.turned(np.array(light.sun_from, float))
    facing = 0.55 + 0.35 * max(-float(sun[2]), 0)
    total = np.array(light.sun) * facing + np.array(light.sky) * 0.7 + np.array(light.bounce) * 0.3
    tint = np.array(item.tint, np.float32)
    whole = total.astype(np.float32) * tint
    if lamps is None:
        return whole
    x0, x1, y0, y1 = box
    step = max(4.0, max(x1 - x0, y1 - y0) / 24)
    # Where cv2's interpolation places the values.
    u, v = (first + _centres(last - first, step) for first, last in ((x0, x1), (y0, y1)))
    rx, ry = (u - np.float32(view.cx)) / np.float32(view.focal), (np.float32(view.horizon) - v) / np.float32(view.focal)
    z = np.full((len(ry), len(rx)), item.base[2], np.float32)
    normal = tuple(np.array(n, np.float32) for n in (0, 0, -1))
    lit = cv2.cvtColor(lamp_light(lamps, (rx[None, :] * z, ry[:, None] * z, z), normal), cv2.COLOR_BGRA2BGR)
    return cv2.resize(lit * tint + whole, (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR)

"""Roundness of flat figures: shading and warmth from the slope of their blurred silhouettes."""

from __future__ import annotations

import cv2
import numpy as np

from clearfuse.synth.scenes.rendering.projection import SAMPLES, Projected
from clearfuse.synth.scenes.rendering.renderer import Batch, Frame, Real

DETAILED = 48
"""Height in pixels from which every part of a figure is round, and shades the parts behind it."""

SMALLEST = 4
"""Least width and height in pixels of a part that is rounded for itself."""

COOLER = 2.0
"""Kelvin between the middle of a part and its outline, where the skin or cloth is seen at a grazing angle."""


def rounding(frame: Frame, cast: Projected, batches: list[Batch]) -> np.ndarray | None:
    """Per pixel of the figures a factor on the light and kelvin to add, ``(h, w, 2)``; None without figures."""
    groups: dict[int, list[int]] = {}
    for index, batch in enumerate(batches):
        if batch.round_off:
            groups.setdefault(id(batch), []).append(index)
    if not groups:
        return None
    view = frame.view
    out = np.zeros((view.height, view.width, 2), np.float32)
    out[..., 0] = 1
    sun = view.turned(np.array(frame.light.sun_from, float))
    side = np.array([0.2, 0.8]) if frame.light.lamps else sun[:2] / max(float(np.hypot(sun[0], sun[1])), 1e-6)
    for numbers in groups.values():
        _figure(out, [cast.contours[i] for i in numbers], cast.bounds[numbers], side, batches[numbers[0]].round_off)
    return out


def _box(bounds: np.ndarray, shape: tuple[int, int], pad: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a padded box in whole pixels, within the frame."""
    x0, y0 = (max(int(np.floor(v)) - pad, 0) for v in bounds[:2])
    x1, y1 = (min(int(np.floor(v)) + pad + 1, n) for v, n in zip(bounds[2:], (shape[1], shape[0]), strict=True))
    return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def _silhouette(contours: list[np.ndarray], box: tuple[int, int, int, int], into: np.ndarray) -> None:
    for contour in contours:
        pixel = np.rint((contour - 16 * (SAMPLES // 2)) / SAMPLES).astype(np.int32) - (16 * box[0], 16 * box[1])
        cv2.fillPoly(into, [pixel.astype(np.int32)], 255, cv2.LINE_AA, 4)


def _slope(alpha: np.ndarray, sigma: float, side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The silhouette blurred, and its slope towards the light: at the resolution that so wide a blur needs."""
    h, w = alpha.shape
    scale = max(int(sigma / 2), 1)
    small = cv2.resize(alpha, (-(-w // scale), -(-h // scale)), interpolation=cv2.INTER_AREA)
    sigma /= scale
    soft = cv2.GaussianBlur(small.astype(np.float32) * np.float32(1 / 255), (0, 0), sigma)
    gx, gy = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    tilt = (-gx * np.float32(side[0]) + gy * np.float32(side[1])) * np.float32(sigma * 0.35)
    soft, tilt = (cv2.resize(x, (w, h), interpolation=cv2.INTER_LINEAR) for x in (soft, tilt))
    return soft, tilt


def _figure(
    out: np.ndarray, parts: list[list[np.ndarray]], bounds: np.ndarray, side: np.ndarray, strength: Real
) -> None:
    """Shade one figure in place, its parts in the order of painting."""
    shape = (out.shape[0], out.shape[1])
    whole = _box(np.concatenate([bounds[:, :2].min(0), bounds[:, 2:].max(0)]), shape, 1)
    x0, y0, x1, y1 = whole
    alpha = np.zeros((y1 - y0, x1 - x0), np.uint8)
    for contours in parts:
        _silhouette(contours, whole, alpha)
    soft, tilt = _slope(alpha, max(min(alpha.shape) * 0.07, 0.6), side)
    detailed = y1 - y0 >= DETAILED
    shade = 1 + float(strength) * (0.5 if detailed else 1) * (tilt - np.float32(0.35) * (1 - soft))
    heat = np.float32(COOLER) * (soft - np.float32(0.8)) * np.float32(0.6 if detailed else 1)
    if detailed:
        local = np.zeros((*alpha.shape, 2), np.float32)
        for contours, bound in zip(parts, bounds, strict=True):
            if min(bound[2:] - bound[:2]) >= SMALLEST:
                _part(local, contours, _box(bound, shape, 3), whole, side)
        shade += float(strength) * local[..., 0]
        heat += local[..., 1]
    inside = alpha > 0
    np.copyto(out[y0:y1, x0:x1, 0], np.clip(shade, 0.3, 1.7), where=inside)
    np.copyto(out[y0:y1, x0:x1, 1], heat, where=inside)


def _part(
    local: np.ndarray,
    contours: list[np.ndarray],
    box: tuple[int, int, int, int],
    whole: tuple[int, int, int, int],
    side: np.ndarray,
) -> None:
    """Shade one part in place; around it, it takes some light from what it lies in front of."""
    x0, y0 = max(box[0], whole[0]), max(box[1], whole[1])
    x1, y1 = min(box[2], whole[2]), min(box[3], whole[3])
    if x1 - x0 < 3 or y1 - y0 < 3:
        return
    alpha = np.zeros((y1 - y0, x1 - x0), np.uint8)
    _silhouette(contours, (x0, y0, x1, y1), alpha)
    sigma = min(max(min(alpha.shape) * 0.2, 0.7), 12.0)
    soft, tilt = _slope(alpha, sigma, side)
    at = local[y0 - whole[1] : y1 - whole[1], x0 - whole[0] : x1 - whole[0]]
    inside = alpha > 127
    at[..., 0] -= np.float32(0.2) * soft * ~inside
    np.copyto(at[..., 0], np.float32(0.8) * tilt - np.float32(0.3) * (1 - soft), where=inside)
    np.copyto(at[..., 1], np.float32(COOLER) * (soft - np.float32(0.8)), where=inside)

"""The light of lamps on surfaces: exact where shapes meet, told by every second pixel within a face."""

from __future__ import annotations

import cv2
import numpy as np

from synth.scenes.renderer import Light
from synth.scenes.view import View


def lamp_light(light: Light, view: View, points: tuple[np.ndarray, ...], normals: tuple[np.ndarray, ...]) -> np.ndarray:
    """Irradiance of the lamps, ``(..., 3)``: power max(0, n·l) / (r² + size²), times the beam's lobe."""
    x, y, z = points
    if not z.size:
        return np.zeros((*z.shape, 3), np.float32)
    total = [np.zeros(z.shape, np.float32) for _ in range(3)]
    low, high = float(z.min()), float(z.max())
    # Too faint to be seen beside the sky's light.
    dim = 0.12 * max(light.sky)
    for lamp in light.lamps:
        px, py, pz = (float(v) for v in view.to_camera(np.array(lamp.at, float)))
        gap = max(low - pz, pz - high, 0.0)
        if max(lamp.power) < dim * gap * gap:
            continue
        dx, dy, dz = np.float32(px) - x, np.float32(py) - y, np.float32(pz) - z
        r2 = dx * dx
        r2 += dy * dy
        r2 += dz * dz
        r2 += np.float32(lamp.size**2)
        inverse = 1 / np.sqrt(r2)
        # A quarter of the light whatever the normal: what small shapes turn towards it.
        amount = normals[0] * dx
        amount += normals[1] * dy
        amount += normals[2] * dz
        amount *= inverse
        np.maximum(amount, 0, out=amount)
        amount *= np.float32(0.85)
        amount += np.float32(0.08)
        amount /= r2
        if lamp.facing is not None:
            f = view.turned(np.array(lamp.facing, float))
            f = (-f / np.linalg.norm(f)).astype(np.float32)
            lobe = f[0] * dx
            lobe += f[1] * dy
            lobe += f[2] * dz
            lobe *= inverse
            np.maximum(lobe, 0, out=lobe)
            for _ in range(lamp.doublings):
                lobe *= lobe
            amount *= lobe
        for channel, power in enumerate(lamp.power):
            total[channel] += amount * np.float32(power)
    return cv2.merge(total).reshape(*z.shape, 3)


def lamp_map(
    light: Light, view: View, own: np.ndarray, plane: np.ndarray, spans: np.ndarray, normal: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The lamps' light on the labels of every pixel, ``(h, w, 3)``, told by every second; and where that's exact.

    It's exact where all the neighbours that tell a pixel's light show the same face.
    """
    coarse = np.ascontiguousarray(own[::2, ::2])
    # In the middle of the two pixels, where cv2's interpolation takes the values to be.
    rx, ry = view.rays(0, view.width, 0, view.height)
    half = np.float32(0.5 / view.focal)
    rx, ry = rx[::2] + half, ry[::2] - half
    n = [np.take(plane[:, i], coarse) for i in range(3)]
    iz = n[0] * rx[None, :] + n[1] * ry[:, None] + n[2]
    z = np.clip(1 / np.maximum(iz, np.float32(1e-3)), np.take(spans[:, 0], coarse), np.take(spans[:, 1], coarse))
    normals = tuple(np.take(normal[:, i], coarse) for i in range(3))
    lit = lamp_light(light, view, (rx[None, :] * z, ry[:, None] * z, z), normals)
    h, w = own.shape
    whole = cv2.resize(lit, (2 * coarse.shape[1], 2 * coarse.shape[0]), interpolation=cv2.INTER_LINEAR)[:h, :w]
    small, kernel = coarse.astype(np.uint16), np.ones((3, 3), np.uint8)
    even = (cv2.dilate(small, kernel) == cv2.erode(small, kernel)).astype(np.uint8)
    exact = np.repeat(np.repeat(even, 2, 0), 2, 1)[:h, :w].astype(bool)
    return whole, exact & (own == np.repeat(np.repeat(coarse, 2, 0), 2, 1)[:h, :w])

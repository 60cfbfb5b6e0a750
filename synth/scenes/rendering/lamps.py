"""Light of lamps on surfaces: exact at outlines, interpolated from every second pixel within a face."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from clearfuse.synth.scenes.rendering.renderer import Light
from clearfuse.synth.scenes.rendering.view import View

CHUNK = 1 << 15
"""Distances computed at a time, over all lamps; they fit in the processor's cache."""


@dataclass
class Lamps:
    """Lamps in camera coordinates, one per row; those with a beam first, wide beams before narrow ones.

    size2: squared size. doublings: exponent of the beam, see ``Lamp``. dim: irradiance too faint to matter.
    """

    at: np.ndarray
    beam: np.ndarray
    power: np.ndarray
    size2: np.ndarray
    doublings: np.ndarray
    dim: float

    def near(self, low: float, high: float) -> Lamps | None:
        """The lamps that matter between two depths; None where there are none."""
        z = self.at[:, 2]
        gap = np.maximum(np.maximum(low - z, z - high), 0)
        kept = self.power.max(-1) >= self.dim * gap * gap
        if not kept.any():
            return None
        beamed = kept[: len(self.beam)]
        rows = (self.at[kept], self.beam[beamed], self.power[kept], self.size2[kept], self.doublings[beamed])
        return Lamps(*rows, self.dim)


def lamps_of(light: Light, view: View) -> Lamps | None:
    """The lamps of a light in camera coordinates; None where it has none."""
    if not light.lamps:
        return None
    lamps = sorted(light.lamps, key=lambda lamp: (lamp.facing is None, lamp.doublings))
    beamed = [lamp for lamp in lamps if lamp.facing is not None]
    beam = np.array([lamp.facing for lamp in beamed], float).reshape(-1, 3)
    beam = -view.turned(beam) / np.linalg.norm(beam, axis=-1, keepdims=True)
    return Lamps(
        view.to_camera(np.array([lamp.at for lamp in lamps], float)).astype(np.float32),
        beam.astype(np.float32),
        np.array([lamp.power for lamp in lamps], np.float32),
        np.array([[lamp.size**2] for lamp in lamps], np.float32),
        np.array([lamp.doublings for lamp in beamed], int),
        # Negligible compared with the light of the sky.
        0.12 * float(max(light.sky)),
    )


def lamp_light(all_lamps: Lamps, points: tuple[np.ndarray, ...], normals: tuple[np.ndarray, ...]) -> np.ndarray:
    """Irradiance of the lamps, ``(..., 4)``: power max(0, n·l) / (r² + size²), times the beam's lobe.

    The fourth value, the place of the temperature in samples, is zero.
    """
    shape = points[2].shape
    lamps = all_lamps.near(float(points[2].min()), float(points[2].max())) if points[2].size else None
    if lamps is None:
        return np.zeros((*shape, 4), np.float32)
    x, y, z, *n = (np.broadcast_to(a, shape).ravel() for a in (*points, *normals))
    total = np.zeros((z.size, 4), np.float32)
    step = max(CHUNK // len(lamps.power), 1)
    for start in range(0, z.size, step):
        at = np.s_[start : start + step]
        amount = _amounts(lamps, (x[at], y[at], z[at]), (n[0][at], n[1][at], n[2][at]))
        for channel in range(3):
            total[at, channel] = (amount * lamps.power[:, channel : channel + 1]).sum(0)
    return total.reshape(*shape, 4)


def _amounts(lamps: Lamps, points: tuple[np.ndarray, ...], normals: tuple[np.ndarray, ...]) -> np.ndarray:
    """The share of each lamp's power that arrives at each point, ``(lamps, points)``."""
    dx, dy, dz = (lamps.at[:, i : i + 1] - p for i, p in enumerate(points))
    r2 = dx * dx
    r2 += dy * dy
    r2 += dz * dz
    r2 += lamps.size2
    inverse = 1 / np.sqrt(r2)
    amount = dx * normals[0]
    amount += dy * normals[1]
    amount += dz * normals[2]
    amount *= inverse
    np.maximum(amount, 0, out=amount)
    # Some light whatever the normal, since real surfaces have relief.
    amount *= np.float32(0.85)
    amount += np.float32(0.08)
    amount /= r2
    count = len(lamps.beam)
    if count:
        lobe = dx[:count] * lamps.beam[:, 0:1]
        lobe += dy[:count] * lamps.beam[:, 1:2]
        lobe += dz[:count] * lamps.beam[:, 2:3]
        lobe *= inverse[:count]
        np.maximum(lobe, 0, out=lobe)
        for k in range(int(lamps.doublings.max())):
            narrow = lobe[np.searchsorted(lamps.doublings, k, "right") :]
            narrow *= narrow
        amount[:count] *= lobe
    return amount


def lamp_map(
    lamps: Lamps, view: View, labels: np.ndarray, plane: np.ndarray, spans: np.ndarray, normal: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The lamps' light at every pixel, ``(h, w, 4)``, interpolated from every second one, and where that is exact.

    Exact: all neighbours that the interpolation uses show the same face.
    """
    coarse = np.ascontiguousarray(labels[::2, ::2])
    # Between the two pixels, where cv2's interpolation places the values.
    rx, ry = view.rays(0, view.width, 0, view.height)
    half = np.float32(0.5 / view.focal)
    rx, ry = rx[::2] + half, ry[::2] - half
    n = [np.take(plane[:, i], coarse) for i in range(3)]
    iz = n[0] * rx[None, :] + n[1] * ry[:, None] + n[2]
    z = np.clip(1 / np.maximum(iz, np.float32(1e-3)), np.take(spans[:, 0], coarse), np.take(spans[:, 1], coarse))
    normals = tuple(np.take(normal[:, i], coarse) for i in range(3))
    lit = lamp_light(lamps, (rx[None, :] * z, ry[:, None] * z, z), normals)
    h, w = labels.shape
    whole = cv2.resize(lit, (2 * coarse.shape[1], 2 * coarse.shape[0]), interpolation=cv2.INTER_LINEAR)[:h, :w]
    small_labels, kernel = coarse.astype(np.uint16), np.ones((3, 3), np.uint8)
    uniform = (cv2.dilate(small_labels, kernel) == cv2.erode(small_labels, kernel)).astype(np.uint8)
    exact = np.repeat(np.repeat(uniform, 2, 0), 2, 1)[:h, :w].astype(bool)
    return whole, exact & (labels == np.repeat(np.repeat(coarse, 2, 0), 2, 1)[:h, :w])

"""Pinhole camera: level, with a vertical shift instead of a pitch, so that vertical lines stay vertical.

World axes: x right, y up from the ground, z forward, in metres. Camera axes: the same, rotated by the yaw about the
camera, with y measured from the eye. The ray of a pixel (u, v) is ((u - cx)/f, (horizon - v)/f, 1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

NEAR = 0.3
"""Distance of the near clipping plane, in metres."""

FOV = 60.0
"""Horizontal field of view in degrees, the default of all operators."""


@dataclass(frozen=True)
class View:
    """Camera position and projection. horizon: row of the horizon; eye: height in metres; yaw: radians."""

    width: int
    height: int
    horizon: float
    eye: float
    x: float = 0.0
    yaw: float = 0.0

    @property
    def focal(self) -> float:
        """Focal length in pixels: f = w / (2 tan(fov/2))."""
        return self.width / (2 * math.tan(math.radians(FOV) / 2))

    @property
    def cx(self) -> float:
        """Column of the optical axis (pixel centres at whole numbers)."""
        return (self.width - 1) / 2

    def turned(self, direction: np.ndarray) -> np.ndarray:
        """World directions in camera coordinates."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return direction @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """World points in camera coordinates."""
        return self.turned(points - (self.x, self.eye, 0.0))

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """Camera points in world coordinates."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return points @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]]) + (self.x, self.eye, 0.0)

    def spot(self, across: float, z: float) -> tuple[float, float]:
        """World (x, z) of the ground point seen at ``across`` (-1 left edge, 1 right edge), ``z`` metres ahead."""
        lateral = across * z * math.tan(math.radians(FOV) / 2)
        world = self.to_world(np.array([lateral, 0.0, z]))
        return float(world[0]), float(world[2])

    def pixels(self, camera: np.ndarray) -> np.ndarray:
        """Pixel coordinates of camera points: u = cx + f x/z, v = horizon - f y/z."""
        return camera[..., :2] * (self.focal / camera[..., 2:]) * (1, -1) + (self.cx, self.horizon)

    def rays(self, x0: int, x1: int, y0: int, y1: int) -> tuple[np.ndarray, np.ndarray]:
        """The rays' x for the columns x0 to x1 − 1, and their y for the rows y0 to y1 − 1, at z = 1."""
        rx = (np.arange(x0, x1, dtype=np.float32) - np.float32(self.cx)) / np.float32(self.focal)
        ry = (np.float32(self.horizon) - np.arange(y0, y1, dtype=np.float32)) / np.float32(self.focal)
        return rx, ry


def clip_near(points: np.ndarray) -> np.ndarray:
    """The part of a polygon, ``(k, 3)`` in camera axes, with z >= NEAR (Sutherland and Hodgman 1974, one plane)."""
    z = points[:, 2]
    front = z >= NEAR
    if front.all():
        return points
    if not front.any():
        return np.zeros((0, 3))
    following = np.concatenate([points[1:], points[:1]])
    crosses = front != np.concatenate([front[1:], front[:1]])
    rise = np.where(crosses, following[:, 2] - z, 1)
    cut = points + ((NEAR - z) / rise)[:, None] * (following - points)
    return np.stack([points, cut], 1)[np.stack([front, crosses], 1)]


def fixed_point(pixel: np.ndarray) -> np.ndarray:
    """Pixel coordinates in sixteenths, as cv2 takes them; limited, so that they don't overflow."""
    return np.rint(pixel.clip(-20000, 20000) * 16).astype(np.int32)

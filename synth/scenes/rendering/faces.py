"""Planar faces, the primitives of the scenes, and functions that build boxes, arcs and upright figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any

import numpy as np

Real = float | int
Rgb = tuple[Real, Real, Real]
Axis = tuple[Real, Real, Real]
Points = Sequence[Any] | np.ndarray
"""Points as a sequence of tuples or an array."""


@cache
def srgb(code: int) -> Rgb:
    """Linear albedo of a hexadecimal sRGB colour."""
    codes = [((code >> shift) & 255) / 255 for shift in (16, 8, 0)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in codes)
    return (r, g, b)


def tinted(colour: Rgb, factor: Real) -> Rgb:
    """A colour multiplied by a factor."""
    return (colour[0] * factor, colour[1] * factor, colour[2] * factor)


@dataclass
class Face:
    """Coplanar polygons of one colour.

    contours: each ``(k, 3)``, world metres; the first determines the plane. material: a key of ``MATERIALS``. warmth:
    kelvin above the ambient air. glow: emitted radiance. gloss: share of the sky's radiance reflected. outward: the
    outward normal, to cull the face when seen from behind. s_axis: the world direction of the texture's s axis. scale:
    of the texture. lit: factor on the incident light.
    """

    contours: list[np.ndarray]
    colour: Rgb
    material: str | None = None
    warmth: Real = 0.0
    glow: Rgb | None = None
    gloss: Real = 0.0
    outward: Axis | None = None
    s_axis: Axis | None = None
    scale: Real = 1.0
    lit: Real = 1.0


def quad(*corners: Points, **rest) -> Face:
    """A face of one polygon; its colour and the other fields of ``Face`` are passed by keyword."""
    return Face([np.array(corners, np.float64)], **rest)


def ground(points: Points, **rest) -> Face:
    """A horizontal face from points (x, z), facing up."""
    return Face([np.array([[x, 0.0, z] for x, z in points], np.float64)], outward=(0, 1, 0), **rest)


@dataclass(frozen=True)
class Frame2:
    """A local frame: its origin on the ground, its heading in radians. Axes (a, y, b): a along the heading, b left."""

    x: Real
    z: Real
    heading: Real

    def at(self, points: Points) -> np.ndarray:
        """Local points (a, y, b) in world coordinates."""
        out = np.dot(np.asarray(points, np.float64), self._turn)
        out += self._origin
        return out

    @cached_property
    def _turn(self) -> np.ndarray:
        c, s = math.cos(self.heading), math.sin(self.heading)
        return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])

    @cached_property
    def _origin(self) -> np.ndarray:
        return np.array([self.x, 0.0, self.z])

    def direction(self, a: Real, y: Real, b: Real) -> Axis:
        """A local direction in world coordinates."""
        c, s = math.cos(self.heading), math.sin(self.heading)
        return (a * c - b * s, y, a * s + b * c)


def box(frame: Frame2, a: tuple[Real, Real], y: tuple[Real, Real], b: tuple[Real, Real], **rest) -> list[Face]:
    """The six faces of a box, given its ranges along the local axes; faces seen from behind are culled when drawn."""
    corners = frame.at([(p, q, r) for p in a for q in y for r in b])
    along, across = rest.pop("s_axis", None) or frame.direction(1, 0, 0), frame.direction(0, 0, 1)
    sides = (
        ((0, 1, 3, 2), (-1, 0, 0), across), ((4, 5, 7, 6), (1, 0, 0), across), ((0, 4, 6, 2), (0, 0, -1), along),
        ((1, 5, 7, 3), (0, 0, 1), along), ((0, 4, 5, 1), (0, -1, 0), along), ((2, 6, 7, 3), (0, 1, 0), along),
    )  # fmt: skip
    return [
        Face([corners[list(order)]], outward=frame.direction(*normal), s_axis=axis, **rest)
        for order, normal, axis in sides
    ]


def arc(cx: Real, cy: Real, rx: Real, ry: Real, start: Real = 0, stop: Real = 360, n: int = 20) -> np.ndarray:
    """Points (x, y) of an elliptic arc, angles in degrees from +x towards +y."""
    return _unit_arc(start, stop, n) * (rx, ry) + (cx, cy)


@lru_cache(maxsize=256)
def _unit_arc(start: Real, stop: Real, n: int) -> np.ndarray:
    t = np.radians(np.linspace(start, stop, n, endpoint=abs(stop - start) < 360))
    return np.stack([np.cos(t), np.sin(t)], -1)


def limb(points: Points, radii: Sequence[float]) -> np.ndarray:
    """The outline of a bent, tapered limb with round ends: a polyline with a radius at each point."""
    p, r = np.asarray(points, np.float64), np.asarray(radii, np.float64)[:, None]
    beyond = np.concatenate([p[:1], p, p[-1:]])
    t = beyond[2:] - beyond[:-2]
    t /= np.maximum(np.sqrt((t * t).sum(axis=1, keepdims=True)), 1e-9)
    n = t[:, ::-1] * (-1, 1)
    cap = _unit_arc(-60, 60, 5)
    start, end = (p[i] + r[i] * (cap @ np.array([d, (-d[1], d[0])])) for i, d in ((0, -t[0]), (-1, t[-1])))
    return np.concatenate([start, (p - n * r), end, (p + n * r)[::-1]])


@dataclass(frozen=True)
class Upright:
    """A vertical plane through a ground point, facing the camera, on which figures are drawn in (x, y) metres."""

    x: Real
    z: Real
    right: tuple[Real, Real]

    def lift(self, points: Points) -> np.ndarray:
        """Plane coordinates (x, y) in world coordinates."""
        p = np.asarray(points, np.float64)
        across, up = p[..., 0], p[..., 1]
        return np.stack([self.x + across * self.right[0], up, self.z + across * self.right[1]], -1)

    def face(self, points: Points, colour: Rgb, **rest) -> Face:
        """A face of one polygon on the plane."""
        return Face([self.lift(points)], colour, s_axis=(self.right[0], 0, self.right[1]), **rest)

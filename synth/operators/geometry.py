"""Misregistration of two cameras: homography and parallax."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from clearfuse.synth.color import as_hwc
from clearfuse.synth.operators.base import Image, Operator, Scene, Stage, free, severe
from clearfuse.synth.operators.physics.fill import inverse_depth
from clearfuse.synth.operators.physics.particles import focal_length

COARSE = 640
"""Longest side, in pixels, of the frame in which parallax is computed; it is smooth, so that this is enough."""

SLOPE = 0.5
"""Steepest change of the parallax, px per px: below 1/√2 the mapping is invertible in any direction."""

ITERATIONS = 12
"""Fixed-point iterations of the inverse mapping: each reduces the error to √½ at most, to a tenth off outlines."""


ROWS = 256
"""Rows resampled at a time, so that the temporaries of a large image stay small."""


def corners(height: int, width: int) -> Float64[np.ndarray, "4 2"]:
    """(x, y) of the four corner pixels, clockwise from the upper left."""
    r, b = width - 1.0, height - 1.0
    return np.array([[0, 0], [r, 0], [r, b], [0, b]])


def homography(
    height: int,
    width: int,
    displacement: float,
    direction: float,
    turn: float,
    zoom: float,
    tilt_x: float,
    tilt_y: float,
) -> Float64[np.ndarray, "3 3"]:
    """The homography of pixels that moves the four corners by ``displacement`` pixels on average.

    H = T⁻¹ S T with T to coordinates about the centre in units of half the diagonal, where S is
    [[1 + z, −r, s cos d], [r, 1 + z, −s sin d], [kx, ky, 1]]: a shift of s towards ``direction`` (degrees, counter-
    clockwise from horizontal), a rotation, a scale and keystones, r = a·turn/2, z = a·zoom/2, k = a·tilt/2, s = a. The
    factor a is found by bisection. turn, zoom, tilt_x, tilt_y in [−1, 1]. A side of one pixel counts as two.
    """
    height, width = max(height, 2), max(width, 2)
    half = 0.5 * math.hypot(height - 1, width - 1)
    to = np.array([[1 / half, 0, -(width - 1) / 2 / half], [0, 1 / half, -(height - 1) / 2 / half], [0, 0, 1]])
    angle = math.radians(direction)
    unit = np.array(
        [[zoom / 2, -turn / 2, math.cos(angle)], [turn / 2, zoom / 2, -math.sin(angle)], [tilt_x / 2, tilt_y / 2, 0]]
    )
    if displacement == 0:
        return np.eye(3)
    back, at = np.linalg.inv(to), corners(height, width)

    def matrix(a: float) -> Float64[np.ndarray, "3 3"]:
        return back @ (np.eye(3) + a * unit) @ to

    low, high = 0.0, 0.5
    for _ in range(60):
        a = 0.5 * (low + high)
        moved = float(np.linalg.norm(project(matrix(a), at) - at, axis=1).mean())
        low, high = (a, high) if moved < displacement else (low, a)
    return matrix(0.5 * (low + high))


def project(matrix: Float64[np.ndarray, "3 3"], points: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
    """Points (x, y) mapped by a homography."""
    x = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ matrix.T
    return x[:, :2] / x[:, 2:]


def disparity(inverse: Float32[np.ndarray, "h w"], focal: float, baseline: float) -> Float32[np.ndarray, "h w"]:
    """f B / z pixels between cameras with parallel axes; inverse: 1/z in 1/m, focal in pixels, baseline in metres."""
    return inverse * np.float32(focal * baseline)


def limit_slope(values: Float32[np.ndarray, "h w"], slope: float) -> Float32[np.ndarray, "h w"]:
    """The smallest map that is nowhere below ``values`` and changes by at most ``slope`` per pixel along x and y.

    max over p' of values(p') − slope |p − p'|₁: near objects keep their parallax, their surroundings are stretched.
    Steps of 1, 2, 4 … pixels, as far as the largest difference requires.
    """
    out = values.copy()
    reach = math.ceil(float(values.max() - values.min()) / slope)
    for axis in (0, 1):
        step = 1
        moved = np.moveaxis(out, axis, 0)
        while step <= reach and step < moved.shape[0]:
            before = moved.copy()
            fall = np.float32(slope * step)
            np.maximum(moved[step:], before[:-step] - fall, out=moved[step:])
            np.maximum(moved[:-step], before[step:] - fall, out=moved[:-step])
            step *= 2
    return out


def invert_shift(shift: Float32[np.ndarray, "h w"], ux: float, uy: float) -> Float32[np.ndarray, "h w"]:
    """The inverse of p → p + s(p) u: t(q) with t(q) = s(q − t(q) u), in pixels, where the mapping is one to one.

    Fixed-point iteration; it converges where s changes by less than one pixel per pixel along u. Shifts are
    non-negative and constant beyond the border.
    """
    h, w = shift.shape
    x, y = (g.astype(np.float32) for g in np.meshgrid(np.arange(w), np.arange(h)))
    out = shift
    for _ in range(ITERATIONS):
        at = x - out * np.float32(ux), y - out * np.float32(uy)
        out = cv2.remap(shift, *at, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE).reshape(h, w)
    return out


def resample(image: Image, x: Float32[np.ndarray, "h w"], y: Float32[np.ndarray, "h w"]) -> Image:
    """The image at (x, y), bicubically interpolated, mirrored about its border pixels.

    A cubic overshoots at edges, which in linear light makes a dark ring around each lamp: values are clipped to the
    range of the 3 by 3 neighbourhood.
    """
    h, w, c = image.shape
    if 1 in (h, w):  # cv2.remap hangs on mirroring a single row or column: duplicate it
        image = as_hwc(cv2.copyMakeBorder(image, 0, int(h == 1), 0, int(w == 1), cv2.BORDER_REPLICATE))
    edge, box = cv2.BORDER_REFLECT_101, np.ones((3, 3), np.uint8)
    bounds = cv2.erode(image, box), cv2.dilate(image, box)
    out = np.empty((*x.shape, c), np.float32)
    for start in range(0, len(x), ROWS):
        rows = slice(start, start + ROWS)
        # cv2 mirrors once per frame width outside: limit that to one.
        at = [np.clip(v[rows], -float(n), 2.0 * n).astype(np.float32, copy=False) for v, n in ((x, w), (y, h))]
        low, high = (cv2.remap(bound, *at, cv2.INTER_NEAREST, None, edge) for bound in bounds)
        values = cv2.remap(image, *at, cv2.INTER_CUBIC, None, edge)
        out[rows] = np.clip(values, low, high).reshape(-1, x.shape[1], c)
    return out


@dataclass(frozen=True)
class Misregistration(Operator):
    """Misaligned cameras: out(q) = image(p), q = H (p + u f B / z(p)), for one image of the pair.

    H is a homography of a shift, a rotation, a scale and keystones that moves the frame's corners by ``displacement``
    on average, in pixels of a frame 640 wide, and so in proportion to the width. The parallax of a baseline of B
    metres, f the focal length in pixels, z the depth, u the baseline's direction in the image, is added where depth is
    known. Next to near objects, which keep their parallax, it is limited to a change of half a pixel per pixel: the
    surroundings are stretched, so that there are no holes and nothing appears twice. Linear light, bicubic, borders
    mirrored. On both images the step moves both alike, since it draws nothing beyond its parameters.
    """

    name: ClassVar[str] = "misregistration"
    stage: ClassVar[Stage] = "scene"
    uses_depth: ClassVar[bool] = True
    unclipped: ClassVar[bool] = True
    source: ClassVar[str] = (
        "Hartley and Zisserman, Multiple View Geometry, 2nd ed., 2004, sections 2.3 and 13.1 (homographies, plane and "
        "parallax); bicubic resampling after Keys 1981"
    )

    displacement: float = severe(
        1.0, 12.0, "mean displacement of the corners in a frame 640 wide", low=0.0, high=60.0, unit="px", identity=0.0
    )
    baseline: float = severe(
        0.005, 0.04, "distance between the cameras, for the parallax", low=0.0, high=1.0, unit="m", identity=0.0
    )
    direction: float = free(0.0, 360.0, "of the shift, counter-clockwise from horizontal", unit="deg")
    turn: float = free(-1.0, 1.0, "rotation relative to the shift: 1 moves the corners half as far as the shift does")
    zoom: float = free(-1.0, 1.0, "scale relative to the shift, likewise")
    tilt_x: float = free(-1.0, 1.0, "horizontal keystone relative to the shift, likewise")
    tilt_y: float = free(-1.0, 1.0, "vertical keystone relative to the shift, likewise")
    side: float = free(
        0.0, 360.0, "direction in which parallax moves near objects, counter-clockwise from horizontal", unit="deg"
    )

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        h, w, _ = image.shape
        inverse = inverse_depth(scene) if self.baseline > 0 else None
        if self.displacement == 0 and inverse is None:
            return image.copy()
        matrix = homography(
            h, w, self.displacement * w / 640, self.direction, self.turn, self.zoom, self.tilt_x, self.tilt_y
        )
        a = np.linalg.inv(matrix)
        x, y = np.arange(w, dtype=np.float64), np.arange(h, dtype=np.float64)[:, None]
        scale = 1 / (a[2, 0] * x + a[2, 1] * y + a[2, 2])
        px = ((a[0, 0] * x + a[0, 1] * y + a[0, 2]) * scale).astype(np.float32)
        py = ((a[1, 0] * x + a[1, 1] * y + a[1, 2]) * scale).astype(np.float32)
        if inverse is not None:
            ux, uy = math.cos(math.radians(self.side)), -math.sin(math.radians(self.side))
            shift = self._parallax(inverse, scene.fov, px, py, ux, uy)
            px, py = px - shift * np.float32(ux), py - shift * np.float32(uy)
        return resample(image, px, py)

    def _parallax(
        self, inverse: np.ndarray, fov: float, px: np.ndarray, py: np.ndarray, ux: float, uy: float
    ) -> Float32[np.ndarray, "h w"]:
        """The shift by parallax only, in pixels, at the frame positions (px, py)."""
        h, w = inverse.shape
        scale = min(1.0, COARSE / max(h, w))
        size = (max(round(w * scale), 1), max(round(h * scale), 1))
        small = cv2.resize(inverse, size, interpolation=cv2.INTER_AREA)
        shift = limit_slope(disparity(small, focal_length(size[0], fov), self.baseline), SLOPE)
        inverse_shift = invert_shift(shift, ux, uy)
        at = (px + np.float32(0.5)) * np.float32(size[0] / w) - np.float32(0.5)
        to = (py + np.float32(0.5)) * np.float32(size[1] / h) - np.float32(0.5)
        return cv2.remap(inverse_shift, at, to, cv2.INTER_LINEAR, None, cv2.BORDER_REPLICATE) * np.float32(w / size[0])

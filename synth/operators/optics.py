"""Lens blur and camera shake: convolution with point-spread functions in linear light."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from clearfuse.synth.color import as_hwc
from clearfuse.synth.operators.base import Image, Operator, Scene, Stage, free, severe

SHARP = 0.05
"""Pixels: below this sigma a sampled Gaussian is the unit impulse in float32 (exp(-1/(2·0.05²)) = 1e-87)."""

KNOTS = 64
"""Points of a camera-shake path before resampling; fixed, so that the number of draws does not depend on the length."""

TILE = 11
"""Side of the largest kernel that cv2.filter2D sums directly, over its non-zero taps; larger ones go through a DFT."""

BAND = 32
"""Rows for which all kernel tiles are summed before the next rows, so that the data stays in the cache."""

SPARSE_TAPS = 256
"""Up to this many taps, direct sums over tiles of the kernel are faster than a DFT."""


def gaussian_profile(sigma: float) -> Float32[np.ndarray, " k"]:
    """k(i) ∝ exp(−i²/(2σ²)), |i| ≤ ⌈4σ⌉, unit sum; the unit impulse for a sigma below ``SHARP``."""
    if sigma < SHARP:
        return np.ones(1, np.float32)
    i = np.arange(-math.ceil(4 * sigma), math.ceil(4 * sigma) + 1, dtype=np.float64)
    k = np.exp(-(i**2) / (2 * sigma**2))
    return (k / k.sum()).astype(np.float32)


def gaussian_kernel(sigma: float, ratio: float, angle: float) -> Float32[np.ndarray, "k k"]:
    """k(d) ∝ exp(−½ dᵀΣ⁻¹d), Σ = R(angle) diag(σ², (ratio·σ)²) R(angle)ᵀ, unit sum, on |d| ≤ ⌈4σ⌉."""
    r = math.ceil(4 * sigma)
    y, x = np.mgrid[r : -r - 1 : -1, -r : r + 1].astype(np.float64)  # y up: angles run counter-clockwise
    c, s = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    k = np.exp(-0.5 * (((c * x + s * y) / sigma) ** 2 + ((c * y - s * x) / (ratio * sigma)) ** 2))
    return (k / k.sum()).astype(np.float32)


def in_frame(pixels: float, frame: float, image: Image) -> float:
    """A length given for a frame of a width, in pixels of this image: in proportion to its focal length in pixels.

    The same lens on a sensor of more pixels has a longer focal length in pixels, and blurs over more of them. frame: 0
    where the length is in this image's own pixels.
    """
    return pixels * image.shape[1] / frame if frame > 0 else pixels


def shake_path(length: float, angle: float, shake: float, rng: np.random.Generator) -> Float64[np.ndarray, "n 2"]:
    """The path (x right, y down; pixels) of a scene point on the sensor, sampled evenly in time, centroid at 0.

    Heading θ(t) = angle + 2.2·shake·W(t), W a Brownian motion of unit variance at the end of the exposure, zero mean
    in time; speed exp(0.6·shake·V(t)), V smoothed noise of unit variance: the inertia (smooth path) and the pauses
    (uneven speed) of Boracchi and Foi's camera-shake model. shake 0 is a straight line at constant speed. ``length``
    is the largest distance between two points of the path; angle in degrees.
    """
    turn, dwell = rng.standard_normal((2, KNOTS))
    walk = np.cumsum(turn) / math.sqrt(KNOTS)
    smooth = np.convolve(dwell, np.full(9, 1 / 3), mode="same")
    heading = math.radians(angle) + 2.2 * shake * (walk - walk.mean())
    speed = np.exp(0.6 * shake * smooth)
    knots = np.cumsum(speed[:, None] * np.stack([np.cos(heading), -np.sin(heading)], axis=1), axis=0)
    extent = np.sqrt(((knots[:, None] - knots[None]) ** 2).sum(-1)).max()
    count = 16 * max(1, math.ceil(length))
    times = (np.arange(count) + 0.5) / count * (KNOTS - 1)  # midpoints of equal intervals of the exposure
    path = np.stack([np.interp(times, np.arange(KNOTS), knots[:, axis]) for axis in (0, 1)], axis=1)
    return (path - path.mean(axis=0)) * (length / extent)


def path_kernel(path: Float64[np.ndarray, "n 2"]) -> Float32[np.ndarray, "kh kw"]:
    """The path as an odd-sided kernel of unit sum: each point adds 1/n, divided bilinearly among four pixels.

    Bilinear weights preserve positions, so the kernel's centroid is the path's: the centre.
    """
    rx, ry = np.ceil(np.abs(path).max(axis=0) - 1e-9).astype(int).tolist()
    corner = np.floor(path).astype(int)
    part = path - corner
    kernel = np.zeros((2 * ry + 3, 2 * rx + 3))
    for dx in (0, 1):
        for dy in (0, 1):
            weight = np.abs(1 - dx - part[:, 0]) * np.abs(1 - dy - part[:, 1])
            np.add.at(kernel, (corner[:, 1] + ry + 1 + dy, corner[:, 0] + rx + 1 + dx), weight / len(path))
    rows, columns = np.nonzero(kernel.sum(axis=1))[0], np.nonzero(kernel.sum(axis=0))[0]
    top, left = min(rows[0], kernel.shape[0] - 1 - rows[-1]), min(columns[0], kernel.shape[1] - 1 - columns[-1])
    return kernel[top : kernel.shape[0] - top, left : kernel.shape[1] - left].astype(np.float32)


def convolve(image: Image, kernel: Float32[np.ndarray, "kh kw"]) -> Image:
    """out(p) = Σ_d k(d)·image(p − d) for an odd-sided kernel, the image mirrored about its border pixels."""
    flipped = kernel[::-1, ::-1]
    kh, kw = kernel.shape
    if max(kh, kw) <= TILE:
        return as_hwc(cv2.filter2D(image, -1, flipped, borderType=cv2.BORDER_REFLECT_101))
    if np.count_nonzero(kernel) > SPARSE_TAPS:
        out = as_hwc(cv2.filter2D(image, -1, flipped, borderType=cv2.BORDER_REFLECT_101))
        return np.maximum(out, 0, out=out)  # the DFT leaves -1e-8 in black regions
    h, w, c = image.shape
    ry, rx, spare = kh // 2, kw // 2, TILE - 1
    padded = cv2.copyMakeBorder(image, ry, ry + spare, rx, rx + spare, cv2.BORDER_REFLECT_101)
    out = np.zeros((h, w, c), np.float32)
    tiles = kernel_tiles(flipped)
    for y in range(0, h, BAND):
        band = out[y : y + BAND]
        rows = len(band)
        for top, left, tile in tiles:
            seen = padded[y + top : y + top + rows + spare, left : left + w + spare]
            band += as_hwc(cv2.filter2D(seen, -1, tile))[spare // 2 : spare // 2 + rows, spare // 2 : spare // 2 + w]
    return out


def kernel_tiles(kernel: Float32[np.ndarray, "kh kw"]) -> list[tuple[int, int, Float32[np.ndarray, "t t"]]]:
    """The kernel's tiles of ``TILE`` by ``TILE`` that have non-zero taps: (top, left, tile)."""
    tiles: list[tuple[int, int, Float32[np.ndarray, "t t"]]] = []
    for top in range(0, kernel.shape[0], TILE):
        for left in range(0, kernel.shape[1], TILE):
            part = kernel[top : top + TILE, left : left + TILE]
            if part.any():
                tile = np.zeros((TILE, TILE), np.float32)
                tile[: part.shape[0], : part.shape[1]] = part
                tiles.append((top, left, tile))
    return tiles


@dataclass(frozen=True)
class GaussianBlur(Operator):
    """Gaussian lens blur: out = image * k, k(d) ∝ exp(−½ dᵀΣ⁻¹d), Σ = R diag(σ², (ratio·σ)²) Rᵀ.

    sigma in pixels, linear light, borders mirrored. ratio 1 is isotropic; the kernel sums to one and is centred.
    """

    name: ClassVar[str] = "gaussian_blur"
    stage: ClassVar[Stage] = "optics"
    unclipped: ClassVar[bool] = True
    source: ClassVar[str] = (
        "Hendrycks and Dietterich, ImageNet-C, ICLR 2019 (sigma 1 to 6 px); anisotropic kernels: Wang et al., "
        "Real-ESRGAN, ICCVW 2021"
    )

    sigma: float = severe(
        1.25, 4.0, "standard deviation along the major axis", low=0.0, high=20.0, unit="px", identity=0.0
    )
    ratio: float = free(0.6, 1.0, "minor over major standard deviation", low=0.1)
    angle: float = free(0.0, 180.0, "direction of the major axis, counter-clockwise from horizontal", unit="deg")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        if self.sigma < SHARP:
            return image.copy()
        upright, flat = self.angle % 180 == 90, self.angle % 180 == 0
        if self.ratio == 1 or upright or flat:
            major, minor = gaussian_profile(self.sigma), gaussian_profile(self.ratio * self.sigma)
            along_x, along_y = (minor, major) if upright else (major, minor)
            return as_hwc(cv2.sepFilter2D(image, -1, along_x, along_y, borderType=cv2.BORDER_REFLECT_101))
        return convolve(image, gaussian_kernel(self.sigma, self.ratio, self.angle))


@dataclass(frozen=True)
class MotionBlur(Operator):
    """Camera motion during the exposure: out = image * k, k the share of the exposure spent at each displacement.

    The path is a straight line at constant speed (shake 0) up to the random trajectory of a hand-held camera (shake
    1); its largest extent is ``length`` pixels of a frame ``frame`` wide, and so in proportion to the focal length in
    pixels, as of a camera that turns by an angle. Points are splatted bilinearly, so the kernel sums to one and its
    centroid is the centre. Linear light, borders mirrored.
    """

    name: ClassVar[str] = "motion_blur"
    stage: ClassVar[Stage] = "optics"
    unclipped: ClassVar[bool] = True
    source: ClassVar[str] = (
        "Boracchi and Foi, Modeling the performance of image restoration from motion blur, IEEE TIP 2012 "
        "(random trajectories); ImageNet-C, ICLR 2019 (lengths)"
    )

    length: float = severe(5.0, 28.0, "largest extent of the path", low=0.0, high=100.0, unit="px", identity=0.0)
    angle: float = free(0.0, 180.0, "mean direction, counter-clockwise from horizontal", unit="deg")
    shake: float = free(0.0, 1.0, "0 a straight line, 1 the trajectory of a hand-held camera")
    frame: float = free(
        640.0, 640.0, "width of the frame for which the length is given; 0: this frame's", low=0.0, high=1e5, unit="px",
        default=0.0,
    )  # fmt: skip

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        length = in_frame(self.length, self.frame, image)
        return convolve(image, path_kernel(shake_path(length, self.angle, self.shake, rng)))

"""The ground under rain and snow: found in the depth, wet and mirroring, or under snow. In linear light."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from clearfuse.synth import color
from clearfuse.synth.operators.base import Image, Scene
from clearfuse.synth.operators.physics.fill import blend, inverse_depth, per_channel
from clearfuse.synth.operators.physics.particles import focal_length
from clearfuse.synth.seeds import generator, seed_of

WATER = 1.33
"""Refractive index of water."""
CELLS = 128
"""Side of the noise of ``patches``, eight cells for a height of the camera."""
FIT_WIDTH = 128
"""Longest side, in pixels, of the depth to which the plane is fitted."""
TOLERANCE = 0.08
"""Relative deviation of 1/z from the plane's at which a pixel is no ground."""
SNOW, SOIL = 0.8, 0.2
"""Albedo of snow, and of the ground without it (grass 0.2, old asphalt 0.15, concrete 0.3)."""
SNOW_TINT = (0.97, 1.0, 1.04)
"""Colour of snow, relative to the ground's light: shaded by the blue of the sky."""


@dataclass(frozen=True)
class Ground:
    """The ground of a frame: how far each pixel belongs to it, and its plane in the camera's coordinates.

    normal: unit vector away from the ground, x right, y down, z forward. cosine: of the angle between a line of sight
    and the normal, per pixel. height: of the camera above it, metres.
    """

    share: Float32[np.ndarray, "h w"]
    cosine: Float32[np.ndarray, "h w"]
    normal: Float64[np.ndarray, " 3"]
    height: float


def find_ground(scene: Scene) -> Ground | None:
    """The ground as a plane fitted to the depth of the lower half of the frame; None where there is none.

    A plane n · X = H, seen through a pinhole, has the inverse depth 1/z = (n_x x + n_y y + n_z) / H, linear in the
    image coordinates x, y in focal lengths: fitted by least squares with Cauchy's weights. It is the ground where it
    faces up by more than 30°, the camera is 0.3 to 30 m above it, and a quarter of the lower half agrees with it.
    """
    inverse = inverse_depth(scene)
    if inverse is None:
        return None
    h, w = inverse.shape
    focal = focal_length(w, scene.fov)
    x = ((np.arange(w) - (w - 1) / 2) / focal).astype(np.float32)
    y = ((np.arange(h) - (h - 1) / 2) / focal).astype(np.float32)
    step = max(1, round(max(h, w) / FIT_WIDTH))
    rows, columns = np.arange(h // 2, h, step), np.arange(0, w, step)
    seen = inverse[np.ix_(rows, columns)].astype(np.float64).ravel()
    known = seen > 1 / 200
    if np.count_nonzero(known) < 12:
        return None
    at = np.stack([*(v.ravel() for v in np.meshgrid(x[columns], y[rows])), np.ones(seen.size)], axis=1)
    points, values = at[known], seen[known]
    weights = np.ones(values.size)
    plane = np.zeros(3)
    for _ in range(12):
        plane, *_ = np.linalg.lstsq(points * weights[:, None], values * weights, rcond=None)
        fitted = points @ plane
        off = (values - fitted) / np.maximum(np.abs(fitted), 1e-3)
        weights = np.sqrt(1 / (1 + (off / 0.08) ** 2)) / np.maximum(values, 1e-3)
    size = float(np.linalg.norm(plane))
    agree = np.abs(seen - at @ plane) < TOLERANCE * np.maximum(at @ plane, 1e-3)
    if not (size > 0 and plane[1] > 0.5 * size and 1 / 30 <= size <= 1 / 0.3 and agree.mean() > 0.25):
        return None
    expected = x * np.float32(plane[0]) + (y * np.float32(plane[1]) + np.float32(plane[2]))[:, None]
    near = np.abs(inverse - expected) / np.maximum(np.float32(TOLERANCE) * expected, np.float32(1e-4))
    share = np.clip(2 - 2 * near, 0, 1) * (expected > 1 / 150)
    share = cv2.GaussianBlur(share.astype(np.float32), (0, 0), max(w / 640, 0.3))
    cosine = expected / np.float32(size) / np.sqrt(1 + x * x + (y * y)[:, None])
    return Ground(share, np.clip(cosine, 0, 1).astype(np.float32), -plane / size, 1 / size)


def wet_albedo(albedo: Float32[np.ndarray, "*s"]) -> Float32[np.ndarray, "*s"]:
    """Albedo of a rough surface under water: a / (n² (1 − a) + a).

    Light that the surface scatters is reflected back to it by the water's surface, up to all beyond the critical angle:
    Ångström 1925, in Lekner and Dorf, Why some things are darker when wet, Applied Optics 27, 1988.
    """
    return albedo / (WATER**2 * (1 - albedo) + albedo)


def fresnel(cosine: Float32[np.ndarray, "*s"]) -> Float32[np.ndarray, "*s"]:
    """Reflectance of water for unpolarised light from the air, by the cosine of the angle of incidence."""
    inside = np.sqrt(1 - (1 - cosine * cosine) / WATER**2)
    s = (cosine - WATER * inside) / (cosine + WATER * inside)
    p = (inside - WATER * cosine) / (inside + WATER * cosine)
    return 0.5 * (s * s + p * p)


def patches(
    size: tuple[int, int], ground: Ground, which: float, value: Callable[[np.ndarray], np.ndarray]
) -> Float32[np.ndarray, "h w"]:
    """``value`` of smooth noise in perspective: patches on the ground of about the camera's height.

    value: of numbers that are uniform in [0, 1] over the ground. Where patches are smaller than a pixel, its mean.
    which: the noise's seed, the same for both frames of a pair.
    """
    noise = generator(seed_of("ground", which)).standard_normal((CELLS, CELLS)).astype(np.float32)
    padded = np.pad(noise, 16, mode="wrap")
    coarse, fine = (cv2.GaussianBlur(padded, (0, 0), sigma)[16:-16, 16:-16] for sigma in (4.0, 1.0))
    noise = coarse / coarse.std() + 0.6 * fine / fine.std()
    order = np.empty(noise.size, np.float32)
    order[noise.ravel().argsort(kind="stable")] = np.linspace(0, 1, noise.size, dtype=np.float32)
    values = value(order).astype(np.float32)
    # Distance along and across the ground, in heights of the camera, from the cosine of the incidence.
    away = 1 / np.maximum(ground.cosine, np.float32(0.01))
    across = (np.arange(size[1], dtype=np.float32) / size[1] - 0.5) * away
    at = 8 * across + CELLS // 2, 8 * away
    field = cv2.remap(values.reshape(CELLS, CELLS), *at, cv2.INTER_LINEAR, None, cv2.BORDER_WRAP)
    # Cells per row grow with the square of the distance.
    return field + (values.mean() - field) * np.clip(2 * away * away / size[1], 0, 1)


def wet(image: Image, scene: Scene, ground: Ground, amount: float, white: float, which: float) -> Image:
    """The image with a wet ground: darker, and a mirror the more grazing it is seen.

    (1 − s) I + s (I a_w / a + R M): a = I / white the albedo and a_w that of the wet surface, R Fresnel's reflectance,
    M what a line of sight mirrored at the plane meets, far away; smeared upwards and downwards, as roughness does. The
    film of water is patchy: R is 0.3 to 1 times that of an even one. amount: s where the ground is sure. white: the
    radiance of a white ground.
    """
    h, w, c = image.shape
    albedo = np.clip(color.luma(image) / np.float32(white), 0.03, 1)
    film = patches((h, w), ground, which, lambda u: 0.3 + 0.7 * np.clip(3 * u - 1, 0, 1))
    share = ground.share * np.float32(amount)
    # Ripples scatter what is far brighter than a white ground, as lamps are, over more of it than the smear does.
    mirror = _mirrored(np.minimum(image, np.float32(4 * white)), scene, ground)
    out = image * per_channel(1 + share * (wet_albedo(albedo) / albedo - 1), c)
    out += mirror * per_channel((share * film * fresnel(ground.cosine)).astype(np.float32), c)
    return out


def _mirrored(image: Image, scene: Scene, ground: Ground) -> Image:
    """What lines of sight meet after their reflection on the ground, far away, (h, w, c)."""
    h, w, c = image.shape
    size = (max(w // 4, 1), max(h // 4, 1))
    small = as_small(image, size)
    focal = focal_length(size[0], scene.fov)
    x = ((np.arange(size[0]) - (size[0] - 1) / 2) / focal).astype(np.float32)[None, :]
    y = ((np.arange(size[1]) - (size[1] - 1) / 2) / focal).astype(np.float32)[:, None]
    nx, ny, nz = (np.float32(v) for v in ground.normal)
    towards = x * nx + y * ny + nz
    dz = 1 - 2 * towards * nz
    dx, dy = (x - 2 * towards * nx) / np.maximum(dz, 0.05), (y - 2 * towards * ny) / np.maximum(dz, 0.05)
    at = ((v * focal + (n - 1) / 2).astype(np.float32) for v, n in zip(np.broadcast_arrays(dx, dy), size, strict=True))
    seen = cv2.remap(small, *at, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT)
    seen = cv2.GaussianBlur(seen, (0, 0), sigmaX=max(size[0] / 160, 0.3), sigmaY=max(size[1] / 20, 0.3))
    return color.as_hwc(cv2.resize(seen, (w, h), interpolation=cv2.INTER_LINEAR)).reshape(h, w, c)


def as_small(image: Image, size: tuple[int, int]) -> Float32[np.ndarray, "sh sw c"]:
    """The image by area, (w, h)."""
    return color.as_hwc(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def snow_share(size: tuple[int, int], ground: Ground, cover: float, which: float) -> Float32[np.ndarray, "h w"]:
    """How far snow hides the ground: patches that grow together, a share ``cover`` of it."""
    # A rim of about a third of the ground, where the cover is thin.
    return ground.share * patches(size, ground, which, lambda u: np.clip((1.3 * cover - u) / 0.3, 0, 1))


def snowy(image: Image, ground: Ground, cover: float, limit: float, which: float) -> Image:
    """The image with snow on the ground: ``SNOW`` / ``SOIL`` times the ground's light, at most ``limit``.

    The light is the ground's radiance smoothed over what the snow hides, so shadows and pools of lamplight stay.
    """
    h, w, c = image.shape
    share = snow_share((h, w), ground, cover, which)
    size = (max(w // 8, 1), max(h // 8, 1))
    weight = as_small(ground.share[..., None], size)[..., 0] + np.float32(1e-4)
    light = as_small(image * per_channel(ground.share, c), size)
    sigma = max(max(size) / 30, 0.3)
    light, weight = (color.as_hwc(cv2.GaussianBlur(v, (0, 0), sigma)) for v in (light, weight))
    light = (
        color.luma(light)[..., None] / weight if c == 1 else (0.7 * color.luma(light)[..., None] + 0.3 * light) / weight
    )
    bright = np.minimum(light * np.float32(SNOW / SOIL), np.float32(limit))
    if c == 3:
        bright = bright * np.float32(SNOW_TINT)
    bright = color.as_hwc(cv2.resize(bright.astype(np.float32), (w, h), interpolation=cv2.INTER_LINEAR))
    # A thin cover follows what is under it.
    texture = np.clip(
        color.luma(image) / np.maximum(cv2.resize(color.luma(light.astype(np.float32)), (w, h)), 1e-5), 0.5, 2
    )
    return blend(image, bright * per_channel((0.75 + 0.25 * texture).astype(np.float32), c), share.astype(np.float32))

"""Water on the lens or the windscreen: drops that refract the scene in the visible and hide it in the infrared."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32

from clearfuse.synth.color import as_hwc
from clearfuse.synth.operators.base import Image, Operator, Scene, Stage, free, severe
from clearfuse.synth.operators.defocus import aperture_kernel
from clearfuse.synth.operators.optics import convolve
from clearfuse.synth.operators.physics.fill import spread
from clearfuse.synth.operators.physics.particles import focal_length

WATER = 1.33
"""Refractive index of water in visible light."""

WORKING = 640
"""Pixels: drops are out of focus, so they are rendered in a frame whose longest side is at most this."""

VIEW = 96
"""Pixels: longest side of the view that drops show; each shows most of the frame in a few pixels of its own."""

DROPS = 4096
"""Drops drawn at every severity, of which the first few are on the glass."""

SPREAD = 0.55
"""Standard deviation of the logarithm of the drops' radii."""

LOBES = 3
"""Smaller drops at most that have run into one."""

OWN_SIDE = 0.15
"""What a drop shows by reflection: the camera's own side, over the scene's mean light."""


@dataclass(frozen=True)
class Drops:
    """Drops on the glass, in pixels: centre, radius, vertical stretch; their lobes in units of the radius.

    lobes: (n, LOBES, 3): centre and radius, 0 where there is none.
    """

    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    radius: Float[np.ndarray, " n"]
    stretch: Float[np.ndarray, " n"]
    lobes: Float[np.ndarray, "n k 3"]


def draw_drops(rng: np.random.Generator, height: int, width: int, size: float, cover: float) -> Drops:
    """As many drops as cover a share ``cover`` of the frame: Σ areas ≥ −ln(1 − cover) h w, centres uniform.

    Drops that fall anywhere leave a share exp(−Σ areas / h w) free. Radii are log-normal about ``size`` times the
    longest side. The same DROPS are drawn whatever the cover, so more cover adds drops to those there are.
    """
    u, place = rng.random((DROPS, 3)), rng.random((DROPS, LOBES, 3))
    normal = np.clip(rng.standard_normal(DROPS), -2, 2)
    radius = size * max(height, width) * np.exp(SPREAD * normal)
    stretch = 0.9 + 0.35 * u[:, 2]
    apart, angle = 0.55 + 0.5 * place[..., 0], 2 * math.pi * place[..., 1]
    # Half of the drops are round; the rest have one lobe to all.
    there = place[..., 2] < np.array([0.5, 0.3, 0.2])
    reach = np.where(there, 0.35 + 0.8 * place[..., 2], 0)
    lobes = np.stack([apart * np.cos(angle), apart * np.sin(angle), reach], axis=-1)
    # A lobe adds about half of its area; the rest lies under the drop.
    area = math.pi * radius**2 * stretch * (1 + 0.5 * (reach**2).sum(axis=1))
    n = int(np.searchsorted(np.cumsum(area), -math.log1p(-cover) * height * width)) + 1
    return Drops(u[:n, 0] * width - 0.5, u[:n, 1] * height - 0.5, radius[:n], stretch[:n], lobes[:n])


def cap_slope(
    footprint: Float[np.ndarray, "*s"], gradient: Float[np.ndarray, "*s"], contact: float
) -> Float[np.ndarray, "*s"]:
    """One component of a drop's slope ∂h/∂x from its footprint F and ∂F/∂x: F_x / (2 √(F + cot² θ)).

    A cap of contact radius 1 and contact angle θ is h² + 2 h cot θ = F with F = 1 − ρ²: a sphere of radius 1/sin θ.
    With another F > 0 inside of another outline it is a drop of that outline. contact: θ in degrees, below 90.
    """
    return gradient / (2 * np.sqrt(np.maximum(footprint, 0) + 1 / math.tan(math.radians(contact)) ** 2))


def through_drop(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    slope_x: Float[np.ndarray, " n"],
    slope_y: Float[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """What a ray of sight (x, y, 1) sees through a drop: its direction beyond, (x', y', 1), and the share of light.

    Snell's law at the flat glass, seen from the camera, keeps the tangential part over n; at the surface with outward
    normal N ∝ (−h_x, −h_y, 1) the ray becomes n d + (cos ψ − n cos φ) N, cos² ψ = 1 − n² (1 − cos² φ). Along the axis
    the ray at an offset ρ of a sphere's radius turns by asin(n ρ) − asin(ρ) towards the axis and beyond: the view is
    wide, small and upside down. The share is 1 less Fresnel's reflectance of unpolarised light at the surface; beyond
    the critical angle it is 0.
    """
    norm = 1 / (WATER * np.sqrt(x * x + y * y + 1))
    dx, dy = x * norm, y * norm
    dz = np.sqrt(1 - dx * dx - dy * dy)
    nz = 1 / np.sqrt(1 + slope_x**2 + slope_y**2)
    nx, ny = -slope_x * nz, -slope_y * nz
    inside = np.maximum(dx * nx + dy * ny + dz * nz, 0)
    square = 1 - WATER**2 * (1 - inside**2)
    beyond = np.sqrt(np.maximum(square, 0))
    s = (WATER * inside - beyond) / np.maximum(WATER * inside + beyond, 1e-9)
    p = (inside - WATER * beyond) / np.maximum(inside + WATER * beyond, 1e-9)
    bend = beyond - WATER * inside
    # Grazing rays look along the glass; a tenth keeps the quotient finite where a frame shows only its mirrored edge.
    oz = np.maximum(WATER * dz + bend * nz, 0.1)
    share = np.where(square > 0, 1 - 0.5 * (s * s + p * p), 0)
    return (WATER * dx + bend * nx) / oz, (WATER * dy + bend * ny) / oz, share


def footprints(drops: Drops, height: int, width: int) -> tuple[Float32[np.ndarray, "h w"], ...]:
    """The union of the drops: F (0 and less outside), ∂F/∂x, ∂F/∂y in units of each drop's radius, and the coverage.

    A drop and its lobes flow into one: F = ln Σ exp(6 Fᵢ) / 6, Fᵢ = aᵢ² − ρᵢ². Where two drops meet, the higher F is
    seen.
    """
    best = np.zeros((height, width), np.float32)
    fx, fy, cover = (np.zeros((height, width), np.float32) for _ in range(3))
    for i in range(len(drops.x)):
        r, tall = float(drops.radius[i]), float(drops.stretch[i])
        pad = 2.2 * r * max(tall, 1) + 1
        x0, x1 = max(math.floor(drops.x[i] - pad), 0), min(math.ceil(drops.x[i] + pad) + 1, width)
        y0, y1 = max(math.floor(drops.y[i] - pad), 0), min(math.ceil(drops.y[i] + pad) + 1, height)
        if x0 >= x1 or y0 >= y1:
            continue
        at = np.s_[y0:y1, x0:x1]
        u = ((np.arange(x0, x1) - drops.x[i]) / r).astype(np.float32)[None, :]
        v = ((np.arange(y0, y1) - drops.y[i]) / (r * tall)).astype(np.float32)[:, None]
        f, gx, gy = _one_drop(u, v, drops.lobes[i])
        # F falls by 2 over the radius at the rim: half a pixel to each side of F = 0 is the pixel's covered share.
        np.maximum(cover[at], np.clip(0.5 * r * f + 0.5, 0, 1), out=cover[at])
        higher = f > best[at]
        for whole, part in ((best, f), (fx, gx), (fy, gy / np.float32(tall))):
            np.copyto(whole[at], part, where=higher)
    return best, fx, fy, cover


def _one_drop(
    u: Float32[np.ndarray, "1 w"], v: Float32[np.ndarray, "h 1"], lobes: Float[np.ndarray, "k 3"]
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """F, ∂F/∂u, ∂F/∂v of a drop of radius 1 with its lobes."""
    parts = [(0.0, 0.0, 1.0), *(lobe for lobe in lobes.tolist() if lobe[2] > 0)]
    fields = [np.float32(a * a) - (u - np.float32(x)) ** 2 - (v - np.float32(y)) ** 2 for x, y, a in parts]
    if len(parts) == 1:
        return fields[0], np.broadcast_to(-2 * u, fields[0].shape), np.broadcast_to(-2 * v, fields[0].shape)
    top = np.maximum.reduce(fields)
    weights = [np.exp(6 * (f - top)) for f in fields]
    total = np.add.reduce(weights)
    gx = sum(w * (-2 * (u - np.float32(x))) for w, (x, _, _) in zip(weights, parts, strict=True)) / total
    gy = sum(w * (-2 * (v - np.float32(y))) for w, (_, y, _) in zip(weights, parts, strict=True)) / total
    return top + np.log(total) / 6, gx, gy


@dataclass(frozen=True)
class LensRain(Operator):
    """Drops on the lens or windscreen, out of focus: each is a small lens that shows a wide view upside down.

    A drop is a spherical cap of contact angle θ on glass across the line of sight, or several that ran together; a
    ray of sight is refracted by Snell's law (n = 1.33) where it leaves the water, and weakened by Fresnel's, to a dark
    rim. out = (1 − a) image + a L with the coverage a and the drop's radiance L, both blurred by the disk of the
    defocus, in linear light. Outside of the frame the view is mirrored. In the infrared water is opaque: drops show
    their own temperature, one level a little below the scene's median, and refract nothing.
    """

    name: ClassVar[str] = "lens_rain"
    stage: ClassVar[Stage] = "optics"
    unclipped: ClassVar[bool] = True
    source: ClassVar[str] = (
        "Roser and Geiger, Video-based raindrop detection for improved image registration, ICCV Workshops 2009; "
        "Halimeh and Roser, Raindrop detection on car windshields using geometric-photometric environment "
        "construction, IV 2009; von Bernuth, Volk and Bringmann, Rendering physically correct raindrops on "
        "windshields, ITSC 2018"
    )

    cover: float = severe(0.01, 0.15, "share of the frame under drops", low=0.0, high=0.4, identity=0.0)
    size: float = free(0.010, 0.022, "median radius over the frame's longest side", low=0.004, high=0.1)
    contact: float = free(35.0, 55.0, "contact angle of water on the glass", low=10.0, high=80.0, unit="deg")
    blur: float = free(
        1.5, 4.0, "radius of the defocus in a frame of 640 px, by its longest side", low=0.0, high=20.0, unit="px"
    )
    cooling: float = free(0.0, 1.0, "infrared: the drops' level, from the scene's median (0) to its lower quartile (1)")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        if self.cover == 0:
            return image.copy()
        h, w, c = image.shape
        scale = min(1.0, WORKING / max(h, w))
        height, width = max(round(h * scale), 1), max(round(w * scale), 1)
        drops = draw_drops(rng, height, width, self.size, self.cover)
        footprint, fx, fy, cover = footprints(drops, height, width)
        seen = cover > 0
        if not seen.any():  # in a frame of a few pixels drops may fall between
            return image.copy()
        layer = np.zeros((height, width, c + 1), np.float32)
        if scene.modality == "infrared":
            layer[seen, :c] = self._level(image)
        else:
            slopes = (cap_slope(footprint[seen], g[seen], self.contact).astype(np.float32) for g in (fx, fy))
            layer[seen, :c] = _views(image, seen, *slopes, fov=scene.fov)
        layer[..., c] = 1
        layer *= spread(cover, c + 1)
        layer = convolve(layer, aperture_kernel(self.blur * max(height, width) / WORKING))
        *colours, share = cv2.split(cv2.resize(layer, (w, h), interpolation=cv2.INTER_LINEAR))
        return image * spread(1 - share, c) + as_hwc(cv2.merge(colours))

    def _level(self, image: Image) -> float:
        """Drops are at the air's temperature, as most of a scene is, less what evaporation takes."""
        middle, lower = np.percentile(image, [50, 25])
        return float(middle + self.cooling * (lower - middle))


def _views(
    image: Image,
    seen: Bool[np.ndarray, "rows columns"],
    slope_x: Float32[np.ndarray, " n"],
    slope_y: Float32[np.ndarray, " n"],
    *,
    fov: float,
) -> Float32[np.ndarray, "n c"]:
    """The radiance of the drops at the pixels ``seen`` of the working frame."""
    height, width = seen.shape
    focal = focal_length(width, fov)
    row, column = np.nonzero(seen)
    x = ((column - (width - 1) / 2) / focal).astype(np.float32)
    y = ((row - (height - 1) / 2) / focal).astype(np.float32)
    to_x, to_y, share = through_drop(x, y, slope_x, slope_y)
    scale = min(1.0, VIEW / max(height, width))
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    view = as_hwc(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    u = (to_x * focal + (width - 1) / 2 + 0.5) * size[0] / width - 0.5
    v = (to_y * focal + (height - 1) / 2 + 0.5) * size[1] / height - 0.5
    # cv2.remap takes sides below 32,768: the places as rows of 512.
    at = (np.resize(m.astype(np.float32), (-(-len(u) // 512), 512)) for m in (u, v))
    light = cv2.remap(view, *at, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT).reshape(-1, image.shape[2])[: len(u)]
    own = np.float32(OWN_SIDE) * view.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    return (own + (light - own) * share[:, None]).astype(np.float32)

"""Water drops on the lens or windscreen: they refract the scene in visible light and occlude it in the infrared."""

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
from clearfuse.synth.operators.physics.fill import per_channel
from clearfuse.synth.operators.physics.particles import focal_length

WATER = 1.33
"""Refractive index of water in visible light."""

WORKING_SIZE = 640
"""Longest side, in pixels, of the frame in which drops, being out of focus, are rendered."""

VIEW_SIZE = 96
"""Longest side, in pixels, of the image that drops refract: each shows most of the frame within a few pixels."""

DROPS = 4096
"""Drops drawn at every severity; the first of them, up to the required coverage, are used."""

SPREAD = 0.55
"""Standard deviation of the logarithm of the drops' radii."""

LOBES = 3
"""Largest number of smaller drops that have merged with a drop."""

REFLECTED = 0.15
"""Radiance that a drop reflects from the camera's side, relative to the scene's mean."""


@dataclass(frozen=True)
class Drops:
    """Drops on the glass: centre and radius in pixels, vertical stretch, and lobes (merged smaller drops).

    lobes: (n, LOBES, 3), centre and radius in units of the drop's radius; the radius is 0 where there is no lobe.
    """

    x: Float[np.ndarray, " n"]
    y: Float[np.ndarray, " n"]
    radius: Float[np.ndarray, " n"]
    stretch: Float[np.ndarray, " n"]
    lobes: Float[np.ndarray, "n k 3"]


def draw_drops(rng: np.random.Generator, height: int, width: int, size: float, cover: float) -> Drops:
    """As many drops as cover a share ``cover`` of the frame: Σ areas ≥ −ln(1 − cover) h w, centres uniform.

    Randomly placed drops leave a share exp(−Σ areas / h w) free. Radii are log-normal about ``size`` times the longest
    side. The same ``DROPS`` drops are drawn whatever the coverage, so a larger one adds drops to those of a smaller.
    """
    u, place = rng.random((DROPS, 3)), rng.random((DROPS, LOBES, 3))
    normal = np.clip(rng.standard_normal(DROPS), -2, 2)
    radius = size * max(height, width) * np.exp(SPREAD * normal)
    stretch = 0.9 + 0.35 * u[:, 2]
    distance, angle = 0.55 + 0.5 * place[..., 0], 2 * math.pi * place[..., 1]
    # Half of the drops are round; the others have one to ``LOBES`` lobes.
    present = place[..., 2] < np.array([0.5, 0.3, 0.2])
    reach = np.where(present, 0.35 + 0.8 * place[..., 2], 0)
    lobes = np.stack([distance * np.cos(angle), distance * np.sin(angle), reach], axis=-1)
    # A lobe adds about half of its area; the other half overlaps the drop.
    area = math.pi * radius**2 * stretch * (1 + 0.5 * (reach**2).sum(axis=1))
    n = int(np.searchsorted(np.cumsum(area), -math.log1p(-cover) * height * width)) + 1
    return Drops(u[:n, 0] * width - 0.5, u[:n, 1] * height - 0.5, radius[:n], stretch[:n], lobes[:n])


def cap_slope(
    footprint: Float[np.ndarray, "*s"], gradient: Float[np.ndarray, "*s"], contact: float
) -> Float[np.ndarray, "*s"]:
    """One component of a drop's slope ∂h/∂x from its footprint F and ∂F/∂x: F_x / (2 √(F + cot² θ)).

    A cap of contact radius 1 and contact angle θ is h² + 2 h cot θ = F with F = 1 − ρ²: a sphere of radius 1/sin θ.
    Another F, positive inside of another outline, gives a drop of that outline. contact: θ in degrees, below 90.
    """
    return gradient / (2 * np.sqrt(np.maximum(footprint, 0) + 1 / math.tan(math.radians(contact)) ** 2))


def through_drop(
    x: Float[np.ndarray, " n"],
    y: Float[np.ndarray, " n"],
    slope_x: Float[np.ndarray, " n"],
    slope_y: Float[np.ndarray, " n"],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Refract a line of sight (x, y, 1) through a drop: its direction behind it, (x', y', 1), and the transmittance.

    By Snell's law the flat glass, seen from the camera, divides the tangential component by n; at the surface with
    outward normal N ∝ (−h_x, −h_y, 1) the ray becomes n d + (cos ψ − n cos φ) N, cos² ψ = 1 − n² (1 − cos² φ). A ray
    along the axis at an offset of ρ radii of a sphere turns by asin(n ρ) − asin(ρ) towards the axis and across it: the
    image is wide-angle, small and upside down. The transmittance is 1 minus Fresnel's reflectance of unpolarised light
    at the surface, 0 beyond the critical angle.
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
    # The bound keeps the quotient finite for grazing rays, which see only the mirrored edge of the frame.
    oz = np.maximum(WATER * dz + bend * nz, 0.1)
    share = np.where(square > 0, 1 - 0.5 * (s * s + p * p), 0)
    return (WATER * dx + bend * nx) / oz, (WATER * dy + bend * ny) / oz, share


def footprints(drops: Drops, height: int, width: int) -> tuple[Float32[np.ndarray, "h w"], ...]:
    """The union of the drops: F (0 and less outside), ∂F/∂x, ∂F/∂y in units of each drop's radius, and the coverage.

    A drop and its lobes are merged smoothly: F = ln Σ exp(6 Fᵢ) / 6, Fᵢ = aᵢ² − ρᵢ². Where drops overlap, the larger F
    counts.
    """
    footprint = np.zeros((height, width), np.float32)
    fx, fy, cover = (np.zeros((height, width), np.float32) for _ in range(3))
    for i in range(len(drops.x)):
        r, stretch = float(drops.radius[i]), float(drops.stretch[i])
        pad = 2.2 * r * max(stretch, 1) + 1
        x0, x1 = max(math.floor(drops.x[i] - pad), 0), min(math.ceil(drops.x[i] + pad) + 1, width)
        y0, y1 = max(math.floor(drops.y[i] - pad), 0), min(math.ceil(drops.y[i] + pad) + 1, height)
        if x0 >= x1 or y0 >= y1:
            continue
        at = np.s_[y0:y1, x0:x1]
        u = ((np.arange(x0, x1) - drops.x[i]) / r).astype(np.float32)[None, :]
        v = ((np.arange(y0, y1) - drops.y[i]) / (r * stretch)).astype(np.float32)[:, None]
        f, gx, gy = _one_drop(u, v, drops.lobes[i])
        # At the rim F falls by 2 per radius, so r F / 2 is the distance to it in pixels: an anti-aliased edge.
        np.maximum(cover[at], np.clip(0.5 * r * f + 0.5, 0, 1), out=cover[at])
        wins = f > footprint[at]
        for whole, part in ((footprint, f), (fx, gx), (fy, gy / np.float32(stretch))):
            np.copyto(whole[at], part, where=wins)
    return footprint, fx, fy, cover


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
    """Drops on the lens or windscreen, out of focus: each acts as a small lens with a wide, upside-down view.

    A drop is a spherical cap of contact angle θ on glass perpendicular to the optical axis, or several that merged;
    lines of sight are refracted by Snell's law (n = 1.33) where they leave the water and attenuated by Fresnel's, which
    makes a dark rim. out = (1 − a) image + a L with the coverage a and the drop's radiance L, both blurred by the
    defocus disk, in linear light; at night L sees lamps with the radiance that the camera has clipped. Outside of the
    frame the view is mirrored. Two exposures of one camera have the same drops. In the infrared water is opaque: drops
    show their own temperature, a constant level slightly below the scene's median, and refract nothing.
    """

    name: ClassVar[str] = "lens_rain"
    stage: ClassVar[Stage] = "optics"
    unclipped: ClassVar[bool] = True
    restores: ClassVar[bool] = True
    on_lens: ClassVar[bool] = True
    source: ClassVar[str] = (
        "Roser and Geiger, Video-based raindrop detection for improved image registration, ICCV Workshops 2009; "
        "Halimeh and Roser, Raindrop detection on car windshields using geometric-photometric environment "
        "construction, IV 2009; von Bernuth, Volk and Bringmann, Rendering physically correct raindrops on "
        "windshields, ITSC 2018"
    )

    cover: float = severe(0.015, 0.15, "share of the frame covered by drops", low=0.0, high=0.4, identity=0.0)
    size: float = free(0.010, 0.022, "median radius relative to the frame's longest side", low=0.004, high=0.1)
    contact: float = free(35.0, 55.0, "contact angle of water on the glass", low=10.0, high=80.0, unit="deg")
    blur: float = free(
        1.5, 4.0, "radius of the defocus disk in a frame whose longest side is 640 px", low=0.0, high=20.0, unit="px"
    )
    cooling: float = free(0.0, 1.0, "infrared: the drops' level, from the scene's median (0) to its lower quartile (1)")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        if self.cover == 0:
            return image.copy()
        h, w, c = image.shape
        scale = min(1.0, WORKING_SIZE / max(h, w))
        height, width = max(round(h * scale), 1), max(round(w * scale), 1)
        drops = draw_drops(rng, height, width, self.size, self.cover)
        footprint, fx, fy, cover = footprints(drops, height, width)
        seen = cover > 0
        if not seen.any():  # in a frame of a few pixels, drops may cover no pixel
            return image.copy()
        layer = np.zeros((height, width, c + 1), np.float32)
        if scene.modality == "infrared":
            layer[seen, :c] = self._level(image)
        else:
            slopes = (cap_slope(footprint[seen], g[seen], self.contact).astype(np.float32) for g in (fx, fy))
            layer[seen, :c] = _views(image, seen, *slopes, fov=scene.fov)
        layer[..., c] = 1
        layer *= per_channel(cover, c + 1)
        layer = convolve(layer, aperture_kernel(self.blur * max(height, width) / WORKING_SIZE))
        *colours, share = cv2.split(cv2.resize(layer, (w, h), interpolation=cv2.INTER_LINEAR))
        return image * per_channel(1 - share, c) + as_hwc(cv2.merge(colours))

    def _level(self, image: Image) -> float:
        """The drops' level: the air's temperature, like most of the scene, lowered by evaporation."""
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
    """The radiance of the drops at the pixels ``seen``, (h, w), of the working frame."""
    height, width = seen.shape
    focal = focal_length(width, fov)
    row, column = np.nonzero(seen)
    x = ((column - (width - 1) / 2) / focal).astype(np.float32)
    y = ((row - (height - 1) / 2) / focal).astype(np.float32)
    to_x, to_y, share = through_drop(x, y, slope_x, slope_y)
    scale = min(1.0, VIEW_SIZE / max(height, width))
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    view = as_hwc(cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    u = (to_x * focal + (width - 1) / 2 + 0.5) * size[0] / width - 0.5
    v = (to_y * focal + (height - 1) / 2 + 0.5) * size[1] / height - 0.5
    # cv2.remap requires sides below 32,768: arrange the positions in rows of 512.
    at = (np.resize(m.astype(np.float32), (-(-len(u) // 512), 512)) for m in (u, v))
    light = cv2.remap(view, *at, cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT).reshape(-1, image.shape[2])[: len(u)]
    reflected = np.float32(REFLECTED) * view.mean(axis=(0, 1), dtype=np.float64).astype(np.float32)
    return (reflected + (light - reflected) * share[:, None]).astype(np.float32)

"""Falling particles seen through a pinhole: how many, how large, where, and the share of each pixel that they cover.

A field of particles is drawn in shells of distance; every attribute comes from a generator of its own shell and the
rows of its draw do not depend on the rate, so a heavier fall extends and enlarges a lighter one.
Lengths are metres where no unit is named; diameters are millimetres, as in the size distributions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int

from synth.seeds import generator

SHELLS = 8
"""Shells of distance, with geometric bounds."""
NEAR = 0.35
"""Metres: nothing nearer is drawn, a lens hood or windscreen keeps it out."""
APERTURE = 0.002
"""Metres: the entrance pupil of a small camera, for the defocus of near particles; it focuses far away."""
REFERENCE_WIDTH = 640
"""Pixels: above this width the smallest particle that is drawn grows with the image, so that its angle is fixed."""
CHUNK = 1 << 19
"""Pixels touched at a time, to bound memory on large images."""


@dataclass(frozen=True)
class Field:
    """Particles in view: image position of the centre, distance, diameter, and two uniform draws for the rest."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    diameter: np.ndarray
    u: np.ndarray
    v: np.ndarray


def focal_length(width: int, fov: float) -> float:
    """Pinhole focal length in pixels: f = (w/2) / tan(fov/2)."""
    return 0.5 * width / math.tan(math.radians(fov) / 2)


def exponential_count(intercept: float, slope: float, smallest: float) -> float:
    """Particles per m³ above a diameter D: ∫ N0 e^(−ΛD) dD = (N0/Λ) e^(−ΛD); N0 in m⁻³ mm⁻¹, Λ in mm⁻¹, D in mm."""
    return intercept / slope * math.exp(-slope * smallest)


def terminal_velocity(diameter: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Fall speed of a raindrop, m/s: v = 9.65 − 10.3 e^(−0.6 D), D in mm (Atlas, Srivastava and Sekhon 1973)."""
    return np.maximum(9.65 - 10.3 * np.exp(-0.6 * diameter), 0.5)


def draw_field(
    rng: np.random.Generator,
    size: tuple[int, int],
    focal: float,
    *,
    intercept: float,
    slope: float,
    smallest: float,
    largest: float,
    smallest_px: float,
    travel: float,
) -> Field:
    """Particles of N(D) = N0 e^(−ΛD) in the camera's frustum that are at least ``smallest_px`` wide in the image.

    size: (h, w). smallest, largest: diameters in mm. travel: metres that a particle moves in an exposure; those whose
    centre is out of the frame but whose path is in it are drawn too. Numbers are normal with the Poisson mean and
    variance, from one draw a shell: unlike a Poisson sampler's, it rises with the mean.
    """
    height, width = size
    seeds = [int(s) for s in rng.integers(1 << 53, size=SHELLS)]
    threshold = smallest_px * max(1.0, width / REFERENCE_WIDTH)
    far = largest * 1e-3 * focal / threshold
    rows: list[np.ndarray] = []
    if far > NEAR:
        bounds = NEAR * (far / NEAR) ** (np.arange(SHELLS + 1) / SHELLS)
        for seed, z0, z1 in zip(seeds, bounds[:-1], bounds[1:], strict=True):
            drawn = generator(seed)
            floor = max(smallest, 1e3 * threshold * z0 / focal)
            pad = 0.5 * travel * focal / z0 + largest * 1e-3 * focal / z0
            area = (width + 2 * pad) * (height + 2 * pad)
            volume = area / focal**2 * (z1**3 - z0**3) / 3
            mean = volume * exponential_count(intercept, slope, floor)
            count = max(0, math.floor(mean + math.sqrt(mean) * drawn.standard_normal() + 0.5))
            u = drawn.random((count, 6))
            z = np.cbrt(z0**3 + u[:, 2] * (z1**3 - z0**3))
            diameter = np.minimum(floor - np.log1p(-u[:, 3]) / slope, largest)
            x, y = u[:, 0] * (width + 2 * pad) - pad, u[:, 1] * (height + 2 * pad) - pad
            seen = diameter * 1e-3 * focal >= threshold * z
            rows.append(np.stack([x, y, z, diameter, u[:, 4], u[:, 5]])[:, seen])
    x, y, z, diameter, u4, u5 = np.concatenate(rows, axis=1) if rows else np.zeros((6, 0))
    return Field(x, y, z, diameter, u4, u5)


def smoothstep(x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """3 x² − 2 x³, with x held to [0, 1]."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def biweight(x: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """A smooth profile of unit area on [−1, 1]: 15/16 (1 − x²)²."""
    return 0.9375 * np.maximum(1 - x * x, 0) ** 2


def defocus(z: Float[np.ndarray, " n"], focal: float) -> Float[np.ndarray, " n"]:
    """Circle of confusion in pixels of a point at z for a lens focused far away: c = aperture · f / z."""
    return APERTURE * focal / z


def splat_streaks(
    field: Field,
    size: tuple[int, int],
    *,
    length: Float[np.ndarray, " n"],
    lean: Float[np.ndarray, " n"],
    width: Float[np.ndarray, " n"],
    cover: Float[np.ndarray, " n"],
    depth: Float32[np.ndarray, "h w"],
) -> Float32[np.ndarray, "h w"]:
    """The share of each pixel covered by streaks, in [0, 1): 1 − e^(−Σ cover · profile · taper).

    length: rows that a streak spans. lean: columns it moves a row. width: half its width in pixels; the profile across
    is a biweight of unit area. cover: the streak's opacity times its sharp width. A streak is hidden where the
    scene is nearer than its particle.
    """
    taps = np.ceil(2 * width).astype(int)
    # A margin as wide as the widest profile saves a test a pixel.
    margin = int(taps.max(initial=1)) + 1
    total = np.zeros((size[0], size[1] + 2 * margin), np.float32)
    scene = np.pad(depth, ((0, 0), (margin, margin)))
    spans = np.maximum(np.ceil(length).astype(int) + 1, 2)
    top = np.floor(field.y - length / 2).astype(int)
    for k in np.unique(taps):
        (chosen,) = np.nonzero(taps == k)
        ends = np.cumsum(spans[chosen]) * int(k)
        for part in np.split(chosen, np.searchsorted(ends, np.arange(CHUNK, int(ends[-1]), CHUNK))):
            count = spans[part]
            which = np.repeat(part, count)
            row = np.arange(which.size) + np.repeat(top[part] - (np.cumsum(count) - count), count)
            below = row - field.y[which]
            centre = field.x[which] + below * lean[which]
            reach = width[which]
            inside = (row >= 0) & (row < size[0]) & (centre > -reach) & (centre < size[1] + reach)
            which, row, below, centre, reach = (v[inside] for v in (which, row, below, centre, reach))
            # A drop enters and leaves the open shutter: the ends fade over a quarter of the length.
            end = 0.5 - np.abs(below) / np.maximum(length[which], 1.0)
            amplitude = cover[which] * smoothstep(4 * end + 1 / spans[which]) / reach
            first = np.ceil(centre - reach)
            index = row * total.shape[1] + first.astype(int) + margin
            near, offset = field.z[which], (first - centre) / reach
            for j in range(int(k)):
                value = biweight(offset + j / reach) * amplitude
                value[scene.ravel()[index + j] <= near] = 0
                np.add.at(total.reshape(-1), index + j, value.astype(np.float32))
    return -np.expm1(-total[:, margin:-margin])


def flake_shapes(rng: np.random.Generator, count: int = 8, side: int = 33) -> Float32[np.ndarray, "n s s"]:
    """Opacities of irregular flakes on [−1, 1]²: a clumpy disc whose rim and inside are smooth noise."""
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    radius = np.hypot(axis[:, None], axis[None, :])
    shapes = []
    for _ in range(count):
        coarse = cv2.resize(rng.standard_normal((5, 5)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
        fine = cv2.resize(rng.standard_normal((9, 9)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
        body = np.clip((0.68 + 0.16 * coarse + 0.07 * fine - radius) / 0.3, 0, 1)
        shapes.append(body * (0.85 + 0.15 * np.tanh(fine)) * np.clip((1 - radius) / 0.15, 0, 1))
    return np.stack(shapes).astype(np.float32)


def splat_flakes(
    field: Field,
    size: tuple[int, int],
    *,
    radius: Float[np.ndarray, " n"],
    blur: Float[np.ndarray, " n"],
    streak: Float[np.ndarray, " n"],
    lean: float,
    cover: Float[np.ndarray, " n"],
    shapes: Float32[np.ndarray, "k t t"],
    depth: Float32[np.ndarray, "h w"],
) -> Float32[np.ndarray, "h w"]:
    """The share of each pixel covered by flakes, in [0, 1): 1 − e^(−Σ cover · shape).

    radius: half the flake's size in pixels. blur: half the width in pixels of what softens it: defocus and the pixel.
    streak: pixels it moves along (lean, 1) in the exposure. cover: its peak optical depth, before blur and motion
    spread it. A flake is hidden where the scene is nearer than it.
    """
    reach = radius + blur
    # Spread over a larger area, the same light covers less: area of the flake over the area of its image.
    thin = cover * radius**2 / (reach * (reach + streak / 2))
    # What is blurred more than its size is a smooth disc, whatever its shape.
    soft = blur / reach
    halves = np.ceil(reach + streak / 2).astype(int)
    margin = 2 * int(halves.max(initial=1)) + 1
    total = np.zeros((size[0] + 2 * margin, size[1] + 2 * margin), np.float32)
    scene = np.pad(depth, margin)
    seen = (np.abs(field.x - size[1] / 2) < size[1] / 2 + halves) & (
        np.abs(field.y - size[0] / 2) < size[0] / 2 + halves
    )
    for k in np.unique(halves):
        (chosen,) = np.nonzero((halves == k) & seen)
        per = max(1, CHUNK // (2 * int(k) + 1) ** 2)
        for part in np.split(chosen, np.arange(per, chosen.size, per)):
            x, y = field.x[part], field.y[part]
            column, row = np.floor(x + 0.5).astype(int), np.floor(y + 0.5).astype(int)
            offset = np.arange(-int(k), int(k) + 1)
            px, py = flake_coordinates(offset, column - x, row - y, reach[part], streak[part], lean)
            value = 1.2 * np.maximum(1 - px * px - py * py, 0)
            if k >= 3:
                kind = (field.u[part] * len(shapes)).astype(np.int32)
                share = soft[part, None, None].astype(np.float32)
                value = share * value + (1 - share) * sample_shapes(shapes, kind, px, py)
            index = ((row + margin) * total.shape[1] + column + margin)[:, None, None]
            index = index + offset[:, None] * total.shape[1] + offset
            value *= thin[part, None, None].astype(np.float32)
            value[scene.ravel()[index] <= field.z[part, None, None]] = 0
            np.add.at(total.reshape(-1), index.ravel(), value.ravel())
    return -np.expm1(-total[margin:-margin, margin:-margin])


def flake_coordinates(
    offset: Int[np.ndarray, " s"],
    dx: Float[np.ndarray, " n"],
    dy: Float[np.ndarray, " n"],
    reach: Float[np.ndarray, " n"],
    streak: Float[np.ndarray, " n"],
    lean: float,
) -> tuple[Float32[np.ndarray, "n s s"], Float32[np.ndarray, "n s s"]]:
    """Each window's pixels in its flake's own coordinates: across and along the motion, in units of its reach.

    The motion in the exposure stretches a flake: distances along it count from the nearest point of its path.
    dx, dy: the window's centre less the flake's.
    """
    norm = math.hypot(1.0, lean)
    x = (offset + dx[:, None]).astype(np.float32)[:, None, :]
    y = (offset + dy[:, None]).astype(np.float32)[:, :, None]
    along, across = (y + np.float32(lean) * x) / np.float32(norm), (x - np.float32(lean) * y) / np.float32(norm)
    path = (0.5 * streak[:, None, None]).astype(np.float32)
    inverse = (1 / reach[:, None, None]).astype(np.float32)
    return across * inverse, (along - np.clip(along, -path, path)) * inverse


def sample_shapes(
    shapes: Float32[np.ndarray, "k t t"],
    kind: Int[np.ndarray, " n"],
    px: Float32[np.ndarray, "n s s"],
    py: Float32[np.ndarray, "n s s"],
) -> Float32[np.ndarray, "n s s"]:
    """The opacity of shape ``kind`` at coordinates in [−1, 1]²: the nearest sample, 0 outside."""
    side = shapes.shape[1]
    u = np.clip((px + 1) * np.float32(0.5 * (side - 1)) + np.float32(0.5), 0, side - 1).astype(np.int32)
    v = np.clip((py + 1) * np.float32(0.5 * (side - 1)) + np.float32(0.5), 0, side - 1).astype(np.int32)
    return shapes.ravel()[(kind[:, None, None] * side + v) * side + u]

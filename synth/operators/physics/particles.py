"""Rain drops and snow flakes in a pinhole camera: number, size, position, and the share of each pixel they cover.

Particles are drawn in shells of distance. Each shell has a random stream of its own, in which the draws of a particle
do not depend on the rate, so a higher rate adds particles and enlarges them.
Lengths are in metres unless stated otherwise; diameters are in millimetres, as in the size distributions.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float, Float32

from clearfuse.synth.operators import kernels
from clearfuse.synth.seeds import generator, seed_of

SHELLS = 8
"""Shells of distance, with geometric bounds."""
NEAR = 0.35
"""Least distance of a particle, in metres: a lens hood or windscreen keeps nearer ones out."""
APERTURE = 0.002
"""Entrance pupil of a small camera, in metres, for the defocus of near particles; it is focused at infinity."""
REFERENCE_WIDTH = 560
"""Image width in pixels above which the smallest drawn particle is fixed in angle rather than in pixels; smaller ones
are part of the veil."""


@dataclass(frozen=True)
class Field:
    """Visible particles: centre (x, y) in pixels, z in m, diameter in mm, two uniform draws u and v; each (n,)."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    diameter: np.ndarray
    u: np.ndarray
    v: np.ndarray


@dataclass(frozen=True)
class Fall:
    """Particles as an image: the share of each pixel that they leave clear, e^(−S) for their optical depth S.

    Where this is vertically smooth, only every ``step``-th row is stored, centred on those rows of the image.
    """

    clear: Float32[np.ndarray, "r w"]
    step: int = 1


def focal_length(width: int, fov: float) -> float:
    """Pinhole focal length in pixels: f = (w/2) / tan(fov/2)."""
    return 0.5 * width / math.tan(math.radians(fov) / 2)


def exponential_count(intercept: float, slope: float, smallest: Float[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """Particles per m³ above a diameter D: ∫ N0 e^(−ΛD) dD = (N0/Λ) e^(−ΛD); N0 in m⁻³ mm⁻¹, Λ in mm⁻¹, D in mm."""
    return intercept / slope * np.exp(-slope * smallest)


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

    size: (h, w). focal: pixels. intercept: N0 in m⁻³ mm⁻¹, slope: Λ in mm⁻¹. smallest, largest: diameters in mm.
    travel: metres that a particle moves during the exposure; particles whose path enters the frame are included. The
    number per shell is normal with the Poisson mean and variance, from one draw, since unlike a Poisson sampler's
    result it is monotonic in the mean.
    """
    height, width = size
    seed = int(rng.integers(1 << 53))
    threshold = smallest_px * max(1.0, width / REFERENCE_WIDTH)
    far = largest * 1e-3 * focal / threshold
    if far <= NEAR:
        return Field(*np.zeros((6, 0), np.float32))
    bounds = NEAR * (far / NEAR) ** (np.arange(SHELLS + 1) / SHELLS)
    cubes = bounds**3
    z0 = bounds[:-1]
    floor = np.maximum(smallest, 1e3 * threshold * z0 / focal)
    pad = (0.5 * travel + largest * 1e-3) * focal / z0
    area = (width + 2 * pad) * (height + 2 * pad) / focal**2
    mean = area * np.diff(cubes) / 3 * exponential_count(intercept, slope, floor)
    # Each shell has its own stream: the field's, advanced by a multiple of 2^64.
    source = np.random.Philox(seed)
    start = source.state
    shell = np.random.Generator(source)
    drawn: list[np.ndarray] = []
    for k, expected in enumerate(mean.tolist()):
        source.state = start
        source.advance(k << 64)
        count = max(0, math.floor(expected + math.sqrt(expected) * shell.standard_normal() + 0.5))
        words = source.random_raw(-(-6 * count // 4))
        drawn.append(words.astype("<u8", copy=False).view("<u2")[: 6 * count])
    counts = [words.size // 6 for words in drawn]
    if not sum(counts):
        return Field(*np.zeros((6, 0), np.float32))
    u = np.empty((6, sum(counts)), np.float32)
    kernels.unpack(np.concatenate(drawn), u)
    per_shell = np.stack([cubes[:-1], np.diff(cubes), floor, pad]).astype(np.float32)
    cube, span, floor, pad = np.repeat(per_shell, counts, axis=1)
    z = cv2.pow(cube + u[2] * span, 1 / 3).ravel()
    diameter = np.minimum(floor - cv2.log(1 - u[3]).ravel() * np.float32(1 / slope), np.float32(largest))
    (visible,) = np.nonzero(diameter * np.float32(1e-3 * focal) >= np.float32(threshold) * z)
    u, pad = u[:, visible], 2 * pad[visible]
    x, y = u[0] * (width + pad) - 0.5 * pad, u[1] * (height + pad) - 0.5 * pad
    return Field(x, y, z[visible], diameter[visible], u[4], u[5])


def defocus(z: Float[np.ndarray, " n"], focal: float) -> Float[np.ndarray, " n"]:
    """Circle of confusion, in pixels, of a point at z for a lens focused at infinity: c = aperture · f / z."""
    return APERTURE * focal / z


def splat_streaks(
    field: Field,
    size: tuple[int, int],
    *,
    length: Float[np.ndarray, " n"],
    slant: Float[np.ndarray, " n"],
    width: Float[np.ndarray, " n"],
    cover: Float[np.ndarray, " n"],
    depth: Float32[np.ndarray, "h w"],
) -> Fall:
    """Render streaks, of the optical depth Σ cover · profile · taper.

    size: (h, w). length: rows that a streak spans. slant: columns per row. width: half the width in pixels; the profile
    across is a biweight of unit area. cover: the streak's opacity times its width before blur. depth: metres; the
    scene occludes particles behind it. Where streaks are long and upright enough, only every second to fourth row is
    computed, since they are smooth along their length.
    """
    step = 1
    if length.size:
        step = max(1, min(4, int(np.mean(length) / 6), int(1.4 / max(float(np.mean(np.abs(slant))), 0.1))))
    total = np.zeros((-(-size[0] // step), size[1]), np.float32)
    streaks = np.stack([field.x, field.y, field.z, length, slant, width, cover]).astype(np.float32, copy=False)
    kernels.add_streaks(total, np.ascontiguousarray(depth), depth[::step].min(axis=1), step, streaks)
    return Fall(_clear(total), step)


@functools.cache
def flake_shapes(count: int = 64, side: int = 33) -> Float32[np.ndarray, "n s s"]:
    """Opacities of irregular flakes on [−1, 1]²: discs with outline and interior modulated by smooth noise."""
    rng = generator(seed_of("flakes"))
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
    slant: float,
    cover: Float[np.ndarray, " n"],
    depth: Float32[np.ndarray, "h w"],
) -> Fall:
    """Render flakes, of the optical depth Σ cover · shape.

    size: (h, w). radius: half the flake's size in pixels. blur: half the width, in pixels, of the blur by defocus and
    pixel size. streak: pixels moved along (slant, 1) during the exposure. cover: peak optical depth before blur and
    motion. depth: metres; the scene occludes flakes behind it. Flakes of a few pixels are rendered as smooth spots,
    larger ones at half resolution, which is enough for their detail.
    """
    reach = radius + blur
    # Blur and motion dilute the coverage by the area of the flake over the area of its image.
    diluted = cover * radius**2 / (reach * (reach + streak / 2))
    visible = (np.abs(field.x - size[1] / 2) < size[1] / 2 + reach + streak) & (
        np.abs(field.y - size[0] / 2) < size[0] / 2 + reach + streak
    )
    (spots,), (large,) = (
        np.nonzero(visible & kind) for kind in (reach + streak / 2 <= SPOT, reach + streak / 2 > SPOT)
    )
    if large.size:
        # At half resolution, pixel p is centred between the pixels 2 p and 2 p + 1.
        half = np.zeros((-(-size[0] // 2), -(-size[1] // 2)), np.float32)
        rows = (field.x / 2 - 0.25, field.y / 2 - 0.25, field.z, reach / 2, streak / 2, diluted, blur / reach)
        shapes = flake_shapes()
        flakes = np.stack([*(row[large] for row in rows), np.floor(field.u[large] * len(shapes))])
        kernels.add_flakes(half, np.ascontiguousarray(depth[::2, ::2]), shapes, slant, flakes)
        doubled = cv2.resize(half, (2 * half.shape[1], 2 * half.shape[0]), interpolation=cv2.INTER_LINEAR)
        total = np.ascontiguousarray(doubled[: size[0], : size[1]])
    else:
        total = np.zeros(size, np.float32)
    # The spot, a biweight in x and y, has the same integral as the disc 1.2 (1 − r²) of radius ``reach``, at 1.15
    # times the size: ∬ (1 − x²)² (1 − y²)² = (16/15)², ∬ 1.2 (1 − r²) = 0.6 π; motion extends y.
    x, y, z, half_width, half_height, peak = (
        v[spots] for v in (field.x, field.y, field.z, reach, reach + streak / 2, diluted)
    )
    scale = 1.2 * math.pi / 2 / (16 / 15) ** 2 / 1.15**2
    kernels.add_spots(total, depth, np.stack([x, y, z, 1.15 * half_width, 1.15 * half_height, scale * peak]))
    return Fall(_clear(total))


def _clear(optical: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """e^(−S), in place."""
    np.negative(optical, out=optical)
    return cv2.exp(optical, optical).reshape(optical.shape)


SPOT = 4.0
"""Radius in pixels up to which a flake's image is too small to show its shape."""

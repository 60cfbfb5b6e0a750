"""Falling particles seen through a pinhole: how many, how large, where, and the share of each pixel that they cover.

A field of particles is drawn in shells of distance; every attribute comes from a generator of its own shell and the
rows of its draw do not depend on the rate, so a heavier fall extends and enlarges a lighter one.
Lengths are metres where no unit is named; diameters are millimetres, as in the size distributions.
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
"""Metres: nothing nearer is drawn, a lens hood or windscreen keeps it out."""
APERTURE = 0.002
"""Metres: the entrance pupil of a small camera, for the defocus of near particles; it focuses far away."""
REFERENCE_WIDTH = 560
"""Pixels: above this width the smallest particle that is drawn grows with the image, so that its angle is fixed; the
smaller ones are in the veil."""


@dataclass(frozen=True)
class Field:
    """Particles in view: image position of the centre, distance, diameter, and two uniform draws for the rest."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    diameter: np.ndarray
    u: np.ndarray
    v: np.ndarray


@dataclass(frozen=True)
class Fall:
    """Particles as an image: the share of each pixel that they leave clear, e^(−S) for their optical depth S.

    Where that is smooth down the image, a row stands for the middle of ``step`` rows.
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

    size: (h, w). smallest, largest: diameters in mm. travel: metres that a particle moves in an exposure; those whose
    centre is out of the frame but whose path is in it are drawn too. Numbers are normal with the Poisson mean and
    variance, from one draw a shell: unlike a Poisson sampler's, it rises with the mean.
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
    # Each shell has a stream of its own, far along that of the field.
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
    counts = [each.size // 6 for each in drawn]
    if not sum(counts):
        return Field(*np.zeros((6, 0), np.float32))
    u = np.empty((6, sum(counts)), np.float32)
    kernels.unpack(np.concatenate(drawn), u)
    per_shell = np.stack([cubes[:-1], np.diff(cubes), floor, pad]).astype(np.float32)
    cube, span, floor, pad = np.repeat(per_shell, counts, axis=1)
    z = cv2.pow(cube + u[2] * span, 1 / 3).ravel()
    diameter = np.minimum(floor - cv2.log(1 - u[3]).ravel() * np.float32(1 / slope), np.float32(largest))
    (seen,) = np.nonzero(diameter * np.float32(1e-3 * focal) >= np.float32(threshold) * z)
    u, pad = u[:, seen], 2 * pad[seen]
    x, y = u[0] * (width + pad) - 0.5 * pad, u[1] * (height + pad) - 0.5 * pad
    return Field(x, y, z[seen], diameter[seen], u[4], u[5])


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
) -> Fall:
    """Streaks, of the optical depth Σ cover · profile · taper.

    length: rows that a streak spans. lean: columns it moves a row. width: half its width in pixels; the profile across
    is a biweight of unit area. cover: the streak's opacity times its sharp width. A streak is hidden where the
    scene is nearer than its particle. Along its length a streak is smooth: where streaks are long and upright enough,
    every second to fourth row is summed, and those between are interpolated.
    """
    step = 1
    if length.size:
        step = max(1, min(4, int(np.mean(length) / 6), int(1.4 / max(float(np.mean(np.abs(lean))), 0.1))))
    total = np.zeros((-(-size[0] // step), size[1]), np.float32)
    streaks = np.stack([field.x, field.y, field.z, length, lean, width, cover]).astype(np.float32, copy=False)
    kernels.add_streaks(total, np.ascontiguousarray(depth), depth[::step].min(axis=1), step, streaks)
    return Fall(_clear(total), step)


@functools.cache
def flake_shapes(count: int = 64, side: int = 33) -> Float32[np.ndarray, "n s s"]:
    """Opacities of irregular flakes on [−1, 1]²: a clumpy disc whose rim and inside are smooth noise."""
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
    lean: float,
    cover: Float[np.ndarray, " n"],
    depth: Float32[np.ndarray, "h w"],
) -> Fall:
    """Flakes, of the optical depth Σ cover · shape.

    radius: half the flake's size in pixels. blur: half the width in pixels of what softens it: defocus and the pixel.
    streak: pixels it moves along (lean, 1) in the exposure. cover: its peak optical depth, before blur and motion
    spread it. A flake is hidden where the scene is nearer than it. Flakes of a few pixels are smooth spots, whatever
    their shape; larger ones are summed on every other pixel of every other row: nothing in them is finer.
    """
    reach = radius + blur
    # Spread over a larger area, the same light covers less: area of the flake over the area of its image.
    thin = cover * radius**2 / (reach * (reach + streak / 2))
    seen = (np.abs(field.x - size[1] / 2) < size[1] / 2 + reach + streak) & (
        np.abs(field.y - size[0] / 2) < size[0] / 2 + reach + streak
    )
    (spots,), (large,) = (np.nonzero(seen & kind) for kind in (reach + streak / 2 <= SPOT, reach + streak / 2 > SPOT))
    if large.size:
        # Half as fine: pixel p of the half frame is the middle of the pixels 2 p and 2 p + 1.
        half = np.zeros((-(-size[0] // 2), -(-size[1] // 2)), np.float32)
        rows = (field.x / 2 - 0.25, field.y / 2 - 0.25, field.z, reach / 2, streak / 2, thin, blur / reach)
        shapes = flake_shapes()
        flakes = np.stack([*(row[large] for row in rows), np.floor(field.u[large] * len(shapes))])
        kernels.add_flakes(half, np.ascontiguousarray(depth[::2, ::2]), shapes, lean, flakes)
        doubled = cv2.resize(half, (2 * half.shape[1], 2 * half.shape[0]), interpolation=cv2.INTER_LINEAR)
        total = np.ascontiguousarray(doubled[: size[0], : size[1]])
    else:
        total = np.zeros(size, np.float32)
    # A biweight each way holds as much as the disc 1.2 (1 − r²) of the reach, widened by 1.15 to its shape:
    # ∬ (1 − x²)² (1 − y²)² = (16/15)², ∬ 1.2 (1 − r²) = 0.6 π; the motion widens y.
    x, y, z, wide, tall, peak = (v[spots] for v in (field.x, field.y, field.z, reach, reach + streak / 2, thin))
    scale = 1.2 * math.pi / 2 / (16 / 15) ** 2 / 1.15**2
    kernels.add_spots(total, depth, np.stack([x, y, z, 1.15 * wide, 1.15 * tall, scale * peak]))
    return Fall(_clear(total))


def _clear(optical: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """e^(−S), in the place of S."""
    np.negative(optical, out=optical)
    return cv2.exp(optical, optical).reshape(optical.shape)


SPOT = 4.0
"""Pixels: a flake whose image reaches no further has no shape that one could see."""

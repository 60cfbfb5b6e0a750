"""Falling particles seen through a pinhole: how many, how large, where, and the share of each pixel that they cover.

A field of particles is drawn in shells of distance; every attribute comes from a generator of its own shell and the
rows of its draw do not depend on the rate, so a heavier fall extends and enlarges a lighter one.
Lengths are metres where no unit is named; diameters are millimetres, as in the size distributions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    scene is nearer than its particle. Along its length a streak is smooth: where streaks are long and upright enough,
    every second to fourth row is summed, and those between are interpolated.
    """
    step = 1
    if length.size:
        step = max(1, min(4, int(np.median(length) / 5), int(1.4 / max(float(np.median(np.abs(lean))), 0.1))))
    rows = -(-size[0] // step)
    taps = np.ceil(2 * width).astype(int)
    # A margin as wide as the widest profile saves a test a pixel.
    margin = int(taps.max(initial=1)) + 1
    stride = size[1] + 2 * margin
    total: np.ndarray | None = None
    hides = bool(depth.min() <= field.z.max(initial=0.0))
    scene = np.pad(depth[::step], ((0, 0), (margin, margin))).ravel() if hides else None
    top = np.floor((field.y - length / 2) / step)
    bottom = np.clip(top + np.maximum(np.ceil(length / step) + 1, 2), 0, rows).astype(int)
    top = np.clip(top, 0, rows).astype(int)
    # Sums stand for the middle of their rows, which is where the interpolation expects them.
    above = top * step + (step - 1) / 2 - field.y
    x, pace = field.x + above * lean, 1 / np.maximum(length, 1)
    streaks = np.stack([top, x, lean * step, width, above * pace, step * pace, cover / width, field.z])
    held: list[tuple[np.ndarray, np.ndarray]] = []
    for k in np.unique(taps):
        (chosen,) = np.nonzero((taps == k) & (bottom > top))
        ends = np.cumsum(bottom[chosen] - top[chosen]) * int(k)
        for part in np.split(chosen, np.searchsorted(ends, np.arange(CHUNK, int(ends.max(initial=0)), CHUNK))):
            index, value, near = _streak_taps(streaks[:, part], bottom[part] - top[part], int(k), stride, margin)
            if scene is not None:
                value *= scene[index] > near
            held.append((index.ravel(), value.ravel()))
            if sum(len(each) for each, _ in held) > CHUNK:
                total, held = _more(total, held, rows * stride), []
    total = _more(total, held, rows * stride)
    covered = 1 - cv2.exp(-total.reshape(rows, stride)[:, margin:-margin].astype(np.float32))
    return (
        cv2.resize(covered, (size[1], step * rows), interpolation=cv2.INTER_LINEAR)[: size[0]] if step > 1 else covered
    )


def _more(
    total: np.ndarray | None, parts: Sequence[tuple[np.ndarray, np.ndarray]], size: int
) -> Float[np.ndarray, " size"]:
    """The total, None for nothing yet, with values added up at their indices."""
    if not parts:
        return np.zeros(size) if total is None else total
    index, value = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    sums = np.bincount(index, value, minlength=size)
    return sums if total is None else total + sums


def _streak_taps(
    streaks: Float[np.ndarray, "8 n"], spans: Int[np.ndarray, " n"], k: int, stride: int, margin: int
) -> tuple[Int[np.ndarray, "k m"], Float32[np.ndarray, "k m"], Float32[np.ndarray, " m"]]:
    """Where in the padded frame each of m rows of the streaks puts its k taps, how much there, and how far it is."""
    row = np.arange(int(spans.sum())) - np.repeat(np.cumsum(spans) - spans, spans)
    top, x, lean, reach, begin, pace, peak, z = (np.repeat(v.astype(np.float32), spans) for v in streaks)
    along = row.astype(np.float32)
    centre = x + along * lean
    # A drop enters and leaves the open shutter: the ends fade over a quarter of the length.
    fade = np.minimum(2 - 4 * np.abs(begin + along * pace) + pace, 1)
    np.maximum(fade, 0, out=fade)
    amplitude = fade * fade * (3 - 2 * fade) * peak
    first = np.ceil(centre - reach)
    column = np.clip(first, -margin, stride - margin - k).astype(int)
    index = (row + top.astype(int)) * stride + column + margin
    taps = np.arange(k, dtype=np.float32)[:, None]
    profile = np.maximum(1 - ((first - centre + taps) / reach) ** 2, 0)
    return index + np.arange(k)[:, None], 0.9375 * profile * profile * amplitude, z


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
    spread it. A flake is hidden where the scene is nearer than it. Flakes of a few pixels are smooth spots, whatever
    their shape; larger ones are summed on every other pixel of every other row: nothing in them is finer.
    """
    reach = radius + blur
    # Spread over a larger area, the same light covers less: area of the flake over the area of its image.
    thin = cover * radius**2 / (reach * (reach + streak / 2))
    seen = (np.abs(field.x - size[1] / 2) < size[1] / 2 + reach + streak) & (
        np.abs(field.y - size[0] / 2) < size[0] / 2 + reach + streak
    )
    hides = bool(depth.min() <= field.z.max(initial=0.0))
    spot = reach + streak / 2 <= SPOT
    total = _Sum(size, int(SPOT) + 2, depth if hides else None)
    _splat_spots(total, field, seen & spot, reach, streak, thin)
    depths = total.values()
    # Twice as coarse: pixel p of the half frame is the middle of the pixels 2 p and 2 p + 1.
    half = (-(-size[0] // 2), -(-size[1] // 2))
    large = np.nonzero(seen & ~spot)[0]
    if large.size:
        coarse = _Sum(half, int(np.ceil((reach + streak / 2)[large].max() / 2)) + 2, depth[::2, ::2] if hides else None)
        _splat_shapes(coarse, field, large, reach / 2, streak / 2, lean, thin, blur / reach, shapes)
        depths += cv2.resize(coarse.values(), (2 * half[1], 2 * half[0]))[: size[0], : size[1]]
    return 1 - cv2.exp(-depths)


SPOT = 4.0
"""Pixels: a flake whose image reaches no further has no shape that one could see."""


class _Sum:
    """Optical depths added up over a frame with a margin, so that no window needs a test at the border."""

    def __init__(self, size: tuple[int, int], margin: int, depth: Float32[np.ndarray, "h w"] | None) -> None:
        self.size, self.margin, self.stride = size, margin, size[1] + 2 * margin
        self.depth = None if depth is None else np.pad(depth, margin).ravel()
        self.held: list[tuple[np.ndarray, np.ndarray]] = []
        self.total: np.ndarray | None = None

    def add(self, row: np.ndarray, column: np.ndarray, windows: np.ndarray, z: np.ndarray) -> None:
        """Add windows (n, s, s) centred on (row, column) of flakes at distance z."""
        k, m = windows.shape[1] // 2, self.margin
        (height, width), edge = self.size, m - k
        row, column = np.clip(row, -edge, height + edge - 1), np.clip(column, -edge, width + edge - 1)
        offset = np.arange(-k, k + 1)
        index = ((row + m) * self.stride + column + m)[:, None, None] + (offset[:, None] * self.stride + offset)
        if self.depth is not None:
            windows *= self.depth[index] > z[:, None, None]
        self.held.append((index.ravel(), windows.ravel()))
        if sum(len(each) for each, _ in self.held) > CHUNK:
            self._sum()

    def _sum(self) -> None:
        size = (self.size[0] + 2 * self.margin) * self.stride
        self.total, self.held = _more(self.total, self.held, size), []

    def values(self) -> Float32[np.ndarray, "h w"]:
        """What was added, without the margin."""
        self._sum()
        assert self.total is not None
        m, (height, width) = self.margin, self.size
        return self.total.reshape(-1, self.stride)[m : m + height, m : m + width].astype(np.float32)


def _splat_spots(
    total: _Sum, field: Field, chosen: np.ndarray, reach: np.ndarray, streak: np.ndarray, thin: np.ndarray
) -> None:
    """Small flakes: a biweight each way, widened by 1.15, that holds as much as the disc 1.2 (1 − r²) of the reach.

    ∬ (1 − x²)² (1 − y²)² = (16/15)², ∬ 1.2 (1 − r²) = 0.6 π; the motion widens y.
    """
    (flakes,) = np.nonzero(chosen)
    scale = 1.2 * np.pi / 2 / (16 / 15) ** 2 / 1.15**2
    halves = np.ceil(1.15 * (reach + streak / 2)).astype(int)
    for k in np.unique(halves[flakes]):
        same = flakes[halves[flakes] == k]
        for part in np.array_split(same, -(-same.size * (2 * int(k) + 1) ** 2 // CHUNK)):
            column, row = (np.floor(v[part] + 0.5).astype(int) for v in (field.x, field.y))
            offset = np.arange(-int(k), int(k) + 1, dtype=np.float32)
            wide, tall = (1.15 * v[part, None].astype(np.float32) for v in (reach, reach + streak / 2))
            across = np.maximum(1 - ((offset + (column - field.x[part]).astype(np.float32)[:, None]) / wide) ** 2, 0)
            along = np.maximum(1 - ((offset + (row - field.y[part]).astype(np.float32)[:, None]) / tall) ** 2, 0)
            peak = (scale * thin[part, None]).astype(np.float32)
            total.add(row, column, (along * along * peak)[:, :, None] * (across * across)[:, None, :], field.z[part])


def _splat_shapes(
    total: _Sum, field: Field, chosen: np.ndarray, reach: np.ndarray, streak: np.ndarray, lean: float,
    thin: np.ndarray, soft: np.ndarray, shapes: Float32[np.ndarray, "k t t"],
) -> None:  # fmt: skip
    """Large flakes with their shapes, on the half frame; reach and streak in its pixels."""
    halves = np.ceil(reach + streak / 2).astype(int)
    for k in np.unique(halves[chosen]):
        same = chosen[halves[chosen] == k]
        for part in np.array_split(same, -(-same.size * (2 * int(k) + 1) ** 2 // CHUNK)):
            x, y = field.x[part] / 2 - 0.25, field.y[part] / 2 - 0.25
            column, row = np.floor(x + 0.5).astype(int), np.floor(y + 0.5).astype(int)
            offset = np.arange(-int(k), int(k) + 1)
            px, py = flake_coordinates(offset, column - x, row - y, reach[part], streak[part], lean)
            share = soft[part, None, None].astype(np.float32)
            kind = (field.u[part] * len(shapes)).astype(np.int32)
            # What is blurred more than its size is a smooth disc, whatever its shape.
            value = share * (1.2 * np.maximum(1 - px * px - py * py, 0))
            value += (1 - share) * sample_shapes(shapes, kind, px, py)
            total.add(row, column, value * thin[part, None, None].astype(np.float32), field.z[part])


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

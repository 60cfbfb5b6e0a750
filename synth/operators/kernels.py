"""Pixel loops that numpy cannot do in one pass, compiled by numba on first use.

Compiled without reordering of sums and without calls into the C library, so that a seed gives the same bytes on every
machine. Compiled code is cached beside the module, or in the user's cache folder where that is read-only.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
from jaxtyping import Float, Float32, UInt16

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: compile for one thread at the first call, so that importing the module does not load numba."""

    @functools.cache
    def machine_code() -> Callable[P, R]:
        from numba import njit

        plain: Any = inspect.unwrap(function)
        try:
            return njit(cache=True, nogil=True, error_model="numpy")(plain)
        except RuntimeError:  # no writable cache folder: each process compiles
            return njit(nogil=True, error_model="numpy")(plain)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return machine_code()(*args, **kwargs)

    return call


@compiled
def clamp(values: Float[np.ndarray, "h w"], low: float, high: float, out: Float32[np.ndarray, "h w"]) -> None:
    """Clamp values to [low, high], NaN to low."""
    lowest, highest = np.float32(low), np.float32(high)
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            v = np.float32(values[y, x])
            v = v if v > lowest else lowest
            out[y, x] = v if v < highest else highest


@compiled
def unpack(words: UInt16[np.ndarray, " k"], out: Float32[np.ndarray, "c n"]) -> None:
    """Uniform numbers in (0, 1), (word + 1/2) / 65536; consecutive words fill a column."""
    for i in range(out.shape[1]):
        for k in range(out.shape[0]):
            out[k, i] = (np.float32(words[i * out.shape[0] + k]) + np.float32(0.5)) * np.float32(1 / 65536)


@compiled
def shrink(image: Float32[np.ndarray, "h w c"], cells: Float32[np.ndarray, "sh sw c"]) -> None:
    """Means over a grid of cells, estimated from about three rows and four columns of each; one or three channels."""
    height, width = image.shape[:2]
    middle, last = image.shape[2] // 2, image.shape[2] - 1
    for i in range(cells.shape[0]):
        top, bottom = i * height // cells.shape[0], (i + 1) * height // cells.shape[0]
        down = max((bottom - top + 1) // 3, 1)
        for j in range(cells.shape[1]):
            left, right = j * width // cells.shape[1], (j + 1) * width // cells.shape[1]
            along = max((right - left + 2) // 4, 1)
            share = np.float32(1 / (((bottom - 1 - top) // down + 1) * ((right - 1 - left) // along + 1)))
            # Three independent sums, so that additions need not wait for each other.
            first, second, third = np.float32(0), np.float32(0), np.float32(0)
            for y in range(top, bottom, down):
                for x in range(left, right, along):
                    first += image[y, x, 0]
                    second += image[y, x, middle]
                    third += image[y, x, last]
            cells[i, j, 0], cells[i, j, middle], cells[i, j, last] = first * share, second * share, third * share


@compiled
def through_particles(
    image: Float32[np.ndarray, "h wc"],
    depth: Float[np.ndarray, "h w"],
    extinction: float,
    nearest: float,
    farthest: float,
    fall: Float32[np.ndarray, "r w"],
    step: int,
    air: Float32[np.ndarray, "m nc"],
    glow: Float32[np.ndarray, "o pc"],
    out: Float32[np.ndarray, "h wc"],
) -> None:
    """(J t + A (1 − t)) s + L (1 − s), t = e^(−β d), in one pass; s is the share of a pixel free of particles.

    d is the depth limited to [nearest, farthest], in metres, β the extinction in 1/m. A row of s (``fall``) is centred
    on ``step`` rows of the image and interpolated between them. A (``air``) and L (``glow``) are a colour (1, c) or a
    map (h, w c). e^x = 2^i e^r with |r| ≤ ln 2 / 2, e^r by its series to r^6: accurate to 1.2e-7.
    """
    height, width = depth.shape
    channels = image.shape[1] // width
    clear, seen = np.empty(width, np.float32), np.empty(width, np.float32)
    near, far, rate = np.float32(nearest), np.float32(farthest), np.float32(-1.4426950408889634 * extinction)
    plain = channels == 3 and air.shape[1] == 3 and glow.shape[1] == 3
    for y in range(height):
        at = min(max((y - (step - 1) / 2) / step, 0.0), fall.shape[0] - 1.0)
        above = int(at)
        share, upper, lower = np.float32(at - above), fall[above], fall[min(above + 1, fall.shape[0] - 1)]
        for x in range(width):
            seen[x] = upper[x] + share * (lower[x] - upper[x])
        for x in range(width):
            metres = np.float32(depth[y, x])
            metres = min(metres if metres > near else near, far)
            halvings = max(metres * rate, np.float32(-126))
            i = np.floor(halvings + np.float32(0.5))
            r = (halvings - i) * np.float32(0.6931471805599453)
            series = np.float32(1 / 24) + r * (np.float32(1 / 120) + r * np.float32(1 / 720))
            series = np.float32(1 / 2) + r * (np.float32(1 / 6) + r * series)
            series = np.float32(1) + r * (np.float32(1) + r * series)
            # A float's exponent is stored from bit 23 on, with a bias of 127.
            clear[x] = series * np.int32((np.int32(i) + np.int32(127)) << np.int32(23)).view(np.float32)
        row, to = image[y], out[y]
        air_row, glow_row = air[min(y, air.shape[0] - 1)], glow[min(y, glow.shape[0] - 1)]
        if plain:
            a0, a1, a2 = air_row[0], air_row[1], air_row[2]
            g0, g1, g2 = glow_row[0], glow_row[1], glow_row[2]
            for x in range(width):
                a = np.float32(1) - seen[x]
                u = seen[x] * clear[x]
                v = seen[x] - u
                to[3 * x] = row[3 * x] * u + (a0 * v + g0 * a)
                to[3 * x + 1] = row[3 * x + 1] * u + (a1 * v + g1 * a)
                to[3 * x + 2] = row[3 * x + 2] * u + (a2 * v + g2 * a)
        else:
            air_step, glow_step = min(air.shape[1] - channels, channels), min(glow.shape[1] - channels, channels)
            for x in range(width):
                a = np.float32(1) - seen[x]
                u = seen[x] * clear[x]
                v = seen[x] - u
                for k in range(channels):
                    veil = air_row[x * air_step + k] * v + glow_row[x * glow_step + k] * a
                    to[x * channels + k] = row[x * channels + k] * u + veil


@compiled
def add_streaks(
    total: Float32[np.ndarray, "r w"],
    depth: Float32[np.ndarray, "h w"],
    nearest: Float32[np.ndarray, " r"],
    step: int,
    streaks: Float32[np.ndarray, "7 n"],
) -> None:
    """Add the optical depth of streaks, in place. streaks: x, y, z, length, slope, reach, cover, in pixels but z (m).

    Row r of ``total`` is centred on the rows r·step to (r + 1)·step − 1 of the frame. The scene occludes the streaks
    behind it; ``nearest`` is its least depth in each row. The profile across is a biweight of unit area on ± reach,
    15/16 (1 − x²)²; slope is in columns per row.
    """
    rows, columns = total.shape
    unit = np.float32(1)
    for i in range(streaks.shape[1]):
        x, y, z, length, slope, reach, cover = streaks[:, i]
        first = math.floor((y - length / 2) / step)
        last = min(first + max(math.ceil(length / step) + 1, 2), rows)
        first = max(first, 0)
        pace, narrow = unit / max(length, unit), unit / reach
        peak = np.float32(0.9375) * cover * narrow
        begin = np.float32(first * step + 0.5 * (step - 1)) - y
        # A multiple of four taps, for vector instructions; those beyond the reach have no weight.
        taps = min(4 * (int(0.5 * reach) + 1), columns)
        for r in range(first, last):
            below = begin + np.float32((r - first) * step)
            # The shutter opens and closes gradually: the ends fade over a quarter of the length.
            fade = min(np.float32(2) - np.float32(4) * abs(below * pace) + np.float32(step) * pace, unit)
            fade = max(fade, np.float32(0))
            amplitude = fade * fade * (np.float32(3) - np.float32(2) * fade) * peak
            centre = x + below * slope
            left = min(int(max(centre - reach + unit, np.float32(0))), columns - taps)
            offset = np.float32(left) - centre
            open_view, scene = z < nearest[r], depth[r * step]
            if open_view:
                for four in range(taps // 4):
                    for k in range(4):
                        c = 4 * four + k
                        across = (offset + np.float32(c)) * narrow
                        profile = max(unit - across * across, np.float32(0))
                        total[r, left + c] += amplitude * profile * profile
            else:
                for four in range(taps // 4):
                    for k in range(4):
                        c = 4 * four + k
                        across = (offset + np.float32(c)) * narrow
                        profile = max(unit - across * across, np.float32(0))
                        value = amplitude * profile * profile
                        total[r, left + c] += value if scene[left + c] > z else np.float32(0)
            for c in range(taps - taps % 4, taps):
                across = (offset + np.float32(c)) * narrow
                profile = max(unit - across * across, np.float32(0))
                value = amplitude * profile * profile
                total[r, left + c] += value if scene[left + c] > z else np.float32(0)


@compiled
def add_spots(
    total: Float32[np.ndarray, "h w"], depth: Float32[np.ndarray, "h w"], spots: Float32[np.ndarray, "6 n"]
) -> None:
    """Add smooth spots, a biweight in x and in y, in place. spots: x, y, z, half width, half height, peak."""
    rows, columns = total.shape
    for i in range(spots.shape[1]):
        x, y, z, half_width, half_height, peak = spots[:, i]
        left, right = max(math.ceil(x - half_width), 0), min(math.floor(x + half_width), columns - 1)
        for r in range(max(math.ceil(y - half_height), 0), min(math.floor(y + half_height), rows - 1) + 1):
            along = 1 - ((r - y) / half_height) ** 2
            amplitude = along * along * peak
            for c in range(left, right + 1):
                if depth[r, c] > z:
                    across = 1 - ((c - x) / half_width) ** 2
                    total[r, c] += np.float32(amplitude * across * across)


@compiled
def add_flakes(
    total: Float32[np.ndarray, "h w"],
    depth: Float32[np.ndarray, "h w"],
    shapes: Float32[np.ndarray, "k t t"],
    slope: float,
    flakes: Float32[np.ndarray, "8 n"],
) -> None:
    """Add flakes of given shapes, in place. flakes: x, y, z, reach, streak, peak, softness, index of the shape.

    Motion along (slope, 1) during the exposure stretches a flake: distances along it are measured from the nearest
    point of its path. Softness, in [0, 1], blends the shape with the smooth disc that a strongly blurred flake is.
    """
    rows, columns = total.shape
    side = shapes.shape[1]
    down = 1 / math.sqrt(1 + slope * slope)
    for i in range(flakes.shape[1]):
        x, y, z, reach, streak, peak, softness, shape = flakes[:, i]
        kind = int(shape)
        half_height = reach + 0.5 * streak * down
        half_width = reach + 0.5 * streak * down * abs(slope)
        left, right = max(math.ceil(x - half_width), 0), min(math.floor(x + half_width), columns - 1)
        for r in range(max(math.ceil(y - half_height), 0), min(math.floor(y + half_height), rows - 1) + 1):
            for c in range(left, right + 1):
                if depth[r, c] <= z:
                    continue
                along = ((r - y) + slope * (c - x)) * down
                px = ((c - x) - slope * (r - y)) * down / reach
                py = (along - min(max(along, -0.5 * streak), 0.5 * streak)) / reach
                inside = 1 - px * px - py * py
                if inside <= 0:  # shapes end at the unit circle
                    continue
                u, v = int((px + 1) * 0.5 * (side - 1) + 0.5), int((py + 1) * 0.5 * (side - 1) + 0.5)
                total[r, c] += np.float32(peak * (softness * 1.2 * inside + (1 - softness) * shapes[kind, v, u]))

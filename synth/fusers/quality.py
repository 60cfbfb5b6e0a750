"""Fusion metrics of a ground truth against its pair: ``gt_quality`` in samples, and the threshold of ``--min-gt``."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Float32

from clearfuse.synth import color

STRENGTH = (0.9994, -15.0, 0.5)
ORIENTATION = (0.9879, -22.0, 0.8)
"""Γ, κ and σ of Qabf's two sigmoids."""

Plane = Float32[np.ndarray, "h w"]
Edges = tuple[Float32[np.ndarray, "h2 w2"], Float32[np.ndarray, "h2 w2"]]
"""Sobel strength and orientation of each pixel but those of the rim."""


MOST = 1 << 20
"""Pixels of which both are computed: of a larger picture a grid of tiles with as many in all."""

TILE = 64
"""Side of a tile in pixels."""


def truth_quality(gt: np.ndarray, a: np.ndarray, b: np.ndarray) -> dict[str, float | None]:
    """``Qabf`` and ``CC`` of a ground truth against its clean pair, uint8 (h, w, c), to four digits; None: undefined.

    CC is the mean of the correlation coefficients of the luma with both sources', in [−1, 1]. Of a picture with more
    than ``MOST`` pixels, both are those of evenly spread tiles at its own resolution, without their rims.
    """
    tiles = spread_tiles(*gt.shape[:2])
    fused, *sources = ([color.luma(image[at].astype(np.float32)) for at in tiles] for image in (gt, a, b))
    rim = 0 if len(tiles) == 1 else 1
    found = ([edges(plane, rim) for plane in planes] for planes in zip(fused, *sources, strict=True))
    sums = [preserved_edges(of_fused, of_sources) for of_fused, *of_sources in found]
    preserved, total = (sum(part) for part in zip(*sums, strict=True))
    flat, *others = (planes[0] if len(tiles) == 1 else np.stack(planes) for planes in (fused, *sources))
    values = {
        "Qabf": preserved / total if total else math.nan,
        "CC": sum(correlation(flat, other) for other in others) / 2,
    }
    return {name: round(value, 4) if math.isfinite(value) else None for name, value in values.items()}


def spread_tiles(height: int, width: int) -> list[tuple[slice, slice]]:
    """The whole of a picture with at most ``MOST`` pixels, else equal tiles on a grid, at most as many pixels in all.

    The grid has the picture's proportions, and its tiles the same distance from each other and from the border.
    """
    if height * width <= MOST:
        return [(slice(0, height), slice(0, width))]
    sides = min(TILE, height), min(TILE, width)
    count = MOST // (sides[0] * sides[1])
    rows = min(max(round(math.sqrt(count * height / width)), 1), height // sides[0], count)
    columns = min(count // rows, width // sides[1])
    starts = [
        [(2 * k + 1) * (length - number * side) // (2 * number) + k * side for k in range(number)]
        for length, number, side in zip((height, width), (rows, columns), sides, strict=True)
    ]
    return [(slice(y, y + sides[0]), slice(x, x + sides[1])) for y in starts[0] for x in starts[1]]


def correlation(x: Float32[np.ndarray, "*dims"], y: Float32[np.ndarray, "*dims"]) -> float:
    """Pearson's correlation coefficient of two planes; NaN where one is constant."""
    x, y = x - x.mean(dtype=np.float64), y - y.mean(dtype=np.float64)
    power = float(np.sum(x * x, dtype=np.float64)) * float(np.sum(y * y, dtype=np.float64))
    return float(np.sum(x * y, dtype=np.float64)) / math.sqrt(power) if power > 0 else math.nan


def qabf(fused: Float32[np.ndarray, "h w"], a: Float32[np.ndarray, "h w"], b: Float32[np.ndarray, "h w"]) -> float:
    """Edge preservation: (Σ QAF gA + Σ QBF gB) / (Σ gA + Σ gB), g the Sobel strength of a source.

    QSF = Γg / (1 + exp(κg (G − σg))) · Γα / (1 + exp(κα (A − σα))); G = min(gS, gF) / max(gS, gF);
    A = 1 − |αS − αF| / (π/2), α = atan(sy / sx) in (−π/2, π/2], differences not wrapped; Γg 0.9994, κg −15, σg 0.5,
    Γα 0.9879, κα −22, σα 0.8; weights gS to the power 1; zeros beyond the border, as the toolboxes' conv2 'same'.
    Range [0, 0.975): not 1 for F = A = B, because of the sigmoids; higher is better. Where gS = gF, G is 1 (toolboxes
    put gF there, which differs only for images in 0..1). NaN where both sources are constant at zero.
    Source: Xydeas, Petrović, Electronics Letters 36(4), 2000.
    """
    preserved, total = preserved_edges(edges(fused), [edges(a), edges(b)])
    return preserved / total if total else math.nan


def preserved_edges(fused: Edges, sources: Sequence[Edges]) -> tuple[float, float]:
    """Numerator and denominator of Qabf."""
    strength_f, angle_f = fused
    preserved_total = total = 0.0
    for strength, angle in sources:
        ratio = np.minimum(strength, strength_f)
        ratio /= np.maximum(np.maximum(strength, strength_f), np.float32(1e-12))
        aligned = cv2.absdiff(angle, angle_f)
        aligned *= np.float32(-2 / math.pi)
        aligned += 1
        preserved = _sigmoid(ratio, *STRENGTH)
        preserved *= _sigmoid(aligned, *ORIENTATION)
        preserved *= strength
        preserved_total += float(np.sum(preserved, dtype=np.float64))
        total += float(np.sum(strength, dtype=np.float64))
    return preserved_total, total


def edges(image: Plane, rim: int = 0) -> Edges:
    """Sobel strength and orientation in (−π/2, π/2], y upwards, without a rim of so many pixels."""
    sx = cv2.Sobel(image, cv2.CV_32F, 1, 0, borderType=cv2.BORDER_CONSTANT)
    sy = cv2.Sobel(image, cv2.CV_32F, 0, 1, scale=-1, borderType=cv2.BORDER_CONSTANT)
    height, width = image.shape
    sx, sy = (np.ascontiguousarray(s[rim : height - rim, rim : width - rim]) for s in (sx, sy))
    slope = np.divide(sy, sx, out=np.full_like(sx, np.inf), where=sx != 0)
    # Not cv2.magnitude, nor cv2.sumElems above: their last bits depend on the array's alignment in memory.
    return np.sqrt(sx * sx + sy * sy), np.arctan(slope)


def _sigmoid(x: Float32[np.ndarray, "h w"], gain: float, slope: float, centre: float) -> Float32[np.ndarray, "h w"]:
    """Γ / (1 + exp(κ (x − σ))), in place."""
    x -= np.float32(centre)
    x *= np.float32(slope)
    cv2.exp(x, dst=x)
    x += 1
    return np.divide(np.float32(gain), x, out=x)

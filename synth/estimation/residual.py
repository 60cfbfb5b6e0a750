"""Statistics of what a high-pass filter leaves: noise, its strength by brightness, its colour and its correlation."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32

from clearfuse.synth.estimation.tone import thinned

BLOCK = 8
SHARES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
LEVELS = 8
"""Bins of brightness in which the noise is measured."""
SCALES = 4

_CHECK = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / 6
"""Immerkær's mask, which edges that are straight do not pass, of unit gain for white noise (CVIU 64, 1996)."""

_SHIFTS = ((0, 1), (1, 0), (1, 1), (0, 2), (2, 0), (0, 4), (4, 0))


def block_spread(residual: np.ndarray) -> np.ndarray:
    """Root mean square by blocks of 8 × 8, as a plane."""
    h, w = (max(1, side // BLOCK) for side in residual.shape)
    return np.sqrt(cv2.resize(residual * residual, (w, h), interpolation=cv2.INTER_AREA)) + 1e-4


def residual_statistics(planes: Float32[np.ndarray, "h w c"], grey: Float32[np.ndarray, "h w"]) -> list[float]:
    """Noise at four scales, in chroma, between channels, by brightness, its correlation and its tails."""
    out: list[float] = []
    at = grey
    for scale in range(SCALES):
        rest = cv2.filter2D(at, -1, _CHECK)
        spread = block_spread(rest)
        out += np.log(np.quantile(spread, SHARES)).tolist()
        size = np.abs(rest)
        out += np.log(np.quantile(thinned(size), (0.2, 0.5, 0.9, 0.999)) + 1e-4).tolist()
        out.append(float(np.log(_fourth(rest) + 1e-3)))
        if scale == 0:
            out += _by_level(at, spread) + _correlation(rest, spread)
        h, w = (max(16, side // 2) for side in at.shape)
        at = cv2.resize(at, (w, h), interpolation=cv2.INTER_AREA)
    return out + _colour(planes, grey)


def _fourth(rest: np.ndarray) -> float:
    """The fourth moment over the square of the second."""
    square = rest * rest
    return float((square * square).mean() / (square.mean() ** 2 + 1e-12))


def _by_level(grey: np.ndarray, spread: np.ndarray) -> list[float]:
    """The lower quartile of the noise in the blocks of each level of brightness; that of all where there are few."""
    level = cv2.resize(grey, spread.shape[::-1], interpolation=cv2.INTER_AREA)
    usual = float(np.quantile(spread, 0.25))
    index = np.minimum((level * LEVELS).astype(int), LEVELS - 1)
    out: list[float] = []
    for one in range(LEVELS):
        found = spread[index == one]
        out.append(float(np.log(np.quantile(found, 0.25) / usual)) if found.size >= 6 else 0.0)
    return out


def _correlation(rest: np.ndarray, spread: np.ndarray) -> list[float]:
    """Correlation of the residual with itself, displaced, in the flatter half of the blocks."""
    flat = (spread <= np.median(spread)).astype(np.uint8)
    mask = cv2.resize(flat, rest.shape[::-1], interpolation=cv2.INTER_NEAREST).astype(np.float32)
    kept = rest * mask
    energy = float((kept * kept).sum()) + 1e-9
    return [float((kept[dy:, dx:] * kept[: len(kept) - dy, : kept.shape[1] - dx]).sum()) / energy for dy, dx in _SHIFTS]


def _colour(planes: np.ndarray, grey: np.ndarray) -> list[float]:
    """Noise of the differences of channels, and correlation of their residuals; zeros for one channel."""
    if planes.shape[2] == 1:
        return [0.0] * 14
    rests = [cv2.filter2D(np.ascontiguousarray(planes[..., i]), -1, _CHECK) for i in range(3)]
    flat = block_spread(rests[1])
    mask = cv2.resize((flat <= np.median(flat)).astype(np.uint8), grey.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    inside = [rest[mask] for rest in rests]
    norm = [float(np.sqrt((x * x).mean())) + 1e-5 for x in inside]
    pairs = ((0, 1), (1, 2))
    out = [float((inside[i] * inside[j]).mean()) / (norm[i] * norm[j]) for i, j in pairs]
    for i, j in pairs:
        chroma = np.ascontiguousarray(planes[..., i] - planes[..., j])
        for _ in range(2):
            spread = block_spread(cv2.filter2D(chroma, -1, _CHECK))
            out += np.log(np.quantile(spread, (0.1, 0.5, 0.9))).tolist()
            h, w = (max(16, side // 2) for side in chroma.shape)
            chroma = cv2.resize(chroma, (w, h), interpolation=cv2.INTER_AREA)
    return out

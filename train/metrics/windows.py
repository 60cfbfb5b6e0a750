"""Mutual information of 3×3 windows, in loops compiled by numba. Import it where it is used: numba is slow to load.

A window's features are read as a distribution p over nine positions: cdf are its cumulative sums, log its logarithms to
base 2; stats are its entropy, √Σ (p − 1/9)², and the standard deviation of the position.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float64
from numba import njit

POSITIONS = 9


def compiled(function: Callable[..., Any]) -> Any:
    """Decorator: compile ``function`` to machine code, cached beside the module if that folder is writable."""
    python_function: Any = inspect.unwrap(function)
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(python_function)
    except RuntimeError:  # no writable folder for the cache: each process compiles again
        return njit(nogil=True, error_model="numpy")(python_function)


def mean_information(
    fused: Float64[np.ndarray, "h w"], a: Float64[np.ndarray, "h w"], b: Float64[np.ndarray, "h w"], bounded: bool
) -> float:
    """The mean of 2 I / (H + H) over all 3×3 windows and both sources. bounded: limit φ to 1."""
    return _mean(np.stack([fused, a, b]), bounded, np.empty((3, 3, POSITIONS)), np.empty((3, 3)))


@compiled
def _shares(
    feature: Float64[np.ndarray, "h w"],
    y: int,
    x: int,
    p: Float64[np.ndarray, "9"],
    cdf: Float64[np.ndarray, "9"],
    log: Float64[np.ndarray, "9"],
    stats: Float64[np.ndarray, "3"],
) -> None:
    """Compute the distribution of a window into p, cdf, log and stats."""
    least, greatest = feature[y, x], feature[y, x]
    for j in range(3):
        for i in range(3):
            v = feature[y + i, x + j]
            p[3 * j + i] = v
            least = min(least, v)
            greatest = max(greatest, v)
    total = 0.0
    for n in range(POSITIONS):
        p[n] = p[n] - least if greatest > least else 1.0
        total += p[n]
    scale = 1 / total
    cumulative = entropy = spread = first = second = 0.0
    for n in range(POSITIONS):
        v = p[n] * scale
        p[n] = v
        cumulative += v
        cdf[n] = cumulative
        spread += (v - 1 / 9) * (v - 1 / 9)
        first += n * v
        second += n * n * v
        log[n] = math.log2(v) if v > 0 else 0.0
        entropy -= v * log[n]
    stats[0] = entropy
    stats[1] = math.sqrt(spread) if greatest > least else 0.0
    stats[2] = math.sqrt(max(second - first * first, 0.0))


@compiled
def _staircase(
    phi: float,
    share: float,
    upper: bool,
    p: Float64[np.ndarray, "9"],
    p_log: Float64[np.ndarray, "9"],
    p_cdf: Float64[np.ndarray, "9"],
    q: Float64[np.ndarray, "9"],
    q_log: Float64[np.ndarray, "9"],
    q_cdf: Float64[np.ndarray, "9"],
) -> float:
    """The entropy that the nonzero cells of the bound M, at most 17 of 81, add to that of (1 − φ) p q.

    M couples the positions of p in order with those of q, for the lower bound with those of q in reverse order.
    """
    entropy, start, i, j = 0.0, 0.0, 0, 0
    log_share = math.log2(abs(share)) if share != 0 else 0.0
    while i < POSITIONS and j < POSITIONS:
        k = j if upper else POSITIONS - 1 - j
        to_p = p_cdf[i]
        to_q = q_cdf[j] if upper else (1 - q_cdf[k - 1] if k > 0 else 1.0)
        end = min(to_p, to_q)
        mass = end - start
        if mass > 1e-15:
            product = share * p[i] * q[k]
            mixture = phi * mass + product
            if mixture != 0:
                entropy -= mixture * math.log2(abs(mixture))
            if product != 0:
                entropy += product * (log_share + p_log[i] + q_log[k])
            start = end
        if to_p <= end:
            i += 1
        if to_q <= end:
            j += 1
    return entropy


@compiled
def _information(
    k: int, bounded: bool, shares: Float64[np.ndarray, "3 3 9"], stats: Float64[np.ndarray, "3 3"]
) -> float:
    """2 I / (H + H) of the windows of the fused image, number 0, and of a source, number k."""
    p, p_cdf, p_log = shares[0, 0], shares[0, 1], shares[0, 2]
    q, q_cdf, q_log = shares[k, 0], shares[k, 1], shares[k, 2]
    total = stats[0, 0] + stats[k, 0]
    norms = stats[0, 1] * stats[k, 1]
    deviation = stats[0, 2] * stats[k, 2]
    if norms == 0 or deviation == 0 or total == 0:
        return 0.0
    c = bound = 0.0
    for n in range(POSITIONS):
        c += (p[n] - 1 / 9) * (q[n] - 1 / 9)
    c /= norms
    if c == 0:
        return 0.0
    for i in range(POSITIONS):
        for j in range(POSITIONS):
            if c > 0:
                bound += min(p_cdf[i], q_cdf[j])
            else:
                bound += max(p_cdf[i] + q_cdf[j] - 1, 0.0)
    bound -= p_cdf.sum() * q_cdf.sum()
    phi = c * deviation / bound if bound != 0 else 0.0
    if bounded:
        phi = min(phi, 1.0)
    share = 1 - phi
    joint = share * (total - math.log2(abs(share))) if share != 0 else 0.0
    joint += _staircase(phi, share, c > 0, p, p_log, p_cdf, q, q_log, q_cdf)
    return 2 * (total - joint) / total


@compiled
def _mean(
    features: Float64[np.ndarray, "3 h w"],
    bounded: bool,
    shares: Float64[np.ndarray, "3 3 9"],
    stats: Float64[np.ndarray, "3 3"],
) -> float:
    """The mean over all windows. shares: buffer for p, cdf and log by image; stats: buffer by image."""
    _, height, width = features.shape
    total = 0.0
    for y in range(height - 2):
        row = 0.0
        for x in range(width - 2):
            for k in range(3):
                _shares(features[k], y, x, shares[k, 0], shares[k, 1], shares[k, 2], stats[k])
            for k in range(1, 3):
                equal = True
                for i in range(3):
                    for j in range(3):
                        equal &= features[0, y + i, x + j] == features[k, y + i, x + j]
                row += 1.0 if equal else _information(k, bounded, shares, stats)
        total += row
    return total / (2.0 * (height - 2) * (width - 2))

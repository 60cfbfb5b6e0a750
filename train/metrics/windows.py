"""Mutual information of small windows, in compiled loops. Import it where it is used: it loads the compiler.

A window's features are taken for the shares p of nine places: cdf are their sums, log their logarithms to base 2; about
holds their entropy, √Σ (p − 1/9)², and the standard deviation of the place.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float64
from numba import njit

PLACES = 9


def compiled(function: Callable[..., Any]) -> Any:
    """``function`` in machine code, kept beside the module where that can be written."""
    plain: Any = inspect.unwrap(function)
    try:
        return njit(cache=True, nogil=True, error_model="numpy")(plain)
    except RuntimeError:  # no folder to keep the code in: each process compiles it
        return njit(nogil=True, error_model="numpy")(plain)


def mean_information(
    fused: Float64[np.ndarray, "h w"], a: Float64[np.ndarray, "h w"], b: Float64[np.ndarray, "h w"], bounded: bool
) -> float:
    """The mean over all 3×3 windows, and both sources, of 2 I / (H + H). bounded: φ is 1 at most."""
    return _mean(np.stack([fused, a, b]), bounded, np.empty((3, 3, PLACES)), np.empty((3, 3)))


@compiled
def _shares(
    feature: Float64[np.ndarray, "h w"],
    y: int,
    x: int,
    p: Float64[np.ndarray, "9"],
    cdf: Float64[np.ndarray, "9"],
    log: Float64[np.ndarray, "9"],
    about: Float64[np.ndarray, "3"],
) -> None:
    """Fill in what a window is."""
    least, most = feature[y, x], feature[y, x]
    for j in range(3):
        for i in range(3):
            v = feature[y + i, x + j]
            p[3 * j + i] = v
            least = min(least, v)
            most = max(most, v)
    whole = 0.0
    for n in range(PLACES):
        p[n] = p[n] - least if most > least else 1.0
        whole += p[n]
    scale = 1 / whole
    run = entropy = spread = first = second = 0.0
    for n in range(PLACES):
        v = p[n] * scale
        p[n] = v
        run += v
        cdf[n] = run
        spread += (v - 1 / 9) * (v - 1 / 9)
        first += n * v
        second += n * n * v
        log[n] = math.log2(v) if v > 0 else 0.0
        entropy -= v * log[n]
    about[0] = entropy
    about[1] = math.sqrt(spread) if most > least else 0.0
    about[2] = math.sqrt(max(second - first * first, 0.0))


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
    """What the places that the bound M fills add to the entropy of (1 − φ) p q alone: 17 of 81 at most.

    M couples p's places in their order with q's in theirs, or for the lower bound with q's in the opposite one.
    """
    added, done, i, j = 0.0, 0.0, 0, 0
    log_share = math.log2(abs(share)) if share != 0 else 0.0
    while i < PLACES and j < PLACES:
        k = j if upper else PLACES - 1 - j
        to_p = p_cdf[i]
        to_q = q_cdf[j] if upper else (1 - q_cdf[k - 1] if k > 0 else 1.0)
        until = min(to_p, to_q)
        mass = until - done
        if mass > 1e-15:
            alone = share * p[i] * q[k]
            both = phi * mass + alone
            if both != 0:
                added -= both * math.log2(abs(both))
            if alone != 0:
                added += alone * (log_share + p_log[i] + q_log[k])
            done = until
        if to_p <= until:
            i += 1
        if to_q <= until:
            j += 1
    return added


@compiled
def _information(
    k: int, bounded: bool, shares: Float64[np.ndarray, "3 3 9"], about: Float64[np.ndarray, "3 3"]
) -> float:
    """2 I / (H + H) of the fused image's window, the first, and a source's, the k-th."""
    p, p_cdf, p_log = shares[0, 0], shares[0, 1], shares[0, 2]
    q, q_cdf, q_log = shares[k, 0], shares[k, 1], shares[k, 2]
    whole = about[0, 0] + about[k, 0]
    product = about[0, 1] * about[k, 1]
    deviation = about[0, 2] * about[k, 2]
    if product == 0 or deviation == 0 or whole == 0:
        return 0.0
    c = bound = 0.0
    for n in range(PLACES):
        c += (p[n] - 1 / 9) * (q[n] - 1 / 9)
    c /= product
    if c == 0:
        return 0.0
    for i in range(PLACES):
        for j in range(PLACES):
            if c > 0:
                bound += min(p_cdf[i], q_cdf[j])
            else:
                bound += max(p_cdf[i] + q_cdf[j] - 1, 0.0)
    bound -= p_cdf.sum() * q_cdf.sum()
    phi = c * deviation / bound if bound != 0 else 0.0
    if bounded:
        phi = min(phi, 1.0)
    share = 1 - phi
    together = share * (whole - math.log2(abs(share))) if share != 0 else 0.0
    together += _staircase(phi, share, c > 0, p, p_log, p_cdf, q, q_log, q_cdf)
    return 2 * (whole - together) / whole


@compiled
def _mean(
    features: Float64[np.ndarray, "3 h w"],
    bounded: bool,
    shares: Float64[np.ndarray, "3 3 9"],
    about: Float64[np.ndarray, "3 3"],
) -> float:
    """The mean. shares: p, cdf and log by image; about: by image; both to be filled."""
    _, height, width = features.shape
    total = 0.0
    for y in range(height - 2):
        row = 0.0
        for x in range(width - 2):
            for k in range(3):
                _shares(features[k], y, x, shares[k, 0], shares[k, 1], shares[k, 2], about[k])
            for k in range(1, 3):
                equal = True
                for i in range(3):
                    for j in range(3):
                        equal &= features[0, y + i, x + j] == features[k, y + i, x + j]
                row += 1.0 if equal else _information(k, bounded, shares, about)
        total += row
    return total / (2.0 * (height - 2) * (width - 2))

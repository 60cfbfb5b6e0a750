"""Attention within windows on a processor: one compiled loop from the image's own layout to it.

Windows are small, 64 tokens in heads of ten channels, and a library's attention spends its time between them. Here a
head of a window stays in the first cache from scores to result, all queries side by side in vector registers, and no
token is moved to lay windows out.
"""

from __future__ import annotations

import functools
import inspect
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float32
from numba import njit

Features = Float32[np.ndarray, "B H W C"]

LOG2E = 1.4426950408889634

TOKENS = 64
"""Of a window: the loops are compiled for this number."""


def window_attention(
    q: Features, k: Features, v: Features, bias: Float32[np.ndarray, "kinds h 64 64"], shift: int, threads: int
) -> Features:
    """softmax(q kᵀ/√d + bias) v in each window and head; windows begin ``shift`` columns further, and wrap.

    bias: [kind, head, key, query] times ``LOG2E``; the last kind is for windows of the last column, the first for all
    others. H and W are multiples of 8.
    """
    out = np.empty(q.shape, np.float32)
    windows = q.shape[0] * q.shape[1] * q.shape[2] // TOKENS
    share = max(1, -(-windows // threads))
    parts = [(first, min(first + share, windows)) for first in range(0, windows, share)]
    if len(parts) == 1:
        _windows(q, k, v, bias, shift, 0, windows, out)
    else:
        list(_pool(os.getpid(), threads).map(lambda part: _windows(q, k, v, bias, shift, *part, out), parts))
    return out


@functools.cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    del process  # a forked one has none of its parent's threads
    return ThreadPoolExecutor(threads)


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """``function`` compiled for one thread at its first call.

    Products may be fused with sums. Sums keep their order: all loops that matter run along queries.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    plain: Any = inspect.unwrap(function)
    try:
        return njit(cache=True, **options)(plain)
    except RuntimeError:  # no folder to keep the code in: each process compiles it
        return njit(**options)(plain)


@compiled
def _scores(keys: np.ndarray, queries: np.ndarray, bias: np.ndarray, s: np.ndarray, most: np.ndarray) -> None:
    """s[key, query] = k · q + bias, and the largest of each query."""
    depth = keys.shape[1]
    for n in range(TOKENS):
        most[n] = np.float32(-3e38)
    for m in range(TOKENS):
        s_m, b_m = s[m], bias[m]
        for d in range(0, depth, 5):
            k0, k1, k2, k3, k4 = keys[m, d], keys[m, d + 1], keys[m, d + 2], keys[m, d + 3], keys[m, d + 4]
            q0, q1, q2, q3, q4 = queries[d], queries[d + 1], queries[d + 2], queries[d + 3], queries[d + 4]
            if d == 0:
                for n in range(TOKENS):
                    s_m[n] = b_m[n] + (k0 * q0[n] + k1 * q1[n] + k2 * q2[n] + k3 * q3[n] + k4 * q4[n])
            else:
                for n in range(TOKENS):
                    s_m[n] += k0 * q0[n] + k1 * q1[n] + k2 * q2[n] + k3 * q3[n] + k4 * q4[n]
    for m in range(0, TOKENS, 4):
        s0, s1, s2, s3 = s[m], s[m + 1], s[m + 2], s[m + 3]
        for n in range(TOKENS):
            x = s0[n] if s0[n] > s1[n] else s1[n]
            y = s2[n] if s2[n] > s3[n] else s3[n]
            x, y = x if x > y else y, most[n]
            most[n] = x if x > y else y


@compiled
def _softmax(s: np.ndarray, most: np.ndarray, total: np.ndarray, scratch: np.ndarray, bits: np.ndarray) -> None:
    """s becomes 2^(s − most), and ``total`` its sum over the keys.

    2^x = 2^n 2^f with n the nearest whole number: n, added to 1.5 · 2^23, stands in that float's low bits, from where
    it is moved to an exponent's; 2^f on [−½, ½] by a polynomial within 2e-7. ``bits`` is ``scratch`` as integers.
    """
    magic, least = np.float32(12582912.0), np.float32(-126)
    for n in range(TOKENS):
        total[n] = np.float32(0)
    for m in range(TOKENS):
        s_m = s[m]
        for n in range(TOKENS):
            x = s_m[n] - most[n]
            x = x if x > least else least
            y = x + magic
            scratch[n] = y
            f = x - (y - magic)
            p = np.float32(0.00133273531) + f * np.float32(0.000154697)
            p = np.float32(0.0555032981) + f * (np.float32(0.00961834225) + f * p)
            s_m[n] = np.float32(1) + f * (np.float32(0.693147182) + f * (np.float32(0.240226462) + f * p))
        for n in range(TOKENS):
            bits[n] = (bits[n] << np.int32(23)) + np.int32(127 << 23)
        for n in range(TOKENS):
            p = s_m[n] * scratch[n]
            s_m[n] = p
            total[n] += p


@compiled
def _weigh(values: np.ndarray, s: np.ndarray, answers: np.ndarray) -> None:
    """answers[channel, query] = Σ over keys of v s; keys are a multiple of four."""
    depth = values.shape[1]
    for d in range(depth):
        a_d = answers[d]
        for n in range(TOKENS):
            a_d[n] = np.float32(0)
        for m in range(0, TOKENS, 4):
            v0, v1, v2, v3 = values[m, d], values[m + 1, d], values[m + 2, d], values[m + 3, d]
            s0, s1, s2, s3 = s[m], s[m + 1], s[m + 2], s[m + 3]
            for n in range(TOKENS):
                a_d[n] += v0 * s0[n] + v1 * s1[n] + v2 * s2[n] + v3 * s3[n]


@compiled
def _windows(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, bias: np.ndarray, shift: int, first: int, last: int, out: np.ndarray
) -> None:
    """Windows ``first`` to ``last``, counted along rows, then down, then over the batch."""
    _, height, width, channels = q.shape
    kinds, heads = bias.shape[:2]
    size = int(math.sqrt(TOKENS))
    across, down = width // size, height // size
    depth = channels // heads
    scale = np.float32(LOG2E / math.sqrt(depth))  # 2^x is cheaper than e^x
    filled = -(-depth // 5) * 5  # five products at a time, of zeros where there are no channels
    queries, keys = np.zeros((filled, TOKENS), np.float32), np.zeros((TOKENS, filled), np.float32)
    values, answers = np.empty((TOKENS, depth), np.float32), np.empty((depth, TOKENS), np.float32)
    s, most, total = np.empty((TOKENS, TOKENS), np.float32), np.empty(TOKENS, np.float32), np.empty(TOKENS, np.float32)
    scratch = np.empty(TOKENS, np.float32)
    for window in range(first, last):
        b, i, j = window // (across * down), window // across % down, window % across
        kind = kinds - 1 if j == across - 1 else 0
        for h in range(heads):
            for t in range(TOKENS):
                y, x = i * size + t // size, (j * size + t % size + shift) % width
                q_t, k_t, v_t = q[b, y, x], k[b, y, x], v[b, y, x]
                for d in range(depth):
                    queries[d, t] = q_t[h * depth + d] * scale
                    keys[t, d] = k_t[h * depth + d]
                    values[t, d] = v_t[h * depth + d]
            _scores(keys, queries, bias[kind, h], s, most)
            _softmax(s, most, total, scratch, scratch.view(np.int32))
            _weigh(values, s, answers)
            for t in range(TOKENS):
                y, x = i * size + t // size, (j * size + t % size + shift) % width
                o_t, share = out[b, y, x], np.float32(1) / total[t]
                for d in range(depth):
                    o_t[h * depth + d] = answers[d, t] * share

"""Blocks of windowed attention on a processor: one compiled loop takes a window through all of a block.

Windows are small, 64 tokens of 60 channels, and a library's products, norms and attention spend their time between
them, moving what one wrote to where the next reads it. Here a window stays in the nearest caches from the first norm to
the last sum; tokens lie side by side in vectors, so that nothing is summed across a vector.

Weights of a block, flat: query, key, value, projection, first and second of the MLP, each in packs of five rows with
the rows of a pack side by side, then their biases. Norms' weights and the scale of the scores are within them.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Float32
from numba import njit

from clearfuse.synth.fusers.cpu.vectors import (
    LANES,
    TILE,
    exponentials,
    gelu,
    normal,
    product4,
    product5,
    product5_spread,
)

Features = Float32[np.ndarray, "B H W C"]
Weights = Float32[np.ndarray, " n"]
Bias = Float32[np.ndarray, "kinds h 64 64"]

SIDE = 8
"""Tokens along a side of a window: the loops are compiled for 64."""
ROWS = 5
"""Rows of a pack."""


def fits(channels: int, heads: int, hidden: int, side: int) -> bool:
    """Whether the compiled loops can carry out a block of these sizes."""
    return side == SIDE and channels % (ROWS * heads) == 0 and hidden % ROWS == 0


def pack(
    layers: Sequence[tuple[Float32[np.ndarray, "_ _"], Float32[np.ndarray, " _"]]],
) -> Weights:
    """(matrix, bias) of a block's six layers as the loops read them."""
    matrices = [w.reshape(len(w) // ROWS, ROWS, -1).transpose(0, 2, 1).ravel() for w, _ in layers]
    return np.ascontiguousarray(np.concatenate([*matrices, *(b for _, b in layers)]), np.float32)


def run_block(
    images: Sequence[Features], weights: Sequence[Weights], biases: Sequence[Bias], *, shift: int, threads: int
) -> None:
    """A block over one image, or over two that attend to each other, in place.

    Windows begin ``shift`` tokens further down and right, and wrap. biases: [kind, head, key, query] times log2 e;
    kinds: one, or four for a shifted block, of inner windows, the last column's, the last row's, the corner's.
    """
    first, second = images[0], images[-1]
    w, v, p, q = weights[0], weights[-1], biases[0], biases[-1]
    count = first.shape[0] * first.shape[1] * first.shape[2] // LANES
    share = max(1, -(-count // (threads * 4)))
    parts = [(start, min(start + share, count)) for start in range(0, count, share)]

    def run(part: tuple[int, int]) -> None:
        if len(images) == 1:
            _alone(first, w, p, shift, *part)
        else:
            _across(first, second, w, v, p, q, shift, *part)

    if threads == 1:
        run((0, count))
    else:
        list(_pool(os.getpid(), threads).map(run, parts))


@functools.cache
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    del process  # a forked one has none of its parent's threads
    return ThreadPoolExecutor(threads)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` compiled at its first call; sums keep their order."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    plain: Any = inspect.unwrap(function)
    try:
        return njit(cache=True, **options)(plain)
    except RuntimeError:  # no folder to keep the code in: each process compiles it
        return njit(**options)(plain)


@compiled
def _move(image: np.ndarray, x: np.ndarray, window: int, shift: int, back: bool) -> int:
    """A window's tokens from the image to the rows of x, or back. Its kind."""
    height, width, channels = image.shape[1:]
    across, down = width // SIDE, height // SIDE
    b, i, j = window // (across * down), window // across % down, window % across
    for t in range(LANES):
        token = image[b, (i * SIDE + t // SIDE + shift) % height, (j * SIDE + t % SIDE + shift) % width]
        if back:
            for c in range(channels):
                token[c] = x[c * LANES + t]
        else:
            for c in range(channels):
                x[c * LANES + t] = token[c]
    return 2 * (i == down - 1) + (j == across - 1)


@compiled
def _linear(w: np.ndarray, w0: int, b0: int, x: np.ndarray, out: np.ndarray, rows: int, depth: int) -> None:
    """out = W x + b; W from w0 and b from b0 of the weights."""
    for c in range(0, rows, ROWS):
        for n in range(0, LANES, TILE):
            product5_spread(w, w0 + c * depth, 1, ROWS, x, n, w, b0 + c, out, c * LANES + n, depth)


@compiled
def _add_linear(w: np.ndarray, w0: int, b0: int, x: np.ndarray, out: np.ndarray, rows: int, depth: int) -> None:
    """out += W x + b."""
    for c in range(rows):
        b = w[b0 + c]
        for n in range(c * LANES, (c + 1) * LANES):
            out[n] += b
    for c in range(0, rows, ROWS):
        for n in range(0, LANES, TILE):
            product5(w, w0 + c * depth, 1, ROWS, x, n, out, c * LANES + n, out, c * LANES + n, depth)


@compiled
def _attend(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, bias: np.ndarray, s: np.ndarray, total: np.ndarray, out: np.ndarray
) -> None:
    """softmax(q kᵀ + bias) v, head by head, some queries at a time. bias: of the window's kind, flat."""
    heads = len(bias) // (LANES * LANES)
    depth = len(q) // LANES // heads
    for h in range(heads):
        head = h * depth * LANES
        for n in range(0, LANES, TILE):
            for m in range(0, LANES, 4):
                row = m * LANES + n
                product4(k, head + m, 1, LANES, q, head + n, bias, h * LANES * LANES + row, s, row, depth)
            exponentials(s, n, LANES, total)
            for r in range(0, depth, ROWS):
                place = head + r * LANES + n
                for c in range(place, place + ROWS * LANES, LANES):
                    for lane in range(c, c + TILE):
                        out[lane] = np.float32(0)
                product5(v, head + r * LANES, LANES, 1, s, n, out, place, out, place, LANES)
        for n in range(LANES):
            total[n] = np.float32(1) / total[n]
        for r in range(depth):
            for n in range(LANES):
                out[head + r * LANES + n] *= total[n]


@compiled
def _feed(w: np.ndarray, at: int, biases: int, x: np.ndarray, u: np.ndarray, hidden: np.ndarray) -> None:
    """x += W₂ gelu(W₁ norm x); W₁ begins at ``at``, its bias at ``biases``."""
    channels, wide = len(x) // LANES, len(hidden) // LANES
    normal(x, u, channels)
    _linear(w, at, biases, u, hidden, wide, channels)
    gelu(hidden, wide)
    _add_linear(w, at + wide * channels, biases + wide, hidden, x, channels, wide)


@compiled
def _attention(
    w: np.ndarray,
    base: int,
    u: np.ndarray,
    v: np.ndarray,
    bias: np.ndarray,
    x: np.ndarray,
    rows: np.ndarray,
    s: np.ndarray,
    total: np.ndarray,
) -> None:
    """x += projection of the attention of u's queries to v's keys and values. rows: room for four of x's size."""
    size = len(x)
    c = size // LANES
    q, key, value, out = rows[:size], rows[size : 2 * size], rows[2 * size : 3 * size], rows[3 * size : 4 * size]
    _linear(w, 0, base, u, q, c, c)
    _linear(w, c * c, base + c, v, key, c, c)
    _linear(w, 2 * c * c, base + 2 * c, v, value, c, c)
    _attend(q, key, value, bias, s, total, out)
    _add_linear(w, 3 * c * c, base + 3 * c, out, x, c, c)


@compiled
def _hidden(weights: int, channels: int) -> int:
    """Width of the MLP: a block has 4 C² + 2 C h weights and 5 C + h biases."""
    return (weights - 4 * channels * channels - 5 * channels) // (2 * channels + 1)


@compiled
def _alone(image: np.ndarray, w: np.ndarray, bias: np.ndarray, shift: int, first: int, last: int) -> None:
    """Windows ``first`` to ``last`` through a block: x + attention(norm x), then x + mlp(norm x)."""
    c = image.shape[3]
    wide = _hidden(len(w), c)
    base = 4 * c * c + 2 * c * wide
    x, u = np.empty(c * LANES, np.float32), np.empty(c * LANES, np.float32)
    hidden, rows = np.empty(wide * LANES, np.float32), np.empty(4 * c * LANES, np.float32)
    s, total = np.empty(LANES * LANES, np.float32), np.empty(LANES, np.float32)
    for window in range(first, last):
        kind = _move(image, x, window, shift, False)
        normal(x, u, c)
        _attention(w, base, u, u, bias[kind if len(bias) > 1 else 0].reshape(-1), x, rows, s, total)
        _feed(w, 4 * c * c, base + 4 * c, x, u, hidden)
        _move(image, x, window, shift, True)


@compiled
def _across(
    image: np.ndarray,
    other: np.ndarray,
    w: np.ndarray,
    w_other: np.ndarray,
    bias: np.ndarray,
    bias_other: np.ndarray,
    shift: int,
    first: int,
    last: int,
) -> None:
    """As ``_alone`` for two images; the queries are an image's own, keys and values are the other's."""
    c = image.shape[3]
    wide = _hidden(len(w), c)
    base = 4 * c * c + 2 * c * wide
    x, y = np.empty(c * LANES, np.float32), np.empty(c * LANES, np.float32)
    u, v = np.empty(c * LANES, np.float32), np.empty(c * LANES, np.float32)
    hidden, rows = np.empty(wide * LANES, np.float32), np.empty(4 * c * LANES, np.float32)
    s, total = np.empty(LANES * LANES, np.float32), np.empty(LANES, np.float32)
    for window in range(first, last):
        kind = _move(image, x, window, shift, False)
        _move(other, y, window, shift, False)
        kind = kind if len(bias) > 1 else 0
        normal(x, u, c)
        normal(y, v, c)
        _attention(w, base, u, v, bias[kind].reshape(-1), x, rows, s, total)
        _attention(w_other, base, v, u, bias_other[kind].reshape(-1), y, rows, s, total)
        _feed(w, 4 * c * c, base + 4 * c, x, u, hidden)
        _feed(w_other, 4 * c * c, base + 4 * c, y, u, hidden)
        _move(image, x, window, shift, True)
        _move(other, y, window, shift, True)

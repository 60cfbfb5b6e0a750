"""Foliage: trees and bushes drawn leaf by leaf, once per process, as sprites with premultiplied coverage."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from clearfuse.synth.seeds import generator, seed_of

TREES = 6
BUSHES = 4


def _leaves(
    rng: np.random.Generator, canvas: np.ndarray, blobs: np.ndarray, count: int, size: float, sun: tuple[float, float]
) -> None:
    """Draw leaves in clusters (x, y, radius): those in the back first and darker, those facing the sun brighter."""
    which = rng.integers(0, len(blobs), count)
    angle, radius = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(0, 1, count))
    offset = np.stack([np.cos(angle), np.sin(angle)], -1) * radius[:, None]
    centre = blobs[which, :2] + offset * blobs[which, 2:3]
    depth = np.sort(rng.uniform(0, 1, count))
    middle, extent = blobs[:, :2].mean(0), np.abs(blobs[:, :2] - blobs[:, :2].mean(0)).max() + blobs[:, 2].mean()
    whole = ((centre - middle) @ np.array(sun)) / extent
    tone = (
        0.16
        + 0.5 * depth**1.5
        + 0.3 * (offset @ np.array(sun)) * depth
        + 0.24 * whole
        + 0.13 * rng.standard_normal(count)
    )
    tone = np.clip(tone, 0.06, 1.25)
    hue = rng.normal(0, 0.07, count)
    turn, length = rng.uniform(0, np.pi, count), size * rng.uniform(0.7, 1.4, count)
    shape = np.array([[-1, 0], [-0.3, 0.42], [0.5, 0.36], [1, 0], [0.5, -0.36], [-0.3, -0.42]])
    c, s = np.cos(turn) * length, np.sin(turn) * length
    points = shape @ np.stack([np.stack([c, s], -1), np.stack([-s, c], -1)], 1) + centre[:, None]
    fixed = np.rint(points * 16).astype(np.int32)
    value = 180 * np.sqrt(tone)[:, None] * np.stack([1 + hue, np.ones(count), 1 - 0.4 * hue, np.ones(count)], -1)
    value = value.clip(0, 255)
    value[:, 3] = 255
    for leaf, colour in zip(fixed, value.tolist(), strict=True):
        cv2.fillConvexPoly(canvas, leaf, colour, cv2.LINE_AA, 4)


def _finish(canvas: np.ndarray) -> tuple[np.ndarray, ...]:
    """From 8-bit square-root codes to linear factors, both premultiplied; cropped to the content, with mip levels."""
    rows, cols = np.flatnonzero(canvas[..., 3].any(1)), np.flatnonzero(canvas[..., 3].any(0))
    cut = canvas[rows[0] :, cols[0] : cols[-1] + 1].astype(np.float32) / 255
    cover = cut[..., 3:]
    colour = (cut[..., :3] / np.maximum(cover, 1e-3)) ** 2 * 2
    out = np.concatenate([colour * cover, cover], -1).astype(np.float32)
    levels = [out]
    while min(levels[-1].shape[:2]) > 8:
        h, w = levels[-1].shape[:2]
        levels.append(cv2.resize(levels[-1], (w // 2, h // 2), interpolation=cv2.INTER_AREA))
    for level in levels:
        level.setflags(write=False)
    return tuple(levels)


def _branch(
    rng: np.random.Generator, canvas: np.ndarray, at: np.ndarray, angle: float, length: float, width: float, left: int
):
    tip = at + length * np.array([np.cos(angle), -np.sin(angle)])
    tone = rng.uniform(70, 95)
    side = np.array([np.sin(angle), np.cos(angle)]) * width / 2
    points = np.array([at - side, at + side, tip + side * 0.65, tip - side * 0.65])
    cv2.fillPoly(
        canvas, [np.rint(points * 16).astype(np.int32)], (tone * 1.3, tone * 0.8, tone * 1.15, 255), cv2.LINE_AA, 4
    )
    if left:
        for turn in (rng.uniform(0.2, 0.6), -rng.uniform(0.2, 0.6)):
            _branch(rng, canvas, tip, angle + turn, length * rng.uniform(0.5, 0.66), width * 0.6, left - 1)


@cache
def tree(number: int) -> tuple[np.ndarray, ...]:
    """The mip levels of a tree, each (h, w, 4), as wide as its crown. Number 4: a conifer, 5: slender, else broad."""
    rng = generator(seed_of("tree", number))
    canvas = np.zeros((640, 512, 4), np.uint8)
    foot = np.array([256.0, 639.0])
    if number == 4:
        _branch(rng, canvas, foot, np.pi / 2, 200, 20, 0)
        y = rng.uniform(0, 1, 90) ** 0.7
        blobs = np.stack([256 + (y * 130 + 8) * rng.uniform(-1, 1, 90), 40 + y * 500, 14 + 20 * y], -1)
        _leaves(rng, canvas, blobs, 5200, 4.6, (-0.6, -0.8))
        return _finish(canvas)
    slender = number == 5
    _branch(rng, canvas, foot, np.pi / 2 + rng.uniform(-0.06, 0.06), 205, 24 if slender else 32, 3)
    count = 44
    angle, radius = rng.uniform(0, 2 * np.pi, count), rng.uniform(0, 1, count) ** 0.6
    width, height = (85, 235) if slender else (178, 158)
    middle = 290 if slender else 225
    blobs = np.stack(
        [
            256 + width * radius * np.cos(angle),
            middle + height * radius * np.sin(angle),
            rng.uniform(24, 66, count) * (1.15 - 0.5 * radius),
        ],
        -1,
    )
    _leaves(rng, canvas, blobs, 11000, 4.4, (-0.6, -0.8))
    return _finish(canvas)


@cache
def bush(number: int) -> tuple[np.ndarray, ...]:
    """The mip levels of a bush or, number 3, of a house plant with long leaves."""
    rng = generator(seed_of("bush", number))
    canvas = np.zeros((320, 400, 4), np.uint8)
    if number == 3:
        for angle in np.sort(rng.uniform(0.15, 0.85, 34) * np.pi)[rng.permutation(34)]:
            length, bend = rng.uniform(130, 270), rng.uniform(0.2, 0.9)
            t = np.linspace(0, 1, 9)
            x = 200 + length * t * np.cos(angle) * (0.8 + 0.4 * t)
            y = 316 - length * (t * np.sin(angle) - bend * 0.45 * t**2)
            half = 13 * np.sin(np.pi * (0.12 + 0.88 * t)) + 1
            outline = np.concatenate([np.stack([x - half, y], -1), np.stack([x + half, y], -1)[::-1]])
            value = rng.uniform(85, 190)
            colour = (value * rng.uniform(0.85, 1.0), value, value * 0.85, 255)
            cv2.fillPoly(canvas, [np.rint(outline * 16).astype(np.int32)], colour, cv2.LINE_AA, 4)
        return _finish(canvas)
    count = 16
    blobs = np.stack([rng.uniform(60, 340, count), rng.uniform(110, 290, count), rng.uniform(30, 58, count)], -1)
    blobs[:, 1] += 0.25 * np.abs(blobs[:, 0] - 200)
    _leaves(rng, canvas, blobs, 3600, 5.6, (-0.6, -0.8))
    canvas[300:] = 0
    return _finish(canvas[:300])

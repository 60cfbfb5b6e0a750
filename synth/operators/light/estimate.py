"""The light of a scene estimated from one linear image: airlight, night or day, and lamps."""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from clearfuse.synth import color
from clearfuse.synth.operators import kernels
from clearfuse.synth.operators.light.ambient import NEAREST, SKY, SKY_PATH, Frame, Lamps, Light

ANALYSIS_WIDTH = 96
"""Longest side, in pixels, of the image on which the airlight and the ambient light are estimated."""
NIGHT = (0.022, 0.05)
"""Median luminance below which a frame counts as lit by lamps alone, and above which by the sky."""
SHOULDER = 0.8
"""Linear value, code 231, from which a channel may be compressed on its way to the clip."""
LAMP = (10.0, 50.0)
"""Radiance of lamps relative to the clipped value, for a point and from ``LAMP_RADIUS`` on."""
LAMP_RADIUS = 6.0
"""Radius in pixels of a frame 640 wide from which a lamp has the greater radiance of ``LAMP``."""
LAMP_AREA = 0.004
"""Share of the frame from which a clipped region is more likely a lit surface than a lamp."""


def estimate_light(image: Frame, depth: Float[np.ndarray, "h w"] | None, night: float | None = None) -> Light:
    """Estimate the airlight, after the dark channel prior (He, Sun and Tang 2011), and the ambient light.

    depth: metres; None where unknown. Candidates are the sky where there is one, else
    distant pixels with a bright dark channel. The estimate is limited to 1.5 to 4.5 times the mean light, since air
    only scatters the available light. Haze is greyer than the scene, so its colour is partly desaturated.
    night: as ``Light.night`` where it is known from elsewhere; None: told by ``darkness``.
    """
    small = shrink(image)
    small_size = small.shape[1::-1]
    if depth is None:
        far = np.ones(small.shape[:2], np.float32)
    else:
        sampled = cv2.resize(depth, small_size, interpolation=cv2.INTER_NEAREST)
        far = np.minimum(np.fmax(sampled, np.float32(NEAREST)), np.float32(SKY_PATH)).astype(np.float32, copy=False)
    luminance = color.luma(small)
    bright = float(np.partition(luminance, rank := int(0.98 * (luminance.size - 1)), axis=None)[rank])
    mean = float(np.minimum(luminance, bright).mean())
    night = darkness(luminance) if night is None else night
    candidates = far.ravel() >= SKY
    if np.count_nonzero(candidates) <= 0.01 * far.size:
        dark = cv2.erode(color.channel_minimum(small), np.ones((7, 7), np.uint8)).ravel()
        score = dark * (0.25 + far.ravel() / far.max())
        candidates = score >= np.quantile(score, 0.98)
    chosen = small.reshape(-1, small.shape[2])[np.nonzero(candidates)[0]]
    estimate = np.array([upper_median(plane) for plane in chosen.T], np.float64)
    level = float(estimate.mean())
    limited = min(max(level, 1.5 * mean), 4.5 * mean, 0.95)
    chroma = 1 + 0.6 * (np.clip(estimate / max(level, 1e-6), 0.5, 1.5) - 1)
    lamps = None if night == 0 else find_lamps(image, depth, night, small.shape[:2])
    return Light((limited * chroma).astype(np.float32), mean, bright, night, small, far, lamps)


def shrink(image: Frame) -> Float32[np.ndarray, "sh sw c"]:
    """The image on the grid of cells."""
    h, w = image.shape[:2]
    scale = min(1.0, ANALYSIS_WIDTH / max(h, w))
    small = np.empty((max(1, round(h * scale)), max(1, round(w * scale)), image.shape[2]), np.float32)
    kernels.shrink(image, small)
    return small


def upper_median(values: Float32[np.ndarray, "*s"]) -> float:
    """The upper of the two middle values, or the middle one."""
    return float(np.partition(values, values.size // 2, axis=None)[values.size // 2])


def darkness(luminance: Float32[np.ndarray, "h w"]) -> float:
    """How far a frame was taken at night: 0 by day, 1 where only lamps light the scene.

    By the median m of the luminance, which lamps hardly change: it is lowered towards half where m is less than half of
    the mean (few bright things in the dark), and 0 where the upper quarter of the frame is mostly brighter than the
    mean (a sky). Of 56 real nights and 55 real days all but two have 1 and 0: a night of 0.95 and, at dusk, a day of
    0.28.
    """
    values = np.minimum(luminance, 1)
    mean, median, top = float(values.mean()), upper_median(values), upper_median(values[: max(len(values) // 4, 1)])
    median *= min(max(2 * median / max(mean, 1e-9), 0.5), 1.0)
    median /= max(min((1.2 - top / max(mean, 1e-9)) / 0.5, 1.0), 1e-9)
    return min(max(math.log(NIGHT[1] / max(median, 1e-9)) / math.log(NIGHT[1] / NIGHT[0]), 0.0), 1.0)


def find_lamps(
    image: Frame, depth: Float[np.ndarray, "h w"] | None, night: float, cells: tuple[int, int]
) -> Lamps | None:
    """The lamps of a frame and the light that the camera could not record.

    A clipped region of area A is a lamp with the likelihood p = 1 / (1 + (A / A_0)²), A_0 = ``LAMP_AREA`` of the frame:
    larger ones are lit walls and windows. Its radiance rises from the recorded one at the rim to
    1 + p s (F − 1) times it in the middle, F between the two of ``LAMP`` by its size, times the degree of night. The
    share s is how far the channels are above ``SHOULDER``, the brightest, and at the clip, on average: a white lamp has
    more than a coloured sign. A lamp in front of the sky is as far as the next thing below it, on which it stands.
    """
    h, w, c = image.shape
    mask = above(image, SHOULDER)
    at = np.flatnonzero(mask)
    if not at.size:
        return None
    count, labels, stats, centres = cv2.connectedComponentsWithStats(mask, connectivity=8, ltype=cv2.CV_32S)
    label = labels.ravel()[at]
    area = stats[:, cv2.CC_STAT_AREA].astype(np.float64)
    inside = cv2.distanceTransform(cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_REPLICATE), cv2.DIST_L2, 3)
    inside = inside[1:-1, 1:-1].ravel()[at]
    deepest = np.ones(count, np.float32)
    np.maximum.at(deepest, label, inside)
    likely = 1 / (1 + (area / (LAMP_AREA * h * w)) ** 2)
    radius = np.sqrt(area / math.pi) * 640 / max(h, w)
    factor = LAMP[0] + (LAMP[1] - LAMP[0]) * np.minimum(radius / LAMP_RADIUS, 1)
    more = (night * likely * (factor - 1))[label] * np.minimum(inside / deepest[label], 1)
    values = image.reshape(-1, c)[at]
    clipped = np.minimum((values.max(axis=1) - SHOULDER) / (1 - SHOULDER), 1) * (np.minimum(values, 1) ** 2).mean(
        axis=1
    )
    more = (more * clipped).astype(np.float32)
    distance = np.ones(at.size, np.float32) if depth is None else _distances(depth, at, label, centres)
    rows, columns = np.divmod(at, w)
    cell = rows * cells[0] // h * cells[1] + columns * cells[1] // w
    return Lamps(at, cell, values * more[:, None], distance, h * w / (cells[0] * cells[1]))


def above(image: Frame, level: float) -> UInt8[np.ndarray, "h w"]:
    """255 where a channel is above a level, else 0."""
    return cv2.bitwise_not(cv2.inRange(image, (-1.0,) * image.shape[2], (level,) * image.shape[2]))


def _distances(
    depth: Float[np.ndarray, "h w"],
    at: Int[np.ndarray, " n"],
    label: Int[np.ndarray, " n"],
    centres: Float[np.ndarray, "k 2"],
) -> Float32[np.ndarray, " n"]:
    """Metres to the lamps: the mean over each region; of one in front of the sky, that of the next thing below it."""
    n, where = len(centres), np.minimum(np.fmax(depth.ravel()[at], NEAREST), SKY_PATH)
    mean = np.bincount(label, where, n) / np.maximum(np.bincount(label, minlength=n), 1)
    x, y = (np.clip(np.rint(v), 0, most - 1).astype(int) for v, most in zip(centres.T, depth.shape[::-1], strict=True))
    (high,) = np.nonzero(mean >= SKY)
    if high.size:
        below = (depth[:, x[high]] < SKY) & (np.arange(len(depth))[:, None] > y[high])
        foot = depth[below.argmax(axis=0), x[high]]
        mean[high] = np.where(below.any(axis=0), foot, mean[high])
    return mean[label].astype(np.float32)

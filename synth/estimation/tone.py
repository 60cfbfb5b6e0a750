"""Statistics of tone and colour: what exposure, contrast, haze and quantisation leave in a picture's histogram."""

from __future__ import annotations

import functools

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from clearfuse.synth import color

SIDE = 160
"""Longer side in pixels of the thumbnail for statistics of large areas."""

SHARES = (0.0, 0.001, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)
COARSE = (0.05, 0.25, 0.5, 0.75, 0.95)
BANDS = 4
"""Horizontal bands of a thumbnail: haze grows from the foot of a picture to its horizon."""


MOST = 60_000
"""Values, about, from which quantiles are taken: more would cost time and tell no more."""


def thinned(plane: np.ndarray) -> np.ndarray:
    """Rows and columns at an odd step, which meets all places of a grid of 8 × 8; about ``MOST`` values."""
    step = max(1, round((plane.shape[0] * plane.shape[1] / MOST) ** 0.5))
    step += step > 1 and step % 2 == 0
    return np.ascontiguousarray(plane[::step, ::step])


def tone_statistics(image: UInt8[np.ndarray, "h w c"]) -> list[float]:
    """Quantiles, clipping, codes in use, and by area the dark channel, saturation and local contrast.

    The dark channel is the least of the channels over 7 × 7 pixels of the thumbnail (He, Sun and Tang, TPAMI 2011).
    """
    grey = color.luma(color.code_to_float(image))
    quantiles = np.quantile(thinned(grey), SHARES)
    light = np.log2(np.quantile(color.luma(color.code_to_linear(thinned(image))), SHARES[2:-2]) + 1e-3)
    mean, spread = float(grey.mean()), float(grey.std()) + 1e-4
    normal = (thinned(grey) - mean) / spread
    out = [*quantiles, *light, mean, np.log(spread), float((normal**3).mean()), float((normal**4).mean())]
    return [*map(float, out), *_codes(image), *_areas(image)]


def ends(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The least and the most of the channels, ``(h, w)`` each."""
    planes = [np.ascontiguousarray(image[..., i]) for i in range(image.shape[2])]
    return functools.reduce(np.minimum, planes), functools.reduce(np.maximum, planes)


def _codes(image: np.ndarray) -> list[float]:
    """Clipping at both ends, by channel and of all, and how many of the codes between the ends occur."""
    least, most = ends(image)
    out = [float((x <= 1).mean()) for x in (least, most)] + [float((x >= 254).mean()) for x in (least, most)]
    out += [float((least == least.min()).mean()), float((most == most.max()).mean())]
    planes = (np.ascontiguousarray(image[..., i]) for i in range(image.shape[2]))
    counts = np.mean([cv2.calcHist([plane], [0], None, [256], [0, 256]).ravel() for plane in planes], axis=0)
    share = counts / counts.sum()
    used = np.flatnonzero(share > 1e-5)
    inner = share[used[0] : used[-1] + 1]
    neighbours = np.convolve(share, [0.5, 0, 0.5], "same")
    comb = float(np.minimum(share, neighbours).sum())
    entropy = float(-(share[share > 0] * np.log2(share[share > 0])).sum())
    first, last = (float(np.searchsorted(np.cumsum(share), x)) / 255 for x in (0.01, 0.99))
    return [*out, len(used) / 255, float((inner > 1e-5).mean()), comb, entropy, last - first]


def _areas(image: np.ndarray) -> list[float]:
    scale = SIDE / max(image.shape[:2])
    size = [max(8, round(side * scale)) for side in image.shape[1::-1]]
    thumb = color.code_to_float(color.as_hwc(cv2.resize(image, size, interpolation=cv2.INTER_AREA)))
    rgb = np.repeat(thumb, 3, axis=2) if thumb.shape[2] == 1 else thumb
    grey, least, most = color.luma(rgb), rgb.min(2), rgb.max(2)
    kernel = np.ones((7, 7), np.uint8)
    dark, bright = cv2.erode(least, kernel), cv2.dilate(most, kernel)
    saturation = (most - least) / np.maximum(most, 0.02)
    mean = cv2.blur(grey, (9, 9))
    local = np.log(np.sqrt(np.maximum(cv2.blur(grey * grey, (9, 9)) - mean * mean, 0)) + 2e-3)
    out: list[float] = []
    for plane in (dark, bright, saturation, local):
        out += np.quantile(plane, COARSE).tolist()
        out += [float(band.mean()) for band in np.array_split(plane, BANDS)]
    hazy = dark >= np.quantile(dark, 0.95)
    airlight = rgb[hazy].mean(0)
    # The weakest contrast relative to brightness: a veil takes it down wherever it is thick.
    veiled = np.log(np.sqrt(np.maximum(cv2.blur(grey * grey, (9, 9)) - mean * mean, 0)) / (mean + 0.02) + 2e-3)
    joint = float(((dark - dark.mean()) * (local - local.mean())).mean())
    correlation = joint / (float(dark.std() * local.std()) + 1e-6)
    out += [float(airlight.mean()), float(airlight[0] - airlight[1]), float(airlight[2] - airlight[1])]
    out += [*np.quantile(veiled, COARSE).tolist(), correlation, float(saturation.mean())]
    return out + [float((rgb[..., i] - grey).mean()) for i in (0, 2)] + _rows(grey)


def _rows(grey: Float32[np.ndarray, "h w"]) -> list[float]:
    """Brightness of the bands."""
    return [float(band.mean()) for band in np.array_split(grey, BANDS)]

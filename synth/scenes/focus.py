"""A thin lens: the near- and the far-focused picture of a radiance map with its depth."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32

NEAREST = 0.4
"""Metres: nothing is focused nearer."""

STOPS = (0.0, 1.2, 2.6, 5.0, 9.0, 16.0, 30.0, 60.0)
"""Disc radii in pixels between which a varying blur interpolates."""


def circle_of_confusion(inverse: np.ndarray, focus: float, aperture: float) -> np.ndarray:
    """Radius in pixels: aperture |1/z - 1/z_f| (Potmesil and Chakravarty 1982); inverse is 1/z, aperture in px m."""
    return np.abs(inverse - np.float32(1 / focus)) * np.float32(aperture)


def split_depth(inverse: np.ndarray) -> float:
    """The inverse depth that best parts near from far: Otsu 1979 on 1/z."""
    top = float(np.percentile(inverse, 99.5)) + 1e-6
    counts, edges = np.histogram(inverse, bins=96, range=(0, top))
    p, x = counts / max(counts.sum(), 1), (edges[:-1] + edges[1:]) / 2
    w, m = np.cumsum(p), np.cumsum(p * x)
    between = (m[-1] * w - m) ** 2 / np.maximum(w * (1 - w), 1e-6)
    return float(edges[int(between[:-1].argmax()) + 1])


def disc(radius: float) -> np.ndarray:
    """A round aperture's kernel with a soft pixel of edge."""
    n = int(np.ceil(radius))
    y, x = np.mgrid[-n : n + 1, -n : n + 1]
    kernel = np.clip(radius + 0.5 - np.hypot(x, y), 0, 1).astype(np.float32)
    return kernel / kernel.sum()


def _blur(image: np.ndarray, radius: float) -> np.ndarray:
    """Disc blur; wide ones at half the resolution, where the blur has left nothing finer."""
    if radius < 0.35:
        return image
    if radius > 3.2 and min(image.shape[:2]) > 8:
        h, w = image.shape[:2]
        half = cv2.resize(image, ((w + 1) // 2, (h + 1) // 2), interpolation=cv2.INTER_AREA)
        return cv2.resize(_blur(half, radius / 2), (w, h), interpolation=cv2.INTER_LINEAR)
    return cv2.filter2D(image, -1, disc(radius), borderType=cv2.BORDER_REFLECT)


def _filled(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Values, ``(h, w, c)``, continued beyond their mask from its surroundings (pull and push, Gortler et al. 1996)."""
    return _push(np.concatenate([values * mask[..., None], mask[..., None]], -1))[..., :-1]


def _push(weighted: np.ndarray) -> np.ndarray:
    """One level: weighted values with their weight last; the gaps are filled from the level of half the size."""
    h, w = weighted.shape[:2]
    weight = weighted[..., -1:]
    if min(h, w) <= 2:
        mean = weighted.reshape(-1, weighted.shape[2]).mean(0)
        whole = mean / max(float(mean[-1]), 1e-6)
        return (weighted + whole * (1 - weight)).astype(np.float32)
    small = _push(cv2.resize(weighted, ((w + 1) // 2, (h + 1) // 2), interpolation=cv2.INTER_AREA))
    return weighted + cv2.resize(small, (w, h), interpolation=cv2.INTER_LINEAR) * (1 - weight)


def _varying(image: np.ndarray, radius: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """A blur whose radius changes over the image: between the two nearest of a few fixed ones."""
    on = inside > 0.02
    low, high = (float(radius[on].min()), float(radius[on].max())) if on.any() else (0.0, 0.0)
    first = max([i for i, r in enumerate(STOPS) if r <= low], default=0)
    last = min([i for i, r in enumerate(STOPS) if r >= high], default=len(STOPS) - 1)
    out = np.zeros_like(image)
    for i in range(first, last + 1):
        # A tent over the neighbouring stops: the weights of all stops add up to one.
        rise = (radius - STOPS[i - 1]) / (STOPS[i] - STOPS[i - 1]) if i > first else np.ones_like(radius)
        fall = (STOPS[i + 1] - radius) / (STOPS[i + 1] - STOPS[i]) if i < last else np.ones_like(radius)
        weight = np.clip(np.minimum(rise, fall), 0, 1)
        rows, cols = np.flatnonzero(weight.any(1)), np.flatnonzero(weight.any(0))
        if rows.size:
            pad = int(np.ceil(STOPS[i])) + 1
            y0, x0 = max(rows[0] - pad, 0), max(cols[0] - pad, 0)
            box = np.s_[y0 : rows[-1] + pad + 1, x0 : cols[-1] + pad + 1]
            out[box] += _blur(image[box], STOPS[i]) * weight[box][..., None]
    return out


def refocus(
    radiance: Float32[np.ndarray, "h w 3"], depth: Float32[np.ndarray, "h w"], focus: float, aperture: float
) -> Float32[np.ndarray, "h w 3"]:
    """The picture focused at ``focus`` metres: the far part blurred behind the near one, which is laid over it.

    The far part is continued behind the near one before it's blurred, so that nothing bleeds from a sharp subject
    into a blurred background; the near part's coverage is blurred with it, so that its edge is transparent.
    """
    inverse = 1 / np.maximum(depth, np.float32(NEAREST))
    near = (inverse > split_depth(inverse)).astype(np.float32)
    values = np.concatenate([radiance, circle_of_confusion(inverse, focus, aperture)[..., None]], -1)
    # Pixels on the outline hold light of both sides: neither side's colour is taken from them.
    edge = np.ones((3, 3), np.uint8)
    back = _layer(values, cv2.erode(1 - near, edge), np.ones_like(near))[..., :3]
    if near.max() == 0:
        return back
    rows, cols = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
    pad = int(np.ceil(float((values[..., 3] * near).max()))) + 3
    box = np.s_[max(rows[0] - pad, 0) : rows[-1] + pad + 1, max(cols[0] - pad, 0) : cols[-1] + pad + 1]
    front = _layer(values[box], cv2.erode(near[box], edge), cv2.GaussianBlur(near[box], (3, 3), 0.6))
    back[box] = front[..., :3] + back[box] * (1 - front[..., 3:])
    return back


def _layer(values: np.ndarray, core: np.ndarray, cover: np.ndarray) -> np.ndarray:
    """One side's colour, known in its core, with its coverage, blurred by its own circles of confusion (4th value)."""
    colour, radius = values[..., :3], values[..., 3:]
    if core.min() < 1:
        # Apart, since cv2 resizes at most four channels.
        colour, radius = _filled(colour, core), _filled(radius, core)
    return _varying(np.concatenate([colour * cover[..., None], cover[..., None]], -1), radius[..., 0], cover)

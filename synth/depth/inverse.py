"""Metres from relative inverse depth and a picture, and maps at other sizes."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from clearfuse.synth.depth.metres import (
    Metres,
    Picture,
    fade_into_sky,
    guided,
    metric_from_inverse,
    ray_length,
    sky_mask,
)

Inverse = Float32[np.ndarray, "ih iw"]


def metric(inverse: Inverse, image: Picture, far: float) -> Metres:
    """Metres along the ray from a picture's relative inverse depth; a coarser map is laid along the picture's edges."""
    height, width = image.shape[:2]
    known = np.isfinite(inverse)
    if known.all() and inverse.size < 0.5 * height * width:
        # In units of its spread, so that the regularisation means the same for every map.
        scale = max(float(inverse.std()), 1e-6)
        laid = guided(inverse / np.float32(scale), image, max(2, max(inverse.shape) // 60), 1e-3) * np.float32(scale)
        # A window with no edge in it may overshoot the map.
        inverse = np.clip(laid, inverse.min(), inverse.max())
    else:
        inverse = resized(inverse, height, width)
    return along_rays(metric_from_inverse(inverse, far), image, sky_mask(image), far)


def along_rays(z: Metres, image: Picture, sky: Bool[np.ndarray, "h w"], far: float) -> Metres:
    """Metres along the ray from z along the axis; infinite in the regions of sky whose z agrees (``fade_into_sky``)."""
    return fade_into_sky(ray_length(z), _confirmed(sky, z, far / 30), image)


def _confirmed(sky: np.ndarray, z: np.ndarray, least: float) -> np.ndarray:
    """The whole sky regions whose median depth is beyond ``least``: a map may be wrong at a spot of sky, not at most.

    far/30 is the farther half of a relative map's range at a reach of 60; cutting by pixel would leave a hard edge.
    """
    count, labels = cv2.connectedComponents(sky.astype(np.uint8), connectivity=4)
    kept = np.zeros(count, bool)
    for i in range(1, count):
        kept[i] = np.median(np.nan_to_num(z[labels == i], nan=0.0)) > least
    return kept[labels]


def resized(depth: np.ndarray, height: int, width: int) -> np.ndarray:
    """A map at another size: the weighted mean of the known neighbours, so that sky and holes don't bleed."""
    if depth.shape == (height, width):
        return depth
    shrinks = depth.shape[0] > height or depth.shape[1] > width
    way = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR

    def resize(values: np.ndarray) -> np.ndarray:
        return cv2.resize(values.astype(np.float32), (width, height), interpolation=way)

    known, sky = np.isfinite(depth), np.isposinf(depth)
    share, above = resize(known), resize(sky)
    metres = resize(np.where(known, depth, 0)) / np.maximum(share, np.float32(1e-6))
    none = np.where(above >= 0.5, np.float32(np.inf), np.float32(np.nan))
    return np.where((share >= 0.5) & (above < 0.5), metres, none)

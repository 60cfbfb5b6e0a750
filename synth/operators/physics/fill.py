"""Blending by a map, and interpolation into unknown regions: smooth fills, depth without holes."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from clearfuse.synth.color import as_hwc
from clearfuse.synth.operators.base import NEAREST, Scene
from clearfuse.synth.operators.physics.particles import focal_length


def per_channel(share: Float32[np.ndarray, "h w"], channels: int) -> Float32[np.ndarray, "h w c"]:
    """The map repeated for each channel: faster than numpy's broadcasting over a last axis of three."""
    return share[..., None] if channels == 1 else cv2.merge([share] * channels)


def blend(
    a: Float32[np.ndarray, "h w c"], b: Float32[np.ndarray, "h w c"], share: Float32[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w c"]:
    """a + (b − a) share: a where the share is 0, b where it is 1."""
    out = b - a
    out *= per_channel(share, a.shape[2])
    out += a
    return out


def pull_push(
    weighted: Float32[np.ndarray, "h w c"], weight: Float32[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w c"]:
    """Smooth interpolation to where the weight is below 1; all zero where every weight is 0.

    weighted: the values times their weight, weight in [0, 1]. Pull: halve the size until everything is known; push:
    fill what a level lacks from the enlarged coarser one. Gortler, Grzeszczuk, Szeliski and Cohen, The Lumigraph,
    SIGGRAPH 1996, section 3.4, with its saturation of the weights: a quarter of a cell makes the next level known.
    """
    h, w = weight.shape
    if h * w == 1 or weight.min() >= 1:
        return weighted
    size = ((w + 1) // 2, (h + 1) // 2)
    small = as_hwc(cv2.resize(weighted, size, interpolation=cv2.INTER_AREA))
    share = cv2.resize(weight, size, interpolation=cv2.INTER_AREA)
    guess = cv2.resize(pull_push(*saturate_weight(small, share)), (w, h), interpolation=cv2.INTER_LINEAR)
    return weighted + as_hwc(guess) * per_channel(1 - weight, weighted.shape[2])


def saturate_weight(
    weighted: Float32[np.ndarray, "h w c"], weight: Float32[np.ndarray, "h w"]
) -> tuple[Float32[np.ndarray, "h w c"], Float32[np.ndarray, "h w"]]:
    """The same values with their weight saturated, min(1, 4 weight): (weighted values, weight)."""
    known = weight > 1e-6
    full = np.where(known, np.minimum(4 * weight, 1), 0)
    gain = full / np.where(known, weight, 1)
    return weighted * per_channel(gain, weighted.shape[2]), full


def nearest_known(values: Float32[np.ndarray, "h w"], known: Bool[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Unknown values replaced by the nearest known one; at least one must be known."""
    if known.all():
        return values
    _, labels = cv2.distanceTransformWithLabels(
        (~known).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    of_label = np.zeros(int(labels.max()) + 1, np.float32)
    of_label[labels[known]] = values[known]
    return of_label[labels]


def inverse_depth(scene: Scene) -> Float32[np.ndarray, "h w"] | None:
    """1/z in 1/m, z along the optical axis: √(1 + (x² + y²)/f²) over the ray's length; 0 for the sky.

    None where no depth is known. Rays are at least ``NEAREST`` long. Pixels without depth take that of the nearest
    known one: as near points, as in ``Scene.path``, they would be detached from their surroundings. f: the focal
    length in pixels.
    """
    if scene.depth is None:
        return None
    known = ~np.isnan(scene.depth)
    if not known.any():
        return None
    ray = nearest_known(np.maximum(np.where(known, scene.depth, 1), np.float32(NEAREST)).astype(np.float32), known)
    h, w = ray.shape
    focal = focal_length(w, scene.fov)
    x, y = ((np.arange(n, dtype=np.float32) - np.float32((n - 1) / 2)) / np.float32(focal) for n in (w, h))
    return cv2.sqrt(1 + x * x + (y * y)[:, None]).reshape(h, w) / ray

"""Visible and infrared: a Laplacian pyramid on luma whose base follows what is warm and whose details the stronger."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32

from synth import color

Plane = Float32[np.ndarray, "h w"]


def fuse_infrared(
    visible: Float32[np.ndarray, "h w c"], infrared: Float32[np.ndarray, "h w d"]
) -> Float32[np.ndarray, "h w e"]:
    """Code values of the fused image; chroma is the visible image's."""
    y, t = color.luma(visible), color.luma(infrared)
    fused = fuse_luma(y, t)
    if visible.shape[2] == 1:
        return np.repeat(fused[..., None], max(visible.shape[2], infrared.shape[2]), axis=2)
    return with_luma(visible, y, fused)


def fuse_luma(y: Plane, t: Plane) -> Plane:
    """The fused luma."""
    levels = max(1, min(6, int(np.log2(max(2, min(y.shape)))) - 2))
    details = []
    for _ in range(levels):
        low_y, low_t = cv2.pyrDown(y), cv2.pyrDown(t)
        size = (y.shape[1], y.shape[0])
        d_y, d_t = y - cv2.pyrUp(low_y, dstsize=size), t - cv2.pyrUp(low_t, dstsize=size)
        e_y, e_t = (cv2.GaussianBlur(d * d, (0, 0), 0.8) for d in (d_y, d_t))
        details.append(np.where(e_y >= e_t, d_y, d_t))
        y, t = low_y, low_t
    out = (y + t) / 2
    for d in reversed(details):
        out = cv2.pyrUp(out, dstsize=(d.shape[1], d.shape[0])) + d
    return np.clip(out, 0, 1)


def with_luma(image: Float32[np.ndarray, "h w 3"], old: Plane, new: Plane) -> Float32[np.ndarray, "h w 3"]:
    """The image with another luma and its own chroma (R−Y, G−Y, B−Y kept), chroma shrunk where it leaves the gamut.

    s = min over channels of (1 − Y')/c for c > 0 and Y'/−c for c < 0, at most 1: the hue stays, no channel clips.
    """
    chroma = image - old[..., None]
    peak, pit = chroma.max(axis=2), -chroma.min(axis=2)
    tiny = np.float32(1e-6)
    scale = np.minimum(np.minimum((1 - new) / np.maximum(peak, tiny), new / np.maximum(pit, tiny)), 1)
    return new[..., None] + chroma * scale[..., None]

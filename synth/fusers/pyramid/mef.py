"""Two exposures: exposure fusion (Mertens, Kautz, Van Reeth, Pacific Graphics 2007)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np
from jaxtyping import Float32

from clearfuse.synth import color
from clearfuse.synth.fusers.pyramid.region import Region, Windows, coarser_window, upsample_window

EXPOSEDNESS_WIDTH = 0.3
"""Width of the well-exposedness. The paper's 0.2 is for a stack; two distant exposures need a larger one (MEF-SSIM)."""

FLOOR = np.float32(1e-12)
"""Keeps the weights' ratio defined where both frames are black or saturated and all measures vanish."""


Level = tuple[Float32[np.ndarray, "_ _ c"], Float32[np.ndarray, "_ _"]]
"""A level of two pyramids: of a − b and of the weight of a."""


def fuse_exposures(a: Float32[np.ndarray, "h w c"], b: Float32[np.ndarray, "h w d"]) -> Windows:
    """The fused image, in code values, window by window."""
    channels = max(a.shape[2], b.shape[2])
    a, b = (np.repeat(x, channels, axis=2) if x.shape[2] < channels else x for x in (a, b))
    w_a, w_b = pixel_weight(a), pixel_weight(b)
    return partial(blend_window, pyramids(a - b, w_a / (w_a + w_b)), b)


def pixel_weight(image: Float32[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h w"]:
    """C · S · E of every pixel, all of the paper's exponents 1.

    C = |Laplacian of luma|; S = standard deviation over the channels; E = Π_c exp(−(x_c − ½)²/(2σ²)), in which
    Σ_c (x_c − ½)² = n (S² + (mean − ½)²). Small offsets keep the weights of flat and grey parts above zero.
    """
    channels = image.shape[2]
    ones = np.full((1, channels), 1 / channels, np.float32)
    mean = cv2.transform(image, ones)
    variance = np.maximum(cv2.transform(image * image, ones) - mean * mean, 0)
    contrast = np.abs(cv2.Laplacian(color.luma(image), cv2.CV_32F)) + np.float32(1e-3)
    saturation = np.sqrt(variance) + np.float32(1e-2)
    # A grey image counts as one of three equal channels.
    exposed = cv2.exp((variance + (mean - np.float32(0.5)) ** 2) * np.float32(-3 / (2 * EXPOSEDNESS_WIDTH**2)))
    return contrast * saturation * exposed + FLOOR


def pyramids(rest: Float32[np.ndarray, "h w c"], share: Float32[np.ndarray, "h w"]) -> list[Level]:
    """Gaussian pyramids of both, finest first, down to a side of at most 4."""
    levels = [(rest, share)]
    while min(share.shape) > 4:
        rest, share = (cv2.pyrDown(plane) for plane in levels[-1])
        levels.append((color.as_hwc(rest), share))
    return levels


def blend_window(
    levels: Sequence[Level], b: Float32[np.ndarray, "h w c"], at: Region
) -> Float32[np.ndarray, "h_at w_at c"]:
    """b + Σ_l up(G_l(share) L_l(a − b)): Laplacian pyramid blending (Burt & Adelson 1983) of the difference only.

    In [0, 1]. levels: the pyramids of the whole image. at: the window to compute.
    """
    windows = [at]
    for _, share in levels[1:]:
        windows.append(coarser_window(windows[-1], share.shape))
    (low, share), coarse = levels[-1], windows[-1]
    out = low[coarse] * share[coarse][..., None]
    for (rest, share), fine in zip(reversed(levels[:-1]), reversed(windows[:-1]), strict=True):
        detail = rest[fine] - upsample_window(low[coarse], coarse, fine, share.shape)
        # A plane for each channel: numpy's product over a last axis of three takes twice as long.
        detail *= color.as_hwc(cv2.merge([share[fine]] * detail.shape[2]))
        out = upsample_window(out, coarse, fine, share.shape) + detail
        low, coarse = rest, fine
    return np.clip(out + b[at], 0, 1)

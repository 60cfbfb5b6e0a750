"""Two exposures: exposure fusion (Mertens, Kautz, Van Reeth, Pacific Graphics 2007)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import cv2
import numpy as np
from jaxtyping import Float32

from clearfuse.synth import color
from clearfuse.synth.fusers.pyramid.region import Region, Windows, below, expanded

EXPOSED = 0.3
"""Width of well-exposedness. The paper's 0.2 suits a stack; two frames far apart need the wider one (MEF-SSIM)."""

FLOOR = np.float32(1e-12)
"""Where both frames are black or blown all measures vanish: the shares stay defined."""


Level = tuple[Float32[np.ndarray, "_ _ c"], Float32[np.ndarray, "_ _"]]
"""Of two pyramids: a − b and the share of a."""


def fuse_exposures(a: Float32[np.ndarray, "h w c"], b: Float32[np.ndarray, "h w d"]) -> Windows:
    """Code values of the fused image."""
    channels = max(a.shape[2], b.shape[2])
    a, b = (np.repeat(x, channels, axis=2) if x.shape[2] < channels else x for x in (a, b))
    w_a, w_b = weight(a), weight(b)
    return partial(blend, pyramids(a - b, w_a / (w_a + w_b)), b)


def weight(image: Float32[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h w"]:
    """C · S · E of every pixel, all of the paper's exponents 1.

    C = |Laplacian of luma|; S = standard deviation over the channels; E = Π_c exp(−(x_c − ½)²/(2σ²)), in which
    Σ_c (x_c − ½)² = n (S² + (mean − ½)²). Small offsets keep flat and grey parts in the game.
    """
    channels = image.shape[2]
    ones = np.full((1, channels), 1 / channels, np.float32)
    mean = cv2.transform(image, ones)
    variance = np.maximum(cv2.transform(image * image, ones) - mean * mean, 0)
    contrast = np.abs(cv2.Laplacian(color.luma(image), cv2.CV_32F)) + np.float32(1e-3)
    saturation = np.sqrt(variance) + np.float32(1e-2)
    # A grey picture is a colour picture of three equal channels.
    exposed = cv2.exp((variance + (mean - np.float32(0.5)) ** 2) * np.float32(-3 / (2 * EXPOSED**2)))
    return contrast * saturation * exposed + FLOOR


def pyramids(rest: Float32[np.ndarray, "h w c"], share: Float32[np.ndarray, "h w"]) -> list[Level]:
    """Gaussian pyramids of both, finest first, until a side is 4 or less."""
    levels = [(rest, share)]
    while min(share.shape) > 4:
        rest, share = (cv2.pyrDown(plane) for plane in levels[-1])
        levels.append((color.as_hwc(rest), share))
    return levels


def blend(levels: Sequence[Level], b: Float32[np.ndarray, "h w c"], at: Region) -> Float32[np.ndarray, "h_at w_at c"]:
    """b + Σ_l up(G_l(share) L_l(a − b)): Laplacian pyramid blending (Burt & Adelson 1983) on the difference alone.

    In [0, 1]; at: a window of it, of the whole image's pyramids.
    """
    windows = [at]
    for _, share in levels[1:]:
        windows.append(below(windows[-1], share.shape))
    (low, share), coarse = levels[-1], windows[-1]
    out = low[coarse] * share[coarse][..., None]
    for (rest, share), fine in zip(reversed(levels[:-1]), reversed(windows[:-1]), strict=True):
        detail = rest[fine] - expanded(low[coarse], coarse, fine, share.shape)
        # A plane for each channel: numpy's product over a last axis of three takes twice as long.
        detail *= color.as_hwc(cv2.merge([share[fine]] * detail.shape[2]))
        out = expanded(out, coarse, fine, share.shape) + detail
        low, coarse = rest, fine
    return np.clip(out + b[at], 0, 1)

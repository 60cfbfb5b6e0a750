"""How much of a picture's structure a degradation leaves."""

from __future__ import annotations

import cv2
import numpy as np

from clearfuse.synth import color

ANALYSIS = 160
"""Longest side, in pixels, at which structure is compared: what a viewer recognises, below which noise averages out."""


LOST = 0.2
"""Gradient correlation under which a picture's structure is lost."""

WHITE, MOST_WHITE = 254, 0.25
"""A pixel is white from this code in every channel; more than this share of pixels that became so is a lost frame."""


def keeps_structure(clean: tuple[np.ndarray, np.ndarray], degraded: tuple[np.ndarray, np.ndarray]) -> bool:
    """Whether at least one image of a pair keeps its structure, and neither went white.

    What one has lost, the other may still show; but the fog of a window's light, which clips in the brighter exposure,
    leaves a white sheet.
    """
    pairs = list(zip(clean, degraded, strict=True))
    return any(gradient_correlation(x, y) >= LOST for x, y in pairs) and all(
        became_white(x, y) <= MOST_WHITE for x, y in pairs
    )


def became_white(clean: np.ndarray, degraded: np.ndarray) -> float:
    """The share of pixels of a uint8 ``(h, w, c)`` picture, in [0, 1], that are white and were not."""
    least, before = (color.channel_minimum(image) >= WHITE for image in (degraded, clean))
    return float((least & ~before).mean())


def gradient_correlation(clean: np.ndarray, degraded: np.ndarray) -> float:
    """Σ ∇x·∇y / √(Σ |∇x|² Σ |∇y|²) of the luma of two uint8 ``(h, w, c)`` pictures, in [−1, 1].

    Both are averaged down to ``ANALYSIS`` pixels; ∇ by central differences, whose blur by a pixel keeps thin lines.
    1 for a clean picture without structure, which has none to lose, and 0 for a degraded one without.
    """
    x, y = (_gradients(image) for image in (clean, degraded))
    own, other = float((x * x).sum()), float((y * y).sum())
    if own == 0:
        return 1.0
    return float((x * y).sum()) / (own * other) ** 0.5 if other > 0 else 0.0


def _gradients(image: np.ndarray) -> np.ndarray:
    """Differences along x and y, of the luma in float32: a stack of two."""
    h, w, c = image.shape
    scale = min(1.0, ANALYSIS / max(h, w))
    size = max(round(w * scale), 1), max(round(h * scale), 1)
    small = color.as_hwc(cv2.resize(image, size, interpolation=cv2.INTER_AREA)).astype(np.float32)
    grey = small[..., 0] if c == 1 else color.luma(small)
    return np.stack([cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)])

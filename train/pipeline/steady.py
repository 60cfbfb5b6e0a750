"""Video against flicker: what fusing adds to the brightness of a place changes smoothly from frame to frame.

Each frame is fused by itself, so a choice that hangs in the balance (which source, how warm) may tip from one frame to
the next where nothing moved. G is a mean over the cells of a coarse grid, ΔX the change of G(X) since the last frame.
What fusing adds is the part of ΔF that neither source accounts for: e_t = ΔF − clip(ΔF, min(ΔA, ΔB), max(ΔA, ΔB)). So
a light that changes in both is followed at once, and the jumps of one camera's gain are not put into frames that do not
show them. The frame gets the correction c_t = k (c_{t−1} − e_t), enlarged smoothly, with k = K exp(−(Δ_t/σ)²), Δ_t the
change of the sources' mean: where the scene stands still the steps are spread over some 1/(1 − K) frames, where it
moves the frame is its own. What is finer than a cell is left alone, so nothing is smeared.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32

KEPT = 0.85
"""K: share of the past where nothing moves."""
MOVED = 6.0 / 255
"""σ: change of a cell's brightness, as a share of white, at which the past counts e⁻¹ of that."""
CELL = 16
"""Side of a cell in pixels."""


class Steady:
    """Frames one after another; nothing but four coarse grids is kept. Another size starts anew, as a cut does."""

    def __init__(self) -> None:
        self._past: tuple[Float32[np.ndarray, "3 h w c"], Float32[np.ndarray, "h w c"]] | None = None

    def __call__(self, sources: tuple[np.ndarray, np.ndarray], fused: np.ndarray) -> np.ndarray:
        """The steadied frame, of the type of ``fused``, (h, w, 3). sources: the pair, uint8 or float32 (h, w, c)."""
        grids = np.stack([_grid(image, fused.shape[2]) for image in (*sources, fused)])
        correction = np.zeros_like(grids[0])
        if self._past is not None and self._past[0].shape == grids.shape:
            a, b, change = grids - self._past[0]
            moved = np.abs((a + b) / np.float32(2)).max(axis=2, keepdims=True)
            share = np.float32(KEPT) * np.exp(-np.square(moved / np.float32(MOVED)))
            added = change - np.clip(change, np.minimum(a, b), np.maximum(a, b))
            correction = share * (self._past[1] - added)
        self._past = (grids, correction)
        return _corrected(fused, correction)


def _grid(image: np.ndarray, channels: int) -> Float32[np.ndarray, "h w c"]:
    """The means of the cells, as shares of white."""
    height, width = image.shape[:2]
    size = (max(1, -(-width // CELL)), max(1, -(-height // CELL)))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA).reshape(size[1], size[0], -1).astype(np.float32)
    small = small / np.float32(255) if image.dtype == np.uint8 else small
    return np.repeat(small, channels, axis=2) if small.shape[2] < channels else small


def _corrected(fused: np.ndarray, correction: Float32[np.ndarray, "h w c"]) -> np.ndarray:
    height, width, channels = fused.shape
    smooth = cv2.GaussianBlur(correction, (3, 3), 0)
    wide = cv2.resize(smooth, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    if fused.dtype == np.uint8:
        return np.clip(fused + wide * np.float32(255) + np.float32(0.5), 0, 255).astype(np.uint8)
    return np.clip(fused + wide, 0, 1)

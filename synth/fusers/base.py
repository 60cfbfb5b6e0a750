"""The interface of a fuser."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from clearfuse.synth.types import Task


class Fuser(Protocol):
    """A pure function from a pair of images to the fused image.

    a, b: (h, w, c) uint8, c = 1 or 3, of equal height and width. Returns (h, w, 3) uint8, or (h, w, 1) where both are
    grey.
    """

    def __call__(self, a: np.ndarray, b: np.ndarray, task: Task) -> np.ndarray: ...

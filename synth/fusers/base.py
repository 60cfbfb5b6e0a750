"""What a fuser is: a clean pair in, one image out."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from clearfuse.synth.types import Task


class Fuser(Protocol):
    """A pure function of a clean pair.

    a, b: (h, w, c) uint8, c = 1 or 3, of one height and width; the fused image is (h, w, 3) uint8, or (h, w, 1)
    where both are grey.
    """

    def __call__(self, a: np.ndarray, b: np.ndarray, task: Task) -> np.ndarray: ...

"""The weight-free fuser: the classical method of each task, tuned for two frames."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from synth import color
from synth.fusers.mef import fuse_exposures
from synth.fusers.mff import fuse_focus
from synth.fusers.region import Region
from synth.fusers.vif import fuse_infrared
from synth.types import Task

_METHODS = {"vif": fuse_infrared, "mef": fuse_exposures, "mff": fuse_focus}


@dataclass(frozen=True)
class PyramidFuser:
    """Saliency-weighted Laplacian pyramid (VIF), exposure fusion (MEF), focus selection with consistency (MFF)."""

    def __call__(
        self,
        a: UInt8[np.ndarray, "h w c"],
        b: UInt8[np.ndarray, "h_b w_b d"],
        task: Task,
        at: Region | None = None,
    ) -> UInt8[np.ndarray, "h_at w_at e"]:
        """The fused image: (h, w, 3) where one of the two is in colour, else (h, w, 1).

        at: a window of it, with the whole image's values.
        """
        if a.shape[:2] != b.shape[:2]:
            raise ValueError(f"a is {a.shape[:2]}, b is {b.shape[:2]}: a pair has one height and width")
        return color.to_uint8(_METHODS[task](color.code_to_float(a), color.code_to_float(b), at))

"""The weight-free fuser: a classical method per task, tuned for two frames."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float32, UInt8

from clearfuse.synth import color
from clearfuse.synth.fusers.pyramid.mef import fuse_exposures
from clearfuse.synth.fusers.pyramid.mff import fuse_focus
from clearfuse.synth.fusers.pyramid.region import Region, Windows, full_region
from clearfuse.synth.fusers.pyramid.vif import fuse_infrared
from clearfuse.synth.types import Task

Image = UInt8[np.ndarray, "h w c"] | Float32[np.ndarray, "h w c"]
Other = UInt8[np.ndarray, "h_b w_b d"] | Float32[np.ndarray, "h_b w_b d"]

_METHODS = {"vif": fuse_infrared, "mef": fuse_exposures, "mff": fuse_focus}


@dataclass(frozen=True)
class PyramidFuser:
    """Saliency-weighted Laplacian pyramid (VIF), exposure fusion (MEF), focus selection with consistency (MFF)."""

    def __call__(
        self,
        a: UInt8[np.ndarray, "h w c"],
        b: UInt8[np.ndarray, "h_b w_b d"],
        task: Task,
    ) -> UInt8[np.ndarray, "h w e"]:
        """The fused image: (h, w, 3) where one of the two is in colour, else (h, w, 1)."""
        return self.windows(a, b, task)(full_region(a.shape))

    def windows(self, a: Image, b: Other, task: Task) -> Windows:
        """A function that computes any window of the fused image, with the same values as in the whole image.

        a, b: both uint8, or both float32 in [0, 1]; the fused image is of the same type.
        """
        if a.shape[:2] != b.shape[:2]:
            raise ValueError(f"a is {a.shape[:2]}, b is {b.shape[:2]}: a pair has one height and width")
        if a.dtype == np.float32:
            return _METHODS[task](a, b)
        return partial(_to_codes, _METHODS[task](color.code_to_float(a), color.code_to_float(b)))


def _to_codes(windows: Windows, at: Region) -> UInt8[np.ndarray, "h w e"]:
    return color.to_uint8(windows(at))

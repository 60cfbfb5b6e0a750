"""Priors: initial estimates of the fused image from the degraded pair, without weights. ``PRIORS`` is the table.

A model with a prior learns to restore it. The prior of a crop or tile equals that part of the whole image's prior, but
only the pixels in this window are computed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.fusers.pyramid.region import Windows
from clearfuse.synth.types import Task, look_up

Prior = Callable[[np.ndarray, np.ndarray, Task], Windows]


def pyramid(a: UInt8[np.ndarray, "h w c"], b: UInt8[np.ndarray, "h w d"], task: Task) -> Windows:
    """The pyramid fuser on the degraded pair: it fuses, but removes no degradation."""
    return PyramidFuser().windows(a, b, task)


PRIORS: dict[str, Prior | None] = {"none": None, "pyramid": pyramid}


def find_prior(name: str) -> Prior | None:
    """The prior with this name, None for "none". Raises UserError for an unknown one."""
    return look_up("prior", name, PRIORS)

"""Priors: a first guess at the fused image, made from the degraded pair without weights. ``PRIORS`` is the table.

A model with a prior learns what is left to do: to restore it. Of the whole image, before any crop or tile; of a crop,
only that window of it is computed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.fusers.pyramid.region import Windows
from clearfuse.synth.types import Task, unknown

Prior = Callable[[np.ndarray, np.ndarray, Task], Windows]


def pyramid(a: UInt8[np.ndarray, "h w c"], b: UInt8[np.ndarray, "h w d"], task: Task) -> Windows:
    """The weight-free fuser on the degraded pair: it fuses, and keeps every fault."""
    return PyramidFuser().windows(a, b, task)


PRIORS: dict[str, Prior | None] = {"none": None, "pyramid": pyramid}


def find_prior(name: str) -> Prior | None:
    """The prior of a name; None where a model has none."""
    if name not in PRIORS:
        raise unknown("prior", name, PRIORS)
    return PRIORS[name]

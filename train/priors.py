"""Priors: a first guess at the fused image, made from the degraded pair without weights. ``PRIORS`` is the table.

A model with a prior learns what is left to do: to restore it. Made on the whole image, before any crop or tile.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from synth.fusers import PyramidFuser
from synth.types import Task, unknown

Prior = Callable[[np.ndarray, np.ndarray, Task], np.ndarray]


def pyramid(a: UInt8[np.ndarray, "h w c"], b: UInt8[np.ndarray, "h w d"], task: Task) -> UInt8[np.ndarray, "h w e"]:
    """The weight-free fuser on the degraded pair: it fuses, and keeps every fault."""
    return PyramidFuser()(a, b, task)


PRIORS: dict[str, Prior | None] = {"none": None, "pyramid": pyramid}


def find_prior(name: str) -> Prior | None:
    """The prior of a name; None where a model has none."""
    if name not in PRIORS:
        raise unknown("prior", name, PRIORS)
    return PRIORS[name]

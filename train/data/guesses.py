"""Guesses: initial estimates of the fused image from the degraded pair, without weights. ``GUESSES`` is the table.

A model with a guess learns to restore it. The guess of a crop or tile equals that part of the whole image's guess, but
only the pixels in this window are computed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.fusers.pyramid.fuser import Image, Other
from clearfuse.synth.fusers.pyramid.region import Windows
from clearfuse.synth.types import Task, look_up

Guess = Callable[[np.ndarray, np.ndarray, Task], Windows]


def pyramid(a: Image, b: Other, task: Task) -> Windows:
    """The pyramid fuser on the degraded pair: it fuses, but removes no degradation. a, b: see ``windows``."""
    return PyramidFuser().windows(a, b, task)


GUESSES: dict[str, Guess | None] = {"none": None, "pyramid": pyramid}


def find_guess(name: str) -> Guess | None:
    """The guess with this name, None for "none". Raises UserError for an unknown one."""
    return look_up("guess", name, GUESSES)

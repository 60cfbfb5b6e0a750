"""Which task a pair is of, by its pictures: ``--task auto``."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import UInt8

from clearfuse.synth.color import as_hwc, code_to_linear, is_grey, luma
from clearfuse.synth.types import TASKS, Task

EXPOSURES = 1.0
"""Difference of two exposures of a scene, in stops of the median, from which a pair is of several exposures."""
ALIKE = 0.7
"""Rank correlation of two pictures' brightness, below which they show different spectra."""
SIDE = 64
"""The pictures are compared at this size: neither focus nor noise nor a small shift counts there."""


@dataclass(frozen=True)
class FoundTask:
    """A pair's task. why: in words; swapped: whether b comes first, as the visible or the darker picture."""

    task: Task
    why: str
    swapped: bool = False


def find_task(a: UInt8[np.ndarray, "h w c"], b: UInt8[np.ndarray, "i j d"]) -> FoundTask:
    """The task of a pair, whose pictures may differ in size.

    One spectrum or two: exposure and focus keep the order of brightness at a coarse scale, another spectrum does not
    (rank correlation), and of a colour and a grey picture the grey one is an infrared one. Then the medians tell
    exposures from foci.
    """
    coarse = [cv2.resize(_brightness(x), (SIDE, SIDE), interpolation=cv2.INTER_AREA) for x in (a, b)]
    ranks = [np.argsort(np.argsort(x.ravel(), kind="stable")).astype(np.float64) for x in coarse]
    alike = float(np.corrcoef(*ranks)[0, 1])
    grey = [is_grey(x) for x in (a, b)]
    if grey[0] != grey[1]:
        return FoundTask("vif", "one picture is in colour, the other grey", grey[0])
    if alike < ALIKE:
        return FoundTask("vif", f"bright in one is dark in the other (rank correlation {alike:.2f})")
    stops = float(np.log2((np.median(coarse[1]) + 1e-3) / (np.median(coarse[0]) + 1e-3)))
    if abs(stops) >= EXPOSURES:
        return FoundTask("mef", f"the exposures differ by {abs(stops):.1f} EV", stops < 0)
    return FoundTask("mff", f"both have the same brightness (rank correlation {alike:.2f}, {abs(stops):.1f} EV apart)")


def as_task(text: str | None) -> Task:
    """A task by its name; of any other text, of auto and other too, that of two spectra."""
    task: Task
    for task in TASKS:
        if task == text:
            return task
    return "vif"


def _brightness(image: UInt8[np.ndarray, "h w c"]) -> np.ndarray:
    """Luminance in linear light."""
    return luma(code_to_linear(as_hwc(image)))

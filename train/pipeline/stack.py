"""Stacks of three or more exposures or foci, fused two by two: a balanced tree over frames in order.

Frames are sorted from dark to bright (foci stay as they are named), halved, and each half fused before the two are:
so both pictures of every step are neighbours in exposure or focus, a the darker one, as in the pairs that the model
learned from, and the last step fuses the dark half with the bright one. A frame passes through the network
⌈log2 n⌉ times, where a chain would take the first one through n − 1 times and give the last one half of the weight;
⌈log2 n⌉ + 1 pictures are in memory at most, eight of a hundred frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import cv2
import numpy as np

from clearfuse.synth.color import luma, srgb_to_linear
from clearfuse.train.pipeline.task import EXPOSURES, SIDE, FoundTask

Fused = TypeVar("Fused")


def fold(count: int, load: Callable[[int], Fused], fuse: Callable[[Fused, Fused], Fused]) -> Fused:
    """Fuse ``count`` things two by two, as the module says. load(i): the thing at place i, loaded where it is due."""

    def part(start: int, stop: int) -> Fused:
        if stop - start == 1:
            return load(start)
        middle = (start + stop + 1) // 2
        first = part(start, middle)
        return fuse(first, part(middle, stop))

    return part(0, count)


def brightness(image: np.ndarray) -> float:
    """Median luminance of a picture, in linear light, at the size at which pairs are compared."""
    small = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA).reshape(SIDE, SIDE, -1)
    codes = small * np.float32(1 / 255) if small.dtype == np.uint8 else small
    return float(np.median(luma(srgb_to_linear(codes))))


def stack_task(lights: Sequence[float]) -> FoundTask:
    """The task of a stack by the brightness of its frames: exposures differ in it, foci do not."""
    stops = float(np.log2((max(lights) + 1e-3) / (min(lights) + 1e-3)))
    if stops >= EXPOSURES:
        return FoundTask("mef", f"the exposures span {stops:.1f} EV")
    return FoundTask("mff", f"all have the same brightness ({stops:.1f} EV apart)")


def order_of(lights: Sequence[float], count: int) -> list[int]:
    """The places of ``count`` frames from dark to bright, by ``lights``; without any, as they are."""
    return sorted(range(count), key=lambda place: (lights[place], place)) if lights else list(range(count))

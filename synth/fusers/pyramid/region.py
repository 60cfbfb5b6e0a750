"""Regions of a fused image: the same values as the whole one's there, without all of the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from clearfuse.synth import color

Region = tuple[slice, slice]
"""Rows and columns, with their first and their end."""

Windows = Callable[[Region], np.ndarray]
"""Any window of a fused image, of which what all windows share is already made."""


def full_region(size: Sequence[int]) -> Region:
    """All rows and columns."""
    return slice(0, size[0]), slice(0, size[1])


def around(at: Region, size: Sequence[int], margin: int, multiple: int) -> tuple[Region, Region]:
    """A window with a margin on each side, within the image, begun at multiples; and the window's place in it."""
    firsts = [max(side.start - margin, 0) // multiple * multiple for side in at]
    ends = [min(side.stop + margin, length) for side, length in zip(at, size, strict=True)]
    outer = tuple(slice(first, end) for first, end in zip(firsts, ends, strict=True))
    inner = tuple(slice(side.start - first, side.stop - first) for side, first in zip(at, firsts, strict=True))
    return (outer[0], outer[1]), (inner[0], inner[1])


def below(at: Region, size: Sequence[int]) -> Region:
    """What of the next coarser level, of ``size``, a window is expanded from: ``cv2.pyrUp`` reaches a pixel aside."""
    rows, columns = (
        slice(max(side.start // 2 - 2, 0), min((side.stop + 1) // 2 + 2, length))
        for side, length in zip(at, size, strict=True)
    )
    return rows, columns


def expanded(low: np.ndarray, coarse: Region, at: Region, size: Sequence[int]) -> np.ndarray:
    """The window ``at`` of a level of ``size``, ``(h, w, c)``, from the window ``coarse`` of the next coarser one."""
    height, width = (min(2 * side.stop, length) - 2 * side.start for side, length in zip(coarse, size, strict=True))
    up = color.as_hwc(cv2.pyrUp(low, dstsize=(width, height)))
    rows, columns = (
        slice(side.start - 2 * first.start, side.stop - 2 * first.start) for side, first in zip(at, coarse, strict=True)
    )
    return up[rows, columns]

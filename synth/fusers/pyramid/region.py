"""Windows of a fused image: computed without the rest of the image, with the same values."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

from clearfuse.synth import color

Region = tuple[slice, slice]
"""Slices of rows and columns, with explicit start and stop."""

Windows = Callable[[Region], np.ndarray]
"""A function that computes any window of a fused image; the work common to all windows is already done."""


def full_region(size: Sequence[int]) -> Region:
    """The window of a whole image. size: (h, w, …)."""
    return slice(0, size[0]), slice(0, size[1])


def padded_window(at: Region, size: Sequence[int], margin: int, multiple: int) -> tuple[Region, Region]:
    """A window padded by a margin, clipped to the image, its start a multiple; and the window's position within it."""
    firsts = [max(side.start - margin, 0) // multiple * multiple for side in at]
    ends = [min(side.stop + margin, length) for side, length in zip(at, size, strict=True)]
    outer = tuple(slice(first, end) for first, end in zip(firsts, ends, strict=True))
    inner = tuple(slice(side.start - first, side.stop - first) for side, first in zip(at, firsts, strict=True))
    return (outer[0], outer[1]), (inner[0], inner[1])


def coarser_window(at: Region, size: Sequence[int]) -> Region:
    """The window of the next coarser level, of ``size``, that ``cv2.pyrUp`` needs for a window."""
    rows, columns = (
        slice(max(side.start // 2 - 2, 0), min((side.stop + 1) // 2 + 2, length))
        for side, length in zip(at, size, strict=True)
    )
    return rows, columns


def upsample_window(low: np.ndarray, coarse: Region, at: Region, size: Sequence[int]) -> np.ndarray:
    """Upsample the window ``coarse`` of a level to the window ``at`` of the next finer one, of ``size``: (h, w, c)."""
    height, width = (min(2 * side.stop, length) - 2 * side.start for side, length in zip(coarse, size, strict=True))
    up = color.as_hwc(cv2.pyrUp(low, dstsize=(width, height)))
    rows, columns = (
        slice(side.start - 2 * first.start, side.stop - 2 * first.start) for side, first in zip(at, coarse, strict=True)
    )
    return up[rows, columns]

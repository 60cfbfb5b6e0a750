"""All statistics of a picture in one vector, in the order that the network was trained on."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float32, UInt8

from clearfuse.synth import color
from clearfuse.synth.estimation.residual import residual_statistics
from clearfuse.synth.estimation.shapes import (
    blob_statistics,
    line_statistics,
    normalised_statistics,
    sharpness_statistics,
)
from clearfuse.synth.estimation.spectrum import spectrum_statistics
from clearfuse.synth.estimation.tone import tone_statistics
from clearfuse.synth.estimation.traces import (
    column_statistics,
    defect_statistics,
    jpeg_statistics,
    resampling_statistics,
)
from clearfuse.synth.types import Modality

LARGEST = 1024
"""Longest side of what is looked at, in pixels: of a larger picture its middle, at full resolution."""
LEAST = 32
"""Shortest side of a picture that can be told anything of, in pixels."""


def middle(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "i j c"]:
    """The middle of a picture, at most ``LARGEST`` a side, cut at the grid of 8 × 8 blocks."""
    top, left = (max(0, side - LARGEST) // 2 // 8 * 8 for side in image.shape[:2])
    return np.ascontiguousarray(image[top : top + LARGEST, left : left + LARGEST])


def statistics(image: UInt8[np.ndarray, "h w c"], modality: Modality) -> Float32[np.ndarray, " n"]:
    """The vector of a picture, c = 1 or 3. ValueError where a side is under ``LEAST`` pixels."""
    if min(image.shape[:2]) < LEAST:
        raise ValueError(f"{image.shape[1]}x{image.shape[0]}: sides must be at least {LEAST} pixels")
    part = middle(image)
    planes = color.code_to_float(part)
    grey = color.luma(planes)
    values = [
        float(modality == "infrared"), float(part.shape[2] == 1), math.log(image.shape[1] / 640),
        *tone_statistics(part), *spectrum_statistics(grey), *residual_statistics(planes, grey),
        *jpeg_statistics(grey * 255), *resampling_statistics(grey), *column_statistics(grey),
        *defect_statistics(part, grey), *line_statistics(grey), *blob_statistics(grey), *sharpness_statistics(grey),
        *normalised_statistics(grey),
    ]  # fmt: skip
    return np.array(values, np.float32)

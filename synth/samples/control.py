"""Targets that an instruction describes exactly: a change of brightness, contrast or colour, and a class marked."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from clearfuse.synth import color
from clearfuse.synth.shards.records import Control
from clearfuse.synth.types import Tag

GAMMA: dict[Tag, float] = {"LIGHT++": 0.5, "LIGHT+": 0.75, "LIGHT-": 4 / 3, "LIGHT--": 2.0}
"""Exponents of the brightness; a step back undoes one forward."""
CONTRAST: dict[Tag, float] = {"CONTRAST+": 1.5, "CONTRAST-": 0.6}
"""Factors of the contrast about the mean luma."""
WARMTH: dict[Tag, float] = {"WARM+": 0.25, "WARM-": -0.25}
"""Stops by which red is raised and blue lowered, in linear light."""

BLUE, OPACITY = (0, 0, 255), 0.5
"""Colour and opacity of the mark."""

Picture = UInt8[np.ndarray, "h w c"]
Target = UInt8[np.ndarray, "h w d"]
_CODES = np.arange(256, dtype=np.uint8).reshape(1, 256, 1)


def controlled(picture: Picture, tag: Tag) -> tuple[Target, Control]:
    """The picture as an instruction about its tone asks, and the record of it."""
    how = Control(tag=tag, pivot=round(float(color.luma(picture.astype(np.float32)).mean()), 2))
    return adjust(picture, how), how


def adjust(picture: Picture, how: Control) -> Target:
    """A tone curve by table, so that each pixel follows from its own value; three channels where colour changes.

    Brightness: y = x^γ on code values in [0, 1], which keeps black and white and clips nothing. Contrast:
    y = m + c (x − m), m the mean luma. Warmth: 2^(±w) on red and blue in linear light (von Kries, 1902).
    """
    if how.tag in WARMTH:
        return _warmed(picture, WARMTH[how.tag])
    x = _CODES.astype(np.float64) / 255
    middle = how.pivot / 255
    y = x ** GAMMA[how.tag] if how.tag in GAMMA else middle + CONTRAST[how.tag] * (x - middle)
    return color.as_hwc(cv2.LUT(picture, _rounded(y)))


def _warmed(picture: Picture, stops: float) -> Target:
    light = color.code_to_linear(_CODES)
    tables = [_rounded(color.linear_to_srgb(np.minimum(light * np.float32(2**by), 1))) for by in (stops, 0.0, -stops)]
    return cv2.merge([cv2.LUT(channel, table) for channel, table in zip(_channels(picture), tables, strict=True)])


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.floor(np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8).reshape(1, 256)


def _channels(picture: Picture) -> list[np.ndarray]:
    return [np.ascontiguousarray(picture[..., min(at, picture.shape[2] - 1)]) for at in range(3)]


def marked(picture: Picture, mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """The picture in three channels with a half-transparent blue over the mask: y = (1 − α) x + α blue."""
    out = np.stack(_channels(picture), -1)
    blended = (1 - OPACITY) * out[mask].astype(np.float64) + OPACITY * np.array(BLUE)
    out[mask] = np.floor(blended + 0.5).astype(np.uint8)
    return out

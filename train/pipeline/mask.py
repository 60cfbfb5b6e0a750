"""The mask of a fused image in which an instruction had a class marked."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from clearfuse.synth.samples.control import marked

SMOOTH = 5
"""Side in pixels of the box over which the two distances are averaged: a model's marks have ragged edges."""


def mask_of(answer: UInt8[np.ndarray, "h w 3"], plain: UInt8[np.ndarray, "h w 3"]) -> Bool[np.ndarray, "h w"]:
    """Where the answer is nearer to the plain fusion under the mark (``control.marked``) than to the plain fusion.

    answer: what the model made of the request to mark; plain: what it makes of the request to fuse.
    """
    everywhere = marked(plain, np.ones(plain.shape[:2], np.bool_))
    to_mark, to_plain = (
        cv2.boxFilter(np.square(answer.astype(np.float32) - other).sum(2), -1, (SMOOTH, SMOOTH))
        for other in (everywhere, plain)
    )
    return to_mark < to_plain

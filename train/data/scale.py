"""Random scale: a clean pair made smaller before it is degraded, so that few pairs show many sizes of things."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from clearfuse.synth.color import as_hwc
from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.shards.records import LEAN_IMAGES
from clearfuse.synth.shards.sample import Sample

PYRAMID = "pyramid"


def draw_factor(uniform: float, least: float, size: tuple[int, int], crop: tuple[int, int]) -> float:
    """A factor between ``least`` and 1, uniform on a logarithmic scale, that leaves room for a crop.

    uniform: in [0, 1). size, crop: (width, height) in pixels. An image that is no larger than its crop stays as it is.
    """
    room = max(side / whole for side, whole in zip(crop, size, strict=True))
    return max(least, min(room, 1.0)) ** uniform


def rescale(sample: Sample, factor: float) -> Sample:
    """A lean sample at ``factor``, at most 1, times its size: clean pair, ground truth and depth.

    Pixels are means over areas, of code values; depth, which has steps and sky, is its nearest. A ground truth that is
    a pyramid's is made anew: at another size the pyramid fuses a little differently, which a network would learn too.
    """
    h, w = sample.images["clean_a"].shape[:2]
    size = max(round(w * factor), 1), max(round(h * factor), 1)
    if size == (w, h):
        return sample
    images = {name: as_hwc(cv2.resize(sample.images[name], size, interpolation=cv2.INTER_AREA)) for name in LEAN_IMAGES}
    if sample.meta.fuser.name == PYRAMID:
        images["gt"] = PyramidFuser()(images["clean_a"], images["clean_b"], sample.meta.task)
    depth = sample.depth
    if depth is not None:
        depth = np.asarray(cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST))
    return replace(sample, images={**sample.images, **images}, depth=depth)

"""Aspect-ratio buckets: each sample is cropped to the shape with the aspect ratio nearest to its own.

A batch has a single shape. Images are not resized, nor padded if they are large enough: where an image is smaller than
the shape, a smaller version of it is used, in eighths of its sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from clearfuse.synth.types import UserError

MULTIPLE = 16
"""Sides are multiples of this many pixels: latent cells of 8 pixels in patches of 2 × 2."""

EIGHTHS = (8, 7, 6, 5, 4, 3, 2)
"""Sides of the smaller versions, largest first; an image smaller than the last is padded by reflection."""

Shape = tuple[int, int]
"""(width, height) in pixels."""


def parse_ratios(text: str) -> list[tuple[int, int]]:
    """Parse ``16:9,4:3,1:1`` to pairs. Raises UserError for other text, and for ratios beyond 1:4 and 4:1."""
    ratios: list[tuple[int, int]] = []
    for part in text.split(","):
        width, colon, height = (number.strip() for number in part.partition(":"))
        if not (colon and width.isdecimal() and height.isdecimal() and int(width) > 0 and int(height) > 0):
            raise UserError(f"--ratios {text}: must be ratios such as 16:9,4:3,1:1")
        if not 1 / 4 <= int(width) / int(height) <= 4:
            raise UserError(f"--ratios {text}: {width}:{height} must be between 1:4 and 4:1")
        ratios.append((int(width), int(height)))
    return ratios


def shape_of(ratio: tuple[int, int], crop: int, eighths: int = 8, multiple: int = MULTIPLE) -> Shape:
    """The crop shape of a ratio: about crop² pixels, sides rounded to a multiple; those of smaller versions round down.

    w = crop √(r), h = crop / √(r), r = width : height. 1:1 at full size is exactly crop × crop.
    """
    width, height = ratio
    if eighths == 8:
        if width == height:
            return crop, crop
        sides = (crop * math.sqrt(width / height), crop * math.sqrt(height / width))
        w, h = (max(round(side / multiple), 1) * multiple for side in sides)
        return w, h
    full = shape_of(ratio, crop, 8, multiple)
    w, h = (max(side * eighths // (8 * multiple), 1) * multiple for side in full)
    return w, h


def find_shape(size: Shape, ratios: Sequence[tuple[int, int]], crop: int, multiple: int = MULTIPLE) -> Shape:
    """The shape that an image is cropped to. size: (width, height) of the image; ratios: each also in portrait.

    The ratio nearest on a logarithmic scale, in the largest version that fits, or else the smallest.
    """
    aspect = math.log(size[0] / size[1])
    candidates = {ratio for w, h in ratios for ratio in ((w, h), (h, w))}
    nearest = min(sorted(candidates), key=lambda ratio: abs(aspect - math.log(ratio[0] / ratio[1])))
    versions = [shape_of(nearest, crop, eighths, multiple) for eighths in EIGHTHS]
    return next((shape for shape in versions if shape[0] <= size[0] and shape[1] <= size[1]), versions[-1])

"""Shapes of training crops: each sample goes to the one that is nearest its own aspect and fits into it.

A batch has one shape. Nothing is padded and nothing resized: where an image is smaller than a shape, it goes to that
shape's next smaller version, in eighths of the sides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from clearfuse.synth.types import UserError

MULTIPLE = 16
"""Pixels of which a side is a multiple: a latent cell of 8, in patches of two."""

EIGHTHS = (8, 7, 6, 5, 4, 3, 2)
"""Sides of the smaller versions, largest first; an image smaller than the last is continued by reflection."""

Shape = tuple[int, int]
"""(width, height) in pixels."""


def parse_ratios(text: str) -> list[tuple[int, int]]:
    """``16:9,4:3,1:1`` as pairs. Raises UserError where it is not like that."""
    found: list[tuple[int, int]] = []
    for part in text.split(","):
        width, colon, height = (piece.strip() for piece in part.partition(":"))
        if not (colon and width.isdecimal() and height.isdecimal() and int(width) > 0 and int(height) > 0):
            raise UserError(f"--ratios {text}: must be ratios such as 16:9,4:3,1:1")
        if not 1 / 4 <= int(width) / int(height) <= 4:
            raise UserError(f"--ratios {text}: {width}:{height} must be between 1:4 and 4:1")
        found.append((int(width), int(height)))
    return found


def shape_of(ratio: tuple[int, int], crop: int, eighths: int = 8, multiple: int = MULTIPLE) -> Shape:
    """The crop of a ratio: about crop² pixels, each side the nearest multiple; of smaller versions the one below.

    w = crop √(r), h = crop / √(r), r = width : height. 1:1 at full size is crop × crop as it stands.
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
    """The shape of an image's crops. size: (width, height) of the image; ratios stand for their portraits too.

    The ratio nearest on a logarithmic scale; of its versions the largest that fits, else the smallest.
    """
    aspect = math.log(size[0] / size[1])
    wanted = {one for w, h in ratios for one in ((w, h), (h, w))}
    nearest = min(sorted(wanted), key=lambda ratio: abs(aspect - math.log(ratio[0] / ratio[1])))
    versions = [shape_of(nearest, crop, eighths, multiple) for eighths in EIGHTHS]
    return next((one for one in versions if one[0] <= size[0] and one[1] <= size[1]), versions[-1])

"""Pictures of where a fused image's pixels come from: see ``metrics.faithfulness``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from clearfuse.synth.types import ROLES, Task
from clearfuse.train.metrics.base import codes, luma
from clearfuse.train.metrics.faithfulness import ORIGINS, Sources, shares

COLOURS = {"a": (0, 114, 178), "b": (230, 159, 0), "both": (190, 190, 190), "neither": (214, 0, 110)}
"""Of the origins: blue, orange, grey and magenta, which the colour-blind tell apart too (after Okabe, Ito 2008)."""
TINT = 0.6
"""The colour's part of a pixel; the rest is the fused image's luma, so that one sees what is where."""
LINE = 20
"""Height of a line of the legend, pixels."""
WIDEST = 150
"""The least width of an entry of the legend, pixels."""


def origin_map(fused: np.ndarray, a: np.ndarray, b: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    """The place in ``ORIGINS`` of each pixel. The images as ``evaluate`` takes them. Raises ValueError, as it does."""
    lumas = {name: luma(codes(image, name)) for name, image in (("fused", fused), ("a", a), ("b", b))}
    for name, image in lumas.items():
        if image.shape != lumas["fused"].shape:
            sizes = [f"{x.shape[1]}x{x.shape[0]}" for x in (image, lumas["fused"])]
            raise ValueError(f"{name} is {sizes[0]}, fused {sizes[1]}: all images must have one size")
    return Sources(lumas["a"], lumas["b"], stride=1).origins(lumas["fused"])


def origin_picture(fused: np.ndarray, origins: UInt8[np.ndarray, "h w"], task: Task) -> UInt8[np.ndarray, "h2 w 3"]:
    """The map in colours over the fused image's luma, with a legend of names and shares below it."""
    table = np.array([COLOURS[name] for name in ORIGINS], np.float32)
    shade = luma(codes(fused, "fused"))[..., None]
    picture = (TINT * table[origins] + (1 - TINT) * shade + 0.5).astype(np.uint8)
    return np.concatenate([picture, _legend(picture.shape[1], dict(zip(ORIGINS, shares(origins), strict=True)), task)])


def _legend(width: int, found: Mapping[str, float], task: Task) -> UInt8[np.ndarray, "h w 3"]:
    names = {"a": ROLES[task]["a"], "b": ROLES[task]["b"], "both": "both", "neither": "neither (invented)"}
    columns = max(min(width // WIDEST, len(names)), 1)
    lines = -(-len(names) // columns)
    made = Image.new("RGB", (width, LINE * lines + 4), "white")
    draw, font = ImageDraw.Draw(made), ImageFont.load_default(11)
    for number, (origin, text) in enumerate(names.items()):
        x, y = (number % columns) * width // columns + 4, (number // columns) * LINE + 4
        draw.rectangle((x, y + 2, x + 12, y + 14), fill=COLOURS[origin])
        draw.text((x + 17, y + 1), f"{text} {found[origin]:.1%}", fill="black", font=font)
    return np.asarray(made)

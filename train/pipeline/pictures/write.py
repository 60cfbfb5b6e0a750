"""Fused images as files, in the depth, the channels and the opacity of what was fused; sheets beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from clearfuse.synth import color
from clearfuse.synth.files.pictures import Picture
from clearfuse.synth.files.storage import landing
from clearfuse.synth.review.gallery import GalleryRow, sheet


class Format(NamedTuple):
    """A file format. pillow: its name there; bits: the most a channel; alpha: whether it keeps opacity."""

    pillow: str
    bits: int = 8
    alpha: bool = False


FORMATS = {
    ".png": Format("PNG", 16, True),
    ".webp": Format("WEBP", 8, True),
    ".tif": Format("TIFF", 32, True),
    ".tiff": Format("TIFF", 32, True),
    ".bmp": Format("BMP"),
    ".jpg": Format("JPEG"),
    ".jpeg": Format("JPEG"),
}
"""The format of a fused image by file extension; WebP is lossless, JPEG has quality 95."""
OPTIONS = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}
MARKED = 32
"""Spread of the channels, in codes, of which a thousandth of a fused grey pair makes it a colour picture: a mark."""
PANEL = 640
"""Widest panel of a sheet, pixels."""


def as_sources(fused: Picture, grey: bool, asked: bool) -> Picture:
    """The fused picture, in one channel where all it was fused of is grey. asked: there was an instruction, whose
    coloured marks stay.
    """
    if not grey or (asked and _marked(fused.image)):
        return fused
    codes = fused.image.dtype == np.uint8
    values = color.luma(color.code_to_float(fused.image) if codes else fused.image)[..., None]
    return replace(fused, image=color.to_uint8(values) if codes else values)


def least_opaque(sources: Sequence[Picture]) -> np.ndarray | None:
    """The opacity of a fused image, that of the least opaque source at each pixel, float32; None: all are opaque."""
    found: np.ndarray | None = None
    for source in sources:
        if source.alpha is not None:
            share = source.alpha if source.alpha.dtype == np.float32 else source.alpha * np.float32(1 / 255)
            found = share if found is None else np.minimum(found, share)
    return found


def _marked(fused: np.ndarray) -> bool:
    """Whether the fused image of a grey pair has a coloured mark."""
    spread = fused.max(axis=2).astype(np.float32) - fused.min(axis=2)
    return float(np.mean(spread > (MARKED if fused.dtype == np.uint8 else MARKED / 255))) > 1e-3


def what_is_lost(path: Path, picture: Picture) -> str:
    """What the format of a path doesn't keep of a picture, in words; empty for nothing."""
    format = FORMATS[path.suffix.lower()]
    lost = [f"{'floating point' if picture.bits == 32 else '16 bits'}"] if picture.bits > format.bits else []
    lost += ["alpha"] if picture.alpha is not None and not format.alpha else []
    keeping = ".tif" if picture.bits == 32 else ".png or .tif"
    return f"{path.suffix} does not keep {' and '.join(lost)}: -o with {keeping} does" if lost else ""


def write_picture(path: Path, picture: Picture) -> None:
    """Write a picture atomically, in the depth that its format has."""
    format = FORMATS[path.suffix.lower()]
    alpha = picture.alpha if format.alpha else None
    bits = min(picture.bits, format.bits)
    if bits == 8 or picture.image.dtype == np.uint8:
        image = color.as_codes(picture.image)
        write_image(path, image if alpha is None else np.dstack([image, color.to_uint8(alpha)]))
        return
    values = picture.image[..., ::-1]
    if alpha is not None:
        values = np.dstack([*[values] * (3 if values.shape[2] == 1 else 1), alpha])
    if bits == 16:
        values = (values * np.float32(65535) + np.float32(0.5)).astype(np.uint16)
    _, data = cv2.imencode(".png" if format.pillow == "PNG" else ".tiff", np.ascontiguousarray(values))
    path.parent.mkdir(parents=True, exist_ok=True)
    with landing(path) as file:
        file.write(data.tobytes())


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an image of 8 bits atomically: (h, w), or (h, w, c) with 1 to 4 channels, of which 2 and 4 have alpha."""
    path.parent.mkdir(parents=True, exist_ok=True)
    format = FORMATS[path.suffix.lower()].pillow
    with landing(path) as file:
        made = Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image)
        made.save(file, format, **OPTIONS.get(format, {}))


def write_sheet(path: Path, panels: Sequence[tuple[str, np.ndarray]], lines: Sequence[str]) -> None:
    """Write labelled pictures side by side, no wider than ``PANEL`` each, with lines of text below."""
    cells = tuple((label, color.as_codes(image)) for label, image in panels)
    width = min(max(image.shape[1] for _, image in cells), PANEL)
    made = sheet(path.name, [GalleryRow(cells, tuple(lines))], cell=max(width, 160))
    path.parent.mkdir(parents=True, exist_ok=True)
    with landing(path) as file:
        made.save(file, "PNG")

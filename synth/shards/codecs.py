"""Lossless image codecs of the shards: uint8 ``(h, w, c)`` to bytes and back, the same pixels."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from clearfuse.synth.types import UserError, unknown


@dataclass(frozen=True)
class Codec:
    """One lossless codec. grey: whether it stores one channel as one; else grey is three equal channels."""

    name: str
    doc: str
    grey: bool
    largest: int
    encode: Callable[[np.ndarray], bytes]
    decode: Callable[[bytes], np.ndarray]


def _pillow_encode(image: np.ndarray, **options: Any) -> bytes:
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[2] == 1 else image).save(out, **options)
    return out.getvalue()


def _pillow_decode(data: bytes) -> np.ndarray:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as file:
        image = np.asarray(file.convert("L" if file.mode == "L" else "RGB"))
    return image[..., None] if image.ndim == 2 else image


def _webp_encode(image: np.ndarray) -> bytes:
    # quality is the effort of the search for repeats here; photographs hold few: 80, Pillow's default, takes 3 to 4
    # times as long for 0 to 1.5 % less.
    image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.shape[2] == 1 else image
    return _pillow_encode(image, format="WEBP", lossless=True, method=0, quality=20)


def _webp_decode(data: bytes) -> np.ndarray:
    # A fifth faster than Pillow's, and other threads go on meanwhile.
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if image is None or image.dtype != np.uint8:
        raise ValueError("no whole WebP image")
    return image


def _png_encode(image: np.ndarray) -> bytes:
    # Level 1 costs half the time of the default for a few percent of size.
    return _pillow_encode(image, format="PNG", compress_level=1)


_PNM_HEAD = re.compile(rb"P([56])\n(\d+) (\d+)\n255\n")


def _pnm_encode(image: np.ndarray) -> bytes:
    return _pillow_encode(image, format="PPM")


def _pnm_decode(data: bytes) -> np.ndarray:
    # Only the header that Pillow writes: to look at the values where they lie costs a tenth of what its reader takes.
    head = _PNM_HEAD.match(data)
    if head is None:
        raise ValueError("no PNM image with the header that this codec writes")
    kind, width, height = map(int, head.groups())
    shape = (height, width, 3 if kind == 6 else 1)
    if len(data) - head.end() != np.prod(shape):
        raise ValueError(f"no whole PNM image of {width}x{height}")
    return np.frombuffer(data, np.uint8, offset=head.end()).reshape(shape).copy()


def _jxl() -> Any:
    try:
        import imagecodecs  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError("codec jxl needs imagecodecs: pip install 'clearfuse[jxl]'") from None
    return imagecodecs


def _jxl_encode(image: np.ndarray) -> bytes:
    data = image[..., 0] if image.shape[2] == 1 else image
    return bytes(_jxl().jpegxl_encode(data, lossless=True, effort=1, numthreads=1))


def _jxl_decode(data: bytes) -> np.ndarray:
    image = np.asarray(_jxl().jpegxl_decode(data, numthreads=1))
    return image[..., None] if image.ndim == 2 else image


CODECS: dict[str, Codec] = {
    "webp": Codec("webp", "WebP, lossless, method 0 (Pillow)", False, 16383, _webp_encode, _webp_decode),
    "png": Codec("png", "PNG, level 1 (Pillow)", True, 2**31 - 1, _png_encode, _pillow_decode),
    "pnm": Codec("pnm", "PNM, not compressed: 3 times the bytes, no time", True, 2**31 - 1, _pnm_encode, _pnm_decode),
    "jxl": Codec("jxl", "JPEG XL, lossless, effort 1 (imagecodecs, an extra)", True, 2**30, _jxl_encode, _jxl_decode),
}


def find_codec(name: str) -> Codec:
    """A codec by name, ready to use: an extra that is missing is an error here, before work begins."""
    if name not in CODECS:
        raise unknown("codec", name, CODECS)
    if name == "jxl":
        _jxl()
    return CODECS[name]

"""Lossless image codecs of the shards: uint8 ``(h, w, c)`` to bytes and back, the same pixels."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np

from clearfuse.synth.files.pictures import MOST_PIXELS
from clearfuse.synth.types import UserError, check_name


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


def _png_decode(data: bytes) -> np.ndarray:
    from PIL import Image

    if not data.startswith(b"\x89PNG\r\n\x1a\n") or data[12:16] != b"IHDR":
        raise ValueError("no PNG image")
    check_size(int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big"))
    with Image.open(io.BytesIO(data), formats=["PNG"]) as file:
        check_size(*file.size)  # of the last header, where there are several
        image = np.asarray(file.convert("L" if file.mode == "L" else "RGB"))
    return image[..., None] if image.ndim == 2 else image


def check_size(width: int, height: int) -> None:
    """Refuse a picture by its header, before it is decoded. Raises ValueError above ``MOST_PIXELS``."""
    if width * height > MOST_PIXELS:
        raise ValueError(f"{width}x{height} has too many pixels: at most {MOST_PIXELS} are read")


def _webp_encode(image: np.ndarray) -> bytes:
    # quality is the effort of the search for repeats here; photographs hold few: 80, Pillow's default, takes 3 to 4
    # times as long for 0 to 1.5 % less.
    image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.shape[2] == 1 else image
    return _pillow_encode(image, format="WEBP", lossless=True, method=0, quality=20)


def _webp_size(data: bytes) -> tuple[int, int]:
    """(width, height) by the first chunk, as RFC 9649 has them. Raises ValueError for another format: cv2 reads any."""
    little = partial(int.from_bytes, byteorder="little")
    kind = data[12:16] if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and len(data) >= 30 else b""
    if kind == b"VP8L":
        bits = little(data[21:25])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        return little(data[24:27]) + 1, little(data[27:30]) + 1
    if kind == b"VP8 ":
        return little(data[26:28]) & 0x3FFF, little(data[28:30]) & 0x3FFF
    raise ValueError("no WebP image")


def _webp_decode(data: bytes) -> np.ndarray:
    check_size(*_webp_size(data))
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
    check_size(width, height)
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


_JXL_RATIOS = (None, (1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def _jxl_size(data: bytes) -> tuple[int, int]:
    """(width, height) by the SizeHeader of a code stream (ISO/IEC 18181-1). Raises ValueError for another format."""
    if data[4:8] == b"JXL ":
        data = _jxl_stream(data)
    if data[:2] != b"\xff\x0a" or len(data) < 12:
        raise ValueError("no JPEG XL image")
    bits = int.from_bytes(data[2:12], "little")

    def take(count: int) -> int:
        nonlocal bits
        value, bits = bits & ((1 << count) - 1), bits >> count
        return value

    small = take(1)

    def side() -> int:
        return 8 * (take(5) + 1) if small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = _JXL_RATIOS[take(3)]
    return (side() if ratio is None else height * ratio[0] // ratio[1]), height


def _jxl_stream(data: bytes) -> bytes:
    """The code stream, or its first part, out of the boxes of a file; b"" where there is none."""
    at = 0
    while len(data) - at > 16:
        size, kind, head = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if size == 1:
            size, head = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        if kind in (b"jxlc", b"jxlp"):
            return data[at + head + (4 if kind == b"jxlp" else 0) :]
        if size < head:
            break
        at += size
    return b""


def _jxl_decode(data: bytes) -> np.ndarray:
    check_size(*_jxl_size(data))
    image = np.asarray(_jxl().jpegxl_decode(data, numthreads=1))
    return image[..., None] if image.ndim == 2 else image


CODECS: dict[str, Codec] = {
    "webp": Codec("webp", "WebP, lossless, method 0 (Pillow)", False, 16383, _webp_encode, _webp_decode),
    "png": Codec("png", "PNG, level 1 (Pillow)", True, 2**31 - 1, _png_encode, _png_decode),
    "pnm": Codec("pnm", "PNM, not compressed: 3 times the bytes, no time", True, 2**31 - 1, _pnm_encode, _pnm_decode),
    "jxl": Codec("jxl", "JPEG XL, lossless, effort 1 (imagecodecs, an extra)", True, 2**30, _jxl_encode, _jxl_decode),
}


def find_codec(name: str) -> Codec:
    """A codec by name, ready to use: an extra that is missing is an error here, before work begins."""
    check_name("codec", name, CODECS)
    if name == "jxl":
        _jxl()
    return CODECS[name]

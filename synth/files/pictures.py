"""Picture files as arrays: upright, without alpha, 8 bit; what a sensor's counts were scaled by is kept.

Thermal cameras store 14 or 16 bit counts, centikelvins or degrees, of which a scene fills a small part: an infrared
image is scaled by its robust range. A visible image's counts are code values, whose full scale is the container's,
16 bit, unless metadata or the user say less: exposures of one scene keep their order, since no file's own largest
count decides.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clearfuse.synth import color
from clearfuse.synth.files.archives import is_member, read_member
from clearfuse.synth.files.storage import is_url, read_bytes
from clearfuse.synth.types import BadPair, Modality, reason_of

if TYPE_CHECKING:
    from PIL.Image import Image

ROBUST = (0.1, 99.9)
"""Percentiles of an infrared image that become 0 and 255: hot and dead pixels do not set the scale."""

FULL_SCALE = 65535
"""Of integers beyond 8 bits, those that a file holds in 32 bits too: larger ones are refused."""

MOST_PIXELS = 1 << 26
"""Of a picture, as its header says them: 8192 x 8192. More is refused before anything is decoded."""
MOST_BYTES = 1 << 30
"""Of a local file: more than ``MOST_PIXELS`` of any depth take."""

_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
"""Formats whose further frames are a film's; further pages of a TIFF are thumbnails, masks or scales."""


@dataclass(frozen=True)
class Decoded:
    """image: uint8 ``(h, w, c)``, c = 1 or 3. sha256: of the file. sensor: what was done to get there, {} for nothing.

    ``sensor`` has ``mode`` with ``low`` and ``high`` (the counts that became 0 and 255), ``alpha``, ``orientation``.
    """

    image: np.ndarray
    sha256: str
    sensor: dict[str, Any]


def decode(path: str, modality: Modality = "visible", scale: int | None = None) -> Decoded:
    """Decode a picture of 8 to 32 bits a channel, or floating point, at a path or URL.

    scale: the count of white in a visible picture of more than 8 bits; None: what its metadata say, or its container.
    Raises BadPair with the reason where the file is no usable picture, OSError where it can't be read at all.
    """
    name = Path(path).name
    raw = _read(path, name)
    with _opened(io.BytesIO(raw), name) as file:
        file.load()
        image, sensor = _pixels(file, raw, name, modality, scale)
    return Decoded(color.as_hwc(image), hashlib.sha256(raw).hexdigest(), sensor)


def upright_size(path: str) -> tuple[int, int]:
    """(width, height) of a local picture as ``decode`` gives it, by its header. Raises as ``decode`` does."""
    name = Path(path).name
    _check_file(path, name)
    with _opened(path, name) as file:
        width, height = file.size
        return (height, width) if file.getexif().get(_ORIENTATION, 1) in range(5, 9) else (width, height)


@contextmanager
def _opened(source: str | io.BytesIO, name: str) -> Iterator[Image]:
    """A picture open in Pillow, its header checked; what is wrong with it, inside the block too, is a BadPair."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            with Image.open(source) as file:
                check_header(file, name)
                yield file
    except (BadPair, MemoryError):  # the machine's fault, not the picture's
        raise
    except UnidentifiedImageError:
        raise BadPair(f"{name}: is not an image") from None
    except Image.DecompressionBombError:
        raise BadPair(f"{name}: has too many pixels: at most {MOST_PIXELS} are read") from None
    except Exception as error:  # on damaged bytes Pillow, cv2 and zlib raise what they like
        reason = error.strerror if isinstance(error, OSError) and error.strerror else reason_of(error)
        raise BadPair(f"{name}: cannot be read: {reason}") from None


def _read(path: str, name: str) -> bytes:
    """The file's bytes. An OSError is the machine's fault, not the picture's: no reject, but for a lack of rights."""
    if is_member(path):
        data = read_member(path)
        if data is None:
            raise BadPair(f"{name}: is not in its tar")
        return data
    if not is_url(path):
        _check_file(path, name)
    try:
        return read_bytes(path)
    except PermissionError:
        raise BadPair(f"{name}: cannot be read: permission denied") from None


def _check_file(path: str, name: str) -> None:
    """Refuse a local path that must not be opened: a pipe waits for ever, a device may never end. Raises BadPair."""
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise BadPair(f"{name}: is no regular file")
    if found.st_size > MOST_BYTES:
        raise BadPair(f"{name}: is {found.st_size} bytes: at most {MOST_BYTES} are read")


def check_header(file: Image, name: str) -> None:
    """Refuse by the header of an open file what is too large, and what is a film. Raises BadPair."""
    width, height = file.size
    if width * height > MOST_PIXELS:
        raise BadPair(f"{name}: {width}x{height} has too many pixels: at most {MOST_PIXELS} are read")
    if file.format in _ANIMATED and getattr(file, "is_animated", False):
        raise BadPair(f"{name}: is animated: {getattr(file, 'n_frames', 'several')} frames, where one is wanted")


def _pixels(
    file: Image, raw: bytes, name: str, modality: Modality, scale: int | None
) -> tuple[np.ndarray, dict[str, Any]]:
    from PIL import ImageOps

    sensor: dict[str, Any] = {}
    turn = file.getexif().get(_ORIENTATION, 1)
    if turn in range(2, 9):
        sensor["orientation"] = turn
    if file.mode in ("LA", "RGBA", "PA", "La", "RGBa"):
        sensor["alpha"] = "ignored"
    counts = None
    if file.mode.startswith(("I", "F")):
        counts = np.asarray(ImageOps.exif_transpose(file), np.float64)
    elif _wide_colour(file, raw):
        counts = _colour_counts(raw, turn)
    if counts is not None:
        full = 1.0 if file.mode.startswith("F") else scale or _full_scale(file, raw, counts)
        if scale and modality == "visible" and full == scale and counts.max() > scale:
            raise BadPair(f"{name}: its counts reach {counts.max():g}, above the scale of {scale}")
        image, low, high = scaled(counts, name, file.mode, modality, full)
        return image, {"mode": file.mode if counts.ndim == 2 else "RGB;16", "low": low, "high": high, **sensor}
    upright = ImageOps.exif_transpose(file)
    grey = upright.mode in ("L", "LA", "1")
    return np.asarray(upright.convert("L" if grey else "RGB")), sensor


def is_wide(file: Image, header: bytes) -> bool:
    """Whether an open file has more than 8 bits a channel. header: its first bytes, 25 at least."""
    return file.mode.startswith(("I", "F")) or _wide_colour(file, header)


_ORIENTATION, _BITS_PER_SAMPLE, _MAX_SAMPLE, _WHITE_LEVEL = 0x0112, 258, 281, 50717
_TURNS = {3: (2, False), 6: (3, False), 8: (1, False), 2: (0, True), 4: (2, True), 5: (3, True), 7: (1, True)}
"""EXIF orientation -> quarter turns counter-clockwise, then a flip left to right (TIFF 6.0, tag 274)."""


def _wide_colour(file: Image, raw: bytes) -> bool:
    """Whether a colour PNG or TIFF has 16 bits a channel: Pillow opens it with the upper eight."""
    if file.mode not in ("RGB", "RGBA"):
        return False
    if file.format == "PNG":
        return raw[24] == 16
    bits = getattr(file, "tag_v2", {}).get(_BITS_PER_SAMPLE, ()) if file.format == "TIFF" else ()
    return 16 in (bits if isinstance(bits, tuple) else (bits,))


def _colour_counts(raw: bytes, turn: int) -> np.ndarray | None:
    """(h, w, 3) counts, RGB, upright; None where they can't be had in full, and the upper eight bits must do."""
    import cv2

    counts = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
    if counts is None or counts.dtype != np.uint16 or counts.ndim != 3:
        return None
    counts = counts[..., 2::-1].astype(np.float64)
    quarters, flip = _TURNS.get(turn, (0, False))
    counts = np.rot90(counts, quarters)
    return counts[:, ::-1] if flip else counts


def scaled(
    counts: np.ndarray, name: str, mode: str, modality: Modality, full: float
) -> tuple[np.ndarray, float, float]:
    """(uint8 image, low, high): counts low to high become 0 to 255, clipped.

    Infrared: the percentiles ``ROBUST``. Visible: 0 to full. Raises BadPair where nothing says a scale: one value
    throughout, none finite, or a visible image below 0 or beyond its container's full scale.
    """
    finite = counts[np.isfinite(counts)]
    if finite.size == 0 or finite.min() == finite.max():
        raise BadPair(f"{name}: {mode} is not 8 bit, and holds one value throughout: nothing to scale by")
    if modality == "infrared":
        low, high = (float(x) for x in np.percentile(finite, ROBUST))
        if low == high:
            low, high = float(finite.min()), float(finite.max())
    else:
        low, high = 0.0, full
        if finite.min() < 0 or finite.max() > (full if mode.startswith("F") else FULL_SCALE):
            span = f"{finite.min():g} to {finite.max():g}"
            raise BadPair(f"{name}: {mode} is not 8 bit, and its values, {span}, have no full scale")
    share = np.clip(np.nan_to_num((counts - low) / (high - low), nan=0.0), 0, 1)
    return color.to_uint8(share.astype(np.float32)), low, high


def _full_scale(file: Image, raw: bytes, counts: np.ndarray) -> float:
    """The count of white in a file of integers: the container's, or less where its metadata say so.

    A TIFF's own bits or a camera's white level (DNG) fix it. Significant bits (sBIT of a PNG, bits or a largest sample
    of 2^n - 1 in Exif) do where the counts are those bits; PNG's standard has them scaled up to 16, lower bits filled.
    """
    exif = file.getexif()
    own, largest, white = (_first(exif.get(tag)) for tag in (_BITS_PER_SAMPLE, _MAX_SAMPLE, _WHITE_LEVEL))
    if 0 < white < FULL_SCALE:
        return white
    if file.format == "TIFF" and 8 < own < 16:
        return 2**own - 1
    bits = _png_bits(raw) or own
    if largest & (largest + 1) == 0 and 255 < largest < FULL_SCALE:
        bits = largest.bit_length()
    if not 8 <= bits < 16 or counts.max() >= 2**bits:
        return FULL_SCALE
    codes = counts.astype(np.int64)
    lower = codes & ((1 << 16 - bits) - 1)
    return FULL_SCALE if not (lower & (lower ^ (codes >> bits))).any() else 2**bits - 1


def _first(value: object) -> int:
    """A tag's value, the first of several; 0 for none and for what is no number."""
    value = value[0] if isinstance(value, tuple) and value else value
    return int(value) if isinstance(value, int) else 0


def _png_bits(raw: bytes) -> int:
    """The significant bits of a PNG's colours (sBIT), 0 where it does not say."""
    at = 8 if raw.startswith(b"\x89PNG") else len(raw)
    while at + 12 <= len(raw) and (kind := raw[at + 4 : at + 8]) != b"IDAT":
        length = int.from_bytes(raw[at : at + 4], "big")
        if kind == b"sBIT":
            return max(raw[at + 8 : at + 8 + (3 if length > 2 else 1)])
        at += 12 + length
    return 0

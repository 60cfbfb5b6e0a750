"""Picture files as arrays: upright, without alpha, 8 bit; what a sensor's counts were scaled by is kept.

Thermal cameras store 14 or 16 bit counts, centikelvins or degrees, of which a scene fills a small part: an infrared
image is scaled by its robust range. A visible image's counts are code values, whose full scale is the container's,
16 bit, unless metadata or the user say less: exposures of one scene keep their order, since no file's own largest
count decides.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from clearfuse.synth import color
from clearfuse.synth.files.archives import is_member, read_member
from clearfuse.synth.files.storage import UnfitFile, check_regular, is_url, read_bytes
from clearfuse.synth.files.wide import (
    FULL_SCALE,
    HEADER,
    ORIENTATION,
    colour_counts,
    float_tiff,
    full_scale,
    is_wide,
    is_wide_colour,
)
from clearfuse.synth.types import BadPair, Modality, reason_of

if TYPE_CHECKING:
    from PIL.Image import Image

ROBUST = (0.1, 99.9)
"""Percentiles of an infrared image that become 0 and 255: hot and dead pixels do not set the scale."""

EXTENSIONS = frozenset(
    {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".ppm", ".pgm", ".pnm", ".jp2", ".j2k"}
)
"""How the names of pictures end, wherever folders are searched for them."""

MOST_PIXELS = 1 << 26
"""Of a picture, as its header says them: 8192 x 8192. More is refused before anything is decoded."""

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
    raw, image, _, sensor = _decoded(path, modality, scale)
    return Decoded(color.as_hwc(color.as_codes(image)), hashlib.sha256(raw).hexdigest(), sensor)


@dataclass(frozen=True)
class Picture:
    """A picture in the depth of its file, upright.

    image: code values ``(h, w, c)``, c = 1 or 3: uint8, or float32 in [0, 1] where the file has more than 8 bits.
    alpha: ``(h, w)`` opacity of the same kind, None where the file says none. bits: 8, 16, or 32 of floating point.
    """

    image: np.ndarray
    alpha: np.ndarray | None = None
    bits: int = 8


def read_picture(path: str, modality: Modality = "visible", scale: int | None = None) -> Picture:
    """A picture with its alpha, not reduced to 8 bits. modality, scale, errors: see ``decode``."""
    _, image, alpha, sensor = _decoded(path, modality, scale)
    bits = 8 if image.dtype == np.uint8 else 32 if sensor["mode"].endswith("F") else 16
    return Picture(color.as_hwc(image), alpha, bits)


def _decoded(
    path: str, modality: Modality, scale: int | None
) -> tuple[bytes, np.ndarray, np.ndarray | None, dict[str, Any]]:
    """The file's bytes, and what ``_pixels`` makes of them."""
    name = Path(path).name
    raw = read_file(path)
    tiff = float_tiff(io.BytesIO(raw))
    if tiff is not None:
        _check_pixels(tiff.width, tiff.height, name)
        counts = colour_counts(raw, tiff.turn)
        if counts is None:
            raise BadPair(f"{name}: cannot be read: a colour TIFF in floating point that is damaged")
        sensor = {"orientation": tiff.turn} if tiff.turn in range(2, 9) else {}
        return raw, *_scaled_counts(counts, name, "F", modality, 1.0, scale, sensor)
    with _opened(io.BytesIO(raw), name) as file:
        file.load()
        return raw, *_pixels(file, raw, name, modality, scale)


def upright_size(path: str) -> tuple[int, int]:
    """(width, height) of a local picture as ``decode`` gives it, by its header. Raises as ``decode`` does."""
    return upright_header(path).size


class Header(NamedTuple):
    """What a picture's header says: (width, height), upright; bits a channel, 32 for floating point; grey or colour."""

    size: tuple[int, int]
    bits: int
    grey: bool


def upright_header(path: str) -> Header:
    """The header of a local picture. Raises as ``decode`` does."""
    name = Path(path).name
    _check_file(path, name)
    with open(path, "rb") as source:
        tiff = float_tiff(source)
        if tiff is not None:
            _check_pixels(tiff.width, tiff.height, name)
            return Header(_turned((tiff.width, tiff.height), tiff.turn), 32, False)
        source.seek(0)
        header = source.read(HEADER)
    with _opened(path, name) as file:
        bits = 32 if file.mode.startswith("F") else 16 if is_wide(file, header) else 8
        grey = file.mode in ("L", "LA", "La", "1", "F") or file.mode.startswith("I")
        return Header(_turned(file.size, file.getexif().get(ORIENTATION, 1)), bits, grey)


def _turned(size: tuple[int, int], turn: int) -> tuple[int, int]:
    return (size[1], size[0]) if turn in range(5, 9) else size


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


def read_file(path: str) -> bytes:
    """The bytes of a picture, or of what lies beside it, at a path, a URL, or in a tar. Raises BadPair with the reason.

    An OSError is the machine's fault, not the file's: no reject, but for a lack of rights.
    """
    name = Path(path).name
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
    """Refuse a local path that must not be opened: see ``check_regular``. Raises BadPair."""
    try:
        check_regular(path)
    except IsADirectoryError:
        raise BadPair(f"{name}: is no regular file") from None
    except UnfitFile as error:
        raise BadPair(f"{name}: {error.strerror}") from None


def check_header(file: Image, name: str) -> None:
    """Refuse by the header of an open file what is too large, and what is a film. Raises BadPair."""
    _check_pixels(*file.size, name)
    if file.format in _ANIMATED and getattr(file, "is_animated", False):
        raise BadPair(f"{name}: is animated: {getattr(file, 'n_frames', 'several')} frames, where one is wanted")


def _check_pixels(width: int, height: int, name: str) -> None:
    if width * height > MOST_PIXELS:
        raise BadPair(f"{name}: {width}x{height} has too many pixels: at most {MOST_PIXELS} are read")


def _pixels(
    file: Image, raw: bytes, name: str, modality: Modality, scale: int | None
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """(uint8 codes or float32 shares of white, alpha of the same kind or None, what ``Decoded`` says of the sensor)."""
    from PIL import ImageOps

    sensor: dict[str, Any] = {}
    turn = file.getexif().get(ORIENTATION, 1)
    if turn in range(2, 9):
        sensor["orientation"] = turn
    if file.mode in ("LA", "RGBA", "PA", "La", "RGBa"):
        sensor["alpha"] = "ignored"
    counts = None
    if file.mode.startswith(("I", "F")):
        counts = np.asarray(ImageOps.exif_transpose(file))
    elif is_wide_colour(file, raw):
        counts = colour_counts(raw, turn)
    if counts is not None:
        full = 1.0 if file.mode.startswith("F") else scale or full_scale(file, raw, counts)
        return _scaled_counts(counts, name, file.mode, modality, full, scale, sensor)
    upright = ImageOps.exif_transpose(file)
    alpha = _alpha(upright)
    grey = upright.mode in ("L", "LA", "La", "1")
    return np.asarray(upright.convert("L" if grey else "RGB")), alpha, sensor


def _scaled_counts(
    counts: np.ndarray, name: str, mode: str, modality: Modality, full: float, scale: int | None, sensor: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """``_pixels`` of counts, which may have alpha behind their colours."""
    alpha = None
    if counts.ndim == 3 and counts.shape[2] == 4:
        whole = 1.0 if counts.dtype.kind == "f" else float(np.iinfo(counts.dtype).max)
        alpha, counts = np.clip(counts[..., 3] / np.float32(whole), 0, 1).astype(np.float32), counts[..., :3]
    if mode == "LA":
        counts = counts[..., 0]
    if scale and modality == "visible" and full == scale and counts.max() > scale:
        raise BadPair(f"{name}: its counts reach {counts.max():g}, above the scale of {scale}")
    shares, low, high = scaled(counts, name, mode, modality, full)
    kept = mode if counts.ndim == 2 else "RGB;F" if mode == "F" else "RGB;16"
    return shares, alpha, {"mode": kept, "low": low, "high": high} | sensor


def _alpha(file: Image) -> np.ndarray | None:
    """The opacity of a picture of 8 bits, 255 where it is opaque; None where it says none."""
    if file.mode in ("LA", "RGBA", "La", "RGBa"):
        return np.asarray(file.getchannel("A" if file.mode in ("LA", "RGBA") else "a"))
    if file.mode == "PA" or "transparency" in file.info:
        return np.asarray(file.convert("RGBA").getchannel("A"))
    return None


def scaled(
    counts: np.ndarray, name: str, mode: str, modality: Modality, full: float
) -> tuple[np.ndarray, float, float]:
    """(float32 shares, low, high): counts low to high become 0 to 1, clipped; what is not finite 0.

    Infrared: the percentiles ``ROBUST``. Visible: 0 to full. Raises BadPair where nothing says a scale: one value
    throughout, none finite, or a visible image below 0 or beyond its container's full scale.
    """
    finite = counts[np.isfinite(counts)] if counts.dtype.kind == "f" else counts
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
    shares = np.empty(counts.shape, np.float32)
    for row, line in enumerate(counts):  # a row at a time: in double precision a large picture would take gigabytes
        shares[row] = np.clip(np.nan_to_num((line.astype(np.float64) - low) / (high - low), nan=0.0), 0, 1)
    return shares, low, high

"""Pictures of more than 8 bits a channel that Pillow opens with the upper eight, or not at all.

Those are colour of 16 bits (PNG, TIFF, PPM, JPEG 2000) and colour TIFFs in floating point; OpenCV reads them in full.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

FULL_SCALE = 65535
"""Of integers beyond 8 bits, those that a file holds in 32 bits too: larger ones are refused."""

ORIENTATION = 0x0112
_BITS_PER_SAMPLE, _MAX_SAMPLE, _SAMPLE_FORMAT, _WHITE_LEVEL = 258, 281, 339, 50717
_WIDTH, _HEIGHT, _SAMPLES = 256, 257, 277
_FLOAT = 3
"""SampleFormat of floating point (TIFF 6.0)."""
_TURNS = {3: (2, False), 6: (3, False), 8: (1, False), 2: (0, True), 4: (2, True), 5: (3, True), 7: (1, True)}
"""EXIF orientation -> quarter turns counter-clockwise, then a flip left to right (TIFF 6.0, tag 274)."""
_PNM = re.compile(rb"P[2356]\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*(\d+)\s")
"""The header of a PGM or PPM: width, height, largest sample."""
_SIZ = b"\xff\x4f\xff\x51"
"""Start of a JPEG 2000 codestream and its marker SIZ, whose byte ``_DEPTH`` is the first component's depth less 1."""
_DEPTH = 42
HEADER = 4096
"""Bytes of a file in which the depth of any but a TIFF is said."""


def is_wide(file: Image, header: bytes) -> bool:
    """Whether an open file has more than 8 bits a channel. header: its first bytes, ``HEADER`` at least."""
    return file.mode.startswith(("I", "F")) or is_wide_colour(file, header)


def is_wide_colour(file: Image, header: bytes) -> bool:
    """Whether a colour picture, or a grey one with alpha, has more than 8 bits a channel that Pillow cuts off."""
    if file.mode not in ("RGB", "RGBA", "LA"):
        return False
    if file.format == "PNG":
        return header[24] == 16
    if file.format == "PPM":
        return _pnm_scale(header) > 255
    if file.format == "JPEG2000":
        return _jpeg2000_bits(header) > 8
    bits = getattr(file, "tag_v2", {}).get(_BITS_PER_SAMPLE, ()) if file.format == "TIFF" else ()
    return 16 in (bits if isinstance(bits, tuple) else (bits,))


def colour_counts(raw: bytes, turn: int) -> np.ndarray | None:
    """(h, w, 3) counts, RGB, or (h, w, 4) with alpha, upright, in the file's own type.

    turn: EXIF's orientation. None where they can't be had in full, and the upper eight bits must do.
    """
    import cv2

    counts = cv2.imdecode(np.frombuffer(raw, np.uint8), cv2.IMREAD_UNCHANGED)
    if counts is None or counts.dtype not in (np.uint16, np.float32, np.float64) or counts.ndim != 3:
        return None
    return upright(counts[..., [2, 1, 0, *range(3, counts.shape[2])]], turn)


def upright(image: np.ndarray, turn: int) -> np.ndarray:
    """A picture turned as EXIF's orientation says."""
    quarters, flip = _TURNS.get(turn, (0, False))
    image = np.rot90(image, quarters)
    return image[:, ::-1] if flip else image


class FloatTiff(NamedTuple):
    """What the header of a colour TIFF in floating point says. turn: EXIF's orientation."""

    width: int
    height: int
    turn: int


def float_tiff(source: io.BufferedIOBase) -> FloatTiff | None:
    """The header of a colour TIFF in floating point, which Pillow knows no mode for; None for any other file."""
    from PIL.TiffImagePlugin import PREFIXES, ImageFileDirectory_v2

    head = source.read(8)
    if head[:4] not in PREFIXES or len(head) < 8:
        return None
    tags = ImageFileDirectory_v2(head)
    source.seek(tags.next)
    try:
        tags.load(source)
        facts = [int(_of(tags, tag, first)) for tag, first in ((_WIDTH, 0), (_HEIGHT, 0), (ORIENTATION, 1))]
        kind, samples = _of(tags, _SAMPLE_FORMAT, 1), _of(tags, _SAMPLES, 1)
    except Exception:  # on damaged bytes Pillow raises what it likes, and will when it opens the file
        return None
    return FloatTiff(*facts) if kind == _FLOAT and samples in (3, 4) else None


def _of(tags: object, tag: int, default: int) -> int:
    value = tags.get(tag, default)  # type: ignore[attr-defined]
    return first_of(value) if isinstance(value, tuple) else value


def full_scale(file: Image, raw: bytes, counts: np.ndarray) -> float:
    """The count of white in a file of integers: the container's, or less where its metadata say so.

    A TIFF's own bits or a camera's white level (DNG) fix it, and so do a PPM's largest sample and the depth of JPEG
    2000 in colour; in grey, Pillow scales both to 16 bits. Significant bits (sBIT of a PNG, bits or a largest sample
    of 2^n - 1 in Exif) do where the counts are those bits; PNG's standard has them scaled up to 16, lower bits filled.
    """
    exif = file.getexif()
    own, largest, white = (first_of(exif.get(tag)) for tag in (_BITS_PER_SAMPLE, _MAX_SAMPLE, _WHITE_LEVEL))
    if 0 < white < FULL_SCALE:
        return white
    if file.format == "TIFF" and 8 < own < 16:
        return 2**own - 1
    if counts.ndim == 3 and file.format == "PPM":
        return _pnm_scale(raw)
    if counts.ndim == 3 and file.format == "JPEG2000":
        return 2 ** _jpeg2000_bits(raw) - 1
    bits = _png_bits(raw) or own
    if largest & (largest + 1) == 0 and 255 < largest < FULL_SCALE:
        bits = largest.bit_length()
    if not 8 <= bits < 16 or counts.max() >= 2**bits:
        return FULL_SCALE
    codes = counts.astype(np.int64)
    lower = codes & ((1 << 16 - bits) - 1)
    return FULL_SCALE if not (lower & (lower ^ (codes >> bits))).any() else 2**bits - 1


def first_of(value: object) -> int:
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


def _pnm_scale(raw: bytes) -> int:
    """The largest sample of a PGM or PPM."""
    found = _PNM.match(raw[:HEADER])
    return int(found[1]) if found else 255


def _jpeg2000_bits(raw: bytes) -> int:
    """The depth of the first component of a JPEG 2000 picture."""
    at = raw.find(_SIZ)
    return (raw[at + _DEPTH] & 0x7F) + 1 if 0 <= at < len(raw) - _DEPTH else 8

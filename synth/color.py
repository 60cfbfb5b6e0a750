"""sRGB code values, linear light, luma and chroma, and the one rounding to 8 bit."""

from __future__ import annotations

import functools
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8

LUMA = (0.299, 0.587, 0.114)
"""ITU-R BT.601 luma weights on R'G'B' code values."""

_CODES = np.arange(256, dtype=np.float64) / 255.0
_LINEAR_OF_CODE = np.where(_CODES <= 0.04045, _CODES / 12.92, ((_CODES + 0.055) / 1.055) ** 2.4).astype(np.float32)


def code_to_float(image: UInt8[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h w c"]:
    """uint8 codes to code values in [0, 1]."""
    return np.multiply(image, np.float32(1 / 255), dtype=np.float32)


def code_to_linear(image: UInt8[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h w c"]:
    """uint8 sRGB codes to linear light in [0, 1], by table: exact and fast."""
    return cv2.LUT(image, _LINEAR_OF_CODE).reshape(image.shape)


STRIP = 1 << 20
"""Values converted at a time, so that the temporaries of a large image stay small."""


def _in_strips(convert: Callable[[np.ndarray], np.ndarray], image: np.ndarray, dtype: type) -> np.ndarray:
    """Apply an element-wise conversion a few rows at a time; same values as on the whole array."""
    if image.size <= STRIP:
        return convert(image)
    out = np.empty(image.shape, dtype)
    rows = max(1, STRIP * len(image) // image.size)
    for start in range(0, len(image), rows):
        out[start : start + rows] = convert(image[start : start + rows])
    return out


def srgb_to_linear(image: Float[np.ndarray, "*dims"]) -> Float32[np.ndarray, "*dims"]:
    """Inverse sRGB transfer: c/12.92 below 0.04045, else ((c + 0.055)/1.055)^2.4 (IEC 61966-2-1)."""
    return _in_strips(_to_linear, image, np.float32)


def _to_linear(image: np.ndarray) -> np.ndarray:
    c = np.clip(image, 0, None).astype(np.float32)
    low = c * np.float32(1 / 12.92)
    high = cv2.pow((c + np.float32(0.055)) * np.float32(1 / 1.055), 2.4).reshape(c.shape)
    return np.where(c <= 0.04045, low, high)


def linear_to_srgb(image: Float[np.ndarray, "*dims"]) -> Float32[np.ndarray, "*dims"]:
    """sRGB transfer of linear light clipped to [0, 1]: 12.92 x below 0.0031308, else 1.055 x^(1/2.4) − 0.055."""
    return _in_strips(_to_srgb, image, np.float32)


def _to_srgb(image: np.ndarray) -> np.ndarray:
    x = np.clip(image, 0, 1).astype(np.float32, copy=False)
    high = cv2.pow(x, 1 / 2.4).reshape(x.shape) * np.float32(1.055) - np.float32(0.055)
    return np.where(x <= 0.0031308, x * np.float32(12.92), high)


def to_uint8(image: Float[np.ndarray, "*dims"]) -> UInt8[np.ndarray, "*dims"]:
    """floor(255 x + 0.5), clipped: the only rounding of the project."""
    return _in_strips(_quantize, image, np.uint8)


def as_codes(image: np.ndarray) -> UInt8[np.ndarray, "..."]:
    """Code values 0..255: of an image that has them itself, of others, float32 in [0, 1], as ``to_uint8``."""
    return image if image.dtype == np.uint8 else to_uint8(image)


def _quantize(image: np.ndarray) -> np.ndarray:
    codes = image * np.float32(255)
    codes += np.float32(0.5)
    # Truncation is the floor where values are not negative.
    return np.clip(codes, 0, 255, out=codes).astype(np.uint8)


def luma(image: Float[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h w"]:
    """BT.601 luma of an RGB image, the channel itself of a grey one."""
    if image.shape[2] == 1:
        return image[..., 0].astype(np.float32)
    return image.astype(np.float32, copy=False) @ np.asarray(LUMA, np.float32)


def channel_minimum(image: np.ndarray) -> np.ndarray:
    """The least channel of each pixel, ``(h, w)`` of ``(h, w, c)``, in a tenth of the time of ``image.min(2)``."""
    return functools.reduce(np.minimum, cv2.split(image))


def as_hwc(image: np.ndarray) -> np.ndarray:
    """``(h, w)`` to ``(h, w, 1)``; ``(h, w, c)`` unchanged. For results of cv2, which drops a last axis of one."""
    return image[..., None] if image.ndim == 2 else image


def is_grey(image: UInt8[np.ndarray, "h w c"]) -> bool:
    """Whether a picture has no colour: one channel, or three that differ by at most 2 codes but for a thousandth."""
    if image.shape[2] == 1:
        return True
    spread = image.max(2).astype(np.int16) - image.min(2)
    return bool(np.mean(spread > 2) < 1e-3)

"""Camera models: photograph, exposure bracket and thermal image of a scene."""

from __future__ import annotations

from functools import cache, lru_cache

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from clearfuse.synth.color import linear_to_srgb, to_uint8

LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
"""Linear-light luminance weights of BT.709 primaries."""


def metered(radiance: Float32[np.ndarray, "h w 3"], *, night: bool, key: float = 0.18) -> float:
    """The exposure factor that maps the log-average luminance to ``key`` (Reinhard et al. 2002, eq. 1-2).

    At night the key is lower and the factor limited, so that the scene stays dark.
    """
    y = radiance[::3, ::3] @ LUMINANCE
    average = float(np.exp(np.log(np.minimum(y, 20 * np.median(y) + 1e-4) + 1e-5).mean()))
    if night:
        return float(np.clip(0.055 / average, 0.4, 9.0))
    return key / average


def vignette(height: int, width: int, strength: float = 0.16) -> Float32[np.ndarray, "h w 1"]:
    """Natural fall-off: 1 - strength r², r = 1 in the corners."""
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None] ** 2
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :] ** 2
    return (1 - np.float32(strength / 2) * (x + y))[..., None]


BRIGHTEST = 4.0
"""Light at the end of the tone tables, above every white point."""

_LIGHT = BRIGHTEST * np.linspace(0, 1, 65536, dtype=np.float32) ** 2


def _photographic(x: np.ndarray) -> np.ndarray:
    """A photographic tone curve: x (1 + x/w²) / (1 + x) with white w = 4 (Reinhard et al. 2002, eq. 4), in sRGB."""
    curve = x * (1 + x * np.float32(1 / 16)) / (1 + x)
    # A slight contrast about middle grey, as cameras add.
    code = linear_to_srgb(np.minimum(curve * np.float32(1.25), 1))
    return code + np.float32(0.10) * code * (1 - code) * (2 * code - 1)


@cache
def _table(photographic: bool) -> UInt8[np.ndarray, " n"]:
    """sRGB codes over the square root of light, which resolves every code in the dark."""
    return to_uint8(_photographic(_LIGHT) if photographic else linear_to_srgb(_LIGHT))


@lru_cache(maxsize=4)
def _fall_off(height: int, width: int) -> Float32[np.ndarray, "h w 3"]:
    """The square root of the fall-off in units of the tone tables, for each channel."""
    plane = np.sqrt(vignette(height, width)[..., 0] * np.float32(1 / BRIGHTEST)) * np.float32(65535)
    out = repeated(plane)
    out.setflags(write=False)
    return out


def _develop(linear: np.ndarray, gain: float, photographic: bool) -> np.ndarray:
    """Codes of the light times a gain and the fall-off, by lookup table."""
    root = cv2.sqrt(cv2.max(linear, 0))
    # The conversion to 16 bit rounds, and saturates at the table's end.
    place = cv2.multiply(root, _fall_off(*linear.shape[:2]), scale=float(np.sqrt(gain)), dtype=cv2.CV_16U)
    return cv2.LUT(place, _table(photographic)).reshape(linear.shape)


def finish(linear: Float32[np.ndarray, "h w 3"], exposure: float = 1.0) -> UInt8[np.ndarray, "h w 3"]:
    """A photograph of the light times an exposure: the photographic tone curve, then sRGB."""
    return _develop(linear, 1.45 * exposure, True)


def expose(linear: Float32[np.ndarray, "h w 3"], ev: float, exposure: float = 1.0) -> UInt8[np.ndarray, "h w 3"]:
    """A frame of an exposure bracket: 2^EV times the light, clipped at full well, sRGB."""
    return _develop(linear, 2.0**ev * exposure, False)


def thermal(temperature: Float32[np.ndarray, "h w"], depth: Float32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 1"]:
    """A microbolometer's image: blur of the optics, then automatic gain between percentiles. temperature: kelvin.

    The range reaches from the coolest ground to skin; the sky lies below it.
    """
    width = temperature.shape[1]
    soft = cv2.GaussianBlur(temperature, (0, 0), max(width / 640 * 0.95, 0.45))
    solid = np.isfinite(depth[::3, ::3])
    part = soft[::3, ::3]
    inside = part[solid] if solid.sum() > 16 else part.ravel()
    low, middle, top = (float(v) for v in np.percentile(inside, (1, 50, 99.7)))
    low, top = min(low, middle - 2.0) - 2.0, max(top, middle + 9.0) + 0.5
    # The scene's median is mapped to a third of the range, as automatic gain control does.
    gamma = np.log(0.34) / np.log(np.clip((middle - low) / (top - low), 0.05, 0.9))
    x = np.clip((soft - np.float32(low)) * np.float32(1 / (top - low)), 0, 1)
    detail = soft - cv2.GaussianBlur(soft, (0, 0), max(width / 640 * 3, 0.8))
    code = np.float32(0.03) + np.float32(0.93) * cv2.pow(x, float(gamma))
    code += np.float32(0.018) * np.clip(detail, -4, 4)
    # A small slope below the range, a tenth of that within, keeps the clouds visible.
    under = np.clip((np.float32(low) - soft) * np.float32(1 / 45), 0, 1)
    code += np.float32(0.05) * (1 - under) * (x < 1e-6)
    return to_uint8(code)[..., None]


def repeated(plane: np.ndarray, channels: int = 3) -> np.ndarray:
    """The plane repeated along a new last axis: multiplying by it is several times faster than numpy's broadcasting."""
    if not plane.size:
        return np.zeros((*plane.shape, channels), plane.dtype)
    return cv2.merge([plane] * channels).reshape(*plane.shape, channels)

"""Camera models: photograph, exposure bracket and thermal image of a scene."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from statistics import NormalDist

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from clearfuse.synth.color import linear_to_srgb, to_uint8

LUMINANCE = np.array([0.2126, 0.7152, 0.0722], np.float32)
"""Linear-light luminance weights of BT.709 primaries."""


def metered(radiance: Float32[np.ndarray, "h w 3"], *, night: bool, key: float = 0.18) -> float:
    """The exposure factor that maps the log-average luminance to ``key`` (Reinhard et al. 2002, eq. 1-2).

    At night the key is lower and the factor limited, so that the scene stays dark. By day, bright parts of some size,
    as the sky, lower it by up to 0.7 stops, as cameras do to keep them.
    """
    y = radiance[::3, ::3] @ LUMINANCE
    average = float(np.exp(np.log(np.minimum(y, 20 * np.median(y) + 1e-4) + 1e-5).mean()))
    if night:
        return float(np.clip(0.055 / average, 0.4, 9.0))
    exposure = key / average
    return max(min(exposure, key / 0.18 / float(np.percentile(y, 92))), 0.6 * exposure)


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


READ_NOISE = 3.0
"""Electrons of read noise, as of a small CMOS sensor (EMVA 1288 data sheets: 2 to 5)."""

FULL_WELLS = (10_000.0, 36_000.0)
"""Least and greatest full well in electrons: 1.15 to 0.6 codes of noise at the photograph's mid grey."""


@dataclass(frozen=True)
class Noise:
    """A frame's sensor noise. full_well: electrons at unit light. rng: of this frame alone."""

    full_well: float
    rng: np.random.Generator


@cache
def _deviates() -> Float32[np.ndarray, " n"]:
    """Standard normal deviates of 16 random bits: the inverse distribution at (i + 1/2) / 65536, up to 4.3 σ."""
    inverse = NormalDist().inv_cdf
    low = np.array([inverse((i + 0.5) / 65536) for i in range(32768)], np.float32)
    return np.concatenate([low, -low[::-1]])


def gaussian(rng: np.random.Generator, height: int, width: int) -> Float32[np.ndarray, "h w"]:
    """Standard normal noise by lookup table, four times as fast as the generator's own."""
    return cv2.LUT(rng.integers(0, 65536, (height, width), dtype=np.uint16), _deviates())


SCALE = 65535.0**2 / BRIGHTEST
"""Light in units of the tone tables: its square root is the place in a table."""


@lru_cache(maxsize=4)
def _fall_off(height: int, width: int) -> np.ndarray:
    """The fall-off in units of the tone tables, for each channel side by side."""
    out = repeated(vignette(height, width)[..., 0] * np.float32(SCALE)).reshape(height, 3 * width)
    out.setflags(write=False)
    return out


def _develop(linear: np.ndarray, gain: float, photographic: bool, noise: Noise | None) -> np.ndarray:
    """Codes of the light times a gain and the fall-off, by lookup table.

    Noise: shot and read noise before the clip, of variance x / N + (r / N)² for light x, full well N and read noise r
    in electrons (Foi et al. 2008, IEEE TIP 17, eq. 2).
    """
    h, w = linear.shape[:2]
    flat = np.ascontiguousarray(linear, np.float32).reshape(h, 3 * w)
    light = cv2.multiply(flat, _fall_off(h, w), scale=gain)
    if noise is not None:
        deviate, spread = gaussian(noise.rng, h, 3 * w), light * np.float32(SCALE / noise.full_well)
        spread += np.float32((SCALE * READ_NOISE / noise.full_well) ** 2)
        deviate *= cv2.sqrt(spread, spread)
        light += deviate
    cv2.threshold(light, 0, 0, cv2.THRESH_TOZERO, light)
    # The conversion to 16 bit rounds, and saturates at the table's end.
    place = cv2.multiply(cv2.sqrt(light, light), 1.0, dtype=cv2.CV_16U)
    return cv2.LUT(place, _table(photographic)).reshape(linear.shape)


def finish(
    linear: Float32[np.ndarray, "h w 3"], exposure: float = 1.0, noise: Noise | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """A photograph of the light times an exposure: sensor noise, the photographic tone curve, then sRGB."""
    return _develop(linear, 1.45 * exposure, True, noise)


def expose(
    linear: Float32[np.ndarray, "h w 3"], ev: float, exposure: float = 1.0, noise: Noise | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    """A frame of an exposure bracket: 2^EV times the light, sensor noise, clipped at full well, sRGB."""
    return _develop(linear, 2.0**ev * exposure, False, noise)


TOE = 0.03
"""Offset of the thermal tone curve, as a share of the range."""

SKY_SHARE = 0.11
"""Share of the thermal image's codes that the sky below the automatic gain's range has."""

NETD = 0.06
"""Noise-equivalent temperature difference in kelvin: uncooled microbolometers at f/1 have 0.04 to 0.08."""

COLUMNS = 0.015
"""Standard deviation in kelvin of the offsets of columns that are left after the non-uniformity correction."""


def thermal(
    temperature: Float32[np.ndarray, "h w"],
    depth: Float32[np.ndarray, "h w"],
    rng: np.random.Generator | None = None,
) -> UInt8[np.ndarray, "h w 1"]:
    """A microbolometer's image: blur of the optics, noise, then automatic gain. temperature: kelvin.

    The range reaches from the coolest ground to skin; the sky lies below it. rng: of the noise; None, no noise.
    """
    height, width = temperature.shape
    soft = cv2.GaussianBlur(temperature, (0, 0), max(width / 640 * 1.1, 0.45))
    solid = np.isfinite(depth[::3, ::3])
    part = soft[::3, ::3]
    inside = part[solid] if solid.sum() > 16 else part.ravel()
    low, middle, top = (float(v) for v in np.percentile(inside, (1, 50, 99.7)))
    low, top = min(low, middle - 2.0) - 1.0, max(top, middle + 8.0) + 0.5
    if rng is not None:
        soft += np.float32(NETD) * gaussian(rng, height, width)
        soft += np.float32(COLUMNS) * gaussian(rng, 1, width)
    # The scene's median is mapped to a third of the range, as automatic gain control does.
    gamma = np.log(0.34) / np.log(np.clip((middle - low) / (top - low), 0.05, 0.9))
    x = np.clip((soft - np.float32(low)) * np.float32(1 / (top - low)), 0, 1)
    detail = soft - cv2.GaussianBlur(soft, (0, 0), max(width / 640 * 3, 0.8))
    # A toe, so that the slope is finite where the range begins.
    foot = TOE**gamma
    rise = (cv2.pow(x + np.float32(TOE), float(gamma)) - np.float32(foot)) * np.float32(1 / ((1 + TOE) ** gamma - foot))
    code = np.float32(SKY_SHARE) + np.float32(0.96 - SKY_SHARE) * rise
    # Digital detail enhancement, limited so that no rim stands along the skyline.
    code += np.float32(0.014) * np.clip(detail, -1.2, 1.2)
    # The sky below the range has the lowest codes to itself, as histogram-based gain control gives a large region some.
    under = np.clip((np.float32(low) - soft) * np.float32(1 / 50), 0, 1)
    code -= np.float32(SKY_SHARE - 0.01) * under
    return to_uint8(code)[..., None]


def repeated(plane: np.ndarray, channels: int = 3) -> np.ndarray:
    """The plane repeated along a new last axis: multiplying by it is several times faster than numpy's broadcasting."""
    if not plane.size:
        return np.zeros((*plane.shape, channels), plane.dtype)
    return cv2.merge([plane] * channels).reshape(*plane.shape, channels)

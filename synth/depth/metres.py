"""Depth in metres along the ray, float32 ``(h, w)``: infinity for the sky, NaN where unknown.

Storage as PNG, conversion of relative inverse depth, the sky of a picture, and maps laid along a picture's edges.
The sources of depth are in ``clearfuse.synth.depth``.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8, UInt16

from clearfuse.synth import color
from clearfuse.synth.files.pictures import MOST_PIXELS

PER_METRE = 64
"""Stored units per metre."""

SKY, INVALID = 65535, 0
"""Stored codes of the sky and of an unknown depth."""

FOV = 60.0
"""Horizontal field of view in degrees, assumed for unknown cameras."""

USUAL_FAR = 150.0
"""Metres of the far end of an estimate at which its scale is about true; estimates of another far end are scaled."""

FADED = 50.0
"""How much farther than its surroundings is what is hardly told from the sky: a kilometre for 20 metres."""

_PNG = b"\x89PNG\r\n\x1a\n"

Metres = Float32[np.ndarray, "h w"]
Picture = UInt8[np.ndarray, "h w c"]


def quantise(depth: Metres) -> UInt16[np.ndarray, "h w"]:
    """Metres to 1/64 m: 65535 where infinite or from 1023.98 m on, 0 where nan or not positive."""
    known = np.nan_to_num(depth.astype(np.float64), nan=0.0, posinf=2048.0, neginf=0.0)
    # The least code is 1: a point right in front of the lens is near, not unknown.
    codes = np.where(known > 0, np.clip(np.floor(known * PER_METRE + 0.5), 1, SKY), INVALID)
    return codes.astype(np.uint16)


def dequantise(codes: UInt16[np.ndarray, "h w"], per_metre: int = PER_METRE) -> Metres:
    """Stored codes, so many of which are a metre, to metres: infinity for 65535, nan for 0."""
    metres = codes.astype(np.float32) / np.float32(per_metre)
    metres[codes == SKY] = np.inf
    metres[codes == INVALID] = np.nan
    return metres


def encode_png(codes: UInt16[np.ndarray, "h w"]) -> bytes:
    """A 16-bit grey PNG; deterministic."""
    # A depth map's filtered bytes hold runs and few other repeats: level 6 with its search for those takes 4 to 5 times
    # as long for files as large.
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1, cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_RLE]
    done, data = cv2.imencode(".png", np.ascontiguousarray(codes), options)
    if not done:
        raise ValueError(f"a depth map of {codes.shape} could not be coded as PNG")
    return data.tobytes()


def decode_any(data: bytes) -> np.ndarray | None:
    """The codes of a PNG as stored; None where it is not a PNG, is damaged, or exceeds the size limit of images."""
    sides = [int.from_bytes(data[at : at + 4], "big") for at in (16, 20)]  # of the header, which comes first
    if not data.startswith(_PNG) or sides[0] * sides[1] > MOST_PIXELS:
        return None
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)


def decode_png(data: bytes) -> UInt16[np.ndarray, "h w"]:
    """The codes written by ``encode_png``. Raises ValueError for anything but a 16-bit grey PNG."""
    codes = decode_any(data)
    if codes is None or codes.dtype != np.uint16 or codes.ndim != 2:
        raise ValueError("not a 16-bit grey PNG")
    return codes


def ray_length(z: Metres, fov: float = FOV) -> Metres:
    """Distance along the ray of depth z along the axis: z √(1 + (x² + y²)/f²), f = (w/2)/tan(fov/2), pinhole."""
    height, width = z.shape
    f = width / 2 / math.tan(math.radians(fov) / 2)
    x = (np.arange(width, dtype=np.float32) - np.float32((width - 1) / 2)) / np.float32(f)
    y = (np.arange(height, dtype=np.float32) - np.float32((height - 1) / 2)) / np.float32(f)
    return z * np.sqrt(1 + x[None, :] ** 2 + y[:, None] ** 2)


def metric_from_inverse(inverse: Metres, far: float, reach: float = 60.0) -> Metres:
    """Metres from affine-invariant inverse depth, where near is large: d = far ε/(q + ε), ε = 1/(reach − 1).

    q = clip((x − p₁)/(p₉₉ − p₁), 0, 1) with the 1st and 99th percentiles, so that q = 0 is at ``far`` metres and q = 1
    at far/reach: a far end and a dynamic range replace the map's unknown scale and shift. Using the map as depth, or
    1 − x for 1/x, would put the haze on near objects. A constant map has no near end: everything is far. Raises
    ValueError unless far > 0 and reach > 1.
    """
    if not (far > 0 and reach > 1):
        raise ValueError(f"far = {far:g}, reach = {reach:g}: far must be above 0 and reach above 1")
    known = np.isfinite(inverse)
    if not known.any():
        return np.full(inverse.shape, np.nan, np.float32)
    low, high = np.percentile(inverse[known], [1, 99])
    q = np.zeros(inverse.shape, np.float64)
    if high > low:
        q[known] = np.clip((inverse[known].astype(np.float64) - low) / (high - low), 0, 1)
    epsilon = 1 / (reach - 1)
    metres = far * epsilon / (q + epsilon)
    return np.where(known, metres, np.nan).astype(np.float32)


def sky_mask(image: Picture) -> Bool[np.ndarray, "h w"]:
    """Mask of the sky: smooth regions at the top border, bright by day, faintly glowing at night.

    Conservative, since a wall taken for sky is the worse error. A region must be flat, not reddish, touch a good part
    of the border, and be brighter than the ground: clearly so by day; at night by its glow, since black trees and unlit
    walls are as smooth.
    """
    height, width = image.shape[:2]
    small = downsample(image)
    y = cv2.GaussianBlur(color.luma(small), (0, 0), 1.5)
    slope = np.hypot(cv2.Sobel(y, cv2.CV_32F, 1, 0, scale=1 / 8), cv2.Sobel(y, cv2.CV_32F, 0, 1, scale=1 / 8))
    roughness = cv2.boxFilter(slope, -1, (7, 7))
    ground = y[y.shape[0] // 2 :]
    day = (y >= max(0.45, float(np.percentile(ground, 80)) + 0.02)) & (roughness < 0.012)
    night = (y <= 0.3) & (y >= 1.2 * float(np.median(ground)) + 0.02) & (roughness < 0.004) & (float(y.mean()) < 0.25)
    # Saturated sky between leaves is rough, but nothing else in the upper half is as white.
    day |= (y >= 0.92) & (roughness < 0.03) & (np.arange(y.shape[0])[:, None] < 0.5 * y.shape[0])
    if small.shape[2] == 3:
        # Sky is blue, grey or white; facades, lit ground and leaves are rather red or green.
        blue = cv2.GaussianBlur(small[..., 2] - small[..., :2].max(axis=2), (0, 0), 1.5)
        day, night = day & (blue >= -0.06), night & (blue >= -0.01)
    mask = _joined_to_top(day) | _joined_to_top(night)
    if not mask.any():
        return np.zeros((height, width), bool)
    # The window of `roughness` shrinks the mask by three pixels: dilate it, then align it with the image's edges.
    grown = cv2.dilate(mask.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(np.float32)
    return guided(grown, image, 4, 1e-4) > 0.5


def fade_into_sky(metres: Metres, sky: Bool[np.ndarray, "h w"], image: Picture) -> Metres:
    """Metres with the sky at infinity, and far away whatever fades into it: a hazy ridge, the clouds at its rim.

    With distance a thing loses its contrast with the sky behind (Koschmieder). A guided filter of the mask is its share
    s of sky, near 0 beyond an edge of some contrast and falling slowly without one; such a pixel is ``FADED``^s times
    as far, s beyond the sixth that texture makes. So no edge of distance runs through what is even in the picture.
    """
    if not sky.any():
        return metres
    rows, cols = downsample(image).shape[:2]
    small = cv2.resize(sky.astype(np.float32), (cols, rows), interpolation=cv2.INTER_AREA)
    share = np.clip(1.2 * guided(small, image, max(2, max(rows, cols) // 16), 3e-4) - 0.2, 0, 1)
    out = metres * np.float32(FADED) ** share
    out[sky] = np.inf
    return out


def _joined_to_top(candidate: np.ndarray) -> np.ndarray:
    """The connected regions that cover at least a tenth of the top border and a fiftieth of the image."""
    count, labels = cv2.connectedComponents(candidate.astype(np.uint8), connectivity=4)
    if count < 2:
        return np.zeros(candidate.shape, bool)
    sizes = np.bincount(labels.ravel(), minlength=count)
    top = np.bincount(labels[:2].max(axis=0), minlength=count)
    kept = (top >= 0.1 * candidate.shape[1]) & (sizes >= 0.02 * candidate.size)
    kept[0] = False
    return kept[labels]


def downsample(image: np.ndarray, longest: int = 320) -> np.ndarray:
    """The image as float32 code values, its longest side at most ``longest``, which is enough for the cues."""
    height, width = image.shape[:2]
    scale = min(1.0, longest / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = image if size == (width, height) else cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return color.code_to_float(color.as_hwc(small))


def guided(small: np.ndarray, image: np.ndarray, radius: int, epsilon: float) -> np.ndarray:
    """Edge-aware upsampling of a map to an image's size: fast guided filter (He & Sun, arXiv 1505.00996).

    q = ā I + b̄ with a = cov(I, p)/(var I + ε), b = mean p − a mean I over windows of the downsampled image.
    """
    height, width = image.shape[:2]
    window = (2 * radius + 1, 2 * radius + 1)
    luma = color.luma(color.code_to_float(image))
    guide = cv2.resize(luma, small.shape[::-1], interpolation=cv2.INTER_AREA)
    mean_i, mean_p = cv2.boxFilter(guide, -1, window), cv2.boxFilter(small, -1, window)
    var = np.maximum(cv2.boxFilter(guide * guide, -1, window) - mean_i * mean_i, 0)
    a = (cv2.boxFilter(guide * small, -1, window) - mean_i * mean_p) / (var + np.float32(epsilon))
    b = mean_p - a * mean_i
    a, b = cv2.boxFilter(a, -1, window), cv2.boxFilter(b, -1, window)
    a, b = (cv2.resize(m, (width, height), interpolation=cv2.INTER_LINEAR) for m in (a, b))
    return a * luma + b

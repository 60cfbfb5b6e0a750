"""Where each pixel of a fused image comes from: a, b, both, or neither, by local linear regression of its luma.

In the window around a pixel the fused luma F is fitted by the sources' A and B with a gain each and an offset,

    F ≈ α A + β B + γ,   0 ≤ α, β,

in least squares: the local linear model of the guided filter (He, Sun, Tang, IEEE TPAMI 35(6), 2013, equations 3 to 6)
with two guides. Gain and offset are free, since fusion changes both; a negative gain is not taken for a source's
structure, since it shows bright what the source shows dark. Of the window's moments, s_xy the covariance of x and y:

    one source     α = max(s_af, 0) / s_aa          e_a  = s_ff − α s_af            and so e_b
    both sources   α = (s_af s_bb − s_bf s_ab) / D  e_ab = s_ff − α s_af − β s_bf   D = s_aa s_bb − s_ab²

and e_ab = min(e_a, e_b) where a gain would be negative or A and B are collinear (D ≈ 0): with two unknowns this is the
whole of non-negative least squares. A source counts as constant where it would need a gain above ``GAIN``.

*Neither*: more than half of s_ff is left, e_ab > s_ff / 2. Otherwise a source is needed where without it more than
``NEEDED`` of s_ff is lost, (e_b − e_ab > s_ff / 10 for a): one that is needed alone is the origin; where both are, the
pixel is a blend of *both*; where none is, as either would do, they agree on it: *both*. Where F is flat (s_ff up to
``FLOOR``, its own rounding and a little more) and no fit says otherwise, its being flat is what has an origin: the
sources that are flat there too, and *neither* where both have structure, that is lost.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

ORIGINS = ("a", "b", "both", "neither")
"""The origins of a pixel; in a map their places here."""
RADIUS = 5
"""Of the window, pixels: 11 × 11, as that of SSIM."""
FLOOR = 0.25
"""The largest variance of a flat window, squared code values: three times that of rounding, 1/12."""
GAIN = 16.0
"""The largest gain: four stops between exposures. Above it the faintest ripple would explain anything."""
UNEXPLAINED = 0.5
NEEDED = 0.1
ZERO = 0.01
"""Variances up to it are of constant windows: their sums are in float32 products."""
COLLINEAR = 1e-4
"""The least 1 − r² of the sources at which both gains are determined."""

STRIDE = 4
"""Between the windows that a share is counted on, pixels: neighbours share all but a tenth of theirs."""

Plane = Float32[np.ndarray, "h w"]


class Sources:
    """The lumas of a pair on 0..255 with their moments, for any number of fused images.

    stride: windows are taken around every stride-th pixel of every stride-th row: 1 for a map.
    """

    def __init__(self, a: Plane, b: Plane, stride: int = STRIDE) -> None:
        self.windows = Windows(a.shape, stride)
        self.a, self.b = _centred(a), _centred(b)
        (self.mean_a, self.aa), (self.mean_b, self.bb) = (self.windows.moments(image) for image in (self.a, self.b))
        self.ab = self.windows.mean(self.a * self.b) - self.mean_a * self.mean_b

    def origins(self, fused: Plane) -> UInt8[np.ndarray, "h2 w2"]:
        """The place in ``ORIGINS`` of each window of a fused image's luma on 0..255."""
        f = _centred(fused)
        mean, ff = self.windows.moments(f)
        af = self.windows.mean(self.a * f) - self.mean_a * mean
        bf = self.windows.mean(self.b * f) - self.mean_b * mean
        only_a, only_b, joint = _residuals(ff, (self.aa, self.bb, self.ab), af, bf)
        needs_a, needs_b = only_b - joint > NEEDED * ff, only_a - joint > NEEDED * ff
        found = np.where(needs_a == needs_b, np.uint8(2), np.where(needs_a, np.uint8(0), np.uint8(1)))
        loose = (joint > UNEXPLAINED * ff) | (ff <= ZERO)
        found[loose] = 3
        flat = loose & (ff <= FLOOR)
        flat_a, flat_b = self.aa[flat] <= FLOOR, self.bb[flat] <= FLOOR
        found[flat] = np.select([flat_a & flat_b, flat_a, flat_b], [2, 0, 1], 3)
        return found

    def shares(self, fused: Plane) -> tuple[float, ...]:
        """The shares of the windows by origin, in the order of ``ORIGINS``."""
        return shares(self.origins(fused))


class Windows:
    """Means over the windows of an image of one size, those at its border over their part inside."""

    def __init__(self, shape: tuple[int, ...], stride: int) -> None:
        spans = [np.arange(0, length, stride) for length in shape]
        self.low = [np.maximum(at - RADIUS, 0) for at in spans]
        self.high = [np.minimum(at + RADIUS + 1, length) for at, length in zip(spans, shape, strict=True)]
        rows, columns = (high - low for low, high in zip(self.low, self.high, strict=True))
        self.count = np.multiply.outer(rows, columns).astype(np.float64)

    def mean(self, image: Plane) -> Float64[np.ndarray, "h2 w2"]:
        """The means of an image."""
        return self._mean(cv2.integral(image, sdepth=cv2.CV_64F))

    def moments(self, image: Plane) -> tuple[Float64[np.ndarray, "h2 w2"], Float64[np.ndarray, "h2 w2"]]:
        """The means of an image and its variances."""
        sums, squares = cv2.integral2(image, sdepth=cv2.CV_64F, sqdepth=cv2.CV_64F)
        mean = self._mean(sums)
        return mean, np.maximum(self._mean(squares) - mean * mean, 0)

    def _mean(self, table: Float64[np.ndarray, "h1 w1"]) -> Float64[np.ndarray, "h2 w2"]:
        """From a summed-area table (Crow, SIGGRAPH 1984)."""
        rows = table[self.high[0]] - table[self.low[0]]
        return (rows[:, self.high[1]] - rows[:, self.low[1]]) / self.count


def shares(origins: UInt8[np.ndarray, "h w"]) -> tuple[float, ...]:
    """The shares of the pixels of a map by origin, in the order of ``ORIGINS``."""
    counts = np.bincount(origins.ravel(), minlength=len(ORIGINS))
    return tuple((counts / origins.size).tolist())


def _residuals(
    ff: np.ndarray, sources: tuple[np.ndarray, np.ndarray, np.ndarray], af: np.ndarray, bf: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is left of the fused variance after a, after b, and after both: e_a, e_b, e_ab of the module's text."""
    aa, bb, ab = sources
    least = np.maximum(ff / GAIN**2, ZERO)
    strong_a, strong_b = aa > least, bb > least
    with np.errstate(divide="ignore", invalid="ignore"):
        only_a = ff - np.where(strong_a, np.maximum(af, 0) ** 2 / aa, 0)
        only_b = ff - np.where(strong_b, np.maximum(bf, 0) ** 2 / bb, 0)
        det = aa * bb - ab * ab
        alpha, beta = (af * bb - bf * ab) / det, (bf * aa - af * ab) / det
        inside = strong_a & strong_b & (det > COLLINEAR * aa * bb) & (alpha >= 0) & (beta >= 0)
        joint = np.where(inside, ff - alpha * af - beta * bf, np.minimum(only_a, only_b))
    return only_a, only_b, joint


def _centred(image: Plane) -> Plane:
    """About the mean, on a grid of code values where products are exact in float32 up to what rounding is."""
    return image - np.float32(np.rint(image.mean()))

"""Fusion metrics from differences of neighbouring pixels, and from moments over all pixels."""

from __future__ import annotations

import math

import cv2
import numpy as np
from jaxtyping import Float, Float32

from clearfuse.train.metrics.planes import Planes

Plane = Float[np.ndarray, "h w"]


def total(values: Float[np.ndarray, "..."]) -> float:
    """Σ in double precision."""
    return float(np.sum(values, dtype=np.float64))


def standard_deviation(planes: Planes) -> float:
    """SD: √(Σ (F − mean F)² / N) of the luma.

    Code values; range [0, 127.5]; 0 for a constant image; higher is taken as better, although it measures contrast and
    noise alike. Any size. Source: Rao, Measurement Science and Technology 8(4), 1997.
    """
    centred = planes.once(_zero_mean)[0]
    return math.sqrt(total(centred * centred) / centred.size)


def spatial_frequency(planes: Planes) -> float:
    """SF: √(RF² + CF²), RF² = Σ (F[i, j] − F[i, j−1])² / N, CF² = Σ (F[i, j] − F[i−1, j])² / N, N = all pixels.

    Code values; range [0, 361]; 0 for a constant image; higher is taken as better, although it measures detail and
    noise alike. On 0..1 the value is 255 times smaller, as some tables print it. Any size. Source: Eskicioglu, Fisher,
    IEEE Trans. Communications 43(12), 1995.
    """
    fused = planes.fused
    across, down = fused[:, 1:] - fused[:, :-1], fused[1:] - fused[:-1]
    return math.sqrt((total(across * across) + total(down * down)) / fused.size)


def average_gradient(planes: Planes) -> float:
    """AG: Σ √((Δx² + Δy²) / 2) / ((h − 1)(w − 1)), Δ the differences to the next column and the next row.

    Code values; range [0, 255]; 0 for a constant image; higher is taken as better, although it measures detail and
    noise alike. Toolboxes sum central differences over all h w pixels, one-sided at the border. At least 2×2. Source:
    Cui, Feng, Xu, Li, Chen, Optics Communications 341, 2015.
    """
    fused = planes.fused
    across, down = fused[:-1, 1:] - fused[:-1, :-1], fused[1:, :-1] - fused[:-1, :-1]
    across *= across
    down *= down
    across += down
    across *= np.float32(0.5)
    return total(np.sqrt(across, out=across)) / across.size


def edge_intensity(planes: Planes) -> float:
    """EI: the mean Sobel magnitude √(sx² + sy²), the border repeated.

    Code values, for a kernel whose positive weights sum to 4; range [0, 1082]; 0 for a constant image; higher is taken
    as better, although it measures detail and noise alike. Any size. Source: Rajalingam, Priya, Int. J. Engineering
    Science Invention, 2018.
    """
    sx, sy = (cv2.Sobel(planes.fused, cv2.CV_32F, *axis, borderType=cv2.BORDER_REPLICATE) for axis in ((1, 0), (0, 1)))
    sx *= sx
    sy *= sy
    sx += sy
    return total(np.sqrt(sx, out=sx)) / sx.size


def rmse(planes: Planes) -> float:
    """RMSE: the mean of both sources' √(Σ (S − F)² / N).

    Code values; range [0, 255]; 0 where F equals both; lower is better; lowest for the mean of the sources. Any size.
    Source: Jagalingam, Hegde, Aquatic Procedia 4, 2015.
    """
    return sum(cv2.norm(planes.fused, source, cv2.NORM_L2) for source in planes.sources) / 2 / planes.fused.size**0.5


def correlation(planes: Planes) -> float:
    """CC: the mean of Pearson's correlation coefficients r(A, F) and r(B, F).

    No unit; range [−1, 1]; 1 where F is a linear function of both sources; higher is better. NaN where one of the three
    is constant. Any size. Source: Deshmukh, Bhosale, Int. J. Image Processing 4(5), 2010, as fusion papers use it.
    """
    fused, *sources = planes.once(_zero_mean)
    return sum(pearson(source, fused) for source in sources) / 2


def difference_correlation(planes: Planes) -> float:
    """SCD, the sum of the correlations of differences: r(F − B, A) + r(F − A, B).

    No unit; range [−2, 2]; 2 for F = A + B; higher is better. NaN where a source or a difference is constant, hence for
    F equal to a source. Any size. Source: Aslantas, Bendes, AEÜ 69(12), 2015.
    """
    _, a, b = planes.once(_zero_mean)
    return pearson(centre(planes.fused - planes.b), a) + pearson(centre(planes.fused - planes.a), b)


def _zero_mean(planes: Planes) -> tuple[Float32[np.ndarray, "h w"], ...]:
    """fused, a and b minus their means."""
    return tuple(centre(image) for image in planes.images)


def centre(image: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Subtract the mean: exactly 0 for a constant image, since lumas and their differences are multiples of 1/GRID."""
    return image - np.float32(image.mean(dtype=np.float64))


def pearson(x: Plane, y: Plane) -> float:
    """Pearson's correlation coefficient of two zero-mean planes; NaN where one is 0 throughout."""
    power = total(x * x) * total(y * y)
    return total(x * y) / math.sqrt(power) if power > 0 else math.nan

"""The atmosphere's point spread: how haze and fog spread the light of a lamp over the image.

Multiple scattering around an isotropic point source in a homogeneous, conservative medium, as the Legendre series of
Narasimhan and Nayar, Shedding light on the weather, CVPR 2003.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from jaxtyping import Complex, Float, Float32
from numpy.polynomial import legendre

TERMS = 200
"""Terms of the series: with T ≥ ``THINNEST`` the first one left out is below 1e-8."""
THINNEST = 1.1
"""Least optical thickness of the series, which diverges at 1; thinner air scatters with the shape of this one."""
LEVELS = THINNEST * 2.0 ** np.arange(5)
"""Optical thicknesses for which point spreads are computed; the light of lamps in between is divided among two."""


def series(thickness: float, forward: float) -> Float[np.ndarray, " m"]:
    """Coefficients c_m of I(T, μ) = Σ c_m L_m(μ), c_m = g_m + g_(m+1), g_0 = 0, for a source of intensity 1.

    g_m = e^(−β_m T − α_m ln T), α_m = m + 1, β_m = (2m + 1)/m (1 − q^(m−1)) with the optical thickness T = β d ≥
    ``THINNEST`` between source and camera and Henyey and Greenstein's forward scattering parameter q (0.8 to 0.95 from
    haze to fog). β_1 = 0: the mean radiance g_1 = T⁻² falls by the inverse square alone, since air absorbs nothing.
    """
    m = np.arange(1, TERMS + 1)
    g = np.exp(-(2 * m + 1) / m * (1 - forward ** (m - 1.0)) * thickness - (m + 1) * math.log(thickness))
    g = np.concatenate([[0.0], g])
    return g[:-1] + g[1:]


def point_spread(thickness: float, forward: float, cosine: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Radiance I(T, μ) at a camera in the fog, μ the cosine of the angle between a line of sight and the lamp."""
    return np.asarray(legendre.legval(cosine, series(thickness, forward)))


def encircled(thickness: float, forward: float, angle: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """2π ∫ I dμ from the lamp's direction to ``angle``, in radians, over what it is within 90°: 0 at 0, 1 at π/2."""
    whole = legendre.legint(series(thickness, forward))
    at = legendre.legval(np.cos(np.append(np.ravel(angle), math.pi / 2)), whole)
    share = (legendre.legval(1.0, whole) - at) / (legendre.legval(1.0, whole) - at[-1])
    return share[:-1].reshape(np.shape(angle))


@functools.lru_cache(maxsize=64)
def spectrum(level: int, forward: float, size: tuple[int, int], focal: float) -> Complex[np.ndarray, "h w"]:
    """The point spread of a level as the transfer function of a grid of cells, padded to twice its size.

    size: (h, w) of the grid; focal: the focal length in cells. A cell at distance r holds the mean over the ring
    r ± 1/2, so that all cells sum to the share that falls on them.
    """
    h, w = size
    y, x = (np.minimum(np.arange(2 * n), 2 * n - np.arange(2 * n)) for n in (h, w))
    r = np.hypot(y[:, None], x[None, :])
    steps = np.arange(0, 2 * math.ceil(r.max()) + 4) / 2
    table = encircled(float(LEVELS[level]), forward, np.arctan(steps / focal))
    inner, outer = np.maximum(r - 0.5, 0), r + 0.5
    ring = np.interp(outer, steps, table) - np.interp(inner, steps, table)
    return np.fft.rfft2(ring / (math.pi * (outer**2 - inner**2)))


def spread(
    light: Float32[np.ndarray, "h w c"], level: int, forward: float, focal: float
) -> Float32[np.ndarray, "h w c"]:
    """Light of lamps, as mean radiance of cells, after the point spread of a level; what leaves the frame is lost."""
    h, w = light.shape[:2]
    # The cache holds a few spectra of each kind of frame: the parameter is rounded to what the eye can tell.
    transfer = spectrum(level, round(forward, 2), (h, w), focal)
    padded = np.fft.rfft2(light, s=(2 * h, 2 * w), axes=(0, 1)) * transfer[..., None]
    out = np.fft.irfft2(padded, s=(2 * h, 2 * w), axes=(0, 1))[:h, :w]
    return np.maximum(out, 0).astype(np.float32)

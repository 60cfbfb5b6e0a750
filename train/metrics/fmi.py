"""Feature mutual information."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64

from train.metrics.planes import Planes


def feature_mutual_information(planes: Planes) -> float:
    """FMI: the mean over 3×3 windows of I(A; F) / (H(A) + H(F)) + I(B; F) / (H(B) + H(F)), of gradient magnitudes.

    The feature is the gradient's magnitude (central differences, one-sided at the border). In a window the features,
    brought to [0, 1] and divided by their sum, are taken for the shares p of nine places (columns after one another;
    all alike where the window is flat). Of two such, the joint shares are φ M + (1 − φ) p q: M the Fréchet bound, upper
    where their correlation c is positive, lower where it is negative, φ = min(c / the correlation of M, 1) (Nelsen
    1987). H and I are those of the shares; equal windows count as 1. No unit; range [0, 1]; 1 where F equals both
    sources; higher is better. Constants are as any image: flat against not flat is 0. At least 3×3. Source: Haghighat,
    Aghagolzadeh, Seyedarabi, Computers and Electrical Engineering 37(5), 2011, as in Fast-FMI (Haghighat, Razian, AICT
    2014). The authors' code lets φ exceed 1, and takes the horizontal gradient alone; tables of "FMI" may be of raw
    pixels, binary edges, DCT or wavelet coefficients.
    """
    from train.metrics.windows import mean_information

    return mean_information(*(gradient(image) for image in planes.images), True)


def gradient(image: Float[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    """√(Δx² + Δy²), central differences, one-sided at the border."""
    down, across = np.gradient(image.astype(np.float64))
    down *= down
    across *= across
    down += across
    return np.sqrt(down, out=down)

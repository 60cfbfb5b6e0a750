"""Fusion metrics from histograms: the information that the grey levels of the fused image and its sources share."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Float64

from clearfuse.train.metrics.planes import Planes, histograms, joint_histograms


def entropy_bits(p: Float64[np.ndarray, "..."]) -> float:
    """Entropy −Σ p log2 p in bits, with 0 log 0 = 0."""
    p = p[p > 0]
    return -float(np.sum(p * np.log2(p))) + 0.0


def entropy(planes: Planes) -> float:
    """EN: −Σ q log2 q of the relative frequencies q of the fused image's 256 grey levels (luma, rounded).

    Bits; range [0, 8]; 0 for a constant image, 8 where all levels are equally frequent; higher is better, and noise
    scores highest. Independent of the sources. Any size. Source: Roberts, van Aardt, Ahmed, J. Applied Remote Sensing
    2, 2008; Shannon 1948.
    """
    return entropy_bits(planes.once(histograms)[0])


def cross_entropy(planes: Planes) -> float:
    """CE: Σ p log2(p / q), averaged over both sources; p, q the grey-level histograms of the source and the fused
    image.

    A relative entropy: bits; range [0, ∞); 0 where the histograms are equal; lower is better. Half a pixel is added to
    each of the 256 levels (Krichevsky, Trofimov 1981), so that a level which the fused image lacks costs bits:
    toolboxes omit such levels, which rewards lacking them and can give negative values. Any size; defined for constant
    images too. Source: Bulanon, Burks, Alchanatis, Biosystems Engineering 103(1), 2009.
    """
    smoothed = (histogram * planes.fused.size + 0.5 for histogram in planes.once(histograms))
    q, *sources = (counts / counts.sum() for counts in smoothed)
    return max(sum(float(np.sum(p * np.log2(p / q))) for p in sources) / 2, 0.0)


def mutual_information(planes: Planes) -> float:
    """MI: I(A; F) + I(B; F), I(S; F) = H(S) + H(F) − H(S, F) of 256 grey levels (luma, rounded).

    Bits; a **sum**; range [0, 16]; 2 H(F) where F equals both sources, 0 where F is constant; higher is better. It
    grows with the sources' own entropy: compare on the same pairs only. Any size. Source: Qu, Zhang, Yan, Electronics
    Letters 38(7), 2002.
    """
    return sum(shared for shared, _ in planes.once(_shared))


def normalised_mutual_information(planes: Planes) -> float:
    """NMI: 2 [I(A; F) / (H(A) + H(F)) + I(B; F) / (H(B) + H(F))].

    No unit; range [0, 2]; 2 where F equals both sources; higher is better. NaN where the fused image and a source are
    both constant. Any size. Source: Hossny, Nahavandi, Creighton, Electronics Letters 44(18), 2008.
    """
    pairs = planes.once(_shared)
    return 2 * sum(shared / total for shared, total in pairs) if all(total for _, total in pairs) else math.nan


def _shared(planes: Planes) -> list[tuple[float, float]]:
    """I(S; F) and H(S) + H(F), for both sources."""
    fused, *sources = (entropy_bits(histogram) for histogram in planes.once(histograms))
    totals, joints = [source + fused for source in sources], planes.once(joint_histograms)
    return [(max(total - entropy_bits(joint), 0.0), total) for total, joint in zip(totals, joints, strict=True)]


def feature_mutual_information(planes: Planes) -> float:
    """FMI: the mean over 3×3 windows of I(A; F) / (H(A) + H(F)) + I(B; F) / (H(B) + H(F)), of gradient magnitudes.

    The feature is the gradient magnitude (central differences, one-sided at the border). In a window the features,
    scaled to [0, 1] and divided by their sum, are read as a distribution p over nine positions (column by column;
    uniform where the window is flat). The joint distribution of two windows is φ M + (1 − φ) p q: M the Fréchet bound,
    the upper one where their correlation c is positive, the lower one where it is negative, φ = min(c / the correlation
    of M, 1) (Nelsen 1987). H and I are those of the distributions; equal windows count as 1. No unit; range [0, 1]; 1
    where F equals both sources; higher is better. Defined for constant images too: flat against not flat is 0. At least
    3×3. Source: Haghighat, Aghagolzadeh, Seyedarabi, Computers and Electrical Engineering 37(5), 2011, as in Fast-FMI
    (Haghighat, Razian, AICT 2014). The authors' code lets φ exceed 1 and uses only the horizontal gradient; tables of
    "FMI" may be of raw pixels, binary edges, DCT or wavelet coefficients.
    """
    from clearfuse.train.metrics.windows import mean_information

    return mean_information(*(gradient(image) for image in planes.images), True)


def gradient(image: Float[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    """√(Δx² + Δy²) by central differences, one-sided at the border."""
    down, across = np.gradient(image.astype(np.float64))
    down *= down
    across *= across
    down += across
    return np.sqrt(down, out=down)

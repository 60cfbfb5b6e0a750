"""Rank correlations: Kendall's τ and Spearman's ρ, ties and all."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64


def ranks(values: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
    """Ranks from 1, equal values the mean of theirs."""
    smaller = (values[None, :] < values[:, None]).sum(1)
    equal = (values[None, :] == values[:, None]).sum(1)
    return smaller + (equal + 1) / 2


def spearman(x: Float64[np.ndarray, "n"], y: Float64[np.ndarray, "n"]) -> float:
    """ρ: the correlation of the ranks (Spearman, American Journal of Psychology 15(1), 1904). NaN where all of one are
    equal.
    """
    p, q = (ranks(values) - (values.size + 1) / 2 for values in (x, y))
    norm = math.sqrt(float(p @ p) * float(q @ q))
    return float(p @ q) / norm if norm else math.nan


def kendall(x: Float64[np.ndarray, "n"], y: Float64[np.ndarray, "n"]) -> float:
    """τ-b: pairs in the same order less those in the other, over √ of the pairs untied in x times those untied in y
    (Kendall, Biometrika 33(3), 1945). NaN where all of one are equal.
    """
    upper = np.triu_indices(x.size, 1)
    # Signs of comparisons, not of differences: of two infinite values there is none.
    p, q = ((v[:, None] > v[None, :]).astype(int) - (v[:, None] < v[None, :]) for v in (x, y))
    p, q = p[upper], q[upper]
    norm = math.sqrt(float((p != 0).sum()) * float((q != 0).sum()))
    return float((p * q).sum()) / norm if norm else math.nan

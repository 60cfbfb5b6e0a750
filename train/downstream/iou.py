"""Segmentation scored as its benchmarks do: IoU by class over all pixels of a set, and its mean.

Source: Everingham et al., The Pascal visual object classes challenge, IJCV 111, 2015, section 4.2.
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float64, Int64, Integer

IGNORED = 255
"""In a map of classes: a pixel that counts for nothing."""


def confusion(
    found: Integer[np.ndarray, "h w"], there: Integer[np.ndarray, "h w"], classes: int
) -> Int64[np.ndarray, "classes classes"]:
    """Pixels by the class that they are of (rows) and the class that was found (columns), without ``IGNORED`` ones."""
    known = there != IGNORED
    pairs = there[known].astype(np.int64) * classes + found[known].astype(np.int64)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def class_iou(counts: Int64[np.ndarray, "classes classes"]) -> Float64[np.ndarray, " classes"]:
    """IoU by class = right / (right + missed + wrongly found); NaN where a class is neither there nor found."""
    right = np.diag(counts).astype(np.float64)
    whole = counts.sum(0) + counts.sum(1) - right
    return np.divide(right, whole, out=np.full(len(right), np.nan), where=whole > 0)


def mean_iou(counts: Int64[np.ndarray, "classes classes"]) -> float:
    """The mean over the classes that are there or found; NaN without any."""
    values = class_iou(counts)
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan

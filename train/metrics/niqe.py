"""NIQE: how far an image's local statistics are from those of pristine images, by the authors' model of these."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from clearfuse.synth.types import UserError
from clearfuse.train.metrics.noreference import FEATURES, NEIGHBOURS, SHAPES, downsample, fit_asymmetric, package_folder

BLOCK = 96
"""Side of the blocks in pixels; half of it at the second scale."""
SMALLEST = 2 * BLOCK
"""A covariance needs several blocks."""

Model = tuple[Float64[np.ndarray, "36"], Float64[np.ndarray, "36 36"]]


def niqe(fused: Float32[np.ndarray, "h w"]) -> float:
    """NIQE: the distance of the image's blocks from a Gaussian model of pristine ones, √(Δᵀ ((Σ₁ + Σ₂)/2)⁺ Δ).

    Δ: the difference of the means of 36 features per block, Σ their covariances. At two scales, the second downsampled
    by an antialiased cubic, on blocks of 96×96 (48×48) from the upper left, the remainder left out:
    x = (I − μ)/(σ + 1) under a 7×7 Gaussian of σ 7/6 (the border repeated); the shape and mean scale of the asymmetric
    generalised Gaussian fitted to x, and the shape, mean, left and right scale of those fitted to the products of
    neighbours in four directions. Luma is rounded to 8 bit. A flat block, to which no Gaussian can be fitted, counts in
    the means by the features it has and not in the covariance. **Lower is better**; range [0, ∞), 2 to 5 for natural
    images. NaN where fewer than two blocks can be fitted, as in a constant image. At least 192×192. Source: Mittal,
    Soundararajan, Bovik, IEEE Signal Processing Letters 20(3), 2013; the model is theirs, from the data files of the
    package ``basicsr``.
    """
    mean, covariance = model()
    rows = block_features(np.floor(fused.astype(np.float64) + 0.5))
    complete = rows[np.isfinite(rows).all(axis=1)]
    if len(complete) < 2:
        return math.nan
    difference = np.nanmean(rows, axis=0) - mean
    pooled = (np.cov(complete, rowvar=False) + covariance) / 2
    return math.sqrt(max(float(difference @ np.linalg.pinv(pooled) @ difference), 0.0))


def niqe_missing() -> str:
    """Why NIQE can't run here, or ""."""
    return "" if _file().is_file() else "needs the data files of basicsr: pip install --no-deps basicsr"


def block_features(image: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "blocks 36"]:
    """The 36 features of each block; NaN where no Gaussian can be fitted."""
    rows, columns = (side // BLOCK for side in image.shape)
    image = image[: rows * BLOCK, : columns * BLOCK]
    scales: list[list[list[float]]] = []
    for side in (BLOCK, BLOCK // 2):
        if side < BLOCK:
            image = downsample(image)
        mean, power = (
            cv2.GaussianBlur(plane, (7, 7), 7 / 6, borderType=cv2.BORDER_REPLICATE) for plane in (image, image * image)
        )
        x = (image - mean) / (np.sqrt(np.abs(power - mean * mean)) + 1)
        corners = [(i * side, j * side) for i in range(rows) for j in range(columns)]
        scales.append([_features(x[i : i + side, j : j + side]) for i, j in corners])
    return np.concatenate([np.array(features) for features in scales], axis=1)


def _features(x: Float64[np.ndarray, "h w"]) -> list[float]:
    """The 18 features of a block at one scale."""
    shape, _, left, right = _fit(x)
    features = [shape, (left + right) / 2]
    for step in NEIGHBOURS:
        features += _fit(x * np.roll(x, step, (0, 1)))
    return features


def _fit(x: Float64[np.ndarray, "h w"]) -> list[float]:
    """Shape α, mean, left and right scale β = σ √(Γ(1/α)/Γ(3/α)) of the asymmetric generalised Gaussian fitted to x.

    Where a side is empty: the smallest shape, and the scale of the other side, as in the authors' code.
    """
    shape, mean, left, right = fit_asymmetric(x)
    if math.isnan(shape):
        shape = float(SHAPES[0])
        left, right = (float(np.square(x[side]).mean()) if side.any() else math.nan for side in (x < 0, x > 0))
    scale = math.exp((math.lgamma(1 / shape) - math.lgamma(3 / shape)) / 2)
    return [shape, mean, math.sqrt(left) * scale, math.sqrt(right) * scale]


def _file() -> Path:
    """The path of the model in the package ``basicsr``."""
    return package_folder("basicsr") / "metrics" / "niqe_pris_params.npz"


@cache
def model() -> Model:
    """Mean and covariance of the features of pristine images, from the package ``basicsr``. Raises UserError."""
    if reason := niqe_missing():
        raise UserError(f"NIQE {reason}")
    return read_model(_file())


def read_model(path: Path) -> Model:
    """Mean and covariance of the features of pristine images, from an npz file without pickles. Raises UserError."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            mean, covariance = np.ravel(arrays["mu_pris_param"]), arrays["cov_pris_param"]
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"NIQE: {path} holds no model: {error}") from None
    if mean.shape != (FEATURES,) or covariance.shape != (FEATURES, FEATURES):
        raise UserError(f"NIQE: {path} holds no model of {FEATURES} features: install another basicsr")
    return mean.astype(np.float64), covariance.astype(np.float64)

"""No-reference metrics: how natural, or how good, an image looks by itself. BRISQUE here, some through pyiqa."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pickletools import genops
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64

from clearfuse.synth.types import UserError
from clearfuse.train.metrics.base import PEAK

FEATURES = 36
SHAPES = np.arange(200, 10001) / 1000
"""The shapes of generalised Gaussians that are tried."""
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (-1, 1))
CUBIC_TAPS = 8


@dataclass(frozen=True)
class Regression:
    """BRISQUE's support vector regression. low, high: the features' ranges; Σ coefficients exp(−γ |x − s|²) − ρ."""

    low: Float64[np.ndarray, "36"]
    high: Float64[np.ndarray, "36"]
    coefficients: Float64[np.ndarray, " n"]
    vectors: Float64[np.ndarray, "n 36"]
    gamma: float
    rho: float


def brisque(fused: Float32[np.ndarray, "h w"]) -> float:
    """BRISQUE: what distortions a viewer would see, from how locally normalised luma departs from natural statistics.

    At two scales, the second halved by an antialiased cubic: x = (I − μ)/(σ + 1) under a 7×7 Gaussian of σ 7/6 (zeros
    beyond the border, as LIVE's code), the shape and variance of the generalised Gaussian that fits x, and shape, mean,
    left and right variance of the asymmetric one that fits the products of neighbours in four directions; a support
    vector regression of the 36 numbers. Luma is rounded to 8 bit. **Lower is better**; about [0, 100], no bounds:
    negative values are legal. Not a number where the image is constant. At least 16×16. Source: Mittal, Moorthy,
    Bovik, IEEE TIP 21(12), 2012; the regression is the one in the data files of the package ``brisque``.
    """
    if fused.min() == fused.max():
        return math.nan
    model = _regression()
    return regress(model, features(np.floor(fused.astype(np.float64) + 0.5)))


def brisque_missing() -> str:
    """Why BRISQUE can't run here, or ""."""
    return "" if all(path.is_file() for path in _files()) else "needs the data files of brisque: pip install brisque"


def features(image: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "36"]:
    """The 36 numbers, in the order of LIVE's code."""
    found: list[float] = []
    for scale in range(2):
        if scale:
            image = halved(image)
        mean = cv2.GaussianBlur(image, (7, 7), 7 / 6, borderType=cv2.BORDER_CONSTANT)
        power = cv2.GaussianBlur(image * image, (7, 7), 7 / 6, borderType=cv2.BORDER_CONSTANT)
        x = (image - mean) / (np.sqrt(np.abs(power - mean * mean)) + 1)
        found += _gaussian(x)
        for step in NEIGHBOURS:
            found += asymmetric(x * np.roll(x, step, (0, 1)))
    return np.array(found)


def regress(model: Regression, numbers: Float64[np.ndarray, "36"]) -> float:
    """The regression at the features, each put on [−1, 1]."""
    x = 2 * (numbers - model.low) / (model.high - model.low) - 1
    near = np.exp(-model.gamma * np.sum(np.square(model.vectors - x), axis=1))
    return float(model.coefficients @ near) - model.rho


def halved(image: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "h2 w2"]:
    """Half the size, an odd side rounded up: the cubic of a = −1/2 stretched by 2, the border mirrored."""
    at = np.abs(np.arange(CUBIC_TAPS) - 3.5) / 2
    taps = np.where(at <= 1, 1.5 * at**3 - 2.5 * at**2 + 1, -0.5 * at**3 + 2.5 * at**2 - 4 * at + 2)
    for axis in (0, 1):
        size = (image.shape[axis] + 1) // 2
        wide = np.pad(image, [(3, 5) if k == axis else (0, 0) for k in (0, 1)], "symmetric")
        parts = (np.take(wide, np.arange(size) * 2 + k, axis) * tap for k, tap in enumerate(taps / taps.sum()))
        image = sum(parts, np.zeros(()))
    return image


@cache
def _ratios() -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """By shape: Γ(1/s) Γ(3/s) / Γ(2/s)², and Γ(2/s) / √(Γ(1/s) Γ(3/s))."""
    first, second, third = (np.array([math.lgamma(k / shape) for shape in SHAPES]) for k in (1, 2, 3))
    return np.exp(first + third - 2 * second), np.exp(second - (first + third) / 2)


def _gaussian(x: Float64[np.ndarray, "h w"]) -> list[float]:
    """Shape and variance of the generalised Gaussian with x's E[x²] / E[|x|]²."""
    variance, deviation = float(np.mean(x * x)), float(np.mean(np.abs(x)))
    return [float(SHAPES[np.argmin(np.abs(_ratios()[0] - variance / deviation**2))]), variance]


def asymmetric(x: Float64[np.ndarray, "h w"]) -> list[float]:
    """Shape, mean, left and right variance of the asymmetric generalised Gaussian that fits x (Lasmar et al. 2009)."""
    squares, negative, positive = x * x, x < 0, x > 0
    if not (negative.any() and positive.any()):
        return [math.nan] * 4
    left, right = float(squares[negative].mean()), float(squares[positive].mean())
    skew = math.sqrt(left / right)
    ratio = float(np.mean(np.abs(x))) ** 2 / float(squares.mean())
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    best = int(np.argmin(np.square(1 / _ratios()[0] - ratio)))
    return [float(SHAPES[best]), (math.sqrt(right) - math.sqrt(left)) * float(_ratios()[1][best]), left, right]


def _files() -> tuple[Path, Path]:
    """The regression and its ranges in the package ``brisque``."""
    models = package_folder("brisque") / "models"
    return models / "svm.txt", models / "normalize.pickle"


def package_folder(name: str) -> Path:
    """Where a package's files lie, which is found and not imported; a folder that is not there where it is missing."""
    found = find_spec(name)
    return Path(found.submodule_search_locations[0]) if found and found.submodule_search_locations else Path(name)


@cache
def _regression() -> Regression:
    if reason := brisque_missing():
        raise UserError(f"BRISQUE {reason}")
    model, ranges = _files()
    return read_regression(model.read_text(), ranges.read_bytes())


def read_regression(model: str, ranges: bytes) -> Regression:
    """A libsvm text model, and a pickle of {"min_": […], "max_": […]} whose numbers are taken from its opcodes: a
    pickle that is loaded runs what is in it. Raises UserError where the two are not of 36 features.
    """
    head, _, body = model.partition("\nSV\n")
    said = dict(line.split(maxsplit=1) for line in head.splitlines())
    lines = [line.split() for line in body.splitlines() if line.strip()]
    vectors = np.zeros((len(lines), FEATURES))
    for row, line in zip(vectors, lines, strict=True):
        for cell in line[1:]:
            place, _, value = cell.partition(":")
            row[int(place) - 1] = float(value)
    numbers: dict[str, list[float]] = {}
    name = ""
    for opcode, value, _ in genops(ranges):
        if isinstance(value, str):
            name = value
        elif isinstance(value, float | int) and opcode.name.startswith(("BINFLOAT", "FLOAT", "BININT", "INT")):
            numbers.setdefault(name, []).append(float(value))
    low, high = (np.array(numbers.get(key, [])) for key in ("min_", "max_"))
    if not (len(low) == len(high) == FEATURES and said.get("kernel_type") == "rbf"):
        raise UserError(f"BRISQUE: the data files of brisque hold no RBF model of {FEATURES} features: install another")
    return Regression(
        low, high, np.array([float(line[0]) for line in lines]), vectors, float(said["gamma"]), float(said["rho"])
    )


def by_pyiqa(name: str) -> Callable[..., float]:
    """The metric of a name in pyiqa, of images ``(h, w, c)`` on 0..255: the fused one, and the ground truth if any."""

    def score(*images: Float[np.ndarray, "h w c"]) -> float:
        """The metric on RGB in [0, 1], on the GPU where there is one; a grey image has three equal channels."""
        import torch

        model = _network(name)
        colour = (np.broadcast_to(image, (*image.shape[:2], 3)) / np.float32(PEAK) for image in images)
        tensors = [torch.from_numpy(np.ascontiguousarray(each.transpose(2, 0, 1)))[None] for each in colour]
        with torch.inference_mode():
            return float(model(*(tensor.to(model.device) for tensor in tensors)))

    return score


def pyiqa_missing() -> str:
    """Why pyiqa's metrics can't run here, or ""."""
    return "" if find_spec("pyiqa") else "needs pyiqa: pip install 'clearfuse[iqa]'"


@cache
def _network(name: str) -> Any:
    if reason := pyiqa_missing():
        raise UserError(f"{name} {reason}")
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with _weights_only():
        return import_module("pyiqa").create_metric(name, device=device)


@contextmanager
def _weights_only() -> Iterator[None]:
    """torch reads tensors alone from weights, whatever the caller asks for: pyiqa asks for whole pickles."""
    key = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(key)
    os.environ[key] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[key]
        else:
            os.environ[key] = before

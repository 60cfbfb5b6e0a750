"""No-reference metrics: how natural, or how good, an image looks. BRISQUE, and metrics of pyiqa."""

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
"""The candidate shapes of generalised Gaussians."""
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (-1, 1))
CUBIC_TAPS = 8


@dataclass(frozen=True)
class Regression:
    """BRISQUE's support vector regression: Σ coefficients exp(−γ |x − s|²) − ρ over the support vectors s.

    low, high: the ranges of the features, which are scaled to [−1, 1].
    """

    low: Float64[np.ndarray, "36"]
    high: Float64[np.ndarray, "36"]
    coefficients: Float64[np.ndarray, " n"]
    vectors: Float64[np.ndarray, "n 36"]
    gamma: float
    rho: float


def brisque(fused: Float32[np.ndarray, "h w"]) -> float:
    """BRISQUE: predicted visible distortion, from how locally normalised luma departs from natural statistics.

    At two scales, the second downsampled by an antialiased cubic: x = (I − μ)/(σ + 1) under a 7×7 Gaussian of σ 7/6
    (zeros beyond the border, as in LIVE's code), the shape and variance of the generalised Gaussian fitted to x, and
    the shape, mean, left and right variance of the asymmetric one fitted to the products of neighbours in four
    directions; a support vector regression on these 36 features. Luma is rounded to 8 bit. **Lower is better**; about
    [0, 100], without bounds: negative values are legal. NaN where the image is constant. At least 16×16. Source:
    Mittal, Moorthy, Bovik, IEEE TIP 21(12), 2012; the regression is from the data files of the package ``brisque``.
    """
    if fused.min() == fused.max():
        return math.nan
    model = regression()
    return regress(model, features(np.floor(fused.astype(np.float64) + 0.5)))


def brisque_missing() -> str:
    """Why BRISQUE can't run here, or ""."""
    return "" if all(path.is_file() for path in _files()) else "needs the data files of brisque: pip install brisque"


def features(image: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "36"]:
    """The 36 features, in the order of LIVE's code."""
    values: list[float] = []
    for scale in range(2):
        if scale:
            image = downsample(image)
        mean = cv2.GaussianBlur(image, (7, 7), 7 / 6, borderType=cv2.BORDER_CONSTANT)
        power = cv2.GaussianBlur(image * image, (7, 7), 7 / 6, borderType=cv2.BORDER_CONSTANT)
        x = (image - mean) / (np.sqrt(np.abs(power - mean * mean)) + 1)
        values += _fit_symmetric(x)
        for step in NEIGHBOURS:
            values += fit_asymmetric(x * np.roll(x, step, (0, 1)))
    return np.array(values)


def regress(model: Regression, values: Float64[np.ndarray, "36"]) -> float:
    """Evaluate the regression at the features, each scaled to [−1, 1]."""
    x = 2 * (values - model.low) / (model.high - model.low) - 1
    kernel = np.exp(-model.gamma * np.sum(np.square(model.vectors - x), axis=1))
    return float(model.coefficients @ kernel) - model.rho


def downsample(image: Float64[np.ndarray, "h w"]) -> Float64[np.ndarray, "h2 w2"]:
    """Downsample by 2, an odd side rounded up: the cubic of a = −1/2 stretched by 2, the border mirrored."""
    distance = np.abs(np.arange(CUBIC_TAPS) - 3.5) / 2
    taps = np.where(
        distance <= 1,
        1.5 * distance**3 - 2.5 * distance**2 + 1,
        -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2,
    )
    for axis in (0, 1):
        size = (image.shape[axis] + 1) // 2
        padded = np.pad(image, [(3, 5) if k == axis else (0, 0) for k in (0, 1)], "symmetric")
        parts = (np.take(padded, np.arange(size) * 2 + k, axis) * tap for k, tap in enumerate(taps / taps.sum()))
        image = sum(parts, np.zeros(()))
    return image


@cache
def ratios() -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Γ(1/s) Γ(3/s) / Γ(2/s)² and Γ(2/s) / √(Γ(1/s) Γ(3/s)) for each shape s."""
    first, second, third = (np.array([math.lgamma(k / shape) for shape in SHAPES]) for k in (1, 2, 3))
    return np.exp(first + third - 2 * second), np.exp(second - (first + third) / 2)


def _fit_symmetric(x: Float64[np.ndarray, "h w"]) -> list[float]:
    """Shape and variance of the generalised Gaussian with x's E[x²] / E[|x|]²."""
    variance, deviation = float(np.mean(x * x)), float(np.mean(np.abs(x)))
    return [float(SHAPES[np.argmin(np.abs(ratios()[0] - variance / deviation**2))]), variance]


def fit_asymmetric(x: Float64[np.ndarray, "h w"]) -> list[float]:
    """Shape, mean, left and right variance of the asymmetric generalised Gaussian fitted to x (Lasmar et al. 2009)."""
    squares, negative, positive = x * x, x < 0, x > 0
    if not (negative.any() and positive.any()):
        return [math.nan] * 4
    left, right = float(squares[negative].mean()), float(squares[positive].mean())
    skew = math.sqrt(left / right)
    ratio = float(np.mean(np.abs(x))) ** 2 / float(squares.mean())
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    best = int(np.argmin(np.square(1 / ratios()[0] - ratio)))
    return [float(SHAPES[best]), (math.sqrt(right) - math.sqrt(left)) * float(ratios()[1][best]), left, right]


def _files() -> tuple[Path, Path]:
    """The paths of the regression and of its ranges in the package ``brisque``."""
    models = package_folder("brisque") / "models"
    return models / "svm.txt", models / "normalize.pickle"


def package_folder(name: str) -> Path:
    """The folder of an installed package, which is not imported; a path that does not exist if it is not installed."""
    spec = find_spec(name)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else Path(name)


@cache
def regression() -> Regression:
    """The regression of the package ``brisque``. Raises UserError."""
    if reason := brisque_missing():
        raise UserError(f"BRISQUE {reason}")
    model, ranges = _files()
    return read_regression(model.read_text(), ranges.read_bytes())


def read_regression(model: str, ranges: bytes) -> Regression:
    """Read a libsvm text model and a pickle of {"min_": […], "max_": […]}.

    The pickle is not loaded, which could run code: its numbers are taken from the opcodes. Raises UserError where the
    two are not of 36 features.
    """
    head, _, body = model.partition("\nSV\n")
    header = dict(line.split(maxsplit=1) for line in head.splitlines())
    lines = [line.split() for line in body.splitlines() if line.strip()]
    vectors = np.zeros((len(lines), FEATURES))
    for row, line in zip(vectors, lines, strict=True):
        for cell in line[1:]:
            index, _, value = cell.partition(":")
            row[int(index) - 1] = float(value)
    numbers: dict[str, list[float]] = {}
    name = ""
    for opcode, value, _ in genops(ranges):
        if isinstance(value, str):
            name = value
        elif isinstance(value, float | int) and opcode.name.startswith(("BINFLOAT", "FLOAT", "BININT", "INT")):
            numbers.setdefault(name, []).append(float(value))
    low, high = (np.array(numbers.get(key, [])) for key in ("min_", "max_"))
    if not (len(low) == len(high) == FEATURES and header.get("kernel_type") == "rbf"):
        raise UserError(f"BRISQUE: the data files of brisque hold no RBF model of {FEATURES} features: install another")
    return Regression(
        low, high, np.array([float(line[0]) for line in lines]), vectors, float(header["gamma"]), float(header["rho"])
    )


def by_pyiqa(name: str) -> Callable[..., float]:
    """A metric of pyiqa by name, as a function of images ``(h, w, c)`` on 0..255: fused, or fused and ground truth."""

    def score(*images: Float[np.ndarray, "h w c"]) -> float:
        """Score RGB in [0, 1], on the GPU where there is one; a grey image is given three equal channels."""
        import torch

        model = network(name, "cuda" if torch.cuda.is_available() else "cpu")
        colour = (np.broadcast_to(image, (*image.shape[:2], 3)) / np.float32(PEAK) for image in images)
        tensors = [torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None] for image in colour]
        with torch.inference_mode():
            return float(model(*(tensor.to(model.device) for tensor in tensors)))

    return score


def raim(image: Float[np.ndarray, "h w c"], reference: Float[np.ndarray, "h w c"]) -> float:
    """The score of the RAIM challenge on multi-exposure fusion in dynamic scenes: see ``raim_score``.

    PSNR, SSIM and LPIPS are pyiqa's, with which the challenge measures: its SSIM is not this package's. Source: NTIRE
    2026, the 3rd Restore Any Image Model challenge, track 2, arXiv:2604.09030, and its repository's eval.py.
    """
    return raim_score(*(by_pyiqa(name)(image, reference) for name in ("psnr", "ssim", "lpips")))


def raim_score(psnr: Any, ssim: Any, lpips: Any) -> Any:
    """30 PSNR/50 + 22.5 (SSIM − 0.5)/0.5 + 30 (1 − LPIPS/0.4), nothing clipped: 82.5 at 50 dB, SSIM 1 and LPIPS 0.

    Of numbers, or of tensors of them.
    """
    return 30 * psnr / 50 + 22.5 * (ssim - 0.5) / 0.5 + 30 * (1 - lpips / 0.4)


def pyiqa_missing() -> str:
    """Why pyiqa's metrics can't run here, or ""."""
    return "" if find_spec("pyiqa") else "needs pyiqa (for non-commercial use): pip install 'clearfuse[iqa]'"


@cache
def network(name: str, device: str) -> Any:
    """The network of a metric of pyiqa, on a device."""
    if reason := pyiqa_missing():
        raise UserError(f"{name} {reason}")
    import torch

    with _weights_only():
        return import_module("pyiqa").create_metric(name, device=torch.device(device))


@contextmanager
def _weights_only() -> Iterator[None]:
    """Make torch load only tensors from weight files, although pyiqa asks for full pickles."""
    key = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    previous = os.environ.get(key)
    os.environ[key] = "1"
    try:
        yield
    finally:
        if previous is None:
            del os.environ[key]
        else:
            os.environ[key] = previous

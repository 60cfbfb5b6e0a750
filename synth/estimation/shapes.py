"""Statistics of what stands out from its surroundings: streaks, flakes and drops, and how natural local contrast is."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32

from clearfuse.synth.estimation.tone import thinned

ANGLES = 12
RADIUS = 8
WINDOW = 224
"""Side of the part of the middle in which lines are looked for, in pixels."""


def _line(angle: float) -> np.ndarray:
    """An even line filter: second derivative of a Gaussian of σ 1.2 px across, smoothed with σ 4 px along."""
    y, x = np.mgrid[RADIUS : -RADIUS - 1 : -1, -RADIUS : RADIUS + 1].astype(np.float64)
    across, along = x * np.sin(angle) - y * np.cos(angle), x * np.cos(angle) + y * np.sin(angle)
    kernel = (1 - (across / 1.2) ** 2) * np.exp(-0.5 * (across / 1.2) ** 2 - 0.5 * (along / 4) ** 2)
    kernel -= kernel.mean()
    return (kernel / np.sqrt((kernel**2).sum())).astype(np.float32)


_LINES = [_line(np.pi * i / ANGLES) for i in range(ANGLES)]


def line_statistics(grey: Float32[np.ndarray, "h w"]) -> list[float]:
    """Bright and dark lines by direction, at two scales: rain draws bright ones, near vertical.

    In units of the local contrast, so that neither noise nor exposure looks like rain; and the log of that contrast.
    """
    out: list[float] = []
    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    for plane in (grey, half):
        top, left = (max(0, side - WINDOW) // 2 for side in plane.shape)
        part = np.ascontiguousarray(plane[top : top + WINDOW, left : left + WINDOW])
        responses = np.stack([cv2.filter2D(part, -1, kernel) for kernel in _LINES])
        unit = float(np.sqrt((responses**2).mean())) + 1e-4
        responses /= unit
        bright, dark = np.maximum(responses, 0), np.maximum(-responses, 0)
        out.append(float(np.log(unit)))
        for side in (bright, dark):
            out += (side**2).mean((1, 2)).tolist()
            out += np.log(np.quantile(side[:, ::3, ::3].reshape(ANGLES, -1), 0.99, axis=1) + 1e-2).tolist()
        out += [float(np.log(((bright**3).mean() + 1e-6) / ((dark**3).mean() + 1e-6) + 1e-3))]
    return out


def blob_statistics(grey: Float32[np.ndarray, "h w"]) -> list[float]:
    """Tails of the difference of Gaussians at five scales, bright and dark: flakes are bright, defects both."""
    out: list[float] = []
    fine = grey
    for _ in range(5):
        coarse = cv2.GaussianBlur(fine, (0, 0), 1.6)
        rest = fine - coarse
        unit = float(np.sqrt((rest**2).mean())) + 1e-4
        tails = np.abs(np.quantile(thinned(rest), (0.001, 0.01, 0.1, 0.9, 0.99, 0.999))) / unit
        out += [np.log(unit), *np.log(tails + 1e-2), float(((rest / unit) ** 3).mean())]
        fine = (
            cv2.resize(coarse, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) if min(coarse.shape) > 32 else coarse
        )
    return [float(x) for x in out]


def sharpness_statistics(grey: Float32[np.ndarray, "h w"]) -> list[float]:
    """Quantiles of local sharpness, fine over coarse detail by blocks of 16: blur lowers all, drops and focus some."""
    fine = np.abs(cv2.Laplacian(grey, -1))
    coarse = np.abs(cv2.Laplacian(cv2.GaussianBlur(grey, (0, 0), 2.0), -1)) * 8
    h, w = (max(4, side // 16) for side in grey.shape)
    blocks = [cv2.resize(x, (w, h), interpolation=cv2.INTER_AREA) for x in (fine, coarse)]
    ratio = np.log((blocks[0] + 1e-3) / (blocks[1] + 1e-3))
    busy = np.log(blocks[1] + 1e-3)
    textured = ratio[busy >= np.median(busy)]
    shares = (0.05, 0.25, 0.5, 0.75, 0.95)
    bands = [float(np.median(band)) for band in np.array_split(ratio, 4)]
    return [*np.quantile(ratio, shares).tolist(), *np.quantile(textured, shares).tolist(), *bands]


def normalised_statistics(grey: Float32[np.ndarray, "h w"]) -> list[float]:
    """Moments of contrast-normalised luminance and of products of neighbours, at two scales.

    After BRISQUE (Mittal, Moorthy and Bovik, IEEE TIP 2012), by moments instead of fitted distributions.
    """
    out: list[float] = []
    at = grey * 255
    for _ in range(2):
        mean = cv2.GaussianBlur(at, (0, 0), 7 / 6)
        spread = np.sqrt(np.maximum(cv2.GaussianBlur(at * at, (0, 0), 7 / 6) - mean * mean, 0))
        normal = (at - mean) / (spread + 1)
        out += _moments(normal)
        for dy, dx in ((0, 1), (1, 0), (1, 1), (1, -1)):
            other = np.roll(normal, (dy, dx), (0, 1))
            out += _moments(normal * other)
        at = cv2.resize(at, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return out


def _moments(x: np.ndarray) -> list[float]:
    left, right = np.minimum(x, 0), np.maximum(x, 0)
    size = [float(np.sqrt((side**2).mean())) for side in (left, right)]
    absolute = float(np.abs(x).mean())
    return [float(x.mean()), *size, absolute / (float(np.sqrt((x**2).mean())) + 1e-4)]

"""Phase congruency, and Zhao's Qp on it, as the MEFB toolbox has them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float64

Plane = Float64[np.ndarray, "h w"]

SCALES, ORIENTATIONS = 4, 6
SHORTEST, FACTOR, WIDTH = 3.0, 2.1, 0.55
"""The finest wavelength in pixels, from one to the next, and the log-Gabor's σ over its centre."""
NOISE, CUT, SHARPNESS, EPSILON = 2.0, 0.5, 10.0, 1e-4
FEATURE = 0.1
"""Above this phase congruency a source has a feature."""


@dataclass(frozen=True)
class Features:
    """Phase congruency and the greatest and least moments of its covariance over orientations."""

    congruency: Plane
    most: Plane
    least: Plane


def qp(fused: Plane, a: Plane, b: Plane) -> float:
    """Zhao, Laganière and Liu 2007: the product of the correlations of phase congruency, and of its two moments, with
    the best of either source and the greater of both, local and where there is a feature.
    """
    one, other, mine = features(a), features(b), features(fused)
    first = one.congruency > other.congruency
    seen = [image.congruency > FEATURE for image in (one, other)]
    seen.append(np.where(first, one.congruency, other.congruency) > FEATURE)
    score = 1.0
    for name in ("congruency", "most", "least"):
        x, y = getattr(one, name), getattr(other, name)
        score *= _kept([x, y, np.where(first, x, y)], getattr(mine, name), seen)
    return score


def _kept(maps: list[np.ndarray], fused: Plane, seen: list[np.ndarray]) -> float:
    """The greatest of the local correlations with each map, summed, over the pixels that the last one has seen."""

    def bell(image: Float[np.ndarray, "h w"]) -> Plane:
        return cv2.GaussianBlur(image, (11, 11), 1.5, borderType=cv2.BORDER_CONSTANT)

    mean_f = bell(fused)
    power_f = bell(fused * fused) - mean_f * mean_f
    found = np.zeros((len(maps), *fused.shape))
    for k, (image, mask) in enumerate(zip(maps, seen, strict=True)):
        image = image * mask
        mean = bell(image)
        power, shared = bell(image * image) - mean * mean, bell(image * fused) - mean * mean_f
        whole = (shared + EPSILON) / (np.sqrt(np.abs(power * power_f)) + EPSILON)
        found[k][mask] = whole[mask]
    pixels = int(_count(seen[-1]))
    return float(found.max(0).sum()) / pixels if pixels else math.nan


def _count(mask: Bool[np.ndarray, "h w"]) -> int:
    return int(np.count_nonzero(mask))


def features(image: Plane) -> Features:
    """Kovesi's phasecong3 with its defaults, as revised in the toolbox.

    Log-Gabor filters of 4 scales in 6 orientations; by orientation the energy Σ A (cos Δφ − |sin Δφ|) less a noise
    threshold of mean + 2 σ over 1.7, weighted by the spread over scales; congruency = Σ energy / Σ amplitude.
    """
    shape = image.shape
    spectrum = np.fft.fft2(image)
    radial, angle = _radial(shape), _angle(shape)
    energy, amplitude = np.zeros(shape), np.zeros(shape)
    covariance = np.zeros((3, *shape))
    for k in range(ORIENTATIONS):
        turn = k * math.pi / ORIENTATIONS
        ds = np.sin(angle) * math.cos(turn) - np.cos(angle) * math.sin(turn)
        dc = np.cos(angle) * math.cos(turn) + np.sin(angle) * math.sin(turn)
        spread = np.exp(-np.square(np.arctan2(ds, dc)) / (2 * (math.pi / ORIENTATIONS / 1.2) ** 2))
        here, sum_here = _oriented(spectrum, [one * spread for one in radial])
        with np.errstate(invalid="ignore", divide="ignore"):
            congruent = here / sum_here
        x, y = congruent * math.cos(turn), congruent * math.sin(turn)
        covariance += np.stack([x * x, y * y, x * y])
        energy += here
        amplitude += sum_here
    xx, yy, xy = covariance[0] / 3, covariance[1] / 3, covariance[2] / 6
    root = np.sqrt(xy**2 + (xx - yy) ** 2) + EPSILON
    return Features(energy / (amplitude + EPSILON), (yy + xx + root) / 2, (yy + xx - root) / 2)


def _oriented(spectrum: np.ndarray, filters: list[np.ndarray]) -> tuple[Plane, Plane]:
    """Weighted energy and summed amplitude of one orientation."""
    answers = [np.fft.ifft2(spectrum * one) for one in filters]
    sizes = [np.abs(answer) for answer in answers]
    whole = sum(answers, np.zeros(()))
    mean = whole / (np.abs(whole) + EPSILON)
    energy = np.zeros(spectrum.shape)
    for answer in answers:
        turned = answer * np.conj(mean)
        energy += turned.real - np.abs(turned.imag)
    power = float(np.median(sizes[0] ** 2)) / math.log(2) / float(np.square(filters[0]).sum())
    kernels = [np.fft.ifft2(one).real * math.sqrt(spectrum.size) for one in filters]
    alone = sum(float(np.square(kernel).sum()) for kernel in kernels)
    pairs = sum(float((x * y).sum()) for i, x in enumerate(kernels) for y in kernels[i + 1 :])
    tau = math.sqrt(max(power * alone + 2 * power * pairs, 0))
    threshold = (tau * math.sqrt(math.pi / 2) + NOISE * math.sqrt((2 - math.pi / 2) * tau**2)) / 1.7
    amplitude = sum(sizes, np.zeros(()))
    wide = amplitude / (np.maximum.reduce(sizes) + EPSILON) / SCALES
    return np.maximum(energy - threshold, 0) / (1 + np.exp((CUT - wide) * SHARPNESS)), amplitude


def _grid(size: int) -> Float64[np.ndarray, " n"]:
    """Frequencies with the origin in the middle; an odd size is divided by one less."""
    return (np.arange(size) - size // 2) / (size - size % 2) if size > 1 else np.zeros(1)


def _angle(shape: tuple[int, ...]) -> Plane:
    y, x = (_grid(size) for size in shape)
    return np.fft.ifftshift(np.arctan2(-y[:, None], x[None]))


def _radial(shape: tuple[int, ...]) -> list[np.ndarray]:
    """The log-Gabor filters, under a Butterworth low-pass of 0.45 and order 15."""
    y, x = (_grid(size) for size in shape)
    radius = np.hypot(y[:, None], x[None])
    radius[shape[0] // 2, shape[1] // 2] = 1
    radius = np.fft.ifftshift(radius)
    low = np.hypot(*((np.arange(size) - size // 2).reshape(-1, *[1] * (1 - k)) / size for k, size in enumerate(shape)))
    low = np.fft.fftshift(1 / (1 + (low / 0.45) ** 30))
    filters = [
        np.exp(-np.square(np.log(radius * SHORTEST * FACTOR**s)) / (2 * math.log(WIDTH) ** 2)) * low
        for s in range(SCALES)
    ]
    for one in filters:
        one[0, 0] = 0
    return filters

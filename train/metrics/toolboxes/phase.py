"""Phase congruency, and Zhao's metric Qp on it, as in the MEFB toolbox."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float64

Plane = Float64[np.ndarray, "h w"]

SCALES, ORIENTATIONS = 4, 6
SHORTEST, FACTOR, WIDTH = 3.0, 2.1, 0.55
"""The finest wavelength in pixels, the ratio of successive ones, and the log-Gabor's σ over its centre frequency."""
NOISE, CUT, SHARPNESS, EPSILON = 2.0, 0.5, 10.0, 1e-4
FEATURE = 0.1
"""A pixel of a source has a feature where its phase congruency is above this."""


@dataclass(frozen=True)
class Features:
    """Phase congruency, and the maximum and minimum moments of its covariance over orientations."""

    congruency: Plane
    maximum: Plane
    minimum: Plane


def qp(fused: Plane, a: Plane, b: Plane) -> float:
    """Zhao, Laganière and Liu 2007: the product over phase congruency and its two moments of the local correlation of
    F with either source, or with the source of the greater congruency, whichever is highest, where there is a feature.
    """
    features_a, features_b, features_f = features(a), features(b), features(fused)
    choose_a = features_a.congruency > features_b.congruency
    masks = [image.congruency > FEATURE for image in (features_a, features_b)]
    masks.append(np.where(choose_a, features_a.congruency, features_b.congruency) > FEATURE)
    score = 1.0
    for name in ("congruency", "maximum", "minimum"):
        x, y = getattr(features_a, name), getattr(features_b, name)
        score *= _correlation([x, y, np.where(choose_a, x, y)], getattr(features_f, name), masks)
    return score


def _correlation(maps: list[np.ndarray], fused: Plane, masks: list[np.ndarray]) -> float:
    """The highest of the local correlations with the masked maps, averaged over the pixels of the last mask."""

    def gaussian(image: Float[np.ndarray, "h w"]) -> Plane:
        return cv2.GaussianBlur(image, (11, 11), 1.5, borderType=cv2.BORDER_CONSTANT)

    mean_f = gaussian(fused)
    power_f = gaussian(fused * fused) - mean_f * mean_f
    correlations = np.zeros((len(maps), *fused.shape))
    for k, (image, mask) in enumerate(zip(maps, masks, strict=True)):
        image = image * mask
        mean = gaussian(image)
        power, shared = gaussian(image * image) - mean * mean, gaussian(image * fused) - mean * mean_f
        correlation = (shared + EPSILON) / (np.sqrt(np.abs(power * power_f)) + EPSILON)
        correlations[k][mask] = correlation[mask]
    pixels = int(_count(masks[-1]))
    return float(correlations.max(0).sum()) / pixels if pixels else math.nan


def _count(mask: Bool[np.ndarray, "h w"]) -> int:
    return int(np.count_nonzero(mask))


def features(image: Plane) -> Features:
    """Kovesi's phasecong3 with its defaults, as revised in the toolbox.

    Log-Gabor filters of 4 scales in 6 orientations; for each orientation the energy Σ A (cos Δφ − |sin Δφ|) minus a
    noise threshold of (mean + 2 σ) / 1.7, weighted by the spread over scales; congruency = Σ energy / Σ amplitude.
    """
    shape = image.shape
    spectrum = np.fft.fft2(image)
    radial, angle = _radial(shape), _angle(shape)
    energy, amplitude = np.zeros(shape), np.zeros(shape)
    covariance = np.zeros((3, *shape))
    for k in range(ORIENTATIONS):
        theta = k * math.pi / ORIENTATIONS
        ds = np.sin(angle) * math.cos(theta) - np.cos(angle) * math.sin(theta)
        dc = np.cos(angle) * math.cos(theta) + np.sin(angle) * math.sin(theta)
        spread = np.exp(-np.square(np.arctan2(ds, dc)) / (2 * (math.pi / ORIENTATIONS / 1.2) ** 2))
        energy_k, amplitude_k = _oriented(spectrum, [band * spread for band in radial])
        with np.errstate(invalid="ignore", divide="ignore"):
            congruency = energy_k / amplitude_k
        x, y = congruency * math.cos(theta), congruency * math.sin(theta)
        covariance += np.stack([x * x, y * y, x * y])
        energy += energy_k
        amplitude += amplitude_k
    xx, yy, xy = covariance[0] / 3, covariance[1] / 3, covariance[2] / 6
    root = np.sqrt(xy**2 + (xx - yy) ** 2) + EPSILON
    return Features(energy / (amplitude + EPSILON), (yy + xx + root) / 2, (yy + xx - root) / 2)


def _oriented(spectrum: np.ndarray, filters: list[np.ndarray]) -> tuple[Plane, Plane]:
    """Weighted energy and summed amplitude of one orientation."""
    responses = [np.fft.ifft2(spectrum * gain) for gain in filters]
    amplitudes = [np.abs(response) for response in responses]
    total = sum(responses, np.zeros(()))
    mean_phase = total / (np.abs(total) + EPSILON)
    energy = np.zeros(spectrum.shape)
    for response in responses:
        rotated = response * np.conj(mean_phase)
        energy += rotated.real - np.abs(rotated.imag)
    power = float(np.median(amplitudes[0] ** 2)) / math.log(2) / float(np.square(filters[0]).sum())
    kernels = [np.fft.ifft2(gain).real * math.sqrt(spectrum.size) for gain in filters]
    squares = sum(float(np.square(kernel).sum()) for kernel in kernels)
    products = sum(float((x * y).sum()) for i, x in enumerate(kernels) for y in kernels[i + 1 :])
    tau = math.sqrt(max(power * squares + 2 * power * products, 0))
    threshold = (tau * math.sqrt(math.pi / 2) + NOISE * math.sqrt((2 - math.pi / 2) * tau**2)) / 1.7
    amplitude = sum(amplitudes, np.zeros(()))
    spread = amplitude / (np.maximum.reduce(amplitudes) + EPSILON) / SCALES
    return np.maximum(energy - threshold, 0) / (1 + np.exp((CUT - spread) * SHARPNESS)), amplitude


def _grid(size: int) -> Float64[np.ndarray, " n"]:
    """Frequencies with the origin in the middle; for an odd size, divided by size − 1."""
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
    lowpass = np.hypot(
        *((np.arange(size) - size // 2).reshape(-1, *[1] * (1 - k)) / size for k, size in enumerate(shape))
    )
    lowpass = np.fft.fftshift(1 / (1 + (lowpass / 0.45) ** 30))
    filters = [
        np.exp(-np.square(np.log(radius * SHORTEST * FACTOR**s)) / (2 * math.log(WIDTH) ** 2)) * lowpass
        for s in range(SCALES)
    ]
    for gain in filters:
        gain[0, 0] = 0
    return filters

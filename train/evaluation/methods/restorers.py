"""Classical restorers: one pure function for each degradation, from and to ``(h, w, c)`` float32 images in [0, 1].

Images are in code values unless stated otherwise. An image without the degradation should stay nearly unchanged. None
of the functions is trained or uses the clean image.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Float32, Float64
from scipy import fft  # in single precision twice as fast as numpy's

from clearfuse.synth.color import as_hwc, channel_minimum, luma, to_uint8
from clearfuse.synth.operators.codec import jpeg_bytes

Image = Float32[np.ndarray, "h w c"]

PATCH, GUIDED, OMEGA, LEAST = 15, 40, 0.95, 0.1
"""Dark channel: side of the patch, radius of the guided filter, share of haze removed, minimum transmission."""
IMMERKAER = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
"""A kernel that responds to noise and not to edges: the difference of two Laplacians."""


def guided_filter(
    guide: Float32[np.ndarray, "h w"], image: Float32[np.ndarray, "h w"], radius: int, epsilon: float
) -> Float32[np.ndarray, "h w"]:
    """q = ā I + b̄: in each window of 2r + 1, a = cov(I, p) / (var I + ε), b = mean p − a mean I; both averaged.

    Source: He, Sun, Tang, Guided image filtering, IEEE TPAMI 35(6), 2013, equations 5 to 8; borders mirrored.
    """

    def mean(x: np.ndarray) -> np.ndarray:
        return cv2.blur(x, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)

    i, p = guide.astype(np.float64), image.astype(np.float64)
    mean_i, mean_p = mean(i), mean(p)
    a = (mean(i * p) - mean_i * mean_p) / (mean(i * i) - mean_i * mean_i + epsilon)
    b = mean_p - a * mean_i
    return (mean(a) * i + mean(b)).astype(np.float32)


def dark_channel(image: Image, patch: int = PATCH) -> Float32[np.ndarray, "h w"]:
    """J(p) = the minimum over the patch around p and over the channels."""
    kernel = np.ones((patch, patch), np.uint8)
    return cv2.erode(channel_minimum(image), kernel, borderType=cv2.BORDER_REPLICATE)


def dehaze(image: Image) -> Image:
    """J = (I − A) / max(t, 0.1) + A, t = 1 − 0.95 dark(I / A), refined by the guided filter.

    A: the mean colour of the 0.1 % of pixels with the brightest dark channel. On code values, as in the paper.
    Source: He, Sun, Tang, Single image haze removal using dark channel prior, CVPR 2009; TPAMI 33(12), 2011.
    """
    h, w, c = image.shape
    dark = dark_channel(image)
    count = max(h * w // 1000, 1)
    brightest = np.argpartition(dark.ravel(), -count)[-count:]
    air = np.maximum(image.reshape(-1, c)[brightest].mean(axis=0), np.float32(1e-3)).astype(np.float32)
    t = 1 - np.float32(OMEGA) * dark_channel(image / air)
    t = np.maximum(guided_filter(luma(image), t, GUIDED, 1e-3), np.float32(LEAST))[..., None]
    return np.clip((image - air) / t + air, 0, 1)


def noise_level(image: Image) -> float:
    """σ = √(π/2) / (6 (w − 2)(h − 2)) Σ |I ∗ N|, the mean over the channels; 0 under 3x3.

    Source: Immerkær, Fast noise variance estimation, Computer Vision and Image Understanding 64(2), 1996.
    """
    h, w, c = image.shape
    if min(h, w) < 3:
        return 0.0
    response = as_hwc(cv2.filter2D(image, -1, IMMERKAER))[1:-1, 1:-1]
    return float(np.abs(response).sum(dtype=np.float64) / c * math.sqrt(math.pi / 2) / (6 * (w - 2) * (h - 2)))


def denoise(image: Image, sigma: float) -> Image:
    """Non-local means: the weighted mean of pixels with similar 7x7 patches in a 15x15 window.

    sigma: the noise's standard deviation relative to full scale; the filter strength is 0.8 sigma. Colour images are
    filtered in CIELAB, lightness and colour separately, as implemented in OpenCV.
    Source: Buades, Coll, Morel, A non-local algorithm for image denoising, CVPR 2005.
    """
    strength = float(0.8 * 255 * sigma)
    if strength < 0.5:  # below the rounding of code values
        return image.copy()
    codes = to_uint8(image)
    if codes.shape[2] == 1:
        out = cv2.fastNlMeansDenoising(codes, None, strength, 7, 15)
    else:
        out = cv2.fastNlMeansDenoisingColored(codes, None, strength, strength, 7, 15)
    return as_hwc(out).astype(np.float32) / np.float32(255)


def _spectrum(psf: Float32[np.ndarray, "k l"], shape: tuple[int, int]) -> np.ndarray:
    """The transfer function of an odd-sided kernel on a periodic image, centred at the origin."""
    placed = np.zeros(shape, np.float32)
    kh, kw = psf.shape
    placed[:kh, :kw] = psf
    return np.asarray(fft.rfft2(np.roll(placed, (-(kh // 2), -(kw // 2)), (0, 1))))


def _filtered(plane: Float32[np.ndarray, "h w"], transfer: np.ndarray) -> Float32[np.ndarray, "h w"]:
    """A periodic image convolved with the kernel of a transfer function."""
    return np.asarray(fft.irfft2(np.asarray(fft.rfft2(plane)) * transfer, s=plane.shape))


def _pad_periodic(image: Image, psf: Float32[np.ndarray, "k l"]) -> tuple[np.ndarray, tuple[int, int]]:
    """Pad the image by the kernel's size, mirrored and blended into the opposite side, so that it is periodic.

    Further on the far sides, to a length without large prime factors: a transform takes up to three times as long else.
    """
    ry, rx = psf.shape
    h, w = (length + 2 * r for length, r in zip(image.shape[:2], (ry, rx), strict=True))
    more = [cv2.getOptimalDFTSize(length) - length for length in (h, w)]
    padded = as_hwc(cv2.copyMakeBorder(image, ry, ry + more[0], rx, rx + more[1], cv2.BORDER_REFLECT_101))
    for axis, r in ((0, ry), (1, rx)):
        first, last = (np.take(padded, i, axis) for i in (range(r), range(padded.shape[axis] - r, padded.shape[axis])))
        ramp = (0.5 * (np.arange(r, dtype=np.float32) + 0.5) / r).reshape(*((-1, 1, 1) if axis == 0 else (1, -1, 1)))
        left, right = (0.5 + ramp) * first + (0.5 - ramp) * last, (1 - ramp) * last + ramp * first
        padded = np.concatenate([left, np.take(padded, range(r, padded.shape[axis] - r), axis), right], axis)
    return np.ascontiguousarray(padded, np.float32), (ry, rx)


def wiener(image: Image, psf: Float32[np.ndarray, "k l"], noise: float) -> Image:
    """F = H* G / (|H|² + K): the linear estimate of least mean squared error, K the noise's power over the signal's.

    psf: odd-sided, unit sum; image: in the values that were blurred (linear light for a visible image). The border is
    mirrored as in synth's blurs. Source: Wiener 1949; Gonzalez and Woods, Digital Image Processing, 5.8.
    """
    padded, (ry, rx) = _pad_periodic(image, psf)
    h = _spectrum(psf, padded.shape[:2])
    inverse = np.conj(h) / (np.abs(h) ** 2 + np.float32(noise))
    planes = [_filtered(padded[..., c], inverse) for c in range(padded.shape[2])]
    out = np.stack(planes, axis=2)[ry : ry + image.shape[0], rx : rx + image.shape[1]]
    return np.clip(out, 0, 1).astype(np.float32)


def richardson_lucy(image: Image, psf: Float32[np.ndarray, "k l"], iterations: int = 15) -> Image:
    """x ← x · (h′ ∗ (y / (h ∗ x))), h′ the mirrored kernel: maximum likelihood under Poisson noise, non-negative.

    Arguments as in ``wiener``. Source: Richardson, JOSA 62(1), 1972; Lucy, Astronomical Journal 79(6), 1974.
    """
    padded, (ry, rx) = _pad_periodic(image, psf)
    h = _spectrum(psf, padded.shape[:2])
    out = np.empty_like(padded)
    for c in range(padded.shape[2]):
        y = np.maximum(padded[..., c], np.float32(1e-4))
        x = y
        for _ in range(iterations):
            blurred = _filtered(x, h)
            ratio = y / np.maximum(blurred, np.float32(1e-4))
            x = np.maximum(x * _filtered(ratio, np.conj(h)), 0)
        out[..., c] = x
    return np.clip(out[ry : ry + image.shape[0], rx : rx + image.shape[1]], 0, 1)


def equalise(image: Image, clip: float = 2.0) -> Image:
    """CLAHE of the luma, 8x8 tiles; colour ratios are preserved.

    Source: Zuiderveld, Contrast limited adaptive histogram equalization, Graphics Gems IV, 1994.
    """
    y = luma(image)
    codes = cv2.createCLAHE(clip, (8, 8)).apply(to_uint8(y))
    gain = (codes.astype(np.float32) / np.float32(255) + np.float32(1e-3)) / (y + np.float32(1e-3))
    return np.clip(image * gain[..., None], 0, 1)


def destripe(image: Image, radius: int = 8) -> Image:
    """Subtract from each column, then each row, the deviation of its mean from the running median of the means.

    Moment matching of means: an offset of a whole column comes from the read-out. Source: Gadallah, Csillag, Smith,
    Destriping multisensor imagery with moment matching, Int. J. Remote Sensing 21(12), 2000.
    """
    out = image.astype(np.float64)
    for axis in (0, 1):
        means = np.median(out, axis=axis)
        smoothed = np.stack([running_median(means[:, c], radius) for c in range(means.shape[1])], axis=1)
        out -= np.expand_dims(means - smoothed, axis)
    return np.clip(out, 0, 1).astype(np.float32)


def running_median(values: Float64[np.ndarray, " n"], radius: int) -> Float64[np.ndarray, " n"]:
    """The running median over 2 radius + 1 values, the ends mirrored."""
    padded = np.pad(values, min(radius, len(values) - 1), mode="reflect")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, len(padded) - len(values) + 1), axis=1)


def remove_particles(image: Image, side: int = 5, threshold: float = 0.03) -> Image:
    """Replace pixels whose luma is above the window's median by more than the threshold by the median.

    Rain drops brighten the background, and their streaks are thin. The spatial form of the temporal median of Garg and
    Nayar, Detection and removal of rain from videos, CVPR 2004.
    """
    median = as_hwc(cv2.medianBlur(to_uint8(image), side)).astype(np.float32) / np.float32(255)
    bright = luma(image) - luma(median) > np.float32(threshold)
    return np.where(bright[..., None], median, image)


def deblock(image: Image, quality: int) -> Image:
    """The mean over 16 shifts of the image shifted, JPEG-compressed at the same quality, and shifted back.

    Source: Nosratinia, Enhancement of JPEG-compressed images by re-application of JPEG, J. VLSI Signal Processing 27,
    2001. Chroma is not subsampled again.
    """
    codes = to_uint8(image)
    h, w, c = codes.shape
    padded = as_hwc(cv2.copyMakeBorder(codes, 8, 8, 8, 8, cv2.BORDER_REFLECT_101))
    flag = cv2.IMREAD_GRAYSCALE if c == 1 else cv2.IMREAD_COLOR
    out = np.zeros((h, w, c), np.float32)
    for dy in range(0, 8, 2):
        for dx in range(0, 8, 2):
            block = np.ascontiguousarray(padded[dy : dy + h + 8, dx : dx + w + 8])
            recompressed = as_hwc(cv2.imdecode(jpeg_bytes(block, quality, "4:4:4"), flag))
            recompressed = recompressed if c == 1 else recompressed[..., ::-1]
            out += recompressed[8 - dy : 8 - dy + h, 8 - dx : 8 - dx + w]
    return out / np.float32(16 * 255)


def back_project(image: Image, operator: Callable[[Image], Image], iterations: int = 4) -> Image:
    """Iterative back-projection x ← x + (y − D x) through the known degradation D.

    Source: Irani, Peleg, Improving resolution by image registration, CVGIP 53(3), 1991, with the unit kernel.
    """
    x = image
    for _ in range(iterations):
        x = np.clip(x + (image - operator(x)), 0, 1)
    return x

"""Sensor noise, and the fixed-pattern noise and defects of infrared detectors."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Float64, Int64

from clearfuse.synth.operators.base import Image, Operator, Scene, Stage, free, severe
from clearfuse.synth.operators.physics.infrared import gain_control
from clearfuse.synth.types import Modality

MAX_STRIPS = 64
"""Number of strips drawn, of which the first are used, so that a stronger step only adds strips."""

STRIP_BASE = 640.0
"""Image width in pixels at which strips are 1 to 8 pixels wide."""

READ_POWER, READ_LEVEL, READ_SPREAD = 2.18, 1.20, 0.26
"""The law of read noise, ln k_r = 2.18 ln k_s + 1.20 + N(0, 0.26²): Brooks et al., CVPR 2019, section 3.1."""

BLOCK = 1 << 16
"""Values in a block of rows, which fits in the cache. The draws of a seed depend on it: changing it changes pixels."""


@functools.cache
def _normal_quantiles() -> Float32[np.ndarray, " n"]:
    """z(i) = Φ⁻¹((i + ½)/65536), scaled to unit variance: the normal variate for each 16-bit number."""
    inverse = NormalDist().inv_cdf
    half = np.array([inverse((i + 0.5) / 65536) for i in range(32768, 65536)])
    half /= math.sqrt((half**2).mean())
    return np.concatenate([-half[::-1], half]).astype(np.float32)


def normal_field(shape: tuple[int, ...], rng: np.random.Generator) -> Float32[np.ndarray, "*dims"]:
    """Standard normal variates by inverse transform of 16-bit uniforms.

    Four times as fast as the ziggurat method; exact mean and variance, tails up to 4.3 sigma, which after quantisation
    to 8 bit makes no difference.
    """
    size = math.prod(shape)
    if size % 4 == 0 and isinstance(rng.bit_generator, np.random.Philox):
        # The same numbers as below, in the same order, straight from the generator's 64-bit words.
        uniform = rng.bit_generator.random_raw(size // 4).astype("<u8", copy=False).view("<u2").reshape(shape)
    else:
        uniform = rng.integers(0, 65536, size=shape, dtype=np.uint16)
    return np.take(_normal_quantiles(), uniform)


def read_variance(shot: float, quantile: float) -> float:
    """k_r = e^(1.20 + 0.26 z) · k_s^2.18, z = Φ⁻¹(quantile): a variance, in squares of the full scale.

    The published joint law of read and shot noise, at a quantile in (0, 1) of its spread; 0 where k_s is 0.
    """
    return math.exp(READ_LEVEL + READ_SPREAD * NormalDist().inv_cdf(quantile)) * shot**READ_POWER


def shot_and_read(
    image: Image, shot: float, read: float, rng: np.random.Generator, *, full_well: float = 1.0, shared: bool = False
) -> Image:
    """out = clip(min(x + s, full_well) + √k_r z_r, 0, full_well), in linear light, k_s = shot and k_r = read.

    The photon count (x + s)/k_s is Poisson of mean x/k_s, so var s = k_s x. It is approximated by its Cornish–Fisher
    expansion: s = √(k_s x − m²/18) z_s + m (z_s² − 1)/6, m = min(x, k_s). Mean and variance are exact everywhere, the
    skewness from one photon on. With the read noise of the law, down to two standard deviations below its median, the
    distribution function is within 0.03 of the exact one at every count; a single normal variate is within 0.045.
    shared: the channels come from one detector and have the same z.
    """
    h, w, c = image.shape
    planes, f32 = 1 if shared else c, np.float32
    out = np.empty_like(image, order="C")
    rows = max(1, BLOCK // (w * planes))
    for top in range(0, h, rows):
        o, x = out[top : top + rows], np.maximum(image[top : top + rows], 0)
        shape = (len(o), w, planes)
        z = normal_field(shape, rng)
        m = np.minimum(x, f32(shot))
        np.multiply(x, f32(shot), out=o)
        o -= m * m * f32(1 / 18)
        np.sqrt(o, out=o)
        o *= z
        o += x
        z *= z
        z -= f32(1)
        m *= z * f32(1 / 6)
        o += m
        np.minimum(o, f32(full_well), out=o)
        z = normal_field(shape, rng)
        z *= f32(math.sqrt(read))
        o += z
        np.clip(o, 0, full_well, out=o)
    return out


def autoregressive(innovations: Float64[np.ndarray, " n"], sigma: float, rho: float) -> Float64[np.ndarray, " n"]:
    """o_0 = σ e_0, o_j = ρ o_(j−1) + σ √(1 − ρ²) e_j: AR(1) whose marginal standard deviation is σ at every j."""
    scaled = innovations * math.sqrt(1 - rho**2)
    scaled[:1] = innovations[:1]
    from scipy.signal import lfilter  # here: it takes a third of a second to load

    return sigma * np.asarray(lfilter([1.0], [1.0, -rho], scaled))


def strip_profile(width: int, count: int, depth: float, draws: Float64[np.ndarray, "k 4"]) -> Float64[np.ndarray, " w"]:
    """The offset (≤ 0) of each column under ``count`` dark strips: −depth_s · coverage, the darkest where they meet.

    draws, uniform in [0, 1), a row per strip: its centre; its width, log-uniform from 1 to 8 px at 640 columns; its
    depth, 0.5 to 1 times ``depth``; its edge: hard (one pixel of anti-aliasing) below 0.5, above it increasingly soft,
    up to the strip's width.
    """
    offset = np.zeros(width)
    columns = np.arange(width) + 0.5
    for place, size, darkness, soft in draws[:count].tolist():
        strip_width = max(8.0**size * width / STRIP_BASE, 1.0)
        edge = max(1.0, strip_width * max(0.0, 2 * soft - 1))
        coverage = np.clip((0.5 * (strip_width + edge) - np.abs(columns - place * width)) / edge, 0, 1)
        offset = np.minimum(offset, -depth * (0.5 + 0.5 * darkness) * coverage)
    return offset


@dataclass(frozen=True)
class GaussianNoise(Operator):
    """out = x + σ (√(1 − q) n_0 + √q n_c), clipped, on sRGB code values; n_0 shared by the channels, n_c independent.

    Each channel's standard deviation is σ whatever ``colour`` q is: q = 0 is grey noise, q = 1 independent noise.
    Independent for the images of a pair.
    """

    name: ClassVar[str] = "gaussian_noise"
    stage: ClassVar[Stage] = "processing"
    source: ClassVar[str] = "Zhang et al., BSRGAN, ICCV 2021 (additive noise, from grey to per-channel)"

    sigma: float = severe(
        5 / 255, 50 / 255, "standard deviation", low=0.0, high=1.0, unit="of full scale", identity=0.0
    )
    colour: float = free(0.0, 1.0, "share of the variance that is independent between channels")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        h, w, c = image.shape
        if c == 1:
            noise = normal_field((h, w, 1), rng) * np.float32(self.sigma)
        else:
            noise = normal_field((h, w, c), rng)
            noise *= np.float32(self.sigma * math.sqrt(self.colour))
            noise += normal_field((h, w, 1), rng) * np.float32(self.sigma * math.sqrt(1 - self.colour))
        noise += image
        return np.clip(noise, 0, 1, out=noise)


@dataclass(frozen=True)
class SensorNoise(Operator):
    """Shot and read noise in linear light: σ²(x) = k_s x + k_r, k_s = ``shot``, ln k_r = 2.18 ln k_s + 1.20 + 0.26 z.

    out = clip(min(x + shot noise, 1) + read noise, 0, 1): the shot noise is that of the light before the full well
    clips it, so overexposed regions show read noise only. z = Φ⁻¹(``read``).
    1/k_s is the full well in photo-electrons: 1,700 at the mild end, 83 at the strong one. Independent for the images
    of a pair and for colour channels; the channels of an infrared image, from one detector, have the same noise.
    """

    name: ClassVar[str] = "sensor_noise"
    stage: ClassVar[Stage] = "sensor"
    unclipped: ClassVar[bool] = True
    source: ClassVar[str] = (
        "Brooks et al., Unprocessing images for learned raw denoising, CVPR 2019 (joint law of k_s and k_r); "
        "Foi et al., Practical Poissonian-Gaussian noise modeling, IEEE TIP 2008 (clipping)"
    )

    shot: float = severe(
        6e-4,
        1.2e-2,
        "k_s, the signal of one photo-electron",
        low=0.0,
        high=0.1,
        unit="of full scale",
        log=True,
        identity=0.0,
    )
    read: float = free(1e-4, 0.9999, "quantile of k_r in its law, 0.5 the median")

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        read = read_variance(self.shot, self.read)
        return shot_and_read(image, self.shot, read, rng, shared=scene.modality == "infrared")


@dataclass(frozen=True)
class IrStripes(Operator):
    """An uncorrected microbolometer: counts(i, j) = g_j x(i, j) + o_j + s_j + r_i, then automatic gain.

    g_j ~ N(1, gain²) and o_j ~ AR(1)(ρ) with marginal σ ``offset``: column read-out. r_i: the same for the rows, with
    σ = rows · offset. s_j ≤ 0: sparse dark strips, 1 to 8 px wide at 640 columns (scaled with the width), with hard or
    soft edges. The pattern is in the raw counts, so that the camera's gain control, which maps their extremes to those
    of the picture, loses contrast to it, and nothing clips. With ``gain_control`` 0 they are clipped.
    """

    name: ClassVar[str] = "ir_stripes"
    stage: ClassVar[Stage] = "sensor"
    modalities: ClassVar[frozenset[Modality]] = frozenset({"infrared"})
    source: ClassVar[str] = (
        "El Gamal et al., Modeling and estimation of FPN components in CMOS image sensors, SPIE 3301, 1998 "
        "(column AR(1)); dark strips: MMAIF, section 3.1"
    )

    offset: float = severe(
        2.5 / 255,
        14 / 255,
        "standard deviation of the columns' offsets",
        low=0.0,
        high=1.0,
        unit="of full scale",
        identity=0.0,
    )
    gain: float = severe(0.005, 0.035, "standard deviation of the columns' gains", low=0.0, high=1.0, identity=0.0)
    strips: int = severe(3.0, 15.0, "number of dark strips", low=0.0, high=float(MAX_STRIPS), integer=True, identity=0)
    strip_depth: float = severe(0.05, 0.3, "depth of the darkest strips", low=0.0, high=1.0, unit="of full scale")
    rho: float = free(0.0, 0.8, "correlation of neighbouring columns' offsets", high=0.999)
    rows: float = free(0.0, 0.5, "standard deviation of the rows' offsets relative to the columns'", high=10.0)
    gain_control: int = free(
        1.0, 1.0, "1: automatic gain after the pattern; 0: clipped", low=0.0, integer=True, default=0
    )

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        h, w, _ = image.shape
        strips = strip_profile(w, self.strips, self.strip_depth, rng.random((MAX_STRIPS, 4)))
        gain = 1 + self.gain * rng.standard_normal(w)
        columns = autoregressive(rng.standard_normal(w), self.offset, self.rho) + strips
        rows = autoregressive(rng.standard_normal(h), self.rows * self.offset, self.rho)
        out = image * gain.astype(np.float32)[None, :, None]
        out += columns.astype(np.float32)[None, :, None]
        out += rows.astype(np.float32)[:, None, None]
        return gain_control(out, image) if self.gain_control else np.clip(out, 0, 1, out=out)


_PATHS = np.array([((0, 0), *rest) for rest in itertools.permutations([(0, 1), (1, 0), (1, 1)])])
"""(6, 4, 2): the orders in which a cluster of up to four pixels fills a block of 2 by 2, from its first pixel."""


def defect_sites(
    h: int, w: int, count: int, clusters: float, draws: Float64[np.ndarray, "n k"]
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " m"]]:
    """Flat pixel indices and defect indices of the first ``count`` defective pixels, in order of the draws.

    A row of draws, uniform in [0, 1), is a defect: row, column, size, direction and path. A share ``clusters`` of the
    defects has 2, 3 or 4 pixels, with equal probability, within a block of 2 by 2; the others have one. At the frame's
    edge blocks extend inward. Where a pixel occurs twice, the first defect counts.
    """
    y, x, size, direction, path = draws[:, :5].T
    pixels = np.where(size < clusters, 2 + np.floor(3 * size / max(clusters, 1e-9)), 1)
    needed = np.searchsorted(np.cumsum(pixels), count) + 1
    y, x, pixels, direction, path = (column[:needed] for column in (y, x, pixels, direction, path))
    first = np.stack([np.floor(y * h), np.floor(x * w)], axis=1).astype(np.int64)
    quadrant = np.floor(4 * direction).astype(np.int64)
    step = 1 - 2 * np.stack([quadrant & 1, quadrant >> 1], axis=1)
    last = np.array([h - 1, w - 1])
    step = np.where((first + step < 0) | (first + step > last), -step, step) * (last > 0)
    block = first[:, None] + step[:, None] * _PATHS[np.floor(6 * path).astype(np.int64)]
    defect, k = np.nonzero(np.arange(4) < pixels[:, None])
    defect, k = defect[:count], k[:count]
    return block[defect, k, 0] * w + block[defect, k, 1], defect


@dataclass(frozen=True)
class IrDeadPixels(Operator):
    """Defective detector elements: whatever the scene, out = 0 (dead), 1 (hot), or a level ~ U(0, 1) (stuck).

    Single pixels and clusters of 2 to 4 within 2 by 2, at uniform positions; a cluster has one level.
    −ln(1 − share) · h · w pixels are drawn, which with random overlaps gives the share. A larger share adds pixels
    to those of a smaller one. They show no noise and no stripes, since the read-out saturates there.
    """

    name: ClassVar[str] = "ir_dead_pixels"
    stage: ClassVar[Stage] = "sensor"
    modalities: ClassVar[frozenset[Modality]] = frozenset({"infrared"})
    source: ClassVar[str] = (
        "GB/T 17444-2013, parameters of infrared focal plane arrays (dead and overheated pixels); operability, the "
        "share of the others: 98 to 99.99 %"
    )

    share: float = severe(
        7e-4, 0.02, "defective pixels", low=0.0, high=0.1, unit="of all pixels", log=True, identity=0.0
    )
    clusters: float = free(0.1, 0.4, "share of the defects that are clusters", low=0.0, high=1.0)
    stuck: float = free(0.0, 0.4, "share of the defects that are stuck at an intermediate level", low=0.0, high=1.0)
    hot: float = free(0.2, 0.8, "share of the other defects that are hot rather than dead", low=0.0, high=1.0)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        h, w, c = image.shape
        count = round(-math.log1p(-self.share) * h * w)
        # As many defects as pixels suffice, and the first rows of draws do not depend on their number.
        draws = rng.random((count, 8))
        places, defect = defect_sites(h, w, count, self.clusters, draws)
        stuck, hot, level = draws[:, 5:].T
        value = np.where(stuck < self.stuck, level, hot < self.hot).astype(np.float32)
        out = image.copy(order="C")
        # In reverse order, so that of two defects at one pixel the first is written last.
        out.reshape(h * w, c)[places[::-1]] = value[defect[::-1], None]
        return out

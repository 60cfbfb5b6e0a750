"""What the sensor and its read-out add: noise that changes from frame to frame, and the infrared's fixed pattern."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import numpy as np
from jaxtyping import Float32, Float64

from synth.operators.base import Image, Operator, Scene, Stage, free, severe
from synth.types import Modality

MAX_STRIPS = 64
"""Strips are drawn up to this number and the first ones used, so a stronger step only adds strips."""

STRIP_BASE = 640.0
"""Image width in pixels at which strips are 1 to 8 pixels wide."""


@functools.cache
def _normal_quantiles() -> Float32[np.ndarray, " n"]:
    """z(i) = Φ⁻¹((i + ½)/65536), scaled to unit variance: a normal variate for each 16-bit number."""
    inverse = NormalDist().inv_cdf
    half = np.array([inverse((i + 0.5) / 65536) for i in range(32768, 65536)])
    half /= math.sqrt((half**2).mean())
    return np.concatenate([-half[::-1], half]).astype(np.float32)


def normal_field(shape: tuple[int, ...], rng: np.random.Generator) -> Float32[np.ndarray, "*dims"]:
    """Standard normal variates by the inverse of the distribution at 16-bit uniforms.

    Three times as fast as the ziggurat; exact mean and variance, tails to 4.3 sigma: noise of which 8 bits are kept
    shows no difference.
    """
    return np.take(_normal_quantiles(), rng.integers(0, 65536, size=shape, dtype=np.uint16))


def autoregressive(innovations: Float64[np.ndarray, " n"], sigma: float, rho: float) -> Float64[np.ndarray, " n"]:
    """o_0 = σ e_0, o_j = ρ o_(j−1) + σ √(1 − ρ²) e_j: AR(1) whose marginal standard deviation is σ at every j."""
    scale = math.sqrt(1 - rho**2)
    values, last = [], 0.0
    for j, e in enumerate(innovations.tolist()):
        last = rho * last + scale * e if j else e
        values.append(sigma * last)
    return np.array(values, np.float64)


def strip_profile(width: int, count: int, depth: float, draws: Float64[np.ndarray, "k 4"]) -> Float64[np.ndarray, " w"]:
    """The offset (≤ 0) of each column under ``count`` dark strips: −depth_s · coverage, the deepest strip winning.

    draws, uniform in [0, 1): a strip's centre; its width, 1 to 8 px at 640 columns, narrow ones more often; its depth,
    0.5 to 1 of ``depth``; its edge: the lower half hard (one pixel of anti-aliasing), the upper as soft as the strip.
    """
    offset = np.zeros(width)
    columns = np.arange(width) + 0.5
    for place, size, deep, soft in draws[:count].tolist():
        wide = max(8.0**size * width / STRIP_BASE, 1.0)
        edge = max(1.0, wide * max(0.0, 2 * soft - 1))
        coverage = np.clip((0.5 * (wide + edge) - np.abs(columns - place * width)) / edge, 0, 1)
        offset = np.minimum(offset, -depth * (0.5 + 0.5 * deep) * coverage)
    return offset


@dataclass(frozen=True)
class GaussianNoise(Operator):
    """out = x + σ (√(1 − q) n_0 + √q n_c), clipped, on sRGB code values; n_0 shared by the channels, n_c each its own.

    Every channel's standard deviation is σ whatever ``colour`` q is: q = 0 is grey noise, q = 1 independent noise.
    Drawn anew for each image of a pair.
    """

    name: ClassVar[str] = "gaussian_noise"
    stage: ClassVar[Stage] = "processing"
    source: ClassVar[str] = "Zhang et al., BSRGAN, ICCV 2021 (additive noise, from grey to per-channel)"

    sigma: float = severe(
        5 / 255, 50 / 255, "standard deviation", low=0.0, high=1.0, unit="of full scale", identity=0.0
    )
    colour: float = free(0.0, 1.0, "share of the variance that is each channel's own")

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
class IrStripes(Operator):
    """An uncorrected microbolometer: out(i, j) = g_j x(i, j) + o_j + s_j + r_i, clipped.

    g_j ~ N(1, gain²) and o_j ~ AR(1)(ρ) with marginal σ ``offset``: column read-out. r_i: the same along the rows,
    σ = rows · offset. s_j ≤ 0: sparse dark strips, 1 to 8 px wide at 640 columns (scaled with the width), hard or soft.
    """

    name: ClassVar[str] = "ir_stripes"
    stage: ClassVar[Stage] = "sensor"
    modalities: ClassVar[frozenset[Modality]] = frozenset({"infrared"})
    source: ClassVar[str] = (
        "El Gamal et al., Modeling and estimation of FPN components in CMOS image sensors, SPIE 3301, 1998 "
        "(column AR(1)); dark strips: MMAIF, section 3.1"
    )

    offset: float = severe(
        2 / 255,
        20 / 255,
        "standard deviation of the columns' offsets",
        low=0.0,
        high=1.0,
        unit="of full scale",
        identity=0.0,
    )
    gain: float = severe(0.005, 0.05, "standard deviation of the columns' gains", low=0.0, high=1.0, identity=0.0)
    strips: int = severe(3.0, 20.0, "number of dark strips", low=0.0, high=float(MAX_STRIPS), integer=True, identity=0)
    strip_depth: float = severe(0.1, 0.5, "depth of the darkest strips", low=0.0, high=1.0, unit="of full scale")
    rho: float = free(0.0, 0.8, "correlation of neighbouring columns' offsets", high=0.999)
    rows: float = free(0.0, 0.5, "the rows' offsets over the columns'", high=10.0)

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        h, w, _ = image.shape
        strips = strip_profile(w, self.strips, self.strip_depth, rng.random((MAX_STRIPS, 4)))
        gain = 1 + self.gain * rng.standard_normal(w)
        columns = autoregressive(rng.standard_normal(w), self.offset, self.rho) + strips
        rows = autoregressive(rng.standard_normal(h), self.rows * self.offset, self.rho)
        out = image * gain.astype(np.float32)[None, :, None]
        out += columns.astype(np.float32)[None, :, None]
        out += rows.astype(np.float32)[:, None, None]
        return np.clip(out, 0, 1, out=out)

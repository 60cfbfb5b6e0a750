"""Classical restoration, then fusion, as in the papers' pipelines: one restorer for each recorded degradation.

The degradations are read from the sample, with the parameters that classical algorithms need: a blur's kernel, the
noise level, the JPEG quality, the scaler. That is more than the methods under test are given: an upper bound of
classical restoration, not a blind competitor. Degradations are undone in the reverse of their physical order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8

from clearfuse.synth import color
from clearfuse.synth.operators import operator_class, reaches
from clearfuse.synth.operators.base import Operator, Scene
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.shards.sample import Sample
from clearfuse.synth.types import MODALITIES, ImageName, Modality, Step, Task
from clearfuse.train.evaluation.methods import restorers

Image = Float32[np.ndarray, "h w c"]


@dataclass(frozen=True)
class Fault:
    """A degradation to undo. image: which of the pair; noisy: whether a later degradation adds noise, which
    deconvolution would amplify.
    """

    step: Step
    image: ImageName
    modality: Modality
    noisy: bool

    @property
    def known(self) -> bool:
        """Whether its parameters are recorded; those of data sets that come degraded are not."""
        return self.step.seed is not None

    def operator(self) -> tuple[Operator, np.random.Generator]:
        """The recorded operator and its random generator. Requires ``known``."""
        assert self.step.seed is not None
        return operator_class(self.step.op)(**self.step.params), generator(seed_of(self.step.seed, self.image))


def haze(image: Image, fault: Fault) -> Image:
    """Dark-channel dehazing of a visible image; haze in infrared is a loss of contrast, which the prior
    does not cover.
    """
    return restorers.dehaze(image) if fault.modality == "visible" else image


def rain(image: Image, fault: Fault) -> Image:
    """The conditional median, for a visible image: infrared images show no streaks."""
    return restorers.remove_particles(image) if fault.modality == "visible" else image


def blur(image: Image, fault: Fault) -> Image:
    """Richardson-Lucy with the recorded kernel, in linear light for a visible image; Wiener if noise was
    added later.
    """
    if not fault.known:
        return image
    psf = point_spread(fault)
    linear = color.srgb_to_linear(image) if fault.modality == "visible" else image
    sharp = restorers.wiener(linear, psf, 0.02) if fault.noisy else restorers.richardson_lucy(linear, psf)
    return color.linear_to_srgb(sharp) if fault.modality == "visible" else sharp


def point_spread(fault: Fault) -> Float32[np.ndarray, "k l"]:
    """The kernel of a spatially uniform blur: its response to a point, without the dark border."""
    operator, rng = fault.operator()
    side = 2 * 64 + 1
    point = np.zeros((side, side, 1), np.float32)
    point[side // 2, side // 2] = 1
    response = operator(point, rng, Scene(fault.modality))[..., 0]
    radius = max(int(np.abs(np.argwhere(response > 1e-6) - side // 2).max()), 1)
    support = slice(side // 2 - radius, side // 2 + radius + 1)
    kernel = np.maximum(response[support, support], 0)
    return (kernel / kernel.sum()).astype(np.float32)


def noise(image: Image, fault: Fault) -> Image:
    """Non-local means with the recorded noise level, or with an estimate from the image."""
    sigma = fault.step.params.get("sigma") if fault.known else None
    return restorers.denoise(image, restorers.noise_level(image) if sigma is None else float(sigma))


def jpeg(image: Image, fault: Fault) -> Image:
    """Deblocking by shifted JPEG compression, if the quality is recorded."""
    return restorers.deblock(image, int(fault.step.params["quality"])) if fault.known else image


def resolution(image: Image, fault: Fault) -> Image:
    """Back-projection through the recorded scaler."""
    if not fault.known:
        return image
    operator, rng = fault.operator()
    return restorers.back_project(image, lambda x: operator(x, rng, Scene(fault.modality)))


def contrast(image: Image, fault: Fault) -> Image:
    """CLAHE."""
    return restorers.equalise(image)


def stripes(image: Image, fault: Fault) -> Image:
    """Moment matching of columns and rows."""
    return restorers.destripe(image)


Restorer = Callable[[Image, Fault], Image]

CLASSICAL: dict[str, Restorer] = {
    "haze": haze,
    "rain": rain,
    "motion_blur": blur,
    "gaussian_blur": blur,
    "low_exposure": contrast,
    "sensor_noise": noise,
    "ir_stripes": stripes,
    "low_contrast": contrast,
    "ir_low_contrast": contrast,
    "gaussian_noise": noise,
    "downsample": resolution,
    "jpeg": jpeg,
}
"""Restorers by operator. Other degradations are not undone: overexposed pixels can't be recovered, and a median removes
more of the image than of the snow (0.2 dB lost on MSRS, RoadScene, MEFB and NYU-D)."""

NOISY = frozenset({"sensor_noise", "gaussian_noise", "low_contrast", "jpeg"})
"""Degradations whose noise or rounding deconvolution would amplify."""


def restore(sample: Sample, name: ImageName, table: dict[str, Restorer]) -> UInt8[np.ndarray, "h w c"]:
    """An image of a sample with its recorded degradations undone, the last first."""
    return undo(sample.images[name], sample.meta.steps, sample.meta.task, name, table)


def undo(
    codes: UInt8[np.ndarray, "h w c"], steps: Sequence[Step], task: Task, name: ImageName, table: dict[str, Restorer]
) -> UInt8[np.ndarray, "h w c"]:
    """The image ``name`` of a pair with those of the steps undone that reach it, the last first."""
    modality = MODALITIES[task][name]
    steps = [step for step in steps if reaches(step, name)]
    faults = [
        Fault(step, name, modality, any(later.op in NOISY for later in steps[at + 1 :]))
        for at, step in enumerate(steps)
    ]
    if not any(fault.step.op in table for fault in faults):
        return codes
    image = color.code_to_float(codes)
    for fault in reversed(faults):
        if fault.step.op in table:
            image = table[fault.step.op](image, fault)
    return color.to_uint8(image)


@dataclass(frozen=True)
class ClassicalThenFused:
    """A method: classical restoration of both images, then a fuser."""

    fuser: Callable[[np.ndarray, np.ndarray, Task], np.ndarray]

    def __call__(self, sample: Sample) -> np.ndarray:
        """The fused image, uint8."""
        a, b = (restore(sample, name, CLASSICAL) for name in ("a", "b"))
        return self.fuser(a, b, sample.meta.task)

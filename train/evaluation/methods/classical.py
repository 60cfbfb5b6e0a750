"""Restoration, then fusion, as the papers' pipelines do it: a restorer for each step that a sample records.

The kind of each fault is taken from the sample, and with it what the classical algorithm must be given: the kernel of
a blur, the noise's level, the JPEG's quality, the scaler. That is more than a method under test is told: a ceiling of
what classical restoration can do, not a blind competitor. Steps are undone in the reverse of their physical order.
"""

from __future__ import annotations

from collections.abc import Callable
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
    """One step as its restorer sees it. noisy: a later step adds noise, which deconvolution would lift."""

    step: Step
    image: ImageName
    modality: Modality
    noisy: bool

    @property
    def known(self) -> bool:
        """Whether its parameters are recorded; those of pairs that come degraded are not."""
        return self.step.seed is not None

    def operator(self) -> tuple[Operator, np.random.Generator]:
        """The very operator, and its generator. Only where it is ``known``."""
        assert self.step.seed is not None
        return operator_class(self.step.op)(**self.step.params), generator(seed_of(self.step.seed, self.image))


def haze(image: Image, fault: Fault) -> Image:
    """The dark channel, of the visible image: the infrared's haze is a loss of contrast, which is not in its prior."""
    return restorers.dehazed(image) if fault.modality == "visible" else image


def rain(image: Image, fault: Fault) -> Image:
    """The conditional median, of the visible image: the infrared shows no streak."""
    return restorers.without_particles(image) if fault.modality == "visible" else image


def blur(image: Image, fault: Fault) -> Image:
    """Richardson-Lucy by the step's own kernel, in the light that was blurred; Wiener where noise came after."""
    if not fault.known:
        return image
    psf = point_spread(fault)
    linear = color.srgb_to_linear(image) if fault.modality == "visible" else image
    sharp = restorers.wiener(linear, psf, 0.02) if fault.noisy else restorers.richardson_lucy(linear, psf)
    return color.linear_to_srgb(sharp) if fault.modality == "visible" else sharp


def point_spread(fault: Fault) -> Float32[np.ndarray, "k l"]:
    """The kernel of a step that blurs alike everywhere: what it makes of a point, the dark border cut off."""
    operator, rng = fault.operator()
    side = 2 * 64 + 1
    point = np.zeros((side, side, 1), np.float32)
    point[side // 2, side // 2] = 1
    seen = operator(point, rng, Scene(fault.modality))[..., 0]
    reach = max(int(np.abs(np.argwhere(seen > 1e-6) - side // 2).max()), 1)
    middle = slice(side // 2 - reach, side // 2 + reach + 1)
    kernel = np.maximum(seen[middle, middle], 0)
    return (kernel / kernel.sum()).astype(np.float32)


def noise(image: Image, fault: Fault) -> Image:
    """Non-local means, by the recorded level, by the image's own estimate where there is none."""
    sigma = fault.step.params.get("sigma") if fault.known else None
    return restorers.denoised(image, restorers.noise_level(image) if sigma is None else float(sigma))


def jpeg(image: Image, fault: Fault) -> Image:
    """JPEG again at other places, where the quality is known."""
    return restorers.deblocked(image, int(fault.step.params["quality"])) if fault.known else image


def resolution(image: Image, fault: Fault) -> Image:
    """Back-projection through the step's own scaler."""
    if not fault.known:
        return image
    operator, rng = fault.operator()
    return restorers.back_projected(image, lambda x: operator(x, rng, Scene(fault.modality)))


def contrast(image: Image, fault: Fault) -> Image:
    """CLAHE."""
    return restorers.equalised(image)


def stripes(image: Image, fault: Fault) -> Image:
    """Moment matching of columns and rows."""
    return restorers.destriped(image)


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
"""By operator. What is not here is left as it is: nothing brings back what is burnt out, and a median takes more of the
picture than of the snow (0.2 dB lost on MSRS, RoadScene, MEFB and NYU-D)."""

NOISY = frozenset({"sensor_noise", "gaussian_noise", "low_contrast", "jpeg"})
"""Steps whose noise or rounding a deconvolution would lift."""


def restored(sample: Sample, name: ImageName, table: dict[str, Restorer]) -> UInt8[np.ndarray, "h w c"]:
    """The image of a sample with its recorded steps undone, the last first."""
    modality = MODALITIES[sample.meta.task][name]
    steps = [step for step in sample.meta.steps if reaches(step, name)]
    faults = [
        Fault(step, name, modality, any(later.op in NOISY for later in steps[at + 1 :]))
        for at, step in enumerate(steps)
    ]
    codes = sample.images[name]
    if not any(fault.step.op in table for fault in faults):
        return codes
    image = color.code_to_float(codes)
    for fault in reversed(faults):
        if fault.step.op in table:
            image = table[fault.step.op](image, fault)
    return color.to_uint8(image)


@dataclass(frozen=True)
class ClassicalThenFused:
    """Classical restoration of both images, then a fuser."""

    fuser: Callable[[np.ndarray, np.ndarray, Task], np.ndarray]

    def __call__(self, sample: Sample) -> np.ndarray:
        """The fused image of a sample, uint8."""
        a, b = (restored(sample, name, CLASSICAL) for name in ("a", "b"))
        return self.fuser(a, b, sample.meta.task)

"""The operators of the MMAIF authors' published pipeline, as formulas: for recipes with ``reproduction = true`` alone.

They are what the authors' code base of December 2024 has (task_datasets/DIF of EDACA-Net at commit 5706ff1624a3, on top
of kornia and of HazeRD), written anew from the formulas. All act on code values, in the order in which they are drawn.
docs/authors-recipe.md sets them beside ours, and says where they are no physics.
"""

from __future__ import annotations

from clearfuse.synth.operators.authors.detail import Blur, Downsample, Jpeg, Motion, Noise
from clearfuse.synth.operators.authors.tone import HighContrast, HighExposure, LowContrast, LowExposure
from clearfuse.synth.operators.authors.weather import Haze, Rain, Snow
from clearfuse.synth.operators.base import Operator

PREFIX = "authors:"

AUTHORS: dict[str, type[Operator]] = {
    "authors:haze": Haze,
    "authors:rain": Rain,
    "authors:snow": Snow,
    "authors:motion_blur": Motion,
    "authors:gaussian_blur": Blur,
    "authors:low_exposure": LowExposure,
    "authors:high_exposure": HighExposure,
    "authors:low_contrast": LowContrast,
    "authors:high_contrast": HighContrast,
    "authors:gaussian_noise": Noise,
    "authors:downsample": Downsample,
    "authors:jpeg": Jpeg,
}


def our_name(name: str) -> str:
    """The operator of ours that shows the same fault; another name as it is."""
    return name.removeprefix(PREFIX) if name in AUTHORS else name


__all__ = ["AUTHORS", "PREFIX", "our_name"]

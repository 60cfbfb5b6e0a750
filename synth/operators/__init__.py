"""The table of operators, in the physical order in which the imaging chain applies them."""

from __future__ import annotations

from collections.abc import Iterable

from clearfuse.synth.operators import albumentations as bridge
from clearfuse.synth.operators.authors import AUTHORS, PREFIX
from clearfuse.synth.operators.base import STAGES, Operator, Range, Scene, fault_of
from clearfuse.synth.operators.codec import Downsample, Jpeg
from clearfuse.synth.operators.defocus import DefocusBlur
from clearfuse.synth.operators.exposure import HighContrast, HighExposure, IrLowContrast, LowContrast, LowExposure
from clearfuse.synth.operators.geometry import Misregistration
from clearfuse.synth.operators.ghosting import Ghosting
from clearfuse.synth.operators.lens import LensRain
from clearfuse.synth.operators.optics import GaussianBlur, MotionBlur
from clearfuse.synth.operators.sensor import GaussianNoise, IrDeadPixels, IrStripes, SensorNoise
from clearfuse.synth.operators.weather import Haze, Rain, Snow
from clearfuse.synth.tables import Table
from clearfuse.synth.types import ImageName, Step, unknown

OPERATORS: Table[type[Operator]] = Table(
    "operator",
    {
        "misregistration": Misregistration,
        "ghosting": Ghosting,
        "haze": Haze,
        "rain": Rain,
        "snow": Snow,
        "defocus_blur": DefocusBlur,
        "motion_blur": MotionBlur,
        "lens_rain": LensRain,
        "gaussian_blur": GaussianBlur,
        "low_exposure": LowExposure,
        "high_exposure": HighExposure,
        "sensor_noise": SensorNoise,
        "ir_stripes": IrStripes,
        "ir_dead_pixels": IrDeadPixels,
        "low_contrast": LowContrast,
        "high_contrast": HighContrast,
        "ir_low_contrast": IrLowContrast,
        "gaussian_noise": GaussianNoise,
        "downsample": Downsample,
        "jpeg": Jpeg,
    },
    own="name",
    fault=fault_of,
)
_INDEX = {name: index for index, name in enumerate(OPERATORS)}


def operator_class(name: str) -> type[Operator]:
    """The operator class of that name; for ``albumentations:NAME`` it is generated. UserError for an unknown name."""
    if bridge.is_bridged(name):
        return bridge.bridged(name)
    if name in AUTHORS:
        return AUTHORS[name]
    if name not in OPERATORS:
        raise unknown("operator", name, AUTHORS if name.startswith(PREFIX) else OPERATORS)
    return OPERATORS[name]


def physical_order(names: Iterable[str]) -> list[str]:
    """Operator names sorted as in ``OPERATORS``; transforms of albumentations come last in their stage."""
    return sorted(names, key=lambda name: _sort_key(operator_class(name)))


def _sort_key(cls: type[Operator]) -> tuple[int, int, str]:
    return STAGES.index(cls.stage), _INDEX.get(cls.name, len(_INDEX)), cls.name


def reaches(step: Step, image: ImageName) -> bool:
    """Whether a step changes that image: its targets, and always both for weather, one event for the pair."""
    return step.target in (image, "both") or operator_class(step.op).event


__all__ = ["AUTHORS", "OPERATORS", "Operator", "Range", "Scene", "operator_class", "physical_order", "reaches"]

"""The table of operators, in physical order: the order in which the chain applies them."""

from __future__ import annotations

from synth.operators.base import Operator, Range, Scene
from synth.operators.codec import Downsample, Jpeg
from synth.operators.exposure import HighExposure, LowContrast, LowExposure
from synth.operators.optics import GaussianBlur, MotionBlur
from synth.operators.sensor import GaussianNoise, IrStripes
from synth.operators.weather import Haze, Rain, Snow

OPERATORS: dict[str, type[Operator]] = {
    "haze": Haze,
    "rain": Rain,
    "snow": Snow,
    "motion_blur": MotionBlur,
    "gaussian_blur": GaussianBlur,
    "low_exposure": LowExposure,
    "high_exposure": HighExposure,
    "ir_stripes": IrStripes,
    "low_contrast": LowContrast,
    "gaussian_noise": GaussianNoise,
    "downsample": Downsample,
    "jpeg": Jpeg,
}

__all__ = ["OPERATORS", "Operator", "Range", "Scene"]

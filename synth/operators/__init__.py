"""The table of operators, in physical order: the order in which the chain applies them."""

from __future__ import annotations

from synth.operators.base import Operator, Range, Scene
from synth.operators.codec import Downsample, Jpeg
from synth.operators.defocus import DefocusBlur
from synth.operators.exposure import HighContrast, HighExposure, IrLowContrast, LowContrast, LowExposure
from synth.operators.geometry import Misregistration
from synth.operators.ghosting import Ghosting
from synth.operators.lens import LensRain
from synth.operators.optics import GaussianBlur, MotionBlur
from synth.operators.sensor import GaussianNoise, IrDeadPixels, IrStripes, SensorNoise
from synth.operators.weather import Haze, Rain, Snow

OPERATORS: dict[str, type[Operator]] = {
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
}

__all__ = ["OPERATORS", "Operator", "Range", "Scene"]

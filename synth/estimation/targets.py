"""What is estimated: the operators that one picture shows, and the parameter that says how strong each is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from clearfuse.synth.operators import OPERATORS
from clearfuse.synth.operators.base import Range
from clearfuse.synth.types import Modality

WEATHER = frozenset({"haze", "rain", "snow"})
"""Told from the visible picture: in the infrared it looks like a loss of contrast, which it is."""

REACH = (-0.5, 1.5)
"""Severities that the network may answer with: somewhat beyond the ranges that it was trained on."""


@dataclass(frozen=True)
class Unit:
    """How a strength is shown: its name, a factor to the recorded value, a unit, decimals."""

    what: str
    factor: float
    unit: str
    digits: int


UNITS: dict[str, Unit] = {
    "haze": Unit("visibility", 1, "m", 0),
    "rain": Unit("rate", 1, "mm/h", 0),
    "snow": Unit("rate", 1, "mm/h", 1),
    "defocus_blur": Unit("radius", 1, "px", 1),
    "motion_blur": Unit("length", 1, "px", 0),
    "lens_rain": Unit("covered", 100, "%", 1),
    "gaussian_blur": Unit("σ", 1, "px", 1),
    "low_exposure": Unit("exposure", 1, "EV", 1),
    "high_exposure": Unit("exposure", 1, "EV", 1),
    "sensor_noise": Unit("a photo-electron", 1, "of full scale", 4),
    "ir_stripes": Unit("σ of columns", 255, "codes", 1),
    "ir_dead_pixels": Unit("dead pixels", 100, "%", 2),
    "low_contrast": Unit("contrast left", 100, "%", 0),
    "high_contrast": Unit("contrast", 1, "times", 1),
    "ir_low_contrast": Unit("contrast left", 100, "%", 0),
    "gaussian_noise": Unit("σ", 255, "codes", 0),
    "downsample": Unit("sides divided by", 1, "", 1),
    "jpeg": Unit("quality", 1, "", 0),
}
"""Of each operator that one picture shows; ``misregistration`` and ``ghosting`` are faults of a pair."""

NAMES: tuple[str, ...] = tuple(UNITS)
"""The operators in the order of the network's outputs, to which another one is added by training it anew."""


def main_range(name: str) -> tuple[str, Range]:
    """The parameter of an operator that its strength is given by: the first that follows the severity."""
    return next((key, declared) for key, declared in OPERATORS[name].ranges().items() if declared.kind == "severe")


def told_of(modality: Modality) -> tuple[str, ...]:
    """The operators that are looked for in a picture of that modality."""
    weather = WEATHER if modality == "infrared" else frozenset[str]()
    return tuple(name for name in NAMES if modality in OPERATORS[name].modalities and name not in weather)


def severity_of(name: str, params: Mapping[str, Any]) -> float:
    """The severity at which the operator's declared range has the recorded value: 0 mild, 1 strong, beyond too."""
    key, declared = main_range(name)
    value = float(params[key])
    if declared.log:
        return math.log(max(value, 1e-12) / declared.mild) / math.log(declared.strong / declared.mild)
    return (value - declared.mild) / (declared.strong - declared.mild)


def value_at(name: str, severity: float) -> float:
    """The parameter's value at a severity, within its bounds."""
    _, declared = main_range(name)
    ratio = declared.strong / declared.mild if declared.log else 1.0
    at = (
        declared.mild * ratio**severity
        if declared.log
        else declared.mild + (declared.strong - declared.mild) * severity
    )
    return float(f"{min(max(at, declared.low), declared.high):.4g}")


def trained_for() -> dict[str, str]:
    """By operator its parameter and range as text, as the weights record it: another range needs other weights."""
    ranges = {name: main_range(name) for name in NAMES}
    return {name: f"{key} {r.mild:.6g} to {r.strong:.6g}{' log' if r.log else ''}" for name, (key, r) in ranges.items()}

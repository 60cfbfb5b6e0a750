"""``estimate``: what is wrong with a picture, how strong it is, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from clearfuse.synth.estimation.network import Network, load_network
from clearfuse.synth.estimation.statistics import statistics
from clearfuse.synth.estimation.targets import NAMES, UNITS, main_range, told_of, value_at
from clearfuse.synth.types import Modality

SURE = 0.5
"""Certainty from which a degradation is named."""

WITHIN = 1.2816
"""Standard deviations about the mean of a normal variate between which 80 % of it lie."""


@dataclass(frozen=True)
class Finding:
    """A degradation and how sure it is.

    certainty: calibrated probability that it is there. severity: 0 mild to 1 strong, of the operator's range. value: of
    its main parameter in the operator's own unit, with the ends low < high between which it is in 8 of 10 cases.
    """

    op: str
    certainty: float
    severity: float
    value: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints: with the parameter's name and unit."""
        key, declared = main_range(self.op)
        facts = {
            name: round(value, 4) if name in ("certainty", "severity") else value
            for name, value in asdict(self).items()
        }
        return {**facts, "parameter": key, "unit": declared.unit}

    def strength(self, value: float | None = None) -> str:
        """The value as people say it, such as "visibility 240 m"; without its name where a value is given."""
        unit = UNITS[self.op]
        number = f"{unit.factor * (self.value if value is None else value):.{unit.digits}f}"
        if value is not None:
            return number
        return f"{unit.what} {number}{' ' if unit.unit not in ('', '%') else ''}{unit.unit}"

    def describe(self) -> str:
        """The value with its ends: "visibility 240 m (150 to 390)"."""
        return f"{self.strength()} ({self.strength(self.low)} to {self.strength(self.high)})"


@dataclass(frozen=True)
class Estimate:
    """What was found in a picture: all that was looked for, the surest first."""

    modality: Modality
    findings: tuple[Finding, ...]

    def found(self, sure: float = SURE) -> tuple[Finding, ...]:
        """The degradations that are named, the surest first."""
        return tuple(one for one in self.findings if one.certainty >= sure)

    def __getitem__(self, op: str) -> Finding:
        """What was found of an operator. KeyError where it is not looked for in the modality."""
        return self._by_name()[op]

    def _by_name(self) -> Mapping[str, Finding]:
        return {one.op: one for one in self.findings}


def estimate(image: np.ndarray, modality: Modality = "visible", *, network: Network | None = None) -> Estimate:
    """Estimate what is wrong with a picture, uint8 ``(h, w)`` or ``(h, w, c)`` with c = 1 or 3.

    modality: infrared pictures have other faults. network: None for the one that ships. ValueError for another type,
    and where a side is under 32 pixels.
    """
    picture = image[..., None] if image.ndim == 2 else image
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (1, 3):
        raise ValueError(f"image is {image.dtype} {image.shape}: must be uint8, (h, w), (h, w, 1) or (h, w, 3)")
    if modality == "infrared" and picture.shape[2] == 3:
        raise ValueError("an infrared image has one channel")
    said = (network or load_network())(statistics(picture, modality)[None])
    findings: list[Finding] = []
    for name in told_of(modality):
        k = NAMES.index(name)
        severity, spread = float(said.severity[0, k]), float(said.spread[0, k])
        ends = sorted(value_at(name, severity + side * WITHIN * spread) for side in (-1, 1))
        at = min(max(severity, 0.0), 1.0)
        findings.append(Finding(name, float(said.presence[0, k]), at, value_at(name, severity), *ends))
    return Estimate(modality, tuple(sorted(findings, key=lambda one: -one.certainty)))

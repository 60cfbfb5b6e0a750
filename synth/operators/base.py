"""The base class of operators: a frozen dataclass of declared parameters with a pure ``__call__``.

Each parameter has one ``Range``: its draw, bounds, unit and meaning. From it parameters are drawn and validated,
docs/operators.md is generated, and the property tests in tests/laws are derived.
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Float32

from clearfuse.synth.operators import kernels
from clearfuse.synth.operators.light.ambient import NEAREST, SKY_PATH, Light
from clearfuse.synth.types import Modality, UserError, shorten, unknown

Stage = Literal["scene", "optics", "exposure", "sensor", "processing", "resolution", "codec"]
STAGES: tuple[Stage, ...] = ("scene", "optics", "exposure", "sensor", "processing", "resolution", "codec")
LINEAR_STAGES: frozenset[Stage] = frozenset({"scene", "optics", "exposure", "sensor"})
"""Stages in which a visible image is linear light; in the others it is sRGB code values. Infrared is linear as stored.
"""

Image = Float32[np.ndarray, "h w c"]


@dataclass(frozen=True)
class Scene:
    """What an operator knows of the frame apart from its pixels.

    depth: (h, w) float32, metres along the ray, infinity for the sky; None where unknown.
    fov: horizontal field of view in degrees, to project metres to pixels.
    light: the light of a visible scene, one for all that weather does to a pair; None: an operator estimates it.
    """

    modality: Modality = "visible"
    depth: np.ndarray | None = None
    fov: float = 60.0
    light: Light | None = None

    def metres(self) -> Float[np.ndarray, "h w"]:
        """The depth in metres along the ray. Raises ValueError where it is unknown."""
        if self.depth is None:
            raise ValueError("this operator needs depth: pass depth=metres along the ray, (h, w)")
        return self.depth

    def path(self) -> Float32[np.ndarray, "h w"]:
        """Metres of air in front of each pixel: the depth limited to [``NEAREST``, ``SKY_PATH``], NaN as nearest."""
        depth = self.metres()
        path = np.empty(depth.shape, np.float32)
        kernels.clamp(depth, NEAREST, SKY_PATH, path)
        return path


@dataclass(frozen=True)
class Range:
    """One parameter: drawn between ``mild`` and ``strong``, valid in [low, high].

    kind: 'severe' goes from mild to strong with the severity; 'free' is drawn uniformly, independently of the severity;
    'choice' is one of ``options``. log: interpolated geometrically. identity: the value at which the operator does
    nothing, where there is one. reciprocal: its effect goes with 1 / value, as that of fog with the visibility.
    """

    kind: Literal["severe", "free", "choice"]
    doc: str
    mild: float = 0.0
    strong: float = 1.0
    low: float = -math.inf
    high: float = math.inf
    unit: str = ""
    log: bool = False
    integer: bool = False
    identity: float | str | None = None
    reciprocal: bool = False
    options: tuple[Any, ...] = ()

    def at(self, t: float) -> float | int:
        """The value at a fraction ``t`` of the way from mild to strong, geometric where ``log``."""
        ratio = self.strong / self.mild if self.log else 1.0
        value = self.mild * ratio**t if self.log else self.mild + (self.strong - self.mild) * t
        # Six digits, so that the recorded value is readable and exactly the one used.
        return round(value) if self.integer else float(f"{value:.6g}")

    def draw(self, u: float, severity: float) -> Any:
        """The value for a uniform draw ``u`` in [0, 1) at a severity in [0, 1]."""
        if self.kind == "choice":
            return self.options[min(int(u * len(self.options)), len(self.options) - 1)]
        return self.at(severity if self.kind == "severe" else u)

    def weakened(self, value: Any, share: float) -> Any:
        """The value at a share in [0, 1] of its distance from ``identity``, where nothing is done; 1 is the value.

        A choice, and a parameter that has no identity, stays.
        """
        if share == 1 or self.kind == "choice" or not isinstance(self.identity, (int, float)):
            return value
        if self.reciprocal:
            return min(value / share, self.identity) if share else self.identity
        less = self.identity + share * (value - self.identity)
        return round(less) if self.integer else less

    def check(self, where: str, value: Any) -> None:
        """Raise ValueError, with ``where`` in front, for a value of the wrong type or out of bounds."""
        if self.kind == "choice":
            if value not in self.options:
                raise ValueError(f"{where} = {shorten(repr(value))}: allowed: {', '.join(map(str, self.options))}")
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{where} = {shorten(repr(value))}: must be a number")
        if not abs(value) <= sys.float_info.max:  # NaN, infinite, or a whole number that no float holds
            raise ValueError(f"{where} = {shorten(repr(value))}: must be a finite number")
        if self.integer and value != int(value):
            raise ValueError(f"{where} = {value:g}: must be a whole number")
        if not self.low <= value <= self.high:
            raise ValueError(f"{where} = {value:g}: must be in [{self.low:g}, {self.high:g}] {self.unit}".rstrip())

    def narrowed(self, where: str, value: Any) -> Range:
        """This range with a recipe's override: a single value fixes it, [x, y] sets its ends, mild to strong as before.

        Raises ValueError for a value that is not allowed.
        """
        ends = list(value) if isinstance(value, (list, tuple)) else [value]
        for end in ends:
            self.check(where, end)
        if self.kind == "choice":
            return dataclasses.replace(self, options=tuple(ends))
        if len(ends) not in (1, 2):
            raise ValueError(f"{where} = {shorten(repr(value))}: must be a number or [low, high]")
        low, high = min(ends), max(ends)
        mild, strong = (low, high) if self.mild <= self.strong else (high, low)
        return dataclasses.replace(self, mild=mild, strong=strong)


def severe(mild: float, strong: float, doc: str, /, **rest: Any) -> Any:
    """A parameter that goes from ``mild`` at severity 0 to ``strong`` at severity 1."""
    return _parameter(Range("severe", doc, mild, strong, **rest))


def free(lowest: float, highest: float, doc: str, /, *, default: float | None = None, **rest: Any) -> Any:
    """A parameter drawn uniformly (log-uniformly with ``log``), independently of the severity.

    default: the value for steps recorded before the parameter existed; declare such a parameter last, so that the
    other draws stay the same.
    """
    bounds = {"low": lowest, "high": highest} | rest
    return _parameter(Range("free", doc, mild=lowest, strong=highest, **bounds), default)


def choice(*options: Any, doc: str, identity: Any = None) -> Any:
    """A parameter drawn from ``options`` with equal probability."""
    return _parameter(Range("choice", doc, options=options, identity=identity))


def _parameter(declared: Range, default: float | None = None) -> Any:
    value: Any = dataclasses.MISSING if default is None else default
    return field(default=value, metadata={"range": declared}, kw_only=True)


class Operator:
    """One degradation. Subclasses are frozen dataclasses whose fields ``severe``, ``free`` and ``choice`` declare.

    ``__call__(image, rng, scene)`` takes and returns float32 ``(h, w, c)``, linear light or code values depending on
    the stage, and changes neither its input nor any global state. Values lie in [0, 1]; where ``unclipped`` is set
    they may exceed 1, because the full well clips only after the exposure.
    """

    name: ClassVar[str]
    stage: ClassVar[Stage]
    needs_depth: ClassVar[bool] = False
    uses_depth: ClassVar[bool] = False
    """Uses depth where it is known: a build provides it, ``degrade`` works without it."""
    unclipped: ClassVar[bool] = False
    """Accepts and keeps values above 1: scene, optics and exposure, which come before the full-well clip."""
    event: ClassVar[bool] = False
    """Weather, one event for the whole pair: the infrared gets its counterpart even where the step targets only a."""
    on_lens: ClassVar[bool] = False
    """Sits on the lens: two exposures of one camera have the same draws."""
    restores: ClassVar[bool] = False
    """Shows or spreads light that the camera had clipped: the chain gives it lamps of more than 1."""
    modalities: ClassVar[frozenset[Modality]] = frozenset({"visible", "infrared"})
    """Images that a step may target."""
    source: ClassVar[str]
    """Reference for the formula, shown in docs/operators.md."""

    def __post_init__(self) -> None:
        for name, declared in self.ranges().items():
            declared.check(f"{self.name}.{name}", getattr(self, name))

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        raise TypeError(f"{type(self).__name__} defines no __call__")

    @classmethod
    def takes_depth(cls) -> bool:
        """Whether a build provides depth for it."""
        return cls.needs_depth or cls.uses_depth

    @classmethod
    def ranges(cls) -> dict[str, Range]:
        """The declared range of every parameter, in the order of declaration."""
        return {f.name: f.metadata["range"] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]

    @classmethod
    def draw(
        cls, rng: np.random.Generator, severity: float | None = None, ranges: Mapping[str, Range] | None = None
    ) -> Operator:
        """Draw the parameters: one uniform for the severity, one for each parameter, used or not.

        severity: 0 the mild end, 1 the strong end; None draws it. ranges: a recipe's; None: the declared ones. The
        number of draws does not depend on the severity, so all other draws stay the same. Raises ValueError for a
        severity outside [0, 1].
        """
        drawn = float(rng.random())
        at = drawn if severity is None else severity
        if not 0 <= at <= 1:
            raise ValueError(f"severity = {at:g}: must be in [0, 1]")
        return cls(**{name: r.draw(float(rng.random()), at) for name, r in (ranges or cls.ranges()).items()})

    @classmethod
    def fit(cls, ranges: Mapping[str, Range], clean: np.ndarray, scene: Scene) -> Mapping[str, Range] | None:
        """``ranges`` limited to what a clean picture bears, before a step's parameters are drawn from them.

        clean: uint8 ``(h, w, c)``, as stored. None where the operator has nothing to act on, or would destroy the
        picture even at its mild end: then the step is not drawn. Here: the ranges as they are.
        """
        return ranges

    @classmethod
    def narrowed(cls, overrides: dict[str, Any]) -> dict[str, Range]:
        """The declared ranges with a recipe's ``params`` in their place. UserError for a bad name or value."""
        ranges = cls.ranges()
        for name, value in overrides.items():
            if name not in ranges:
                raise unknown(f"parameter of {cls.name}", name, ranges)
            try:
                ranges[name] = ranges[name].narrowed(f"{cls.name}.{name}", value)
            except ValueError as error:
                raise UserError(str(error)) from None
        return ranges

    @classmethod
    def identity(cls) -> Operator | None:
        """The operator with its identity parameters, which changes nothing; None where it declares none."""
        ranges = cls.ranges()
        fixed = {n: r.identity for n, r in ranges.items() if r.identity is not None}
        return cls(**{n: fixed.get(n, r.draw(0.5, 0.0)) for n, r in ranges.items()}) if fixed else None

    @classmethod
    def weakened(cls, params: Mapping[str, Any], share: float) -> dict[str, Any]:
        """A step's parameters at ``share``, in [0, 1], of their strength: 1 all, 0 none. See ``Range.weakened``."""
        ranges = cls.ranges()
        return {name: ranges[name].weakened(value, share) for name, value in params.items()}

    def params(self) -> dict[str, Any]:
        """The parameters as stored in JSON."""
        return {name: getattr(self, name) for name in self.ranges()}


def fault_of(declared: Any) -> str:
    """What an operator of a user's own lacks or has wrong, in words for its author; "" where nothing is."""
    if not (isinstance(declared, type) and issubclass(declared, Operator)):
        return "must be a class below clearfuse.synth.operators.base.Operator, not an object"
    if not dataclasses.is_dataclass(declared):
        return "needs @dataclass(frozen=True) above its class"
    if missing := [name for name in ("stage", "source") if not isinstance(getattr(declared, name, None), str)]:
        return f"its class sets no {missing[0]}"
    if declared.stage not in STAGES:
        return f"its stage is {declared.stage!r}: must be one of {', '.join(STAGES)}"
    if not declared.modalities or not declared.modalities <= {"visible", "infrared"}:
        return f"its modalities are {sorted(declared.modalities)}: must be visible, infrared or both"
    if bare := [one.name for one in dataclasses.fields(declared) if "range" not in one.metadata]:
        return f"its parameter {bare[0]} has no range: declare it by severe, free or choice"
    return ""

"""What an operator is: a frozen dataclass whose parameters are declared once, and a pure call.

Every parameter carries its range, unit, meaning and valid bounds in one ``Range``; the range draws it, validates
it, documents it (docs/operators.md) and drives the laws in tests/laws.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Float, Float32

from clearfuse.synth.operators import kernels
from clearfuse.synth.types import Modality, UserError, unknown

Stage = Literal["scene", "optics", "exposure", "sensor", "processing", "resolution", "codec"]
STAGES: tuple[Stage, ...] = ("scene", "optics", "exposure", "sensor", "processing", "resolution", "codec")
LINEAR_STAGES: frozenset[Stage] = frozenset({"scene", "optics", "exposure", "sensor"})
"""Here a visible image is linear light; in the other stages it is sRGB code values. Infrared is linear as stored."""

SKY_PATH = 10_000.0
"""Metres of air in front of the sky: a slant path through a surface layer, finite so that 'no haze' has a limit."""

NEAREST = 0.25
"""Metres: no scene point is nearer to the camera than this."""

Image = Float32[np.ndarray, "h w c"]


@dataclass(frozen=True)
class Scene:
    """What an operator may know of the frame beside its pixels.

    depth: (h, w) float32, metres along the ray; infinity for the sky. None where it is not known.
    fov: horizontal field of view in degrees, for everything that projects metres to pixels.
    """

    modality: Modality = "visible"
    depth: np.ndarray | None = None
    fov: float = 60.0

    def metres(self) -> Float[np.ndarray, "h w"]:
        """The depth, which must be known."""
        if self.depth is None:
            raise ValueError("this operator needs depth: pass depth=metres along the ray, (h, w)")
        return self.depth

    def path(self) -> Float32[np.ndarray, "h w"]:
        """Metres of air in front of each pixel: the depth with the sky at ``SKY_PATH``."""
        depth = self.metres()
        path = np.empty(depth.shape, np.float32)
        kernels.within(depth, NEAREST, SKY_PATH, path)
        return path


@dataclass(frozen=True)
class Range:
    """One parameter: drawn between ``mild`` and ``strong``, valid in [low, high].

    kind: 'severe' moves from mild to strong with the severity; 'free' is drawn uniformly whatever the severity;
    'choice' is one of ``options``. ``identity``: the value at which the operator does nothing, where it has one.
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
    options: tuple[Any, ...] = ()

    def at(self, t: float) -> float | int:
        """The value a share ``t`` of the way from mild to strong: geometric where ``log``."""
        ratio = self.strong / self.mild if self.log else 1.0
        value = self.mild * ratio**t if self.log else self.mild + (self.strong - self.mild) * t
        # Six digits: what is recorded is what was used, and a person can read it.
        return round(value) if self.integer else float(f"{value:.6g}")

    def draw(self, u: float, severity: float) -> Any:
        """The value for one uniform draw ``u`` in [0, 1) at a severity in [0, 1]."""
        if self.kind == "choice":
            return self.options[min(int(u * len(self.options)), len(self.options) - 1)]
        return self.at(severity if self.kind == "severe" else u)

    def check(self, where: str, value: Any) -> None:
        """Refuse a value outside the bounds."""
        if self.kind == "choice":
            if value not in self.options:
                raise ValueError(f"{where} = {value!r}: allowed: {', '.join(map(str, self.options))}")
            return
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{where} = {value!r}: must be a number")
        if not math.isfinite(value):
            raise ValueError(f"{where} = {value}: must be a finite number")
        if self.integer and value != int(value):
            raise ValueError(f"{where} = {value:g}: must be a whole number")
        if not self.low <= value <= self.high:
            raise ValueError(f"{where} = {value:g}: must be in [{self.low:g}, {self.high:g}] {self.unit}".rstrip())

    def narrowed(self, where: str, value: Any) -> Range:
        """This range with a recipe's override: a number or a choice fixes it, [x, y] sets the ends (direction kept)."""
        ends = list(value) if isinstance(value, (list, tuple)) else [value]
        for end in ends:
            self.check(where, end)
        if self.kind == "choice":
            return dataclasses.replace(self, options=tuple(ends))
        if len(ends) not in (1, 2):
            raise ValueError(f"{where} = {value!r}: must be a number or [low, high]")
        low, high = min(ends), max(ends)
        mild, strong = (low, high) if self.mild <= self.strong else (high, low)
        return dataclasses.replace(self, mild=mild, strong=strong)


def severe(mild: float, strong: float, doc: str, /, **rest: Any) -> Any:
    """A parameter that severity drives from ``mild`` (0) to ``strong`` (1)."""
    return _declared(Range("severe", doc, mild, strong, **rest))


def free(lowest: float, highest: float, doc: str, /, *, default: float | None = None, **rest: Any) -> Any:
    """A parameter drawn uniformly (log-uniformly with ``log``), whatever the severity.

    default: what steps recorded before the parameter existed had; declared last, it leaves their draws as they were.
    """
    bounds = {"low": lowest, "high": highest} | rest
    return _declared(Range("free", doc, mild=lowest, strong=highest, **bounds), default)


def choice(*options: Any, doc: str, identity: Any = None) -> Any:
    """A parameter drawn from ``options``, each as likely."""
    return _declared(Range("choice", doc, options=options, identity=identity))


def _declared(declared: Range, default: float | None = None) -> Any:
    given: Any = dataclasses.MISSING if default is None else default
    return field(default=given, metadata={"range": declared}, kw_only=True)


class Operator:
    """One degradation. Subclasses are frozen dataclasses; every field is made by ``severe``, ``free`` or ``choice``.

    ``__call__(image, rng, scene)`` takes and gives float32 ``(h, w, c)``, linear light or code values as the
    class's stage says, and changes neither its input nor any global state. Values lie in [0, 1]; where
    ``unclipped`` is set they may exceed 1, because the full well clips only after the exposure.
    """

    name: ClassVar[str]
    stage: ClassVar[Stage]
    needs_depth: ClassVar[bool] = False
    uses_depth: ClassVar[bool] = False
    """Takes depth into account where it is known: a build then provides it, ``degrade`` goes without."""
    unclipped: ClassVar[bool] = False
    """Takes values above 1 as they are: scene, optics and exposure, which come before the full-well clip."""
    event: ClassVar[bool] = False
    """Weather: one event for the whole pair, so the infrared gets its counterpart where the step targets a alone."""
    modalities: ClassVar[frozenset[Modality]] = frozenset({"visible", "infrared"})
    """On which images it may be a step of its own."""
    source: ClassVar[str]
    """Where the formula comes from, for docs/operators.md."""

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
        cls, rng: np.random.Generator, severity: float | None = None, ranges: dict[str, Range] | None = None
    ) -> Operator:
        """Draw the parameters: one uniform for the severity, one for each parameter, used or not.

        severity: 0 the mild end, 1 the strong end; None draws it. ranges: a recipe's, else the declared ones.
        The generator is consumed alike at every severity, so all other draws stay as they are.
        """
        drawn = float(rng.random())
        at = drawn if severity is None else severity
        if not 0 <= at <= 1:
            raise ValueError(f"severity = {at:g}: must be in [0, 1]")
        return cls(**{name: r.draw(float(rng.random()), at) for name, r in (ranges or cls.ranges()).items()})

    @classmethod
    def narrowed(cls, overrides: dict[str, Any]) -> dict[str, Range]:
        """The declared ranges with a recipe's ``params`` laid over them."""
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
        """The operator at the declared parameters that change nothing; None where there are none."""
        ranges = cls.ranges()
        still = {n: r.identity for n, r in ranges.items() if r.identity is not None}
        return cls(**{n: still.get(n, r.draw(0.5, 0.0)) for n, r in ranges.items()}) if still else None

    def params(self) -> dict[str, Any]:
        """The parameters as JSON holds them."""
        return {name: getattr(self, name) for name in self.ranges()}

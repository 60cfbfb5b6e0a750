"""Pixel transforms of albumentations as operators, by the name ``albumentations:GaussNoise``.

``albumentations:NAME@STAGE`` places it at another stage of the chain than processing, as ``stage = "optics"`` does in
a recipe. Operator classes are generated on demand from the installed version of albumentations, which is part of a
build's digest; they are not listed in ``OPERATORS``. The package is imported on first use.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import os
import random
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from clearfuse.synth import color
from clearfuse.synth.operators.base import LINEAR_STAGES, STAGES, Image, Operator, Range, Scene, Stage
from clearfuse.synth.seeds import generator
from clearfuse.synth.types import BadPair, Modality, UserError, check_name, reason_of, unknown

PREFIX = "albumentations:"
STAGE: Stage = "processing"
"""Stage of a transform for which neither its name nor the recipe gives one."""
VERSIONS = ("albumentations", "albucore", "scipy")
"""The distributions on whose versions a transform's output depends."""
TRIALS = 32
"""Seeds with which a transform is tried before it is refused for changing nothing."""
_EVERYWHERE = ("p", "always_apply", "strict")
"""Arguments common to all transforms, unused here: a step is always applied, and the recipe's weight draws it."""
_SPECIAL = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")


class Bridged(Operator):
    """A pixel transform (``ImageOnlyTransform``) of albumentations, on 8-bit sRGB codes, always applied.

    Its parameters are the transform's arguments except ``p``; all of them, defaults included, are recorded in the step,
    so that replay needs only the sample. The step's generator draws one seed, from which the transform draws all else:
    the same parameters and seed give the same bytes with the same versions. Severity has no effect, and steps record
    none: a transform draws from its own ranges. In a linear stage a visible image is converted to 8-bit codes and back.
    Raises BadPair where the transform fails or needs three channels and the image has one.
    """

    source = "albumentations 2.0, Buslaev et al., Information 11(2):125, 2020"
    transform: ClassVar[Callable[..., Any]]

    def __post_init__(self) -> None:
        self.construct()

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        linear = self.stage in LINEAR_STAGES and scene.modality == "visible"
        codes = color.to_uint8(color.linear_to_srgb(image) if linear else image)
        if codes.shape[2] == 1 and "infrared" not in self.modalities:
            raise BadPair(f"{self.name} needs three channels, the image has one")
        out = _apply(self.construct(), codes, int(rng.integers(2**53)), self.name)
        return color.code_to_linear(out) if linear else color.code_to_float(out)

    def construct(self) -> Any:
        """The transform with these parameters. Raises ValueError, one line, where it refuses a parameter."""
        try:
            return _construct(self.transform, self.params())
        except (ValueError, TypeError, UserWarning) as error:
            raise ValueError(f"{self.name}{_reason(error)}") from None

    @classmethod
    def narrowed(cls, overrides: dict[str, Any]) -> dict[str, Range]:
        """The transform's arguments with a recipe's ``params`` in their place, tested on a small image.

        Values are passed on unchanged: ``[x, y]`` means whatever the transform takes two numbers for, mostly a range.
        Raises UserError for an unknown name or a value that the transform refuses.
        """
        ranges = cls.ranges()
        for name, value in overrides.items():
            if name == "p":
                raise UserError(f"{cls.name}.p: a step is always applied; the operator's weight says how often")
            if name not in ranges:
                raise unknown(f"parameter of {cls.name}", name, ranges)
            ranges[name] = dataclasses.replace(ranges[name], options=(_plain(value),))
        try:
            op = cls(**{name: declared.options[0] for name, declared in ranges.items()})
            _apply(op.construct(), _probe(3), 0, cls.name)
        except (ValueError, BadPair) as error:
            raise UserError(str(error)) from None
        return ranges


def is_bridged(name: str) -> bool:
    """Whether an operator's name denotes a transform of albumentations."""
    return name.startswith(PREFIX)


@functools.cache
def bridged(name: str) -> type[Operator]:
    """The operator class of ``albumentations:NAME`` or ``albumentations:NAME@STAGE``.

    Raises UserError, one line: no such transform, no such stage, or a transform that cannot be a step because it moves
    pixels, needs more than the image, or does not return an 8-bit image.
    """
    short, at, stage = name.removeprefix(PREFIX).partition("@")
    if at and stage not in STAGES:
        raise UserError(f"{name}: {unknown('stage', stage, STAGES)}")
    transform = _transform(short)
    full = PREFIX + short + (f"@{stage}" if at and stage != STAGE else "")
    arguments = inspect.signature(transform).parameters
    needed = [
        key
        for key, argument in arguments.items()
        if argument.default is argument.empty and argument.kind is not argument.VAR_KEYWORD
    ]
    if needed:
        raise UserError(
            f"{full} cannot be a step: it needs {needed[0]}, and a sample holds its images and numbers only"
        )
    space: dict[str, Any] = {
        "name": full,
        "stage": stage or STAGE,
        "transform": staticmethod(transform),
        "modalities": _modalities(transform, full),
        "__doc__": f"The transform {short} of albumentations; see Bridged.",
        "__module__": __name__,
    }
    fields = [
        (key, Any, _field(argument.default, short))
        for key, argument in arguments.items()
        if key not in _EVERYWHERE and argument.kind is not argument.VAR_KEYWORD
    ]
    return dataclasses.make_dataclass(short, fields, bases=(Bridged,), namespace=space, frozen=True)


def staged(name: str, stage: Any) -> str:
    """The operator's name for a transform at the stage that a recipe sets: ``albumentations:Blur@optics``."""
    if not is_bridged(name) or "@" in name:
        raise UserError(f"stage = {stage!r}: only for {PREFIX}NAME, and only where the name gives none")
    return bridged(f"{name}@{stage}").name


def words_of(name: str) -> str:
    """A transform's name as words: ``albumentations:GaussNoise`` is "gauss noise", ``RGBShift`` "RGB shift"."""
    words: list[str] = _SPECIAL.findall(name.removeprefix(PREFIX).partition("@")[0])
    return " ".join(part if len(part) > 1 and part.isupper() else part.lower() for part in words)


@functools.cache
def _package() -> Any:
    """Import albumentations, with its online check for a newer version disabled."""
    switch = "NO_ALBUMENTATIONS_UPDATE"
    before = os.environ.get(switch)
    os.environ[switch] = "1"
    try:
        import albumentations
    except ImportError as error:
        raise UserError(f"{PREFIX}… needs albumentations ({error}): pip install albumentations") from None
    finally:
        if before is None:
            del os.environ[switch]
        else:
            os.environ[switch] = before
    return albumentations


def _transform(name: str) -> Callable[..., Any]:
    package = _package()
    known = {
        name: cls
        for name, cls in vars(package).items()
        if isinstance(cls, type) and issubclass(cls, package.BasicTransform)
    }
    pixel = {name for name, cls in known.items() if issubclass(cls, package.ImageOnlyTransform)}
    pixel.discard("ImageOnlyTransform")
    if name in known and name not in pixel:
        raise UserError(
            f"{PREFIX}{name} cannot be a step: only pixel transforms (ImageOnlyTransform) leave pairs aligned"
        )
    check_name("albumentations transform", name, pixel)
    return known[name]


def _field(default: Any, bare: str) -> Any:
    """A dataclass field whose only option is the argument's default, copied for each instance as it may be a list."""
    declared = Range("choice", f"as in albumentations.{bare}", options=(_plain(default),))
    return dataclasses.field(
        default_factory=functools.partial(_plain, default), metadata={"range": declared}, kw_only=True
    )


def _plain(value: Any) -> Any:
    """The value after a round trip through JSON: tuples become lists; None where JSON cannot represent it."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return None


def _modalities(transform: Callable[..., Any], name: str) -> frozenset[Modality]:
    """The images it can act on, by trial: infrared too where it accepts one channel and changes it."""
    if not _changes(transform, 3, name):
        raise UserError(f"{name} cannot be a step: it changes nothing of an 8-bit image")
    try:
        grey = _changes(transform, 1, name)
    except UserError:
        grey = False
    return frozenset({"visible", "infrared"}) if grey else frozenset({"visible"})


def _changes(transform: Callable[..., Any], channels: int, name: str) -> bool:
    """Whether it changes a small image, for any of ``TRIALS`` seeds."""
    image = _probe(channels)
    try:
        constructed = _construct(transform, {})
        return any(not np.array_equal(_apply(constructed, image, seed, name), image) for seed in range(TRIALS))
    except (ValueError, TypeError, UserWarning, BadPair) as error:
        raise UserError(f"{name} cannot be a step: {str(error).removeprefix(f'{name}: ')}") from None


def _probe(channels: int) -> np.ndarray:
    """A small uint8 image of coloured noise, away from black and white, which every useful transform changes."""
    return generator(0).integers(12, 244, (120, 160, channels), dtype=np.uint8)


def _construct(transform: Callable[..., Any], params: Mapping[str, Any]) -> Any:
    """The transform with p = 1. Warnings are errors: albumentations warns and uses a default for a bad argument."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return transform(**params, p=1.0)


def _apply(transform: Any, codes: np.ndarray, seed: int, name: str) -> np.ndarray:
    """Apply the transform to an 8-bit image with all its randomness from ``seed``. BadPair where it fails."""
    transform.set_random_state(np.random.default_rng(seed), random.Random(seed))
    try:
        with _quiet():
            out = transform(image=codes.copy())["image"]
    except Exception as error:  # transforms raise errors of cv2, numpy and their own
        raise BadPair(f"{name}: {reason_of(error)}") from None
    if not isinstance(out, np.ndarray) or out.dtype != np.uint8 or out.size != codes.size:
        kind = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise BadPair(f"{name}: gives {kind} for uint8 {codes.shape}: a step must keep both")
    return out.reshape(codes.shape)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the package's warnings (a grey image has no hue, …); real failures raise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _reason(error: Exception) -> str:
    """``.argument = value: reason`` where a pydantic error is the cause, else ``: reason``."""
    errors: Any = getattr(error.__cause__, "errors", None)
    if errors is None:
        return f": {reason_of(error)}"
    first: Mapping[str, Any] = errors()[0]
    where = ".".join(str(part) for part in first["loc"][:1])
    why = str(first["msg"]).removeprefix("Value error, ").splitlines()[0]
    return f".{where} = {first['input']!r}: {why}"

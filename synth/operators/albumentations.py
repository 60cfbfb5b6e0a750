"""The bridge: any pixel transform of albumentations as a step, by the name ``albumentations:GaussNoise``.

``albumentations:NAME@STAGE`` puts it at another stage of the chain than processing; in a recipe, ``stage = "optics"``
does the same. The classes are made on demand and are no rows of ``OPERATORS``: the installed version of
albumentations, which the digest of a build names, declares them. That package is imported on first use.
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
from clearfuse.synth.types import BadPair, Modality, UserError, unknown

PREFIX = "albumentations:"
STAGE: Stage = "processing"
"""Where a transform stands unless its name or the recipe says otherwise."""
VERSIONS = ("albumentations", "albucore", "scipy")
"""The distributions whose versions decide a transform's bytes."""
TRIALS = 32
"""Seeds on which a transform is tried before it is said to change nothing."""
_EVERYWHERE = ("p", "always_apply", "strict")
"""Arguments of every transform that a step has no use for: a step is always applied; the recipe's weight draws it."""
_SPECIAL = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")


class Bridged(Operator):
    """A pixel transform (``ImageOnlyTransform``) of albumentations, on 8-bit sRGB codes, always applied.

    Its parameters are the transform's own arguments, ``p`` excepted; all of them, defaults too, are recorded in the
    step, so that replay needs the sample alone. The step's generator gives one seed, and the transform draws all else
    from it: the same parameters and seed give the same bytes on the same versions. Severity changes nothing: a
    transform's ranges are its own, and a step records none. In a linear stage a visible image is brought to codes and
    back, and quantised to 8 bit there. Raises BadPair where the transform cannot take the image: it needs three
    channels, or it fails.
    """

    source = "albumentations 2.0, Buslaev et al., Information 11(2):125, 2020"
    transform: ClassVar[Callable[..., Any]]

    def __post_init__(self) -> None:
        self.made()

    def __call__(self, image: Image, rng: np.random.Generator, scene: Scene) -> Image:
        linear = self.stage in LINEAR_STAGES and scene.modality == "visible"
        codes = color.to_uint8(color.linear_to_srgb(image) if linear else image)
        if codes.shape[2] == 1 and "infrared" not in self.modalities:
            raise BadPair(f"{self.name} needs three channels, the image has one")
        out = _applied(self.made(), codes, int(rng.integers(2**53)), self.name)
        return color.code_to_linear(out) if linear else color.code_to_float(out)

    def made(self) -> Any:
        """The transform with these parameters. Raises ValueError, one line, where it refuses one."""
        try:
            return _made(self.transform, self.params())
        except (ValueError, TypeError, UserWarning) as error:
            raise ValueError(f"{self.name}{_reason(error)}") from None

    @classmethod
    def narrowed(cls, overrides: dict[str, Any]) -> dict[str, Range]:
        """The transform's arguments with a recipe's ``params`` in their place, tried on a small picture.

        A value is taken as it is: ``[x, y]`` is what the transform makes of two numbers, mostly its own range.
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
            _applied(op.made(), _probe(3), 0, cls.name)
        except (ValueError, BadPair) as error:
            raise UserError(str(error)) from None
        return ranges


def is_bridged(name: str) -> bool:
    """Whether an operator's name is one of the bridge's."""
    return name.startswith(PREFIX)


@functools.cache
def bridged(name: str) -> type[Operator]:
    """The operator class of ``albumentations:NAME`` or ``albumentations:NAME@STAGE``.

    Raises UserError, one line: no such transform, no such stage, or a transform that cannot be a step because it moves
    pixels, needs more than the image, or gives back no 8-bit image.
    """
    bare, at, stage = name.removeprefix(PREFIX).partition("@")
    if at and stage not in STAGES:
        raise UserError(f"{name}: {unknown('stage', stage, STAGES)}")
    transform = _transform(bare)
    full = PREFIX + bare + (f"@{stage}" if at and stage != STAGE else "")
    arguments = inspect.signature(transform).parameters
    needed = [key for key, one in arguments.items() if one.default is one.empty and one.kind is not one.VAR_KEYWORD]
    if needed:
        raise UserError(
            f"{full} cannot be a step: it needs {needed[0]}, and a sample holds its images and numbers only"
        )
    space: dict[str, Any] = {
        "name": full,
        "stage": stage or STAGE,
        "transform": staticmethod(transform),
        "modalities": _modalities(transform, full),
        "__doc__": f"The transform {bare} of albumentations; see Bridged.",
        "__module__": __name__,
    }
    fields = [
        (key, Any, _field(one.default, bare))
        for key, one in arguments.items()
        if key not in _EVERYWHERE and one.kind is not one.VAR_KEYWORD
    ]
    return dataclasses.make_dataclass(bare, fields, bases=(Bridged,), namespace=space, frozen=True)


def staged(name: str, stage: Any) -> str:
    """The bridge's name for a transform at the stage that a recipe gives: ``albumentations:Blur@optics``."""
    if not is_bridged(name) or "@" in name:
        raise UserError(f"stage = {stage!r}: only for {PREFIX}NAME, and only where the name gives none")
    return bridged(f"{name}@{stage}").name


def words_of(name: str) -> str:
    """A transform's name as words: ``albumentations:GaussNoise`` is "gauss noise", ``RGBShift`` "RGB shift"."""
    parts: list[str] = _SPECIAL.findall(name.removeprefix(PREFIX).partition("@")[0])
    return " ".join(part if len(part) > 1 and part.isupper() else part.lower() for part in parts)


@functools.cache
def _package() -> Any:
    """albumentations, imported without its question to the network for a newer version."""
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


def _transform(bare: str) -> Callable[..., Any]:
    package = _package()
    known = {
        name: one
        for name, one in vars(package).items()
        if isinstance(one, type) and issubclass(one, package.BasicTransform)
    }
    pixel = {name for name, one in known.items() if issubclass(one, package.ImageOnlyTransform)}
    pixel.discard("ImageOnlyTransform")
    if bare in known and bare not in pixel:
        raise UserError(
            f"{PREFIX}{bare} cannot be a step: only pixel transforms (ImageOnlyTransform) leave pairs aligned"
        )
    if bare not in pixel:
        raise unknown("albumentations transform", bare, pixel)
    return known[bare]


def _field(default: Any, bare: str) -> Any:
    """A field whose one option is the argument's default; a fresh copy each, since it may be a list."""
    declared = Range("choice", f"as in albumentations.{bare}", options=(_plain(default),))
    return dataclasses.field(
        default_factory=functools.partial(_plain, default), metadata={"range": declared}, kw_only=True
    )


def _plain(value: Any) -> Any:
    """The value as JSON gives it back, a tuple as a list; None for what JSON cannot hold, which transforms refuse."""
    try:
        return json.loads(json.dumps(value, allow_nan=False))
    except (TypeError, ValueError):
        return None


def _modalities(transform: Callable[..., Any], name: str) -> frozenset[Modality]:
    """The images it can act on, by trial: infrared too where it takes one channel and changes it."""
    if not _changes(transform, 3, name):
        raise UserError(f"{name} cannot be a step: it changes nothing of an 8-bit image")
    try:
        grey = _changes(transform, 1, name)
    except UserError:
        grey = False
    return frozenset({"visible", "infrared"}) if grey else frozenset({"visible"})


def _changes(transform: Callable[..., Any], channels: int, name: str) -> bool:
    """Whether it changes a small picture, for one of a few seeds."""
    picture = _probe(channels)
    try:
        made = _made(transform, {})
        return any(not np.array_equal(_applied(made, picture, seed, name), picture) for seed in range(TRIALS))
    except (ValueError, TypeError, UserWarning, BadPair) as error:
        raise UserError(f"{name} cannot be a step: {str(error).removeprefix(f'{name}: ')}") from None


def _probe(channels: int) -> np.ndarray:
    """A small picture, coloured noise clear of black and white, which every transform changes: uint8."""
    return generator(0).integers(12, 244, (120, 160, channels), dtype=np.uint8)


def _made(transform: Callable[..., Any], params: Mapping[str, Any]) -> Any:
    """The transform, always applied. A warning is an error here: with one, the package takes its defaults instead."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return transform(**params, p=1.0)


def _applied(made: Any, codes: np.ndarray, seed: int, name: str) -> np.ndarray:
    """The transform on an 8-bit image with all its randomness from ``seed``. Raises BadPair with what is wrong."""
    made.set_random_state(np.random.default_rng(seed), random.Random(seed))
    try:
        with _quiet():
            out = made(image=codes.copy())["image"]
    except Exception as error:  # transforms raise what they like: of cv2, numpy and their own
        raise BadPair(f"{name}: {_first_line(error)}") from None
    if not isinstance(out, np.ndarray) or out.dtype != np.uint8 or out.size != codes.size:
        kind = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise BadPair(f"{name}: gives {kind} for uint8 {codes.shape}: a step must keep both")
    return out.reshape(codes.shape)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the package's warnings, as that a grey image has no hue: what matters is refused in one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _reason(error: Exception) -> str:
    """``.argument = value: why`` where pydantic's error is the cause, ``: why`` of another."""
    errors: Any = getattr(error.__cause__, "errors", None)
    if errors is None:
        return f": {_first_line(error)}"
    first: Mapping[str, Any] = errors()[0]
    where = ".".join(str(part) for part in first["loc"][:1])
    why = str(first["msg"]).removeprefix("Value error, ").splitlines()[0]
    return f".{where} = {first['input']!r}: {why}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]

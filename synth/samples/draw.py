"""The random draws of a sample: its crop and its steps. Applying the steps then makes no further choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from clearfuse.synth.operators import operator_class, physical_order
from clearfuse.synth.operators.base import Operator, Range, Scene
from clearfuse.synth.samples.mixture import Mixture
from clearfuse.synth.samples.recipe import Recipe
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.types import MODALITIES, BadPair, ImageName, Step, Target, Task

CROP_MULTIPLE = 16
"""Sides of a crop are multiples of 16: patches of 2 on a latent downsampled by 8."""
CROP_LEAST = 64

Key = TypeVar("Key")


@dataclass(frozen=True)
class CleanFrames:
    """The clean pair for which steps are drawn: uint8 ``(h, w, c)``, and its metres along the ray."""

    task: Task
    a: np.ndarray
    b: np.ndarray
    metres: Callable[[], np.ndarray]

    def fit(self, name: str, target: Target, ranges: Mapping[str, Range]) -> Mapping[str, Range] | None:
        """The operator's ranges limited to what every image that it targets bears; None where it cannot act on one."""
        cls = operator_class(name)
        if cls.fit.__func__ is Operator.fit.__func__:  # no need of depth
            return ranges
        depth = self.metres() if cls.takes_depth() else None
        images: tuple[ImageName, ...] = ("a", "b") if target == "both" else (target,)
        fitted: Mapping[str, Range] | None = ranges
        for image in images:
            if fitted is not None:
                fitted = cls.fit(fitted, getattr(self, image), Scene(MODALITIES[self.task][image], depth))
        return fitted


@dataclass(frozen=True)
class Crop:
    """A box in pixels, and the nominal aspect ratio that was drawn."""

    x: int
    y: int
    width: int
    height: int
    ratio: str

    def of(self, image: np.ndarray) -> np.ndarray:
        """Crop an ``(h, w, …)`` array; contiguous."""
        return np.ascontiguousarray(image[self.y : self.y + self.height, self.x : self.x + self.width])


def draw_weighted(rng: np.random.Generator, weights: Mapping[Key, float]) -> Key:
    """A key drawn with a probability proportional to its weight, by one uniform and the mapping's order."""
    keys = [key for key, weight in weights.items() if weight > 0]
    edges = np.cumsum([weights[key] for key in keys])
    index = int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))
    return keys[min(index, len(keys) - 1)]


def largest_box(width: int, height: int, ratio: str) -> tuple[int, int]:
    """(width, height) of the largest box of a ratio in the image, floored to multiples of ``CROP_MULTIPLE``."""
    ratio_w, ratio_h = map(int, ratio.split(":"))
    scale = min(width / ratio_w, height / ratio_h)
    return tuple(int(side * scale + 1e-9) // CROP_MULTIPLE * CROP_MULTIPLE for side in (ratio_w, ratio_h))  # type: ignore[return-value]


def draw_crop(recipe: Recipe | Mixture, width: int, height: int, rng: np.random.Generator) -> Crop:
    """Draw a ratio among those that fit, then the position of its largest box. Raises BadPair where none fits."""
    boxes = {ratio: largest_box(width, height, ratio) for ratio in recipe.ratios}
    fitting = {r: w for r, w in recipe.ratios.items() if w > 0 and min(boxes[r]) >= CROP_LEAST}
    if not fitting:
        raise BadPair(f"{width}x{height} is too small: no ratio leaves sides of {CROP_LEAST} or more")
    ratio = draw_weighted(rng, fitting)
    w, h = boxes[ratio]
    x, y = int(rng.random() * (width - w + 1)), int(rng.random() * (height - h + 1))
    return Crop(x, y, w, h, ratio)


def draw_operators(recipe: Recipe, rng: np.random.Generator, n: int | None = None) -> list[str]:
    """Draw n operators by weight without replacement, such that n can always be reached.

    In physical order; those of a reproduction in the order of the draw. n: how many; None draws it first.
    """
    if n is None:
        n = draw_weighted(rng, recipe.n)
    drawn: list[str] = []
    while len(drawn) < n:
        chosen = frozenset(drawn)
        candidates = {
            name: rule.weight
            for name, rule in recipe.operators.items()
            if rule.weight > 0
            and name not in chosen
            and recipe.allows(chosen | {name})
            and recipe.reaches(chosen | {name}, n)
        }
        drawn.append(draw_weighted(rng, candidates))
    return drawn if recipe.reproduction else physical_order(drawn)


def draw_step(recipe: Recipe, name: str, seed: int, variant: int = 0, pair: CleanFrames | None = None) -> Step | None:
    """Draw a step's target, severity and parameters from its seed, from which its random pixels come as well.

    variant: the sample's; it selects the severity's bounds where the recipe has a schedule of them. pair: the clean
    pair, to whose images the ranges are fitted first; None where the operator cannot act on them.
    """
    rule = recipe.operators[name]
    rng = generator(seed_of(seed, "draw"))
    target = draw_weighted(rng, rule.target)
    ranges = rule.ranges if pair is None else pair.fit(name, target, rule.ranges)
    if ranges is None:
        return None
    low, high = rule.severity[variant % len(rule.severity)]
    severity = float(f"{low + (high - low) * rng.random():.6g}")
    op = operator_class(name).draw(rng, severity, ranges)
    graded = any(declared.kind == "severe" for declared in ranges.values())
    return Step(name, target, op.params(), seed, severity if graded else None)


def draw_steps(
    recipe: Recipe,
    rng: np.random.Generator,
    step_seed: Callable[[int], int],
    variant: int = 0,
    *,
    pair: CleanFrames | None = None,
    n: int | None = None,
) -> list[Step]:
    """The steps of a sample in the order in which they act, whose parameters are final.

    step_seed: gives the seed of step i. variant, pair: see ``draw_step``. n: how many; None draws it. An operator that
    cannot act on the pair is left out and the operators are drawn again, with the same n, so that n stays as the recipe
    has it. Raises BadPair where too few are left.
    """
    if n is None:
        n = draw_weighted(rng, recipe.n)
    unfit = frozenset[str]()
    while True:
        possible = recipe.without(unfit)
        if not possible.reaches(frozenset(), n):
            raise BadPair(f"recipe '{recipe.name}' has no {n} degradations for it: {', '.join(sorted(unfit))} unfit")
        names = draw_operators(possible, rng, n)
        drawn = {name: draw_step(recipe, name, step_seed(i), variant, pair) for i, name in enumerate(names)}
        refused = frozenset(name for name, step in drawn.items() if step is None)
        if not refused:
            return [step for step in drawn.values() if step is not None]
        unfit |= refused

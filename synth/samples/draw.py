"""The plan of a sample: its crop and its steps, as data. Everything random about a sample is decided here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from clearfuse.synth.operators import operator_class, physical_order
from clearfuse.synth.samples.recipe import Recipe
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.types import BadPair, Step

CROP_MULTIPLE = 16
"""Sides are multiples of 16: a patch of 2 on a latent of f = 8."""
CROP_LEAST = 64

Key = TypeVar("Key")


@dataclass(frozen=True)
class Crop:
    """A box in pixels, and the nominal ratio that it was drawn for."""

    x: int
    y: int
    width: int
    height: int
    ratio: str

    def of(self, image: np.ndarray) -> np.ndarray:
        """The box of an ``(h, w, …)`` array, contiguous."""
        return np.ascontiguousarray(image[self.y : self.y + self.height, self.x : self.x + self.width])


def weighted(rng: np.random.Generator, weights: Mapping[Key, float]) -> Key:
    """One key, as likely as its weight; one uniform is consumed, and the order of the mapping decides ties."""
    keys = [key for key, weight in weights.items() if weight > 0]
    edges = np.cumsum([weights[key] for key in keys])
    place = int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))
    return keys[min(place, len(keys) - 1)]


def largest_box(width: int, height: int, ratio: str) -> tuple[int, int]:
    """The largest box of a ratio inside the image, each side floored to a multiple of ``CROP_MULTIPLE``."""
    across, down = map(int, ratio.split(":"))
    scale = min(width / across, height / down)
    return tuple(int(side * scale + 1e-9) // CROP_MULTIPLE * CROP_MULTIPLE for side in (across, down))  # type: ignore[return-value]


def draw_crop(recipe: Recipe, width: int, height: int, rng: np.random.Generator) -> Crop:
    """Draw a ratio among those that fit, then the position of its largest box."""
    boxes = {ratio: largest_box(width, height, ratio) for ratio in recipe.ratios}
    fitting = {r: w for r, w in recipe.ratios.items() if w > 0 and min(boxes[r]) >= CROP_LEAST}
    if not fitting:
        raise BadPair(f"{width}x{height} is too small: no ratio leaves sides of {CROP_LEAST} or more")
    ratio = weighted(rng, fitting)
    w, h = boxes[ratio]
    x, y = int(rng.random() * (width - w + 1)), int(rng.random() * (height - h + 1))
    return Crop(x, y, w, h, ratio)


def draw_operators(recipe: Recipe, rng: np.random.Generator) -> list[str]:
    """Draw n, then n operators without replacement, by weight, never leaving too few to reach n; physical order."""
    n = weighted(rng, recipe.n)
    chosen: frozenset[str] = frozenset()
    while len(chosen) < n:
        open_ = {
            name: rule.weight
            for name, rule in recipe.operators.items()
            if rule.weight > 0
            and name not in chosen
            and recipe.allows(chosen | {name})
            and recipe.reaches(chosen | {name}, n)
        }
        chosen |= {weighted(rng, open_)}
    return physical_order(chosen)


def draw_step(recipe: Recipe, name: str, seed: int, turn: int = 0) -> Step:
    """Draw one step's target, severity and parameters from its seed; the pixels' randomness comes from it too.

    turn: the sample's variant, which decides the severity's bounds where the recipe has a schedule of them.
    """
    rule = recipe.operators[name]
    rng = generator(seed_of(seed, "draw"))
    target = weighted(rng, rule.target)
    low, high = rule.severity[turn % len(rule.severity)]
    severity = float(f"{low + (high - low) * rng.random():.6g}")
    op = operator_class(name).draw(rng, severity, dict(rule.ranges))
    graded = any(declared.kind == "severe" for declared in rule.ranges.values())
    return Step(name, target, op.params(), seed, severity if graded else None)


def draw_steps(recipe: Recipe, rng: np.random.Generator, step_seed: Callable[[int], int], turn: int = 0) -> list[Step]:
    """The steps of a sample in physical order. step_seed: the seed of step i. turn: as for ``draw_step``."""
    return [draw_step(recipe, name, step_seed(i), turn) for i, name in enumerate(draw_operators(recipe, rng))]

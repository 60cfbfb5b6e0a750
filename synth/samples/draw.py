"""The random draws of a sample: its crop and its steps. Applying the steps then makes no further choice."""

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
"""Sides of a crop are multiples of 16: patches of 2 on a latent downsampled by 8."""
CROP_LEAST = 64

Key = TypeVar("Key")


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


def draw_crop(recipe: Recipe, width: int, height: int, rng: np.random.Generator) -> Crop:
    """Draw a ratio among those that fit, then the position of its largest box. Raises BadPair where none fits."""
    boxes = {ratio: largest_box(width, height, ratio) for ratio in recipe.ratios}
    fitting = {r: w for r, w in recipe.ratios.items() if w > 0 and min(boxes[r]) >= CROP_LEAST}
    if not fitting:
        raise BadPair(f"{width}x{height} is too small: no ratio leaves sides of {CROP_LEAST} or more")
    ratio = draw_weighted(rng, fitting)
    w, h = boxes[ratio]
    x, y = int(rng.random() * (width - w + 1)), int(rng.random() * (height - h + 1))
    return Crop(x, y, w, h, ratio)


def draw_operators(recipe: Recipe, rng: np.random.Generator) -> list[str]:
    """Draw n, then n operators by weight without replacement, such that n can always be reached.

    In physical order; those of a reproduction in the order of the draw.
    """
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


def draw_step(recipe: Recipe, name: str, seed: int, variant: int = 0) -> Step:
    """Draw a step's target, severity and parameters from its seed, from which its random pixels come as well.

    variant: the sample's; it selects the severity's bounds where the recipe has a schedule of them.
    """
    rule = recipe.operators[name]
    rng = generator(seed_of(seed, "draw"))
    target = draw_weighted(rng, rule.target)
    low, high = rule.severity[variant % len(rule.severity)]
    severity = float(f"{low + (high - low) * rng.random():.6g}")
    op = operator_class(name).draw(rng, severity, dict(rule.ranges))
    graded = any(declared.kind == "severe" for declared in rule.ranges.values())
    return Step(name, target, op.params(), seed, severity if graded else None)


def draw_steps(
    recipe: Recipe, rng: np.random.Generator, step_seed: Callable[[int], int], variant: int = 0
) -> list[Step]:
    """The steps of a sample in the order in which they act.

    step_seed: gives the seed of step i. variant: see ``draw_step``.
    """
    return [draw_step(recipe, name, step_seed(i), variant) for i, name in enumerate(draw_operators(recipe, rng))]

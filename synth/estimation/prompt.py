"""The prompt that asks to remove what was found, through the pools of prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clearfuse.synth.estimation.estimate import SURE, Estimate, Finding, estimate
from clearfuse.synth.operators import physical_order
from clearfuse.synth.prompts.compose import compose
from clearfuse.synth.samples.recipe import Recipe, load_recipe
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.types import MODALITIES, ImageName, Prompt, Step, Target, Task

MOST = 3
"""Degradations that a prompt speaks of: as many as the recipes combine."""


Sure = float | Mapping[str, float]
"""Certainty from which a degradation is spoken of; by operator those that it has, the others never."""


@dataclass(frozen=True)
class Found:
    """A degradation of a pair: in which image, or both, and the surer finding."""

    target: Target
    finding: Finding


def estimates_of_pair(task: Task, a: np.ndarray, b: np.ndarray) -> Mapping[ImageName, Estimate]:
    """The estimate of each side of a pair, uint8 ``(h, w, c)`` each, an infrared b of one channel."""
    images: Mapping[ImageName, np.ndarray] = {"a": a, "b": b}
    return {name: estimate(image, MODALITIES[task][name]) for name, image in images.items()}


def found_of_pair(task: Task, estimates: Mapping[ImageName, Estimate], sure: Sure = SURE) -> tuple[Found, ...]:
    """The degradations of a pair of which a prompt may speak, at most ``MOST``.

    Those of the task's widest recipe, which leaves out what the task itself is about: of two exposures, too little or
    too much light. Of those that the recipe never combines the surer one is kept.
    """
    recipe = load_recipe(f"{task}-extended")
    surest: dict[str, Found] = {}
    for image, one in estimates.items():
        for finding in one.findings:
            level = sure.get(finding.op, math.inf) if isinstance(sure, Mapping) else sure
            if finding.op not in recipe.operators or finding.certainty < level:
                continue
            if (before := surest.get(finding.op)) is None:
                surest[finding.op] = Found(image, finding)
            else:
                better = max(before.finding, finding, key=lambda one: one.certainty)
                surest[finding.op] = Found("both", better)
    ordered = sorted(surest.values(), key=lambda found: -found.finding.certainty)
    return tuple(_compatible(recipe, ordered))


def _compatible(recipe: Recipe, ordered: list[Found]) -> list[Found]:
    kept: list[Found] = []
    for one in ordered:
        names = frozenset(found.finding.op for found in kept)
        if len(kept) < MOST and recipe.allows(names | {one.finding.op}):
            kept.append(one)
    return kept


def write_prompt(
    task: Task, found: tuple[Found, ...], *, seed: int = 0, folder: Path | None = None, language: str = "en"
) -> Prompt | None:
    """The request to remove what was found; None where nothing was. folder: the pools, None for those that ship."""
    if not found:
        return None
    by_name = {one.finding.op: one for one in found}
    steps = [Step(op, by_name[op].target, {}, None, by_name[op].finding.severity) for op in physical_order(by_name)]
    return compose(task, steps, generator(seed_of(seed, "estimation", "prompt")), folder=folder, language=language)


def single_prompt(found: Estimate, *, sure: float = SURE, seed: int = 0, language: str = "en") -> Prompt | None:
    """The prompt for one picture as the visible or the infrared one of a pair."""
    image: ImageName = "a" if found.modality == "visible" else "b"
    kept = sorted(found.found(sure), key=lambda one: -one.certainty)
    allowed = _compatible(load_recipe("vif-extended"), [Found(image, one) for one in kept])
    return write_prompt("vif", tuple(allowed), seed=seed, language=language)


__all__ = ["Found", "estimates_of_pair", "found_of_pair", "single_prompt", "write_prompt"]

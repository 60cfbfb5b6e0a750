"""What lean shards are degraded by while a run reads them: a recipe a task, chosen before work begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clearfuse.synth.onthefly import OnTheFly
from clearfuse.synth.samples.recipe import load_recipe
from clearfuse.synth.types import Task, UserError

Degraders = Mapping[Task, OnTheFly]


def choose_degraders(lean: Sequence[Task], recipes: Sequence[str] = (), partial: float = 0.0) -> Degraders:
    """A degrader for each task of which there are lean samples: the recipe named, else the task's own.

    recipes: names or TOML files, one a task. partial: share of samples whose prompt asks for a part of the steps only,
    in [0, 1]. Raises UserError, one line, for a recipe that no lean sample is there for.
    """
    if partial and not lean:
        raise UserError(f"--partial {partial:g}: is for lean shards (synth build --lean); these are degraded already")
    chosen: dict[Task, OnTheFly] = {}
    for name in recipes:
        recipe = load_recipe(name)
        if not lean:
            raise UserError(f"--recipe {name}: is for lean shards (synth build --lean); these are degraded already")
        if recipe.task not in lean:
            raise UserError(f"--recipe {name}: is for {recipe.task}, the lean shards here are of {', '.join(lean)}")
        if recipe.task in chosen:
            raise UserError(f"--recipe {name}: {recipe.task} has '{chosen[recipe.task].recipe.name}': give one a task")
        chosen[recipe.task] = OnTheFly(recipe, partial)
    return {task: chosen.get(task) or OnTheFly(load_recipe(task), partial) for task in lean}


def degraders_record(degraders: Degraders) -> dict[str, Any] | None:
    """What ``run.json`` holds of them; None where there are none."""
    if not degraders:
        return None
    return {
        task: {"partial": one.partial, "recipe": {"name": one.recipe.name, **one.recipe.source}}
        for task, one in degraders.items()
    }

"""On-the-fly degradation of shards built with ``--lean`` (clean pairs, ground truth, depth): one recipe per task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clearfuse.synth.onthefly import OnTheFly
from clearfuse.synth.samples.recipe import load_recipe
from clearfuse.synth.types import Task, UserError

Degraders = Mapping[Task, OnTheFly]


def choose_degraders(
    lean: Sequence[Task], recipes: Sequence[str] = (), partial: float = 0.0, language: str = "en", dial: float = 0.0
) -> Degraders:
    """A degrader for each task with lean samples: by the given recipe, else by the task's default one.

    recipes: names or TOML files, at most one per task. partial: share in [0, 1] of samples whose prompt asks to remove
    only some of the degradations. language: of the prompts: en, zh or mix. dial: share in [0, 1] of samples from which
    a drawn share is to be removed. Raises UserError, one line, for a recipe without lean samples to apply it to.
    """
    for option, share in {"partial": partial, "dial": dial}.items():
        if share and not lean:
            raise UserError(
                f"--{option} {share:g}: is for lean shards (synth build --lean); these are degraded already"
            )
    if language != "en" and not lean:
        raise UserError(f"--language {language}: is for lean shards (synth build --lean); these have their prompts")
    chosen: dict[Task, OnTheFly] = {}
    for name in recipes:
        recipe = load_recipe(name)
        if not lean:
            raise UserError(f"--recipe {name}: is for lean shards (synth build --lean); these are degraded already")
        if recipe.task not in lean:
            raise UserError(f"--recipe {name}: is for {recipe.task}, the lean shards here are of {', '.join(lean)}")
        if recipe.task in chosen:
            raise UserError(f"--recipe {name}: {recipe.task} has '{chosen[recipe.task].recipe.name}': give one a task")
        chosen[recipe.task] = OnTheFly(recipe, partial, dial, language=language)
    return {task: chosen.get(task) or OnTheFly(load_recipe(task), partial, dial, language=language) for task in lean}


def degraders_record(degraders: Degraders) -> dict[str, Any] | None:
    """The entry of ``run.json`` for the degraders; None without any."""
    if not degraders:
        return None
    return {
        task: {
            "partial": degrader.partial,
            "recipe": {"name": degrader.recipe.name, **degrader.recipe.source},
            **({} if degrader.language == "en" else {"language": degrader.language}),
            **({"dial": degrader.dial} if degrader.dial else {}),
        }
        for task, degrader in degraders.items()
    }

"""Instructions: ``compose`` turns a plan's steps into one sentence, from the phrases of the pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clearfuse.synth.prompts.pools import (
    KINDS,
    TARGETS,
    Frame,
    Join,
    Kind,
    Phrase,
    Pool,
    fill,
    load_pool,
    load_tasks,
    optional_parts,
    pick,
    pool_names,
    pools_digest,
    sentence,
)
from clearfuse.synth.types import Prompt, Step, Target, Task

__all__ = ["KINDS", "Kind", "Phrase", "Pool", "compose", "load_pool", "load_tasks", "pool_names", "pools_digest"]

USES_STRENGTH = 0.5
"""Share of prompts that name the strength, of those whose phrase has a place for it."""
NAMES_IMAGE = 0.75
"""Share of prompts that keep the part in brackets, which says in which image the fault is."""
ASKS_FUSION = 0.25
"""Share of prompts with steps that also ask for the fusion."""
PLAIN = 0.5
"""Share of joined prompts that are the bare request, not "could you …"."""

# One uniform for each choice, drawn whether it is used or not: a prompt's draws do not depend on each other.
_CHOICES = (
    *("strength", "strong_step", "locate", "a", "b", "both", "pair"),
    *("fuse", "fuse_phrase", "fuse_join", "plain", "frame", "join"),
)


def compose(
    task: Task,
    steps: Sequence[Step],
    rng: np.random.Generator,
    asked: Sequence[int] | None = None,
    *,
    folder: Path | None = None,
) -> Prompt:
    """The prompt that asks to remove the steps ``asked`` (indices; None: all; none: only to fuse).

    One step: a phrase of its pool. Several: their clauses, joined, in any order, those about one image together.
    The generator is consumed alike for every ``asked``.
    """
    chosen = tuple(range(len(steps)) if asked is None else sorted(asked))
    if len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(len(steps))):
        raise ValueError(f"asked = {list(asked or ())}: must be different indices of {len(steps)} steps")
    phrase_draws, order = rng.random((2, len(steps))).tolist()
    draws = dict(zip(_CHOICES, rng.random(len(_CHOICES)).tolist(), strict=True))
    tasks = load_tasks(folder)
    words = tasks.words[task]
    named: dict[str, str] = {name: pick(getattr(words.image, name), draws[name]) for name in (*TARGETS, "pair")}
    fuse = pick(words.fuse, draws["fuse_phrase"])
    if not chosen:
        return Prompt(sentence(fill(fuse.text, named), fuse.kind), (fuse.id,), None, ())
    pools = {i: load_pool(steps[i].op, folder) for i in chosen}
    phrases = {i: pick(pools[i].phrases, phrase_draws[i]) for i in chosen}
    # Text encoders read 64 tokens: no fusion beside faults of a, of b and of both; no frame around three and a fusion.
    fuses = draws["fuse"] < ASKS_FUSION and len({steps[i].target for i in chosen}) < 3
    if len(chosen) == 1 and not fuses:
        (i,) = chosen
        _, strength = _strength(steps, pools, {i: phrases[i].text}, draws)
        holes = {"image": named[steps[i].target], "strength": strength or ""}
        text = fill(phrases[i].text, holes, keep=draws["locate"] < NAMES_IMAGE)
        return Prompt(sentence(text, phrases[i].kind), (phrases[i].id,), strength, chosen)

    strong, strength = _strength(steps, pools, {i: phrases[i].clause for i in chosen}, draws)
    sequence = _by_target(sorted(chosen, key=lambda i: order[i]), steps)
    clauses = [_Clause(phrases[i].clause, steps[i].target, strength if i == strong else None) for i in sequence]
    plain = draws["plain"] < PLAIN or (fuses and len(chosen) > 2)
    frame = tasks.frames[0] if plain else pick(tasks.frames, draws["frame"])
    ids = (*(phrases[i].id for i in sequence), frame.id, *([fuse.id] if fuses else []))
    text = _request(clauses, frame, fuse if fuses else None, tasks.join, named, draws)
    return Prompt(sentence(text, frame.kind), ids, strength, chosen)


@dataclass(frozen=True)
class _Clause:
    template: str
    target: Target
    strength: str | None


def _request(
    clauses: Sequence[_Clause],
    frame: Frame,
    fuse: Phrase | None,
    join: Join,
    named: Mapping[str, str],
    draws: Mapping[str, float],
) -> str:
    """The clauses joined, in their frame, and with the request to fuse before or after them."""
    around = pick(join.fuse, draws["fuse_join"]) if fuse else "{request}"
    before = fuse is not None and around.index("{fuse}") < around.index("{request}")
    texts, named_last = _clauses(clauses, named, draws["locate"] < NAMES_IMAGE, "both" if before else None)
    request = frame.text.replace("{request}", _joined(texts, join, draws["join"]))
    if fuse is None:
        return request
    pair = "them" if named_last == "both" and not before else named["pair"]
    return fill(around, {"request": request, "fuse": fill(fuse.clause, {"pair": pair})})


def _strength(
    steps: Sequence[Step], pools: Mapping[int, Pool], templates: Mapping[int, str], draws: Mapping[str, float]
) -> tuple[int | None, str | None]:
    """The one step whose strength is named, and the word; none where no severity is known or no place is for it."""
    able = [i for i, text in templates.items() if "{strength}" in text and steps[i].severity is not None]
    if not able or draws["strength"] >= USES_STRENGTH:
        return None, None
    strong = pick(able, draws["strong_step"])
    severity = steps[strong].severity
    assert severity is not None
    return strong, pools[strong].strength(severity)


def _by_target(order: Sequence[int], steps: Sequence[Step]) -> list[int]:
    """Steps about the same image together, images in the order in which they first occur."""
    targets = [steps[i].target for i in order]
    return sorted(order, key=lambda i: targets.index(steps[i].target))


def _clauses(
    clauses: Sequence[_Clause], named: Mapping[str, str], locate: bool, last: Target | None
) -> tuple[list[list[str]], Target | None]:
    """The clauses filled, those about one image in one list, and the image that was named last.

    The last clause about an image names it: "clear the haze and suppress the noise in the visible image". An image
    that was just named is "it" or "them". Where no image is named, all clauses are one list.
    """
    groups: list[list[str]] = []
    names_any = False
    for place, clause in enumerate(clauses):
        target = clause.target
        starts = place == 0 or clauses[place - 1].target != target
        ends = place + 1 == len(clauses) or clauses[place + 1].target != target
        keep = locate and ends and last != target
        image = named[target] if last != target else ("them" if target == "both" else "it")
        says = "{image}" in optional_parts(clause.template, keep)
        names_any = names_any or says
        if starts:
            groups.append([])
        groups[-1].append(fill(clause.template, {"image": image, "strength": clause.strength or ""}, keep=keep))
        last = target if says or last == target else None
    return (groups if names_any else [[text for group in groups for text in group]]), last


def _joined(groups: Sequence[Sequence[str]], join: Join, u: float) -> str:
    """Clauses as one request: "A, B and C", or by image: "A and B in the first, and C in the second"."""
    if len(groups) > 1 and max(map(len, groups)) > 1:
        return _listed([_listed(group, " and ") for group in groups], pick(join.images, u))
    texts = [text for group in groups for text in group]
    return _listed(texts, pick(join.two if len(texts) == 2 else join.last, u))


def _listed(texts: Sequence[str], last: str) -> str:
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + last + texts[-1]

"""Composition of a sample's instruction from its steps and the phrases of the pools."""

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
"""Share of prompts that name the strength, among those whose phrase has a placeholder for it."""
NAMES_IMAGE = 0.75
"""Share of prompts that keep the optional part in brackets, which names the image."""
ASKS_FUSION = 0.25
"""Share of prompts with steps that also ask to fuse the images."""
PLAIN = 0.5
"""Share of composed prompts that are a plain request, without "could you …"."""

# One uniform per choice, drawn whether it is used or not, so that the draws do not depend on each other.
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
    """The prompt that asks to remove the steps ``asked`` (indices; None: all; empty: only to fuse).

    For one step it is a phrase of its pool; for several their clauses, joined in random order, grouped by image. The
    number of draws does not depend on ``asked``. folder: the prompt pools, None for the built-in ones. Raises
    ValueError for bad indices.
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
    # Text encoders read 64 tokens: leave out the fusion where a, b and both are named, and the frame around three
    # clauses and a fusion.
    fuses = draws["fuse"] < ASKS_FUSION and len({steps[i].target for i in chosen}) < 3
    if len(chosen) == 1 and not fuses:
        (i,) = chosen
        _, strength = _strength(steps, pools, {i: phrases[i].text}, draws)
        holes = {"image": named[steps[i].target], "strength": strength or ""}
        text = fill(phrases[i].text, holes, keep=draws["locate"] < NAMES_IMAGE)
        return Prompt(sentence(text, phrases[i].kind), (phrases[i].id,), strength, chosen)

    strong_step, strength = _strength(steps, pools, {i: phrases[i].clause for i in chosen}, draws)
    sequence = _by_target(sorted(chosen, key=lambda i: order[i]), steps)
    clauses = [_Clause(phrases[i].clause, steps[i].target, strength if i == strong_step else None) for i in sequence]
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
    """The joined clauses in their frame, with the request to fuse before or after them."""
    template = pick(join.fuse, draws["fuse_join"]) if fuse else "{request}"
    before = fuse is not None and template.index("{fuse}") < template.index("{request}")
    texts, named_last = _clauses(clauses, named, draws["locate"] < NAMES_IMAGE, "both" if before else None)
    request = frame.text.replace("{request}", _join_clauses(texts, join, draws["join"]))
    if fuse is None:
        return request
    pair = "them" if named_last == "both" and not before else named["pair"]
    return fill(template, {"request": request, "fuse": fill(fuse.clause, {"pair": pair})})


def _strength(
    steps: Sequence[Step], pools: Mapping[int, Pool], templates: Mapping[int, str], draws: Mapping[str, float]
) -> tuple[int | None, str | None]:
    """The step whose strength is named, and the word; None where there is no severity or no placeholder for it."""
    candidates = [i for i, text in templates.items() if "{strength}" in text and steps[i].severity is not None]
    if not candidates or draws["strength"] >= USES_STRENGTH:
        return None, None
    chosen = pick(candidates, draws["strong_step"])
    severity = steps[chosen].severity
    assert severity is not None
    return chosen, pools[chosen].strength(severity)


def _by_target(order: Sequence[int], steps: Sequence[Step]) -> list[int]:
    """The steps grouped by image, in the order in which the images first occur."""
    targets = [steps[i].target for i in order]
    return sorted(order, key=lambda i: targets.index(steps[i].target))


def _clauses(
    clauses: Sequence[_Clause], named: Mapping[str, str], locate: bool, last: Target | None
) -> tuple[list[list[str]], Target | None]:
    """The filled clauses in a list per image, and the image named last.

    The last clause about an image names it: "clear the haze and suppress the noise in the visible image". The image
    that was named last is "it" or "them". Where no image is named, all clauses are in one list.
    """
    groups: list[list[str]] = []
    names_any = False
    for index, clause in enumerate(clauses):
        target = clause.target
        starts = index == 0 or clauses[index - 1].target != target
        ends = index + 1 == len(clauses) or clauses[index + 1].target != target
        keep = locate and ends and last != target
        image = named[target] if last != target else ("them" if target == "both" else "it")
        has_image = "{image}" in optional_parts(clause.template, keep)
        names_any = names_any or has_image
        if starts:
            groups.append([])
        groups[-1].append(fill(clause.template, {"image": image, "strength": clause.strength or ""}, keep=keep))
        last = target if has_image or last == target else None
    return (groups if names_any else [[text for group in groups for text in group]]), last


def _join_clauses(groups: Sequence[Sequence[str]], join: Join, u: float) -> str:
    """The clauses as one request: "A, B and C", or by image: "A and B in the first, and C in the second"."""
    if len(groups) > 1 and max(map(len, groups)) > 1:
        return _join_texts([_join_texts(group, " and ") for group in groups], pick(join.images, u))
    texts = [text for group in groups for text in group]
    return _join_texts(texts, pick(join.two if len(texts) == 2 else join.last, u))


def _join_texts(texts: Sequence[str], last: str) -> str:
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + last + texts[-1]

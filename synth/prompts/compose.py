"""Composition of a sample's instruction from its steps and the phrases of the pools."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from clearfuse.synth.datasets.manifest import load_manifest, manifest_names
from clearfuse.synth.prompts.pools import (
    KINDS,
    LANGUAGES,
    MIX,
    TARGETS,
    Frame,
    Join,
    Kind,
    Language,
    Phrase,
    Pool,
    Tasks,
    fill,
    languages_of,
    load_pool,
    load_tasks,
    optional_parts,
    pick,
    pool_names,
    pools_digest,
    shipped_templates,
)
from clearfuse.synth.types import Prompt, Step, Target, Task

__all__ = ["KINDS", "Kind", "Phrase", "Pool", "compose", "load_pool", "load_tasks", "pool_names", "pools_digest"]

USES_STRENGTH = 0.5
"""Share of prompts that name the strength, among those whose phrase has a placeholder for it."""
NAMES_IMAGE = 0.75
"""Share of prompts that keep the optional part in brackets, which names the image, where it need not be named."""
ASKS_FUSION = 1 / 3
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
    dataset: str = "",
    folder: Path | None = None,
    language: str = "en",
    vague: float = 0.0,
) -> Prompt:
    """The prompt that asks to remove the steps ``asked`` (indices; None: all; empty: only to fuse).

    For one step it is a phrase of its pool; for several their clauses, joined in random order, grouped by image. Where
    the two images have different degradations, each is named beside its own. The number of draws does not depend on
    ``asked``. dataset: the pair's, which decides what its pictures are known to show, and whether it is known which of
    two focused images is the near one. folder: the prompt pools, None for the built-in ones. language: en, zh, or mix,
    half of each. vague: probability, by step, that a request which does not say what is wrong takes the prompt's place.
    Raises ValueError for bad indices.
    """
    chosen = tuple(range(len(steps)) if asked is None else sorted(asked))
    if len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(len(steps))):
        raise ValueError(f"asked = {list(asked or ())}: must be different indices of {len(steps)} steps")
    phrase_draws, order = rng.random((2, len(steps))).tolist()
    draws = dict(zip(_CHOICES, rng.random(len(_CHOICES)).tolist(), strict=True))
    languages = languages_of(language)
    spoken = pick(languages, float(rng.random())) if language == MIX else languages[0]
    tasks = load_tasks(folder, spoken)
    if vague and (said := _vague(tasks, chosen, rng.random((2, len(steps))), vague)) is not None:
        return said
    words = tasks.words[task]
    known = sides_known(task, dataset)
    named = {name: pick(words.image.of(name, known=known), draws[name]) for name in (*TARGETS, "pair")}
    fuse = pick(fitting(words.fuse, dataset), draws["fuse_phrase"])
    if not chosen:
        return Prompt(tasks.sentence(fill(fuse.text, named), fuse.kind), (fuse.id,), None, ())
    pools = {i: load_pool(steps[i].op, folder, spoken) for i in chosen}
    phrases = {i: pick(fitting(pools[i].phrases, dataset), phrase_draws[i]) for i in chosen}
    told_apart = len({step.target for step in steps}) > 1
    fuses = draws["fuse"] < ASKS_FUSION
    if len(chosen) == 1 and not fuses:
        (i,) = chosen
        naming = [one for one in fitting(pools[i].phrases, dataset) if "{image}" in one.text] if told_apart else []
        phrase = pick(naming, phrase_draws[i]) if naming else phrases[i]
        _, strength = _strength(steps, pools, {i: phrase.text}, draws)
        holes = {"image": named[steps[i].target], "strength": strength or ""}
        text = fill(phrase.text, holes, keep=told_apart or draws["locate"] < NAMES_IMAGE)
        return Prompt(tasks.sentence(text, phrase.kind), (phrase.id,), strength, chosen)

    strong_step, strength = _strength(steps, pools, {i: phrases[i].clause for i in chosen}, draws)
    sequence = _by_target(sorted(chosen, key=lambda i: order[i]), steps)
    clauses = [_Clause(phrases[i].clause, steps[i].target, strength if i == strong_step else None) for i in sequence]
    # Text encoders read 64 tokens: three clauses and a fusion have no frame around them.
    plain = draws["plain"] < PLAIN or (fuses and len(chosen) > 2)
    frame = tasks.frames[0] if plain else pick(tasks.frames, draws["frame"])
    ids = (*(phrases[i].id for i in sequence), frame.id, *([fuse.id] if fuses else []))
    text = _request(clauses, frame, fuse if fuses else None, tasks.join, named, draws, told_apart=told_apart)
    return Prompt(tasks.sentence(text, frame.kind), ids, strength, chosen)


def _vague(tasks: Tasks, chosen: Sequence[int], draws: np.ndarray, chance: float) -> Prompt | None:
    """The request of the first step asked about that draws one; None where none does. draws: (2, steps)."""
    for i in chosen:
        if tasks.vague and draws[0, i] < chance:
            said = pick(tasks.vague, float(draws[1, i]))
            return Prompt(tasks.sentence(said.text, said.kind), (said.id,), None, tuple(chosen))
    return None


def fitting(phrases: Sequence[Phrase], dataset: str) -> list[Phrase]:
    """The phrases that speak of nothing which a picture of that data set may not show."""
    return [phrase for phrase in phrases if not phrase.sets or dataset in phrase.sets]


@functools.cache
def sides_known(task: Task, dataset: str) -> bool:
    """Whether it is known what a and b are: always but of two focus distances, where the data set must say so."""
    if task != "mff":
        return True
    return dataset in manifest_names() and load_manifest(dataset).near_first


def language_of(templates: Sequence[str]) -> Language | None:
    """The language whose shipped phrases a prompt was composed of; None where it has others, or says nothing."""
    return next((one for one in LANGUAGES if templates and set(templates) <= shipped_templates(one)), None)


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
    *,
    told_apart: bool,
) -> str:
    """The joined clauses in their frame, with the request to fuse before or after them."""
    template = pick(join.fuse, draws["fuse_join"]) if fuse else "{request}"
    before = fuse is not None and template.index("{fuse}") < template.index("{request}")
    locate = "always" if told_apart else "once" if draws["locate"] < NAMES_IMAGE else "never"
    texts, named_last = _clauses(clauses, named, join, locate, "both" if before else None)
    request = frame.text.replace("{request}", _join_clauses(texts, join, draws["join"]))
    if fuse is None:
        return request
    pair = join.many if named_last == "both" and not before else named["pair"]
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
    clauses: Sequence[_Clause],
    named: Mapping[str, str],
    join: Join,
    locate: Literal["always", "once", "never"],
    last: Target | None,
) -> tuple[list[list[str]], Target | None]:
    """The filled clauses in a list per image, and the image named last.

    The last clause about an image names it: "clear the haze and suppress the noise in the visible image". The image
    that was named last is "it" or "them", which only ``always`` adds to a clause that can do without. Where no image is
    named, all clauses are in one list.
    """
    groups: list[list[str]] = []
    names_any = False
    for index, clause in enumerate(clauses):
        target = clause.target
        starts = index == 0 or clauses[index - 1].target != target
        ends = index + 1 == len(clauses) or clauses[index + 1].target != target
        keep = ends and (locate == "always" or (locate == "once" and last != target))
        image = named[target] if last != target else (join.many if target == "both" else join.one)
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
        within = [_join_texts(group, join.comma, join.two[0]) for group in groups]
        return _join_texts(within, join.comma, pick(join.images, u))
    texts = [text for group in groups for text in group]
    return _join_texts(texts, join.comma, pick(join.two if len(texts) == 2 else join.last, u))


def _join_texts(texts: Sequence[str], comma: str, last: str) -> str:
    return texts[0] if len(texts) == 1 else comma.join(texts[:-1]) + last + texts[-1]

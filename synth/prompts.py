"""Instructions: pools of phrases as TOML, and ``compose``, which turns a plan's steps into one sentence.

A pool (``prompts/haze.toml``) holds phrases. A phrase's ``text`` is a prompt by itself; its ``clause`` joins others:
"clear the haze from the visible image, and suppress the noise in both images". In both, ``{strength}`` is an adjective
by severity and may be dropped, ``{image}`` is a wording by task and target, and a part in ``[brackets]`` may be left
out. ``prompts/tasks.toml`` holds the wordings of the images, the requests to fuse, and the joining words.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from synth.resources import read_toml, resource_dir
from synth.types import TASKS, Prompt, Step, Target, Task, UserError, unknown

Kind = Literal["imperative", "question", "terse"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_STOPS: dict[Kind, str] = {"imperative": ".", "question": "?", "terse": ""}
_TARGETS: tuple[Target, ...] = ("a", "b", "both")

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
_HOLE = re.compile(r"\{(\w*)\}")
_OPTIONAL = re.compile(r"\[([^\[\]]*)\]")

T = TypeVar("T")


@dataclass(frozen=True)
class Phrase:
    """One wording: ``text`` is a whole prompt without its end mark, ``clause`` an imperative that joins others."""

    id: str
    kind: Kind
    text: str
    clause: str


@dataclass(frozen=True)
class Pool:
    """The phrases for one operator. ``names``: words for the fault; ``strengths``: adjectives from mild to strong."""

    names: tuple[str, ...]
    strengths: tuple[str, ...]
    phrases: tuple[Phrase, ...]

    def mentions(self, text: str) -> bool:
        """Whether the text names the fault, as whole words, in any case."""
        names = "|".join(re.escape(name) for name in self.names)
        return re.search(rf"(?<!\w)(?:{names})(?!\w)", text, re.IGNORECASE) is not None

    def strength(self, severity: float) -> str:
        """The adjective for a severity in [0, 1]: thirds, where there are three."""
        return _pick(self.strengths, severity)


@dataclass(frozen=True)
class TaskWords:
    """A task's wordings of its images by target and of the pair, and its requests to fuse."""

    images: Mapping[Target, tuple[str, ...]]
    pair: tuple[str, ...]
    fuse: tuple[Phrase, ...]


@dataclass(frozen=True)
class Frame:
    """What a joined request stands in: "could you {request}"."""

    id: str
    kind: Kind
    text: str


@dataclass(frozen=True)
class Join:
    """Joining words: between two clauses, before the last of more, between images, and around a request to fuse."""

    two: tuple[str, ...]
    last: tuple[str, ...]
    images: tuple[str, ...]
    fuse: tuple[str, ...]


@dataclass(frozen=True)
class Tasks:
    """``prompts/tasks.toml``."""

    words: Mapping[Task, TaskWords]
    frames: tuple[Frame, ...]
    join: Join


# --- reading


@functools.cache
def load_pool(op: str, folder: Path | None = None) -> Pool:
    """The pool of an operator, from ``folder`` or from those that ship with the package."""
    base = folder or resource_dir("prompts")
    path = base / f"{op}.toml"
    if op == "tasks" or not path.is_file():
        raise _at(base, unknown("prompt pool", op, pool_names(folder)))
    data = read_toml(path)
    _keys(data, ("schema", "names", "strengths", "phrase"), path)
    holes = {"text": ("image", "strength"), "clause": ("image", "strength")}
    return Pool(
        _strings(data["names"], f"{path}: names"),
        _strings(data["strengths"], f"{path}: strengths"),
        tuple(Phrase(**entry) for entry in _entries(data["phrase"], path, "phrase", holes)),
    )


@functools.cache
def load_tasks(folder: Path | None = None) -> Tasks:
    """The wordings by task, from ``folder`` or from those that ship with the package."""
    path = (folder or resource_dir("prompts")) / "tasks.toml"
    data = read_toml(path)
    _keys(data, ("schema", "join", "frame", *TASKS), path)
    join = _keys(data["join"], ("two", "last", "images", "fuse"), f"{path}: join")
    for text in _strings(join["fuse"], f"{path}: join.fuse", plain=False):
        _holes(text, ("request", "fuse"), f"{path}: join.fuse", required=("request", "fuse"))
    frames = tuple(Frame(**entry) for entry in _entries(data["frame"], path, "frame", {"text": ("request",)}))
    return Tasks(
        {task: _task_words(data[task], path, task) for task in TASKS},
        frames,
        Join(**{key: _strings(join[key], f"{path}: join.{key}", plain=key != "fuse") for key in join}),
    )


def pool_names(folder: Path | None = None) -> list[str]:
    """The operators that have a pool, sorted."""
    base = folder or resource_dir("prompts")
    return sorted(path.stem for path in base.glob("*.toml") if path.stem != "tasks")


def pools_digest(folder: Path | None = None) -> str:
    """blake2b over the names and bytes of all prompt files in name order: a part of the build digest."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted((folder or resource_dir("prompts")).glob("*.toml"), key=lambda path: path.name):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _task_words(data: Any, path: Path, task: Task) -> TaskWords:
    _keys(data, ("image", "fuse"), f"{path}: {task}")
    image = _keys(data["image"], (*_TARGETS, "pair"), f"{path}: {task}.image")
    words = {key: _strings(image[key], f"{path}: {task}.image.{key}") for key in image}
    fuse = _entries(data["fuse"], path, f"{task}.fuse", {"text": ("pair",), "clause": ("pair",)})
    return TaskWords({t: words[t] for t in _TARGETS}, words["pair"], tuple(Phrase(**entry) for entry in fuse))


def _entries(raw: Any, path: Path, what: str, holes: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """The checked tables of an array; ``holes``: the placeholders that each text field may have."""
    if not isinstance(raw, list) or not raw:
        raise UserError(f"{path}: {what}: must be one [[{what}]] or more")
    seen: set[str] = set()
    for place, entry in enumerate(raw, 1):
        name = entry.get("id", f"number {place}") if isinstance(entry, dict) else f"number {place}"
        where = f"{path}: {what} {name}"
        _keys(entry, ("id", "kind", *holes), where)
        for key in entry:
            if not isinstance(entry[key], str) or not entry[key].strip():
                raise UserError(f"{where}: {key} must be a text, not {entry[key]!r}")
        if entry["kind"] not in KINDS:
            raise _at(where, unknown("kind", entry["kind"], KINDS))
        for key, allowed in holes.items():
            _holes(entry[key], allowed, f"{where}: {key}", required=("request",) if "request" in allowed else ())
        if entry["id"] in seen:
            raise UserError(f"{where}: id is used twice")
        seen.add(entry["id"])
    return raw


def _keys(data: Any, keys: Sequence[str], where: Path | str) -> dict[str, Any]:
    """A table that has exactly these keys."""
    if not isinstance(data, dict):
        raise UserError(f"{where}: must be a table, not {data!r}")
    for key in data:
        if key not in keys:
            raise _at(where, unknown("key", key, keys))
    for key in keys:
        if key not in data:
            raise UserError(f"{where}: {key} is missing")
    return data


def _strings(raw: Any, where: str, *, plain: bool = True) -> tuple[str, ...]:
    """A list of texts; ``plain``: without placeholders and brackets."""
    if not isinstance(raw, list) or not raw or not all(isinstance(text, str) and text.strip() for text in raw):
        raise UserError(f"{where}: must be a list of one text or more, not {raw!r}")
    for text in raw:
        if plain and re.search(r"[{}\[\]]", text):
            raise UserError(f"{where}: no braces or brackets are allowed in {text!r}")
    return tuple(raw)


def _holes(text: str, allowed: Sequence[str], where: str, required: Sequence[str] = ()) -> None:
    for name in _HOLE.findall(text):
        if name not in allowed:
            raise _at(where, unknown("placeholder", name, allowed))
    if re.search(r"[{}]", _HOLE.sub("", text)):
        raise UserError(f"{where}: a brace without its partner in {text!r}")
    if re.search(r"[\[\]]", _OPTIONAL.sub("", text)):
        raise UserError(f"{where}: a bracket without its partner in {text!r}")
    if any("{strength}" in part for part in _OPTIONAL.findall(text)):
        raise UserError(f"{where}: {{strength}} in brackets in {text!r}: it may be left out anyway")
    for name in required:
        if f"{{{name}}}" not in text:
            raise UserError(f"{where}: {{{name}}} is missing in {text!r}")


def _at(where: Path | str, error: UserError) -> UserError:
    return UserError(f"{where}: {error}")


# --- composing


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
    named: dict[str, str] = {t: _pick(words.images[t], draws[t]) for t in _TARGETS}
    named["pair"] = _pick(words.pair, draws["pair"])
    fuse = _pick(words.fuse, draws["fuse_phrase"])
    if not chosen:
        return Prompt(_sentence(_fill(fuse.text, named), fuse.kind), (fuse.id,), None, ())
    pools = {i: load_pool(steps[i].op, folder) for i in chosen}
    phrases = {i: _pick(pools[i].phrases, phrase_draws[i]) for i in chosen}
    # Text encoders read 64 tokens: no fusion beside faults of a, of b and of both; no frame around three and a fusion.
    fuses = draws["fuse"] < ASKS_FUSION and len({steps[i].target for i in chosen}) < 3
    if len(chosen) == 1 and not fuses:
        (i,) = chosen
        _, strength = _strength(steps, pools, {i: phrases[i].text}, draws)
        holes = {"image": named[steps[i].target], "strength": strength or ""}
        text = _fill(phrases[i].text, holes, keep=draws["locate"] < NAMES_IMAGE)
        return Prompt(_sentence(text, phrases[i].kind), (phrases[i].id,), strength, chosen)

    strong, strength = _strength(steps, pools, {i: phrases[i].clause for i in chosen}, draws)
    sequence = _by_target(sorted(chosen, key=lambda i: order[i]), steps)
    clauses = [_Clause(phrases[i].clause, steps[i].target, strength if i == strong else None) for i in sequence]
    plain = draws["plain"] < PLAIN or (fuses and len(chosen) > 2)
    frame = tasks.frames[0] if plain else _pick(tasks.frames, draws["frame"])
    ids = (*(phrases[i].id for i in sequence), frame.id, *([fuse.id] if fuses else []))
    text = _request(clauses, frame, fuse if fuses else None, tasks.join, named, draws)
    return Prompt(_sentence(text, frame.kind), ids, strength, chosen)


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
    around = _pick(join.fuse, draws["fuse_join"]) if fuse else "{request}"
    before = fuse is not None and around.index("{fuse}") < around.index("{request}")
    texts, named_last = _clauses(clauses, named, draws["locate"] < NAMES_IMAGE, "both" if before else None)
    request = frame.text.replace("{request}", _joined(texts, join, draws["join"]))
    if fuse is None:
        return request
    pair = "them" if named_last == "both" and not before else named["pair"]
    return _fill(around, {"request": request, "fuse": _fill(fuse.clause, {"pair": pair})})


def _strength(
    steps: Sequence[Step], pools: Mapping[int, Pool], templates: Mapping[int, str], draws: Mapping[str, float]
) -> tuple[int | None, str | None]:
    """The one step whose strength is named, and the word; none where no severity is known or no place is for it."""
    able = [i for i, text in templates.items() if "{strength}" in text and steps[i].severity is not None]
    if not able or draws["strength"] >= USES_STRENGTH:
        return None, None
    strong = _pick(able, draws["strong_step"])
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
        says = "{image}" in _optional(clause.template, keep)
        names_any = names_any or says
        if starts:
            groups.append([])
        groups[-1].append(_fill(clause.template, {"image": image, "strength": clause.strength or ""}, keep=keep))
        last = target if says or last == target else None
    return (groups if names_any else [[text for group in groups for text in group]]), last


def _joined(groups: Sequence[Sequence[str]], join: Join, u: float) -> str:
    """Clauses as one request: "A, B and C", or by image: "A and B in the first, and C in the second"."""
    if len(groups) > 1 and max(map(len, groups)) > 1:
        return _listed([_listed(group, " and ") for group in groups], _pick(join.images, u))
    texts = [text for group in groups for text in group]
    return _listed(texts, _pick(join.two if len(texts) == 2 else join.last, u))


def _listed(texts: Sequence[str], last: str) -> str:
    return texts[0] if len(texts) == 1 else ", ".join(texts[:-1]) + last + texts[-1]


def _optional(template: str, keep: bool) -> str:
    return _OPTIONAL.sub(r"\1" if keep else "", template)


def _fill(template: str, words: Mapping[str, str], *, keep: bool = True) -> str:
    """The template with its placeholders filled; what an empty word leaves, a double space, is closed."""
    text = _HOLE.sub(lambda hole: words[hole[1]], _optional(template, keep))
    return re.sub(r"\s+", " ", text).strip()


def _sentence(text: str, kind: Kind) -> str:
    """The first letter capital, the end mark by kind where the text brings none; terse ones have none."""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else _STOPS[kind])


def _pick(items: Sequence[T], u: float) -> T:
    """The item at a share ``u`` in [0, 1] of the list."""
    return items[min(int(u * len(items)), len(items) - 1)]

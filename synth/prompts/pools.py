"""Pools of phrases: what ``prompts/*.toml`` hold, how they are read and checked, and how a template is filled.

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

from clearfuse.synth.files.resources import read_toml, resource_dir
from clearfuse.synth.operators.albumentations import PREFIX, is_bridged, words_of
from clearfuse.synth.types import TASKS, Target, Task, UserError, unknown

Kind = Literal["imperative", "question", "terse"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_STOPS: dict[Kind, str] = {"imperative": ".", "question": "?", "terse": ""}
TARGETS: tuple[Target, ...] = ("a", "b", "both")
GENERIC = PREFIX.removesuffix(":")
"""The one pool for every transform of the bridge: ``prompts/albumentations.toml``."""

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
    source: str = ""
    """What made it, where a model did: its name and the seed. Such a phrase's id says ``machine``."""


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
        return pick(self.strengths, severity)


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
    if is_bridged(op):
        return _bridged_pool(op, base / f"{GENERIC}.toml")
    path = base / f"{op}.toml"
    if op in (GENERIC, "tasks") or not path.is_file():
        raise _at(base, unknown("prompt pool", op, pool_names(folder)))
    data = read_toml(path)
    _keys(data, ("schema", "names", "strengths", "phrase"), path)
    holes = {"text": ("image", "strength"), "clause": ("image", "strength")}
    return Pool(
        _strings(data["names"], f"{path}: names"),
        _strings(data["strengths"], f"{path}: strengths"),
        tuple(Phrase(**entry) for entry in _entries(data["phrase"], path, "phrase", holes, optional=("source",))),
    )


def _bridged_pool(op: str, path: Path) -> Pool:
    """The pool of ``albumentations:NAME``: one file for all, {name} filled with the transform's name in words."""
    data = read_toml(path)
    _keys(data, ("schema", "names", "phrase"), path)
    word = words_of(op)
    for text in _strings(data["names"], f"{path}: names", plain=False):
        check_holes(text, ("name",), f"{path}: names", required=("name",))
    holes = {"text": ("image", "name"), "clause": ("image", "name")}
    phrases = [
        Phrase(**{key: value.replace("{name}", word) for key, value in entry.items()})
        for entry in _entries(data["phrase"], path, "phrase", holes, optional=("source",))
    ]
    # A transform has no severity, so no strength is ever named.
    return Pool(tuple(text.replace("{name}", word) for text in data["names"]), (), tuple(phrases))


@functools.cache
def load_tasks(folder: Path | None = None) -> Tasks:
    """The wordings by task, from ``folder`` or from those that ship with the package."""
    path = (folder or resource_dir("prompts")) / "tasks.toml"
    data = read_toml(path)
    _keys(data, ("schema", "join", "frame", *TASKS), path)
    join = _keys(data["join"], ("two", "last", "images", "fuse"), f"{path}: join")
    for text in _strings(join["fuse"], f"{path}: join.fuse", plain=False):
        check_holes(text, ("request", "fuse"), f"{path}: join.fuse", required=("request", "fuse"))
    frames = tuple(Frame(**entry) for entry in _entries(data["frame"], path, "frame", {"text": ("request",)}))
    return Tasks(
        {task: _task_words(data[task], path, task) for task in TASKS},
        frames,
        Join(**{key: _strings(join[key], f"{path}: join.{key}", plain=key != "fuse") for key in join}),
    )


def pool_names(folder: Path | None = None) -> list[str]:
    """The operators that have a pool, sorted."""
    base = folder or resource_dir("prompts")
    return sorted(path.stem for path in base.glob("*.toml") if path.stem not in (GENERIC, "tasks"))


@functools.cache
def shipped_templates() -> frozenset[str]:
    """The ids of all phrases and frames that ship: what a sample's ``prompt.templates`` may name."""
    tasks = load_tasks()
    phrases = [phrase for op in pool_names() for phrase in load_pool(op).phrases]
    fuse = [phrase for words in tasks.words.values() for phrase in words.fuse]
    return frozenset(one.id for one in (*phrases, *fuse, *tasks.frames))


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
    image = _keys(data["image"], (*TARGETS, "pair"), f"{path}: {task}.image")
    words = {key: _strings(image[key], f"{path}: {task}.image.{key}") for key in image}
    fuse = _entries(data["fuse"], path, f"{task}.fuse", {"text": ("pair",), "clause": ("pair",)})
    return TaskWords({t: words[t] for t in TARGETS}, words["pair"], tuple(Phrase(**entry) for entry in fuse))


def _entries(
    raw: Any, path: Path, what: str, holes: Mapping[str, Sequence[str]], optional: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """The checked tables of an array; ``holes``: the placeholders that each text field may have."""
    if not isinstance(raw, list) or not raw:
        raise UserError(f"{path}: {what}: must be one [[{what}]] or more")
    seen: set[str] = set()
    for place, entry in enumerate(raw, 1):
        name = entry.get("id", f"number {place}") if isinstance(entry, dict) else f"number {place}"
        where = f"{path}: {what} {name}"
        _keys(entry, ("id", "kind", *holes), where, optional)
        for key in entry:
            if not isinstance(entry[key], str) or not entry[key].strip():
                raise UserError(f"{where}: {key} must be a text, not {entry[key]!r}")
        if entry["kind"] not in KINDS:
            raise _at(where, unknown("kind", entry["kind"], KINDS))
        for key, allowed in holes.items():
            check_holes(entry[key], allowed, f"{where}: {key}", required=("request",) if "request" in allowed else ())
        if entry["id"] in seen:
            raise UserError(f"{where}: id is used twice")
        seen.add(entry["id"])
    return raw


def _keys(data: Any, keys: Sequence[str], where: Path | str, optional: Sequence[str] = ()) -> dict[str, Any]:
    """A table that has exactly these keys; ``optional`` ones may be missing."""
    if not isinstance(data, dict):
        raise UserError(f"{where}: must be a table, not {data!r}")
    for key in data:
        if key not in (*keys, *optional):
            raise _at(where, unknown("key", key, (*keys, *optional)))
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


def check_holes(text: str, allowed: Sequence[str], where: str, required: Sequence[str] = ()) -> None:
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


# --- filling


def optional_parts(template: str, keep: bool) -> str:
    return _OPTIONAL.sub(r"\1" if keep else "", template)


def fill(template: str, words: Mapping[str, str], *, keep: bool = True) -> str:
    """The template with its placeholders filled; what an empty word leaves, a double space, is closed."""
    text = _HOLE.sub(lambda hole: words[hole[1]], optional_parts(template, keep))
    return re.sub(r"\s+", " ", text).strip()


def sentence(text: str, kind: Kind) -> str:
    """The first letter capital, the end mark by kind where the text brings none; terse ones have none."""
    return text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else _STOPS[kind])


def pick(items: Sequence[T], u: float) -> T:
    """The item at a share ``u`` in [0, 1] of the list."""
    return items[min(int(u * len(items)), len(items) - 1)]

"""Pools of phrases: what ``prompts/*.toml`` hold, how they are read and checked, and how a template is filled.

A pool (``prompts/haze.toml``) holds phrases. A phrase's ``text`` is a prompt by itself; its ``clause`` joins others:
"clear the haze from the visible image, and suppress the noise in both images". In both, ``{strength}`` is an adjective
by severity and may be dropped, ``{image}`` is a wording by task and target, and a part in ``[brackets]`` may be left
out. ``prompts/tasks.toml`` holds the wordings of the images, the requests to fuse, and the joining words.
``prompts/haze.zh.toml`` and so on are the same in Chinese.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import AfterValidator, Field

from clearfuse.synth.files.resources import read_toml
from clearfuse.synth.files.schema import MustBe, Schema, StrictModel, validate
from clearfuse.synth.operators import OPERATORS
from clearfuse.synth.operators.albumentations import PREFIX, is_bridged, words_of
from clearfuse.synth.operators.authors import our_name
from clearfuse.synth.prompts.pages import all_pages, find_page, page_bytes
from clearfuse.synth.types import Target, Task, UserError, shorten, unknown

Kind = Literal["imperative", "question", "terse"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
MIX = "mix"
"""Half of the prompts in one language, half in the other."""
SUFFIXES: dict[Language, str] = {"en": ".toml", "zh": ".zh.toml"}
"""How the files of a language end."""
TARGETS: tuple[Target, ...] = ("a", "b", "both")
GENERIC = PREFIX.removesuffix(":")
"""The one pool for every transform of the bridge: ``prompts/albumentations.toml``."""

_HOLE = re.compile(r"\{(\w*)\}")
_OPTIONAL = re.compile(r"\[([^\[\]]*)\]")
T = TypeVar("T")


# --- what the pages hold


def check_holes(text: str, allowed: Sequence[str], required: Sequence[str] = ()) -> None:
    """Raise ValueError where a template has other placeholders than these, lacks one, or leaves a bracket open."""
    for name in _HOLE.findall(text):
        if name not in allowed:
            raise ValueError(str(unknown("placeholder", name, allowed)))
    if re.search(r"[{}]", _HOLE.sub("", text)):
        raise ValueError(f"a brace without its partner in {shorten(repr(text))}")
    if re.search(r"[\[\]]", _OPTIONAL.sub("", text)):
        raise ValueError(f"a bracket without its partner in {shorten(repr(text))}")
    if any("{strength}" in part for part in _OPTIONAL.findall(text)):
        raise ValueError(f"{{strength}} in brackets in {shorten(repr(text))}: it may be left out anyway")
    for name in required:
        if f"{{{name}}}" not in text:
            raise ValueError(f"{{{name}}} is missing in {shorten(repr(text))}")


def _with_holes(*allowed: str, required: Sequence[str] = ()) -> AfterValidator:
    """An annotation of a list of templates: the placeholders that each may have and must have."""

    def check(texts: tuple[str, ...]) -> tuple[str, ...]:
        for text in texts:
            check_holes(text, allowed, required)
        return texts

    return AfterValidator(check)


def _holding(*fields: str, allowed: Sequence[str], required: Sequence[str] = ()) -> AfterValidator:
    """An annotation of a phrase or a frame: the placeholders that these fields of it may have and must have."""

    def check(entry: T) -> T:
        for name in fields:
            try:
                check_holes(getattr(entry, name), allowed, required)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        return entry

    return AfterValidator(check)


def _plain(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        if re.search(r"[{}\[\]]", text):
            raise ValueError(f"no braces or brackets are allowed in {shorten(repr(text))}")
    return texts


def _own_ids(entries: tuple[T, ...]) -> tuple[T, ...]:
    ids = [str(getattr(entry, "id", "")) for entry in entries]
    twice = next((one for one in ids if ids.count(one) > 1), None)
    if twice is not None:
        raise ValueError(f"id {twice} is used twice")
    return entries


def _for_any_picture(phrases: tuple[T, ...]) -> tuple[T, ...]:
    if all(getattr(phrase, "sets", ()) for phrase in phrases):
        raise ValueError("every one has sets: at least one must do for any picture")
    return phrases


Text = Annotated[str, Field(pattern=r"\S"), MustBe("a text")]
Texts = Annotated[tuple[Text, ...], Field(min_length=1)]
Words = Annotated[Texts, AfterValidator(_plain)]


class Phrase(StrictModel):
    """One wording."""

    id: Text
    """Its name, which samples record: the operator and a number."""
    kind: Kind
    """imperative, question or terse: which end mark the text gets."""
    text: Text
    """A whole prompt without its end mark. A part in [brackets] is left out at times."""
    clause: Text
    """An imperative that joins others. A part in [brackets] is left out at times."""
    source: str = ""
    """What made it, where a model did: its name and the seed. Such a phrase's id says machine."""
    sets: tuple[str, ...] = ()
    """The data sets whose pictures all show what it speaks of, such as a street; empty where it speaks of nothing that
    a picture may not show."""


class Pool(StrictModel):
    """The phrases for one operator. In text and clause, {image} and {strength} are filled in."""

    schema_: Schema
    names: Words
    """Words for the fault: no other pool's phrase may have one."""
    strengths: Words
    """Adjectives, from mild to strong."""
    phrases: Annotated[
        tuple[Annotated[Phrase, _holding("text", "clause", allowed=("image", "strength"))], ...],
        Field(alias="phrase", min_length=1),
        AfterValidator(_own_ids),
        AfterValidator(_for_any_picture),
    ]
    """The wordings."""

    def mentions(self, text: str) -> bool:
        """Whether the text names the fault, as whole words, in any case."""
        return re.search("|".join(map(whole_word, self.names)), text, re.IGNORECASE) is not None

    def strength(self, severity: float) -> str:
        """The adjective for a severity in [0, 1]: thirds, where there are three."""
        return pick(self.strengths, severity)


class BridgedPool(StrictModel):
    """The phrases for every transform of albumentations: {name} is its name in words."""

    schema_: Schema
    names: Annotated[Texts, _with_holes("name", required=("name",))]
    """Words for the fault, with {name}."""
    phrases: Annotated[
        tuple[Annotated[Phrase, _holding("text", "clause", allowed=("image", "name"))], ...],
        Field(alias="phrase", min_length=1),
        AfterValidator(_own_ids),
    ]
    """The wordings."""

    def of(self, op: str) -> Pool:
        """The pool of one transform. It has no severity, so no strength is ever named."""
        word = words_of(op)
        filled = (
            one.model_copy(update={key: getattr(one, key).replace("{name}", word) for key in ("text", "clause")})
            for one in self.phrases
        )
        names = tuple(text.replace("{name}", word) for text in self.names)
        return Pool.model_construct(names=names, strengths=(), phrases=tuple(filled))


class ImageWords(StrictModel):
    """A task's wordings of its images."""

    a: Words
    """Of the visible, under-exposed or near-focused image."""
    b: Words
    """Of the infrared, over-exposed or far-focused image."""
    both: Words
    """Of both, where both are degraded."""
    pair: Words
    """Of the pair that is fused."""
    neutral_a: Annotated[tuple[Text, ...], AfterValidator(_plain)] = ()
    """Of a where it is not known which image is which, as near and far of many data sets; empty where it always is."""
    neutral_b: Annotated[tuple[Text, ...], AfterValidator(_plain)] = ()
    """Of b there."""

    def of(self, name: Target | Literal["pair"], *, known: bool) -> tuple[str, ...]:
        """The wordings of an image, of both or of the pair. known: whether a and b are known to be what they are."""
        neutral = {"a": self.neutral_a, "b": self.neutral_b}.get(name, ())
        return getattr(self, name) if known or not neutral else neutral


class TaskWords(StrictModel):
    """A task's wordings of its images, and its requests to fuse."""

    image: ImageWords
    """Wordings of the images."""
    fuse: Annotated[
        tuple[Annotated[Phrase, _holding("text", "clause", allowed=("pair",))], ...],
        Field(min_length=1),
        AfterValidator(_own_ids),
        AfterValidator(_for_any_picture),
    ]
    """Requests to fuse, with {pair}."""


class Frame(StrictModel):
    """What a joined request stands in: "could you {request}"."""

    id: Text
    """Its name, which samples record."""
    kind: Kind
    """imperative, question or terse: which end mark the prompt gets."""
    text: Text
    """The words around {request}."""


class Join(StrictModel):
    """Joining words."""

    two: Words
    """Between two clauses."""
    last: Words
    """Before the last clause of more."""
    images: Words
    """Between the clauses about one image and those about the other."""
    fuse: Annotated[Texts, _with_holes("request", "fuse", required=("request", "fuse"))]
    """Around the clauses, {request}, and a request to fuse, {fuse}."""
    comma: str = ", "
    """Between the clauses before the last."""
    one: Text = "it"
    """What an image is called that was just named."""
    many: Text = "them"
    """What both images are called that were just named."""


class Stops(StrictModel):
    """End marks by kind."""

    imperative: str = "."
    question: str = "?"
    terse: str = ""


class Vague(StrictModel):
    """A request that does not say what is wrong: "make this picture better"."""

    id: Text
    """Its name, which samples record."""
    kind: Kind
    """imperative, question or terse: which end mark the prompt gets."""
    text: Text
    """The whole prompt, without its end mark."""


class Tasks(StrictModel):
    """``prompts/tasks.toml``: what prompts call the images of each task, and how they join clauses."""

    schema_: Schema
    join: Join
    """Joining words."""
    frames: Annotated[
        tuple[Annotated[Frame, _holding("text", allowed=("request",), required=("request",))], ...],
        Field(alias="frame", min_length=1),
        AfterValidator(_own_ids),
    ]
    """What a joined request stands in; the first is the bare request."""
    vif: TaskWords
    """Visible and infrared."""
    mef: TaskWords
    """Two exposures."""
    mff: TaskWords
    """Two focus distances."""
    vague: Annotated[tuple[Vague, ...], AfterValidator(_own_ids)] = ()
    """Requests that do not say what is wrong; a reproduction of the MMAIF authors' pipeline has them at times."""
    stops: Stops = Stops()
    """End marks."""

    def sentence(self, text: str, kind: Kind) -> str:
        """The first letter capital, the end mark by kind where the text brings none; terse ones have none."""
        return sentence(text, kind, getattr(self.stops, kind))

    @property
    def words(self) -> Mapping[Task, TaskWords]:
        """The wordings by task."""
        return {"vif": self.vif, "mef": self.mef, "mff": self.mff}


# --- reading


@functools.cache
def load_pool(op: str, folder: Path | None = None, language: Language = "en") -> Pool:
    """The pool of an operator, of ``folder`` or of those that ship; an operator of the authors has that of ours."""
    op = our_name(op)
    if is_bridged(op):
        path = find_page(f"{GENERIC}{SUFFIXES[language]}", folder)
        return validate(BridgedPool, read_toml(path), str(path)).of(op)
    path = find_page(f"{op}{SUFFIXES[language]}", folder)
    if op in (GENERIC, "tasks") or not path.is_file():
        if op in OPERATORS:
            raise UserError(f"operator '{op}' has no words: write a {path.name} (docs/extending.md) for --prompts DIR")
        what = "prompt pool" if language == "en" else f"prompt pool in '{language}'"
        raise UserError(f"{folder or path.parent}: {unknown(what, op, pool_names(folder, language))}")
    return validate(Pool, read_toml(path), str(path))


@functools.cache
def load_tasks(folder: Path | None = None, language: Language = "en") -> Tasks:
    """The wordings by task, of ``folder`` or of those that ship with the package."""
    path = find_page(f"tasks{SUFFIXES[language]}", folder)
    return validate(Tasks, read_toml(path), str(path))


def pool_names(folder: Path | None = None, language: Language = "en") -> list[str]:
    """The operators that have a pool, sorted."""
    found = (path.name for path in page_paths(language, folder))
    return sorted({name.removesuffix(SUFFIXES[language]) for name in found} - {GENERIC, "tasks"})


def page_paths(language: str, folder: Path | None = None) -> list[Path]:
    """The prompt files of a language, or of all with ``mix``, in name order."""
    languages = languages_of(language)
    return [path for path in all_pages(folder) if ("zh" if path.name.endswith(SUFFIXES["zh"]) else "en") in languages]


def languages_of(language: str) -> tuple[Language, ...]:
    """The languages in which prompts are written: en, zh, or both with mix. UserError for another name."""
    if language == MIX:
        return LANGUAGES
    for one in LANGUAGES:
        if one == language:
            return (one,)
    raise unknown("language", language, (*LANGUAGES, MIX))


@functools.cache
def shipped_templates(language: Language) -> frozenset[str]:
    """The ids of all phrases and frames that ship: what a sample's ``prompt.templates`` may name.

    A vague request is not among them: other words of it would say what is wrong.
    """
    tasks = load_tasks(None, language)
    phrases = [phrase for op in pool_names(None, language) for phrase in load_pool(op, None, language).phrases]
    fuse = [phrase for words in tasks.words.values() for phrase in words.fuse]
    return frozenset(one.id for one in (*phrases, *fuse, *tasks.frames))


def pools_digest(folder: Path | None = None, language: str = "en") -> str:
    """blake2b over the names and bytes of all prompt files of a language in name order: a part of the build digest."""
    digest = hashlib.blake2b(digest_size=16)
    for path in page_paths(language, folder):
        content = page_bytes(path)
        digest.update(f"{path.name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


# --- filling


def optional_parts(template: str, keep: bool) -> str:
    return _OPTIONAL.sub(r"\1" if keep else "", template)


def fill(template: str, words: Mapping[str, str], *, keep: bool = True) -> str:
    """The template with its placeholders filled; what an empty word leaves, a double space, is closed."""
    text = _HOLE.sub(lambda hole: words[hole[1]], optional_parts(template, keep))
    return re.sub(r"\s+", " ", text).strip()


def sentence(text: str, kind: Kind, stop: str | None = None) -> str:
    """The first letter capital, the end mark by kind where the text brings none: the English one, or ``stop``."""
    mark = getattr(Stops(), kind) if stop is None else stop
    return text[0].upper() + text[1:] + ("" if text[-1] in ".?!。？！" else mark)


def whole_word(name: str) -> str:
    """A pattern that finds a name as whole words; Chinese has no spaces, so there it finds it anywhere."""
    return rf"(?<!(?a:\w)){re.escape(name)}(?!(?a:\w))" if name.isascii() else re.escape(name)


def pick(items: Sequence[T], u: float) -> T:
    """The item at a share ``u`` in [0, 1] of the list."""
    return items[min(int(u * len(items)), len(items) - 1)]

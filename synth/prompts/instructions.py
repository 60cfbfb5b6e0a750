"""Instructions: prompts of the categories beside fusion, in words and with the tags of DiTFuse's grammar.

``prompts/instructions/en.toml`` and ``zh.toml`` hold the wordings. A tagged prompt begins ``[FUSION]. <MULTI-FOCUS>.``,
``[CONTROL]. <LIGHT+>.`` or ``[SEG].``, as those that DiTFuse was trained on; M3 has ``[FUSION].`` alone. The sentence
between that names both images' places in the sequence is the model's to add: it is the same in each prompt.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Field

from clearfuse.synth.files.resources import read_toml
from clearfuse.synth.files.schema import Schema, StrictModel, validate
from clearfuse.synth.prompts.pages import find_page, page_bytes
from clearfuse.synth.prompts.pools import (
    LANGUAGES,
    MIX,
    Kind,
    Language,
    Stops,
    Text,
    Words,
    check_holes,
    fill,
    languages_of,
    pick,
    sentence,
)
from clearfuse.synth.types import TAGS, Category, Prompt, Tag, Task, UserError

FOLDER = "instructions"
"""Below the folder of the prompt pools."""
CATEGORY_TAGS: dict[Category, str] = {
    "fusion": "[FUSION].",
    "m3": "[FUSION].",
    "control": "[CONTROL].",
    "segment": "[SEG].",
}
TASK_TAGS: dict[Task, str] = {"vif": "<MULTI-MODALITIES>.", "mef": "<MULTI-EXPOSURE>.", "mff": "<MULTI-FOCUS>."}


class Request(StrictModel):
    """One wording."""

    id: Text
    """Its name, which samples record."""
    kind: Kind
    """imperative, question or terse: which end mark it gets."""
    text: Text
    """The whole prompt without its end mark; {class} stands for the class that is to be marked."""


def _requests(*holes: str) -> AfterValidator:
    def check(requests: tuple[Request, ...]) -> tuple[Request, ...]:
        for one in requests:
            check_holes(one.text, holes, holes)
        return requests

    return AfterValidator(check)


Plain = Annotated[tuple[Request, ...], Field(min_length=1), _requests()]


class Instructions(StrictModel):
    """``prompts/instructions/en.toml``: requests by category, and what classes are called."""

    schema_: Schema
    m3: Plain
    """Requests to fuse two damaged versions of a picture."""
    control: dict[Tag, Plain]
    """Requests to change the tone, by the tag that says which way."""
    segment: Annotated[tuple[Request, ...], Field(min_length=1), _requests("class")]
    """Requests to mark a class."""
    classes: dict[Text, Words]
    """Wordings of classes by their names in label maps; a class that is not here is called by its name."""
    stops: Stops = Stops()
    """End marks."""

    @property
    def ids(self) -> frozenset[str]:
        """The names of all wordings."""
        tones = [one for requests in self.control.values() for one in requests]
        return frozenset(one.id for one in (*self.m3, *tones, *self.segment))


@functools.cache
def load_instructions(folder: Path | None = None, language: Language = "en") -> Instructions:
    """The wordings of a language, from a folder of prompt pools or from those that ship. UserError where wrong."""
    path = _page(folder, language)
    page = validate(Instructions, read_toml(path), str(path))
    missing = [tag for tag in TAGS if tag not in page.control]
    if missing:
        raise UserError(f"{path}: control: {missing[0]} is missing")
    return page


def _page(folder: Path | None, language: Language) -> Path:
    return find_page(f"{FOLDER}/{language}.toml", folder)


def instructions_digest(folder: Path | None, language: str) -> str:
    """blake2b over the pages of a language: a part of the build's digest."""
    pages = (page_bytes(_page(folder, one)) for one in languages_of(language))
    return hashlib.blake2b(b"\0".join(pages), digest_size=16).hexdigest()


def instruct(
    category: Category,
    rng: np.random.Generator,
    *,
    tag: Tag | None = None,
    name: str | None = None,
    tagged: float = 0.0,
    folder: Path | None = None,
    language: str = "en",
) -> Prompt:
    """The prompt of a sample of m3, control or segment. Three draws, and a fourth where languages mix.

    tag: of control; name: of the class of segment, as its label map has it. tagged: probability of the grammar's tags.
    """
    which, worded, in_grammar = rng.random(3).tolist()
    languages = languages_of(language)
    spoken = pick(languages, float(rng.random())) if language == MIX else languages[0]
    page = load_instructions(folder, spoken)
    if category == "m3":
        chosen = pick(page.m3, which)
    elif category == "control":
        assert tag is not None, "control has a tag"
        chosen = pick(page.control[tag], which)
    else:
        assert category == "segment" and name is not None, f"{category}: has prompts of its own"
        chosen = pick(page.segment, which)
    words: Mapping[str, str] = {} if name is None else {"class": pick(page.classes.get(name, (name,)), worded)}
    text = sentence(fill(chosen.text, words), chosen.kind, getattr(page.stops, chosen.kind))
    if in_grammar < tagged:
        text = with_tags(text, category, tag)
    return Prompt(text, (chosen.id,), None, ())


def with_tags(text: str, category: Category, tag: Tag | None = None, task: Task | None = None) -> str:
    """A prompt with the grammar's tags before it. task: of a fusion."""
    subtask = f"<{tag}>. " if tag is not None else f"{TASK_TAGS[task]} " if task is not None else ""
    return f"{CATEGORY_TAGS[category]} {subtask}{text}"


def is_tagged(text: str) -> bool:
    """Whether a prompt begins with a tag of the grammar."""
    return text.startswith(tuple(CATEGORY_TAGS.values()))


def spoken_language(templates: tuple[str, ...]) -> Language | None:
    """The language whose shipped wordings a prompt was made of; None where it has others, or none."""
    return next((one for one in LANGUAGES if templates and set(templates) <= load_instructions(None, one).ids), None)

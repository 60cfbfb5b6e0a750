"""What a new phrase must be: the rules of the shipped pools as a function, for phrases that a model wrote.

A phrase is tried in every sentence it can become: with each wording of the images of each task, each strength and none,
with its optional part and without.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from clearfuse.synth.prompts.pools import (
    KINDS,
    Kind,
    Language,
    Phrase,
    Pool,
    Tasks,
    check_holes,
    fill,
    optional_parts,
    sentence,
    whole_word,
)

TEXT_WORDS, CLAUSE_WORDS = 24, 12
"""Words of a filled text and clause. Three clauses in a frame are then 45 words at most: a text encoder's 64 tokens."""
CHARACTERS = {"text": 50, "clause": 24}
"""Chinese characters of a filled text and clause: about two to an English word."""
LONGEST_WORD = 20
TERSE_WORDS = 10
NEAR = 0.85
"""Similarity from which two phrases are one: twice the words in common, in order, over the words of both."""

_ASKS = r"(?:can|could|would|will|should|may|might|is|are|do|does|did|what|how|why|where|which|who)\b"
_QUESTION = re.compile(rf"{_ASKS}|.*, (?:so|and|but) {_ASKS}", re.IGNORECASE)
_NO_VERB = re.compile(
    rf"(?:{_ASKS}|an?\b|the\b|this\b|that\b|these\b|it\b|I\b|we\b|you\b|my\b|our\b|your\b|please\b|no\b|not\b"
    r"|in\b|on\b|of\b|from\b|to\b|for\b|with\b|without\b|there\b|(?!bring\b)[a-z-]+ing\b)",
    re.IGNORECASE,
)
_AGAINST = re.compile(r"(?:add|simulate|introduce|create|generate|synthesi[sz]e)\b|.*\b(?:don't|do not|never)\b", re.I)
_FUSES = re.compile(r"\b(?:fus(?:e|es|ed|ing|ion)|merg(?:e|es|ed|ing)|combine|blend)\b", re.I)
_PLAIN: dict[Language, re.Pattern[str]] = {
    "en": re.compile(r"(?!.*[.?!;:\"<>|\\/])[ -~]+"),
    "zh": re.compile(r"[\u4e00-\u9fff0-9A-Za-z×，{}\[\]]+"),
}
"""What a phrase is written in."""
_CHINESE_ASKS = re.compile("吗$|吗，|能否|能不能|可否|是否|什么|怎么|如何")
_CHINESE_AGAINST = re.compile("(?:添加|加上|加入|模拟|生成|制造|不要去|不去)")
_CHINESE_FUSES = re.compile("融合|合并|合成|结合|叠加")
_MISPLACED = (
    # One wording of the images is singular, another plural: no verb after it may have to agree.
    re.compile(r"\{image\}\]?,? (?:which |that )?(?:is|are|was|were|has|have|does|looks|seems|needs|shows)\b"),
    # It begins with a small letter, and brings its own article.
    re.compile(r"^\[?\{image\}|\b(?:an?|the|this|that|my|our|your) \[?\{image\}|\{image\}'", re.IGNORECASE),
    # "light" takes a, "invisible" an.
    re.compile(r"\ban? \{strength\}", re.IGNORECASE),
)


@dataclass(frozen=True)
class Rules:
    """What decides whether a phrase can join a pool."""

    own: Pool
    others: Sequence[Pool]
    tasks: Tasks
    language: Language = "en"

    def fault(self, phrase: Phrase) -> str | None:
        """Why the phrase cannot join, in a few words that are counted; None where it can."""
        for text in (phrase.text, phrase.clause):
            if not _PLAIN[self.language].fullmatch(text):
                return "not plain text"
            try:
                check_holes(text, ("image", "strength"))
            except ValueError:
                return "with a wrong placeholder"
            if misplaced(text):
                return "with a misplaced placeholder"
            if not self.own.mentions(optional_parts(text, False)):
                return "without the fault's name"
            if self.names_another(text):
                return "naming another fault"
            if self._asks_otherwise(text) or self._names_image(text):
                return "asking for something else"
        if not (_of_its_kind(phrase) if self.language == "en" else _of_its_chinese_kind(phrase)):
            return "not of their kind"
        return self._sentence_fault(phrase) if self.language == "en" else self._chinese_fault(phrase)

    def _asks_otherwise(self, text: str) -> bool:
        against, fuses = (_AGAINST, _FUSES) if self.language == "en" else (_CHINESE_AGAINST, _CHINESE_FUSES)
        return against.match(text) is not None or fuses.search(text) is not None

    def _chinese_fault(self, phrase: Phrase) -> str | None:
        for name, most in CHARACTERS.items():
            for text in self._filled(getattr(phrase, name)):
                if len(text) > most:
                    return "too long"
                if len(text) < 3:
                    return "too short"
                if next(chinese_faults(text), None) is not None:
                    return "not grammatical"
        return None

    def names_another(self, text: str) -> bool:
        """Whether it has a word that another page owns, beside its own page's words."""
        for name in sorted(self.own.names, key=len, reverse=True):
            text = re.sub(whole_word(name), "", text, flags=re.IGNORECASE)
        return any(other.mentions(text) for other in self.others)

    def _names_image(self, text: str) -> bool:
        """Whether it names an image in a task's words, which holds for one target only, and not as {image}."""
        return any(wording in text.lower() for wording in self._wordings(lower=True))

    def _wordings(self, *, lower: bool = False) -> Iterator[str]:
        for words in self.tasks.words.values():
            image = words.image
            for wording in (*image.a, *image.b, *image.both, *image.neutral_a, *image.neutral_b):
                yield wording.lower() if lower else wording

    def _sentence_fault(self, phrase: Phrase) -> str | None:
        for template, most, kind in (
            (phrase.text, TEXT_WORDS, phrase.kind),
            (phrase.clause, CLAUSE_WORDS, "imperative"),
        ):
            for text in self._filled(template):
                if len(text.split()) > most or max(map(len, text.split())) > LONGEST_WORD:
                    return "too long"
                if len(text.split()) < 2:
                    return "too short"
                if next(english_faults(sentence(text, kind)), None) is not None:
                    return "not grammatical"
        return None

    def _filled(self, template: str) -> Iterator[str]:
        wordings = list(dict.fromkeys(self._wordings())) if "{image}" in template else [""]
        strengths = ("", *self.own.strengths) if "{strength}" in template else ("",)
        for keep in (True, False) if "[" in template else (True,):
            for image in wordings:
                yield from (fill(template, {"image": image, "strength": word}, keep=keep) for word in strengths)


def as_phrase(entry: Any, name: str, source: str) -> Phrase | None:
    """A phrase from what a model wrote: end marks off, first letters small. None where a field is missing or wrong."""
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("kind", "text", "clause")):
        return None
    kind, text, clause = (entry[key].strip() for key in ("kind", "text", "clause"))
    known: Kind | None = next((one for one in KINDS if one == kind.lower()), None)
    if known is None or not text or not clause or (text.endswith(("?", "？")) and known != "question"):
        return None
    return Phrase(id=name, kind=known, text=_bare(text), clause=_bare(clause), source=source)


def misplaced(text: str) -> bool:
    """Whether a template has a placeholder where not every wording of the image, or every strength, can stand."""
    return any(pattern.search(text) for pattern in _MISPLACED)


def english_faults(text: str) -> Iterator[str]:
    """What is wrong with an English sentence, as far as rules can tell."""
    if re.search(r"\s\s|^\s|\s$|\s[,.?!]|[,.?!]{2}|,\S", text):
        yield "spacing or punctuation"
    if repeated := re.search(r"\b(\w+) \1\b", text, re.IGNORECASE):
        yield f"'{repeated[1]}' twice"
    for article, word in re.findall(r"\b(an?) ([\w-]+)", text, re.IGNORECASE):
        vowel = re.match(r"[aeiou]|8|hour|honest|IR\b|ISO\b", word, re.IGNORECASE) is not None
        vowel = vowel and re.match(r"use|uni|one|eu", word, re.IGNORECASE) is None
        if vowel != (article.lower() == "an"):
            yield f"'{article} {word}'"
    if re.search(r"\b(?:an?|the|this|both) (?:an?|the|this|both|them|it)\b", text, re.IGNORECASE):
        yield "two determiners"
    if re.search(r"\b(?:of|in|from|to|on|for|with|the|an?|and) *[,.?]|\b(?:the|an?|and|of|from)$", text, re.IGNORECASE):
        yield "a dangling word"


def chinese_faults(text: str) -> Iterator[str]:
    """What is wrong with a Chinese prompt, as far as rules can tell."""
    if re.search(r"[{}\[\]\s]|[,.?!;:]", text):
        yield "a Latin mark, a space or a placeholder"
    if re.search("，，|，$|^，|，[。？]|的的|中中|的，|的$|把，|对，", text):
        yield "a part is missing"
    if re.search("(?:去除|去掉|校正|修复|消除|清理|减轻|抑制|处理|恢复|提高|补偿|弥补)(?:的|中的)", text):
        yield "a verb without its object"


def likeness(first: str, second: str) -> float:
    """2 M / T: M the words in common, in order, T the words of both; placeholders, brackets and marks do not count."""
    return SequenceMatcher(None, plain_words(first), plain_words(second), autojunk=False).ratio()


def plain_words(template: str) -> tuple[str, ...]:
    """The words of a template alone, or its Chinese characters: small letters, without placeholders and marks."""
    return tuple(re.findall(r"[a-z0-9'-]+|[\u4e00-\u9fff]", re.sub(r"\{\w*\}", "", template).lower()))


def repeats(phrase: Phrase, pool: Iterable[Phrase]) -> str | None:
    """Whether the pool has such a phrase: "duplicate", "near-duplicate", or None."""
    near = False
    for known in pool:
        for mine, theirs in ((phrase.text, known.text), (phrase.clause, known.clause)):
            if plain_words(mine) == plain_words(theirs):
                return "duplicate"
            near = near or likeness(mine, theirs) >= NEAR
    return "near-duplicate" if near else None


def _bare(text: str) -> str:
    text = text.rstrip(" .?!。？！")
    acronym = re.match(r"I\b|[A-Z]{2}", text) is not None
    return text if acronym else text[:1].lower() + text[1:]


def _of_its_kind(phrase: Phrase) -> bool:
    """A question asks, an imperative and a clause begin with a verb (as far as a list can tell), terse is short."""
    asks = _QUESTION.match(phrase.text) is not None
    if re.search(r"[,']|\band\b", phrase.clause) or _NO_VERB.match(phrase.clause) or not phrase.clause[0].islower():
        return False
    if phrase.kind == "question":
        return asks
    if phrase.kind == "terse":
        return not asks and len(plain_words(phrase.text)) <= TERSE_WORDS
    return not asks and (_NO_VERB.match(phrase.text) is None or re.match(r"(?:I|my|we)\b", phrase.text) is not None)


def _of_its_chinese_kind(phrase: Phrase) -> bool:
    """A question asks, nothing else does; a clause is one request, and its strength can be left out."""
    if re.search("[，、]|并且|以及|吗", phrase.clause) or any(
        "{strength}的" in t for t in (phrase.text, phrase.clause)
    ):
        return False
    return (phrase.kind == "question") == (_CHINESE_ASKS.search(phrase.text) is not None)

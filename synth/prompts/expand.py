"""``synth prompts expand``: new phrases for the pools, written by a language model and validated.

The model is shown phrases of a pool and asked for new ones, one JSON object per line. A new phrase must follow the
rules of ``wording`` and differ from all existing ones. Accepted phrases are appended to the pool and marked: the id
contains ``machine``, which shows in a sample's ``prompt.templates``, and ``source`` names the model and the seed.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clearfuse.synth.console import plural
from clearfuse.synth.files.folders import check_new, new_folder
from clearfuse.synth.files.storage import local
from clearfuse.synth.prompts.pages import all_pages, page_bytes
from clearfuse.synth.prompts.pools import (
    SUFFIXES,
    Language,
    Phrase,
    Pool,
    load_pool,
    load_tasks,
    pool_names,
)
from clearfuse.synth.prompts.wording import CHARACTERS, CLAUSE_WORDS, TEXT_WORDS, Rules, as_phrase, repeats
from clearfuse.synth.prompts.writers import EndpointWriter, LocalWriter, Messages, Writer
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.types import UserError, WorkIncomplete, check_name

MAX_COUNT = 200
"""Largest number of phrases requested for a pool: beyond some hundred a model repeats itself."""
SPOKEN: dict[Language, str] = {"en": "English", "zh": "Chinese"}
PER_CALL = 10
"""Phrases requested per call."""
SHOWN_PHRASES = 8
"""Phrases of the pool shown per call, drawn at random."""

_ROLE = (
    "You write short requests that people type into a tool which restores degraded images. You write plain {language}."
)
_TASK = """The fault: {fault}.
Every request asks to remove this fault, and nothing else, from an image.
Write each request as one JSON object on a line of its own, with three keys:
"kind": "imperative" for a command, "question" for a question, "terse" for a few words without a whole sentence.
"text": the whole request, without an end mark, {text} words at most.
"clause": the same request as a short command that begins with a verb, so that others can be joined to it; no comma, \
no "and", {clause} words at most.
Both name the fault by one of these words: {names}.
Both may hold {{image}}, which stands for the image with its article, and {{strength}}, which stands for one of: \
{strengths}. A part in [brackets] may be left out.
These are there already:
{shown}
Write {count} new requests that differ from these and from each other, of all three kinds."""

Progress = Callable[[int, int], None]


@dataclass
class PoolGrowth:
    """The outcome for one pool: number of phrases requested, those kept, and counts of reasons for rejection."""

    asked: int
    kept: list[Phrase] = field(default_factory=list[Phrase])
    rejected: Counter[str] = field(default_factory=Counter[str])

    def to_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        return {"asked": self.asked, "kept": len(self.kept), "fell": dict(self.rejected.most_common())}

    def line(self) -> str:
        """``20 asked, 12 kept; rejected: 3 duplicate, 5 missing``."""
        rejected = ", ".join(f"{number} {reason}" for reason, number in self.rejected.most_common())
        return f"{self.asked} asked, {len(self.kept)} kept" + (f"; rejected: {rejected}" if rejected else "")


def find_writer(model: str | None, endpoint: str | None, timeout: float) -> Writer:
    """The writer of a command line: the endpoint where one is given, else a local model. UserError without either."""
    if endpoint is not None:
        return EndpointWriter.of_environment(endpoint, model, timeout)
    if model is None:
        raise UserError("prompts expand needs --model FOLDER|HUB_ID, or --endpoint URL")
    return LocalWriter(model)


def expand(
    make_writer: Callable[[], Writer],
    ops: Sequence[str],
    count: int,
    out: str,
    *,
    seed: int = 0,
    folder: Path | None = None,
    language: Language = "en",
    progress: Progress = lambda done, total: None,
) -> dict[str, PoolGrowth]:
    """Request ``count`` phrases for each of ``ops`` (empty: every pool) and write all pools to the folder ``out``.

    ``out`` is created whole or not at all, and only where a phrase was kept. folder: the pools to expand, None for the
    built-in ones. language: of the pools. make_writer: loads the model, after everything else is checked. Raises
    UserError before the first request, WorkIncomplete where the writer fails; phrases kept until then are written.
    """
    names = list(dict.fromkeys(ops)) or pool_names(folder, language)
    check(names, count, out, seed, folder, language)
    writer = make_writer()
    grown = {op: PoolGrowth(count) for op in names}
    starts = range(0, count, PER_CALL)
    try:
        for done, (op, start) in enumerate(itertools.product(names, starts), 1):
            grow(grown[op], writer, op, start, seed, folder, language)
            progress(done, len(names) * len(starts))
    except WorkIncomplete as stopped:
        kept = sum(len(growth.kept) for growth in grown.values())
        until = f"{plural(kept, 'phrasing')} kept until then in {out}; go on with --prompts {out} and a new --out"
        raise WorkIncomplete(f"{stopped}; {until if kept else 'nothing is written'}") from None
    finally:  # a failed call must not lose the earlier ones
        if any(growth.kept for growth in grown.values()):
            write_pools(Path(out), {op: growth.kept for op, growth in grown.items()}, folder, language)
    return grown


def check(
    names: Sequence[str], count: int, out: str, seed: int, folder: Path | None, language: Language = "en"
) -> None:
    """Raise UserError for bad arguments, before a model is loaded."""
    if not 1 <= count <= MAX_COUNT:
        raise UserError(f"--count {count}: must be in [1, {MAX_COUNT}]")
    if not 0 <= seed < 2**53:
        raise UserError(f"--seed {seed}: must be in [0, 2^53)")
    if folder is not None and not folder.is_dir():
        raise UserError(f"--prompts {folder}: folder does not exist")
    load_tasks(folder, language)
    pools = pool_names(folder, language)
    for op in names:
        check_name("prompt pool", op, pools)
    for op in pools:
        load_pool(op, folder, language)
    check_new(local(out, "--out"))


def grow(
    grown: PoolGrowth,
    writer: Writer,
    op: str,
    start: int,
    seed: int,
    folder: Path | None,
    language: Language = "en",
) -> None:
    """One call: request up to ten phrases for a pool, from the ``start``-th on, and add the valid ones to ``grown``."""
    pool = load_pool(op, folder, language)
    others = [load_pool(other, folder, language) for other in pool_names(folder, language) if other != op]
    rules = Rules(pool, others, load_tasks(folder, language), language)
    stem = f"{op}-machine-" if language == "en" else f"{op}-{language}-machine-"
    made_before = (phrase.id.removeprefix(stem) for phrase in pool.phrases)
    first = 1 + max((int(number) for number in made_before if number.isdecimal()), default=0)
    wanted = min(PER_CALL, grown.asked - start)
    call_seed = seed_of(seed, "expand", op, start)
    messages = messages_for(pool, grown.kept, wanted, call_seed, language)
    entries, broken = read_answer(writer(messages, call_seed % 2**31, wanted))
    entries = entries[:wanted]
    broken = min(broken, wanted - len(entries))
    grown.rejected.update({"unreadable": broken, "missing": wanted - len(entries) - broken})
    for entry in entries:
        phrase = as_phrase(entry, f"{stem}{first + len(grown.kept):02d}", f"{writer.name}, seed {seed}")
        if phrase is None:
            grown.rejected["without a kind, text and clause"] += 1
        elif reason := rules.fault(phrase) or repeats(phrase, (*pool.phrases, *grown.kept)):
            grown.rejected[reason] += 1
        else:
            grown.kept.append(phrase)
    grown.rejected = +grown.rejected


def messages_for(pool: Pool, kept: Sequence[Phrase], count: int, seed: int, language: Language = "en") -> Messages:
    """The chat of a request: the degradation, the rules, some existing phrases, and the number of new ones."""
    phrases = (*pool.phrases, *kept)
    chosen = generator(seed_of(seed, "shown")).permutation(len(phrases))[:SHOWN_PHRASES]
    shown = [{key: getattr(phrases[i], key) for key in ("kind", "text", "clause")} for i in sorted(chosen.tolist())]
    # Filled, {image} is three words, or five characters.
    most = {"text": TEXT_WORDS - 4, "clause": CLAUSE_WORDS - 2}
    most = most if language == "en" else {name: length - 8 for name, length in CHARACTERS.items()}
    task = _TASK if language == "en" else _TASK.replace(" words at most", " characters at most")
    content = task.format(
        fault=pool.names[0],
        names=", ".join(pool.names),
        strengths=", ".join(pool.strengths),
        text=most["text"],
        clause=most["clause"],
        shown="\n".join(json.dumps(phrase, ensure_ascii=False) for phrase in shown),
        count=count,
    )
    return [
        {"role": "system", "content": _ROLE.format(language=SPOKEN[language])},
        {"role": "user", "content": content},
    ]


def read_answer(answer: str) -> tuple[list[dict[str, Any]], int]:
    """(JSON objects with a text, number of broken objects) in a model's answer, ignoring all other text."""
    decoder, found, broken, at = json.JSONDecoder(), list[dict[str, Any]](), 0, 0
    while (at := answer.find("{", at)) >= 0:
        try:
            value, end = decoder.raw_decode(answer, at)
        except (ValueError, RecursionError):
            # Truncated or misquoted: continue at the next line, since {image} in it is not an object.
            broken, end = broken + 1, answer.find("\n", at)
            at = end if end >= 0 else len(answer)
            continue
        is_phrase = isinstance(value, dict) and "text" in value
        found += [value] if is_phrase else []
        at = end if is_phrase else at + 1  # a list of phrases may be inside another object
    return found, broken


def write_pools(out: Path, kept: dict[str, list[Phrase]], folder: Path | None, language: Language = "en") -> None:
    """Write all pages, those of ``folder`` first, to ``out``, whole or not at all, with new phrases in their pools."""
    with new_folder(out) as temporary:
        for path in all_pages(folder):
            op = path.name.removesuffix(SUFFIXES[language])
            added = kept.get(op, [])
            pool = load_pool(op, folder, language) if added else None
            text = None if pool is None else pool_toml(pool.model_copy(update={"phrases": (*pool.phrases, *added)}))
            (temporary / path.name).write_bytes(page_bytes(path) if text is None else text.encode())
        for op in kept:
            before = load_pool(op, folder, language).phrases
            assert load_pool(op, temporary, language).phrases == (*before, *kept[op])


def pool_toml(pool: Pool) -> str:
    """The file of a pool, from which ``load_pool`` reads the same pool."""
    return "".join(_toml_lines(pool))


def _toml_lines(pool: Pool) -> Iterator[str]:
    yield "# text: a whole prompt. clause: how it joins others. {strength} and a part in [brackets] may be left out.\n"
    yield "# source: the model that wrote a phrase, and the seed. sets: data sets whose pictures show what it says.\n"
    yield f"schema = 1\nnames = [{', '.join(map(_quote, pool.names))}]\n"
    yield f"strengths = [{', '.join(map(_quote, pool.strengths))}]\n"
    for phrase in pool.phrases:
        keys = ("id", "kind", "text", "clause", *(["source"] if phrase.source else []))
        yield "\n[[phrase]]\n" + "".join(f"{key} = {_quote(getattr(phrase, key))}\n" for key in keys)
        if phrase.sets:
            yield f"sets = [{', '.join(map(_quote, phrase.sets))}]\n"


def _quote(text: str) -> str:
    """A TOML basic string: as in JSON, but DEL, which TOML forbids, is escaped too."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def summary(grown: dict[str, PoolGrowth], out: str) -> tuple[str, str | None]:
    """(lines for the user, what is missing or None): a line per pool, then the total."""
    asked, kept = sum(growth.asked for growth in grown.values()), sum(len(growth.kept) for growth in grown.values())
    lines = [f"{op}: {growth.line()}" for op, growth in grown.items()]
    if kept == 0:
        reasons = sum((growth.rejected for growth in grown.values()), Counter[str]())
        why = ", ".join(f"{number} {reason}" for reason, number in reasons.most_common())
        return "\n".join(lines), f"nothing kept of {plural(asked, 'phrasing')} ({why}): nothing is written"
    lines.append(f"wrote {out}: {kept} of {asked} kept; use them with synth build --prompts {out}")
    empty = [op for op, growth in grown.items() if not growth.kept]
    return "\n".join(lines), f"nothing kept for {', '.join(empty)}" if empty else None

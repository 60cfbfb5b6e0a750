"""``synth prompts expand``: more phrasings for the pools, written by a language model and checked as ours are.

The model is shown what a pool holds and asked for new phrases, a JSON object a line. Each that it writes must keep the
rules of ``wording`` and resemble none that is there. What is left is appended to the pool, marked as made by a model:
its id says ``machine``, so that a sample's ``prompt.templates`` tells it, and its ``source`` the model and the seed.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from clearfuse.synth.console import counted
from clearfuse.synth.files.resources import resource_dir
from clearfuse.synth.files.storage import local
from clearfuse.synth.prompts.pools import Phrase, Pool, load_pool, load_tasks, page_bytes, pool_names
from clearfuse.synth.prompts.wording import CLAUSE_WORDS, TEXT_WORDS, Rules, as_phrase, repeats
from clearfuse.synth.prompts.writers import EndpointWriter, LocalWriter, Messages, Writer
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.types import UserError, WorkIncomplete, unknown

MOST = 200
"""Phrasings that can be asked of one pool: past some hundred a model repeats itself."""
A_CALL = 10
"""Phrasings asked for in one call."""
SHOWN = 8
"""Phrases of the pool shown in one call, drawn anew each time."""

_ROLE = "You write short requests that people type into a tool which restores degraded images. You write plain English."
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
class Grown:
    """What became of one pool: phrasings asked for, phrases kept, and why others fell."""

    asked: int
    kept: list[Phrase] = field(default_factory=list[Phrase])
    fell: Counter[str] = field(default_factory=Counter[str])

    def to_json(self) -> dict[str, Any]:
        """The object that ``--json`` prints of it."""
        return {"asked": self.asked, "kept": len(self.kept), "fell": dict(self.fell.most_common())}

    def line(self) -> str:
        """``20 asked, 12 kept; fell: 3 duplicate, 5 missing``."""
        fell = ", ".join(f"{number} {reason}" for reason, number in self.fell.most_common())
        return f"{self.asked} asked, {len(self.kept)} kept" + (f"; fell: {fell}" if fell else "")


def find_writer(model: str | None, endpoint: str | None, timeout: float) -> Writer:
    """The writer that a command line names: an endpoint where there is one, else a local model."""
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
    progress: Progress = lambda done, total: None,
) -> dict[str, Grown]:
    """Ask for ``count`` phrasings for each of ``ops`` (none: every pool) and write all pools into ``out``.

    ``out`` appears whole or not at all; it stays away where nothing was kept. folder: the pools to grow, None those
    that ship. make_writer: finds the model, after all else is checked. Raises UserError before the first question,
    WorkIncomplete where the writer fails: what was kept until then is written.
    """
    names = list(dict.fromkeys(ops)) or pool_names(folder)
    check(names, count, out, seed, folder)
    writer = make_writer()
    grown = {op: Grown(count) for op in names}
    starts = range(0, count, A_CALL)
    try:
        for done, (op, start) in enumerate(itertools.product(names, starts), 1):
            grow(grown[op], writer, op, start, seed, folder)
            progress(done, len(names) * len(starts))
    except WorkIncomplete as stopped:
        kept = sum(len(one.kept) for one in grown.values())
        until = f"{counted(kept, 'phrasing')} kept until then in {out}; go on with --prompts {out} and a new --out"
        raise WorkIncomplete(f"{stopped}; {until if kept else 'nothing is written'}") from None
    finally:  # what a model wrote in an hour is not lost to its last call
        if any(one.kept for one in grown.values()):
            write_pools(Path(out), {op: one.kept for op, one in grown.items()}, folder)
    return grown


def check(names: Sequence[str], count: int, out: str, seed: int, folder: Path | None) -> None:
    """Refuse what cannot work before a model is loaded or asked."""
    if not 1 <= count <= MOST:
        raise UserError(f"--count {count}: must be in [1, {MOST}]")
    if not 0 <= seed < 2**53:
        raise UserError(f"--seed {seed}: must be in [0, 2^53)")
    if folder is not None and not folder.is_dir():
        raise UserError(f"--prompts {folder}: folder does not exist")
    load_tasks(folder)
    pools = pool_names(folder)
    for op in names:
        if op not in pools:
            raise unknown("prompt pool", op, pools)
    for op in pools:
        load_pool(op, folder)
    path = local(out, "--out")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"--out {out}: is there and not empty; name a new folder")
    try:
        path.resolve().parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror}") from None


def grow(grown: Grown, writer: Writer, op: str, start: int, seed: int, folder: Path | None) -> None:
    """One call: ask for up to ten phrasings for a pool, from the ``start``-th on, and keep what can join it."""
    pool = load_pool(op, folder)
    others = [load_pool(other, folder) for other in pool_names(folder) if other != op]
    rules = Rules(pool, others, load_tasks(folder))
    made_before = (phrase.id.removeprefix(f"{op}-machine-") for phrase in pool.phrases)
    first = 1 + max((int(number) for number in made_before if number.isdecimal()), default=0)
    ask = min(A_CALL, grown.asked - start)
    call_seed = seed_of(seed, "expand", op, start)
    entries, broken = read_answer(writer(messages_for(pool, grown.kept, ask, call_seed), call_seed % 2**31, ask))
    entries = entries[:ask]
    broken = min(broken, ask - len(entries))
    grown.fell.update({"unreadable": broken, "missing": ask - len(entries) - broken})
    for entry in entries:
        phrase = as_phrase(entry, f"{op}-machine-{first + len(grown.kept):02d}", f"{writer.name}, seed {seed}")
        if phrase is None:
            grown.fell["without a kind, text and clause"] += 1
        elif reason := rules.fault(phrase) or repeats(phrase, (*pool.phrases, *grown.kept)):
            grown.fell[reason] += 1
        else:
            grown.kept.append(phrase)
    grown.fell = +grown.fell


def messages_for(pool: Pool, kept: Sequence[Phrase], count: int, seed: int) -> Messages:
    """The question: the fault, the rules, some of the phrases that are there, and how many new ones are wanted."""
    there = (*pool.phrases, *kept)
    chosen = generator(seed_of(seed, "shown")).permutation(len(there))[:SHOWN]
    shown = [{key: getattr(there[i], key) for key in ("kind", "text", "clause")} for i in sorted(chosen.tolist())]
    content = _TASK.format(
        fault=pool.names[0],
        names=", ".join(pool.names),
        strengths=", ".join(pool.strengths),
        text=TEXT_WORDS - 4,  # filled, {image} is three words
        clause=CLAUSE_WORDS - 2,
        shown="\n".join(json.dumps(one, ensure_ascii=False) for one in shown),
        count=count,
    )
    return [{"role": "system", "content": _ROLE}, {"role": "user", "content": content}]


def read_answer(answer: str) -> tuple[list[dict[str, Any]], int]:
    """(objects with a text, lines that begin one and are broken) of a model's answer, whatever stands around them."""
    decoder, found, broken, at = json.JSONDecoder(), list[dict[str, Any]](), 0, 0
    while (at := answer.find("{", at)) >= 0:
        try:
            value, end = decoder.raw_decode(answer, at)
        except (ValueError, RecursionError):
            # One that is cut or misquoted: go on at the next line, since {image} in it is no object of its own.
            broken, end = broken + 1, answer.find("\n", at)
            at = end if end >= 0 else len(answer)
            continue
        whole = isinstance(value, dict) and "text" in value
        found += [value] if whole else []
        at = end if whole else at + 1  # a list of phrases may be inside another object
    return found, broken


def write_pools(out: Path, kept: dict[str, list[Phrase]], folder: Path | None) -> None:
    """All files of ``folder`` into ``out``, with the new phrases in their pools: whole or not at all, by rename."""
    source = folder or resource_dir("prompts")
    out = out.resolve()
    temporary = out.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{out.name}")
    try:
        temporary.mkdir()
        for path in sorted(source.glob("*.toml")):
            new = kept.get(path.stem, [])
            pool = load_pool(path.stem, folder) if new else None
            grown = None if pool is None else pool_toml(pool.model_copy(update={"phrases": (*pool.phrases, *new)}))
            (temporary / path.name).write_bytes(page_bytes(path) if grown is None else grown.encode())
        for op in kept:
            assert load_pool(op, temporary).phrases[len(load_pool(op, folder).phrases) :] == tuple(kept[op])
        os.replace(temporary, out)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def pool_toml(pool: Pool) -> str:
    """A pool as its file: what ``load_pool`` reads back as the same pool."""
    return "".join(_toml_lines(pool))


def _toml_lines(pool: Pool) -> Iterator[str]:
    yield "# text: a whole prompt. clause: how it joins others. {strength} and a part in [brackets] may be left out.\n"
    yield "# source: the model that wrote a phrase, and the seed.\n"
    yield f"schema = 1\nnames = [{', '.join(map(_quoted, pool.names))}]\n"
    yield f"strengths = [{', '.join(map(_quoted, pool.strengths))}]\n"
    for phrase in pool.phrases:
        keys = ("id", "kind", "text", "clause", *(["source"] if phrase.source else []))
        yield "\n[[phrase]]\n" + "".join(f"{key} = {_quoted(getattr(phrase, key))}\n" for key in keys)


def _quoted(text: str) -> str:
    """A TOML basic string: JSON's, and DEL, which TOML bars and JSON leaves."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def summary(grown: dict[str, Grown], out: str) -> tuple[str, str | None]:
    """(lines for the user, what is missing or None): a line a pool, then the sum."""
    asked, kept = sum(one.asked for one in grown.values()), sum(len(one.kept) for one in grown.values())
    lines = [f"{op}: {one.line()}" for op, one in grown.items()]
    if kept == 0:
        reasons = sum((one.fell for one in grown.values()), Counter[str]())
        why = ", ".join(f"{number} {reason}" for reason, number in reasons.most_common())
        return "\n".join(lines), f"nothing kept of {counted(asked, 'phrasing')} ({why}): nothing is written"
    lines.append(f"wrote {out}: {kept} of {asked} kept; use them with synth build --prompts {out}")
    short = [op for op, one in grown.items() if not one.kept]
    return "\n".join(lines), f"nothing kept for {', '.join(short)}" if short else None

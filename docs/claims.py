"""docs/claims.md from docs/claims.toml: what the pages claim, and the test or the benchmark that shows it."""

from __future__ import annotations

import ast
import datetime
import re
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from clearfuse.synth.files.resources import read_toml
from clearfuse.synth.files.schema import StrictModel, validate

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
UNIT = r"(?:dB|ms|s|seconds|minutes|hours|GiB|MiB|GB|MB|kB|%|times)"
NUMBER = re.compile(rf"(?<![\w.])\d+(?:[.,]\d+)?\s?{UNIT}(?![\w²])")
"""A number with a unit of what is measured."""


class Claim(StrictModel):
    """A sentence of a page, with the test that shows it, or the command, its figure, the date and the machine."""

    page: str
    text: Annotated[str, Field(min_length=8)]
    test: str | None = None
    command: str | None = None
    figure: str | None = None
    date: datetime.date | None = None
    machine: str | None = None

    @model_validator(mode="after")
    def _shown(self) -> Claim:
        measured = [self.command, self.figure, self.date, self.machine]
        if (self.test is None) == (None in measured) or (
            self.test is not None and any(x is not None for x in measured)
        ):
            raise ValueError("a claim has a test, or else a command with figure, date and machine")
        return self


class Claims(StrictModel):
    """docs/claims.toml. machines: what each is; stated: by page, parts of lines whose numbers claim nothing."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    machines: dict[str, str]
    claim: list[Claim]
    stated: Annotated[dict[str, list[str]], Field(default_factory=dict)]


@cache
def claims() -> Claims:
    """The claims of docs/claims.toml. Raises UserError where it breaks the rules."""
    path = DOCS / "claims.toml"
    return validate(Claims, read_toml(path), str(path))


def plain(text: str) -> str:
    """A page's text on one line, as a claim is looked for in it."""
    return " ".join(text.split())


def faults() -> Iterator[str]:
    """What is wrong: a claim that its page does not make, a test or script that is gone, a number that nobody shows."""
    told = claims()
    for one in told.claim:
        if plain(one.text) not in plain((ROOT / one.page).read_text()):
            yield f"{one.page} does not say: {one.text}"
        if one.test is not None and not _has_test(*one.test.split("::")):
            yield f"{one.page}: no such test: {one.test}"
        if one.machine is not None and one.machine not in told.machines:
            yield f"{one.page}: unknown machine '{one.machine}'"
        script = re.match(r"python (\S+)", one.command or "")
        if script is not None and not (ROOT / script[1]).is_file():
            yield f"{one.page}: no such script: {script[1]}"
    for page, parts in told.stated.items():
        yield from (f"{page} does not say: {part}" for part in parts if part not in plain((ROOT / page).read_text()))
    for page in pages():
        said = [one.text for one in told.claim if one.page == page] + told.stated.get(page, [])
        yield from (f"{page}: neither claimed nor stated: {line}" for line in unshown((ROOT / page).read_text(), said))


def _has_test(path: str, name: str) -> bool:
    file = ROOT / path
    tree = ast.parse(file.read_text()) if file.is_file() else ast.Module([], [])
    return any(isinstance(node, ast.FunctionDef) and node.name == name for node in tree.body)


PAGES = ("README.md", "docs/*.md", "docs/howto/*.md", "docs/explanation/*.md")
OTHERS = frozenset(
    {"claims.md", "log.md", "cli.md", "operators.md", "files.md", "estimation.md", "training.md", "scale.md"}
)
"""Pages whose numbers are not looked for: made from the code, records of trials and simulations, or tables of settings;
their claims are in the list all the same."""


def pages() -> list[str]:
    """The pages whose numbers are looked for."""
    found = {path for pattern in PAGES for path in ROOT.glob(pattern) if path.name not in OTHERS}
    return sorted(str(path.relative_to(ROOT)) for path in found)


def unshown(text: str, said: list[str]) -> Iterator[str]:
    """Parts of a page around numbers of something measured that are in none of the texts ``said``."""
    page = plain(re.sub(r"^```(?:text|python|toml|json)\n.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE))
    for part in map(plain, said):
        page = page.replace(part, " ")
    yield from (page[max(0, found.start() - 60) : found.end() + 20].strip() for found in NUMBER.finditer(page))


def claims_page() -> str:
    """docs/claims.md: a table a page."""
    told = claims()
    lines = [
        "# What is claimed, and what shows it",
        "",
        "Made from `docs/claims.toml` by `make docs`. A test shows its claim at every run of `make test`; a figure is",
        "of one run of its command, on the machine that is named: times there are ±30 %. A number on a page that is",
        "neither here nor listed as a setting fails `tests/test_claims.py`.",
        "",
        *(f"- *{name}*: {what}" for name, what in told.machines.items()),
    ]
    for page, group in groupby(told.claim, key=lambda one: one.page):
        link = f"../{page}" if not page.startswith("docs/") else page.removeprefix("docs/")
        lines += ["", f"## [{page}]({link})", "| claim | shown by | figure | date, machine |", "|---|---|---|---|"]
        for one in group:
            text = one.text.replace("|", "\\|").replace("[", "\\[")
            shown = one.test if one.test is not None else (one.command or "").replace("|", "\\|")
            when = "" if one.date is None else f"{one.date}, {one.machine}"
            lines.append(f"| {text} | `{shown}` | {one.figure or ''} | {when} |")
    return "\n".join(lines) + "\n"

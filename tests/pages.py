"""The pages that a reader sees: their fenced blocks, command lines, links and headings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from conftest import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "spaces/README.md")),
    *(ROOT / "integrations").rglob("*.md"),
    *(ROOT / "models").rglob("README.md"),
    *sorted((ROOT / "docs").rglob("*.md")),
]

FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```\s*$", re.DOTALL | re.MULTILINE)
SHELL = ("sh", "bash", "console")


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    return [(match[2].strip(), match[3]) for match in FENCE.finditer(page.read_text())]


def prose(page: Path) -> str:
    """A page without its fenced blocks and code spans."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text()))


def fenced(page: Path) -> list[str]:
    """The command lines of a page's shell blocks, continued lines joined, comments dropped, variables filled in."""
    lines: list[str] = []
    known: dict[str, str] = {}
    for language, text in blocks(page):
        if language not in SHELL:
            continue
        for raw in text.replace("\\\n", " ").splitlines():
            line = re.split(r"(?:^|\s)#\s", raw)[0].strip()
            if set_ := re.fullmatch(r'([A-Z_]+)="([^"]*)"', line):
                known[set_[1]] = set_[2]
            elif line:
                lines.append(re.sub(r"\$([A-Z_]+)", lambda name: known.get(name[1], name[0]), line))
    return lines


def commands(line: str) -> list[list[str]]:
    """The words of each command of a line, without what is set before it."""
    found: list[list[str]] = [[]]
    for word in shlex.split(line):
        if word in ("&&", ";", "|"):
            found.append([])
        elif found[-1] or not re.match(r"[A-Z_]+=", word):
            found[-1].append(word)
    return [words for words in found if words]


def links(page: Path) -> list[str]:
    """Targets of the page's links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", page.read_text()))


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub and the site make them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE):
        text = re.sub(r"\]\([^)]*\)", "", heading).strip().lower()
        name = re.sub(r"[^\w\- ]", "", text).replace(" ", "-")
        number = 0
        while (f"{name}-{number}" if number else name) in found:
            number += 1
        found.add(f"{name}-{number}" if number else name)
    return found

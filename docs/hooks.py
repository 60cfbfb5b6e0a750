"""What mkdocs does beside its own: pages that lie outside ``docs/``, and GitHub's Markdown where Python's differs.

Every page has one source. The README is the site's first page; CONTRIBUTING.md, CHANGELOG.md, the model cards and
``examples/`` are taken from where they lie, and links to them lead to the site's copy.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "CONTRIBUTING.md", "CHANGELOG.md": "CHANGELOG.md"}
DECISIONS = "decisions/index.md"
LINK = re.compile(r"(\]\()([^)\s]+)(\))")
FENCE = re.compile(r"\s*(```+|~~~+)")
ITEM = re.compile(r"\s*([-*+]|\d+\.) ")


def outside() -> dict[str, str]:
    """The site's path of each file outside ``docs/``, by its path in the repository."""
    cards = sorted(ROOT.glob("models/*/README.md"))
    examples = [path for path in sorted((ROOT / "examples").rglob("*.*")) if path.suffix in (".py", ".toml", ".ipynb")]
    same = [path.relative_to(ROOT).as_posix() for path in (*cards, *examples)]
    return PAGES | {name: name for name in same}


def decisions() -> list[tuple[str, str]]:
    """File name and title of each decision."""
    found = sorted((ROOT / "docs/decisions").glob("*.md"))
    return [(path.name, path.read_text().partition("\n")[0].lstrip("# ")) for path in found]


def on_config(config: Any) -> Any:
    """Put the decisions into the navigation."""
    pages = [DECISIONS, *({title: f"decisions/{name}"} for name, title in decisions())]
    config.nav = [*config.nav, {"Decisions": pages}]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add what lies outside, and a list of the decisions."""
    for source, target in outside().items():
        files.append(File.generated(config, target, abs_src_path=str(ROOT / source)))
    rows = "\n".join(f"- [{title}]({name})" for name, title in decisions())
    text = f"# Decisions\n\nWhy the design is as it is, a page for each choice.\n\n{rows}\n"
    files.append(File.generated(config, DECISIONS, content=text))
    for file in files.documentation_pages():
        if file.src_uri.startswith("examples/"):
            file.inclusion = InclusionLevel.NOT_IN_NAV
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Let links lead where the site has their target, and separate lists and tables as Python's Markdown wants it."""
    sources = {target: source for source, target in outside().items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    return separated(LINK.sub(lambda match: _moved(match, source, page.file.src_uri), markdown))


def _moved(match: re.Match[str], source: str, here: str) -> str:
    """A link of a page that lies at ``source`` in the repository and at ``here`` in the site."""
    path, mark, anchor = match[2].partition("#")
    if not path or ":" in path:
        return match[0]
    meant = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    target = outside().get(meant, meant.removeprefix("docs/"))
    target = DECISIONS if target == "decisions" else target
    return f"{match[1]}{posixpath.relpath(target, posixpath.dirname(here) or '.')}{mark}{anchor}{match[3]}"


def separated(markdown: str) -> str:
    """Blank lines before lists and tables that follow a line of a paragraph, and twice the indent inside lists.

    GitHub wants neither: there what belongs to an item stands below its text, two spaces in.
    """
    lines: list[str] = []
    fence, listed, gap = "", False, False  # an open block's mark; in a list; a blank line since its last item
    for line in markdown.splitlines():
        mark = FENCE.match(line)
        before = lines[-1] if lines else ""
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1] == fence:
            fence = ""
        elif not fence:
            item = ITEM.match(line) is not None
            goes_on = ITEM.match(before) or before.startswith("#") or (listed and before.startswith(" ") and not gap)
            table = line.startswith("|") and not before.startswith("|")
            if before.strip() and (table or (item and not goes_on)):
                lines.append("")
            if line.strip() and not line.startswith(" "):
                listed = item
            gap = not item and (gap or not line.strip())
        if listed and line.startswith("  "):
            line = " " * (len(line) - len(line.lstrip())) + line
        lines.append(line)
    return "\n".join(lines) + "\n"

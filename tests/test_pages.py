"""Laws over every page: commands take its command lines, its links lead somewhere, its Python imports what is there."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from html import unescape
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from textwrap import dedent
from typing import Any
from urllib.parse import unquote

import pytest

from clearfuse.synth.plugins import Own, adopt
from conftest import ROOT
from pages import PAGES, anchors, blocks, commands, fenced, links

LANGUAGES = {"sh", "bash", "text", "python", "toml", "json", "bibtex"}
OTHERS = {
    ".", "cat", "cd", "cp", "docker", "git", "pip", "uv", "pytest", "tensorboard",
}  # fmt: skip
"""Programs that are not ours, whose lines are not looked at."""
SHOWN = [page for page in PAGES if fenced(page)]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Taking --plugin loads the file."""
    yield
    adopt(Own((), {}))


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _choices() -> dict[str, Collection[str]]:
    """What may stand behind options that take a name."""
    from clearfuse.synth.files.resources import resource_names
    from clearfuse.synth.operators import OPERATORS
    from clearfuse.train.designs.presets import PRESETS
    from clearfuse.train.metrics import METRICS, PROFILES

    return {
        "--preset": PRESETS,
        "--data": resource_names("manifests/datasets"),
        "--recipe": resource_names("manifests/recipes"),
        "--op": ("all", *OPERATORS),
        "--metrics": ("all", *(name.lower() for name in METRICS)),
        "--profile": PROFILES,
    }


def _check_values(words: list[str], choices: dict[str, Collection[str]], line: str) -> None:
    """Names behind options exist, or are the reader's own file; with a plugin there are more of them."""
    for option, value in pairwise(words):
        if option not in choices or ("--plugin" in words and option in ("--preset", "--op", "--metrics")):
            continue
        listed = option in ("--op", "--metrics")
        for one in value.split(",") if listed else [value.partition("=")[0] if option == "--data" else value]:
            name = one.lower() if option == "--metrics" else one
            assert name in choices[option] or one.endswith(".toml") or name == "mine", f"{line}: {option} {one}"


def _parse(command: Any, words: list[str], parent: Any = None) -> None:
    """Go down to the command that the words name, and let it take its options."""
    context = command.make_context(words[0], list(words[1:]), parent=parent)
    if hasattr(command, "commands"):
        name, below, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        _parse(below, [name, *rest], context)


@pytest.fixture(scope="module")
def ours() -> dict[str, Callable[[list[str]], None]]:
    """The commands that pages may name, each as what takes its words."""
    from typer.main import get_command

    from clearfuse.__main__ import USAGE
    from clearfuse.bench.cli import app as bench_app
    from clearfuse.synth.cli.app import app as synth_app
    from clearfuse.train.cli.app import app as train_app

    synth, train, bench = (get_command(app) for app in (synth_app, train_app, bench_app))
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)

    def clearfuse(words: list[str]) -> None:
        assert words[1] in USAGE, words
        if words[1] in ("synth", "train", "bench"):
            _parse({"synth": synth, "train": train, "bench": bench}[words[1]], words[1:])

    def make(words: list[str]) -> None:
        assert words[1] in targets, words

    def python(words: list[str]) -> None:
        assert words[1] in ("-m", "-c") or words[1].startswith("mine") or (ROOT / words[1]).is_file(), words

    return {
        "synth": lambda words: _parse(synth, words),
        "train": lambda words: _parse(train, words),
        "clearfuse": clearfuse,
        "make": make,
        "python": python,
        "python3": python,
    }


@pytest.mark.parametrize("page", SHOWN, ids=name_of)
def test_every_command_line_is_taken(page: Path, ours: dict[str, Callable[[list[str]], None]]) -> None:
    """Each of our lines parses with its options, and the names of data sets, presets, recipes and metrics exist."""
    choices = _choices()
    for line in fenced(page):
        for words in commands(line):
            if words[0] in ("torchrun", "accelerate"):
                words = words[words.index("-m" if "-m" in words else "--no-python") + 1 :]
                words[0] = words[0].removeprefix("clearfuse.")
            program = Path(words[0]).name or words[0]
            assert program in ours or program in OTHERS, line
            if program in ours:
                try:
                    ours[program](words)
                except Exception as error:
                    raise AssertionError(f"{line}: {getattr(error, 'message', error)}") from error
                _check_values(words, choices, line)


@pytest.mark.parametrize("wrong", ["synth build --task vif --nn 3", "train fuse a.png", "synth bild --task vif"])
def test_a_wrong_line_is_seen(wrong: str, ours: dict[str, Callable[[list[str]], None]]) -> None:
    (words,) = commands(wrong)
    with pytest.raises(Exception, match=r"--nn|Missing|bild"):
        ours[words[0]](words)


@pytest.mark.parametrize(
    "wrong", ["synth build --data mrss=/data", "train fit s --preset mmaif-f", "synth degrade --op hase"]
)
def test_a_wrong_name_is_seen(wrong: str) -> None:
    with pytest.raises(AssertionError):
        _check_values(wrong.split(), _choices(), wrong)


def test_every_block_says_what_it_is() -> None:
    unknown = [
        f"{name_of(page)}: {kind or 'none'}" for page in PAGES for kind, _ in blocks(page) if kind not in LANGUAGES
    ]
    assert unknown == []


def test_every_link_leads_somewhere() -> None:
    """To a file that is there, and in a page to a heading that is there."""
    lost: list[str] = []
    for page in PAGES:
        for link in links(page):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if re.match(r"[a-z]+:", link):
                continue
            if not target.exists() or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
                lost.append(f"{name_of(page)}: {link}")
    assert lost == []


def test_python_on_the_pages_imports_what_is_there() -> None:
    """Each block compiles; each name that it imports from this package exists."""
    looked_at = 0
    for page in PAGES:
        for kind, text in blocks(page):
            if kind != "python":
                continue
            for node in ast.walk(ast.parse(dedent(text))):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("clearfuse"):
                    looked_at += 1
                    missing = [one.name for one in node.names if not hasattr(import_module(str(node.module)), one.name)]
                    assert missing == [], f"{name_of(page)}: {node.module}"
    assert looked_at > 5


def test_every_page_is_in_the_site_s_navigation() -> None:
    """Pages of docs/ but the decisions, which the site's hooks list."""
    shown = set(re.findall(r"[\w/.-]+\.md\b", (ROOT / "mkdocs.yml").read_text()))
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").as_posix()
        assert name in shown or name.startswith("decisions/"), name


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdocs = shutil.which("mkdocs", path=str(Path(sys.executable).parent)) or shutil.which("mkdocs")
    if mkdocs is None:
        pytest.skip("needs mkdocs-material: pip install 'clearfuse[docs]'")
    ran = subprocess.run(
        [mkdocs, "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0 and "WARNING" not in ran.stderr, ran.stderr
    made = {path.relative_to(tmp_path / "site").as_posix(): path for path in (tmp_path / "site").rglob("*.html")}
    assert made.keys() >= {"index.html", "tutorial.html", "decisions/index.html", "howto/my-data.html", "python.html"}
    assert "FusionPipeline" in made["python.html"].read_text() and (tmp_path / "site/examples/vignette.ipynb").is_file()
    fetched = re.compile(
        r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?https?:|<link[^>]*rel=\"?(?:stylesheet|preconnect|preload)[^>]*https?:|@import"
    )
    assert [name for name, path in made.items() if fetched.search(path.read_text())] == []
    assert [name for name, path in made.items() if raw_lines(path.read_text())] == []
    assert (tmp_path / "site/examples/vignette.py").is_file()
    assert [(name, link) for name, path in made.items() for link in dead_links(path)] == []


def dead_links(page: Path) -> list[str]:
    """Links of a page in the built site, and pictures, that lead to no file of it."""
    found = (unquote(unescape(link)) for link in re.findall(r'\s(?:href|src)="?([^"\s>]+)', page.read_text()))
    inside = {re.split("[?#]", link)[0] for link in found if not re.match(r"[a-z]+:|/", link)} - {""}
    places = {link: page.parent / link for link in inside}
    return sorted(link for link, at in places.items() if not at.is_file() and not (at / "index.html").is_file())


def raw_lines(page: str) -> list[str]:
    """Lines of lists and tables that were taken for a paragraph's, in a page's HTML."""
    text = re.sub(r"<(pre|code|td)\b.*?</\1>", "", page, flags=re.DOTALL)
    paragraphs = [found[1] for found in re.finditer(r"<p>((?:(?!</p>).)*)</p>", text, re.DOTALL)]
    return [line for one in paragraphs for line in one.splitlines()[1:] if re.match(r"\s*(\||- |\d+\. |```)", line)]

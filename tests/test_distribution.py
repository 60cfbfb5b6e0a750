"""What goes to others: notebooks, images of Docker, model cards, and code that does not need one operating system."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest

from conftest import ROOT
from pages import PAGES, fenced

NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == kind]


def plain(cell: str) -> str:
    """A cell's Python: without lines for IPython, and without what it writes to a file."""
    lines = cell.replace("\\\n", " ").splitlines()
    return "" if cell.startswith("%%") else "\n".join(line for line in lines if line[:1] not in "!%")


def test_every_example_has_a_notebook_that_installs_first_and_compiles() -> None:
    assert {path.stem for path in NOTEBOOKS} == {path.stem for path in (ROOT / "examples").glob("*.py")}
    for path in NOTEBOOKS:
        data = json.loads(path.read_text())
        assert (data["nbformat"], data["nbformat_minor"]) == (4, 5)
        assert len({cell["id"] for cell in data["cells"]}) == len(data["cells"])
        first, *rest = cells(path, "code")
        assert "%pip install -q" in first and "clearfuse" in first and "Colab" in first
        for cell in rest:
            ast.parse(plain(cell))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vignette", "colourfulness", "three_layers"])
def test_a_notebook_runs(name: str) -> None:
    """Its Python, top to bottom, in one namespace; the last cell of Python shows something."""
    from clearfuse.synth.plugins import Own, adopt

    shown: list[Any] = []
    names: dict[str, Any] = {"__name__": "__main__"}
    try:
        for cell in cells(ROOT / f"examples/{name}.ipynb", "code"):
            tree = ast.parse(plain(cell))
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, name, "exec", dont_inherit=True), names)
            if last is not None:
                shown.append(eval(compile(ast.Expression(last.value), name, "eval", dont_inherit=True), names))  # type: ignore[attr-defined]
    finally:
        adopt(Own((), {}))
        for table, own in (
            ("OPERATORS", "vignette"),
            ("METRICS", "Colourfulness"),
            ("MODELS", "three-layers"),
            ("PRESETS", "three-layers"),
        ):
            names.get(table, {}).pop(own, None)
    assert shown and shown[-1] is not None


DOCKERFILES = sorted((ROOT / "docker").glob("Dockerfile.*"))


def instructions(path: Path, name: str) -> list[str]:
    return re.findall(rf"^{name} (.+)$", path.read_text(), re.MULTILINE)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_a_dockerfile_runs_what_the_pages_say_on_what_is_there(path: Path) -> None:
    shown = {line for page in PAGES for line in fenced(page)}
    runs = [line.replace(" --no-cache-dir", "") for line in instructions(path, "RUN")]
    assert runs and [line for line in runs if line not in shown] == []
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    sources = [source for line in instructions(path, "COPY") for source in line.split()[:-1]]
    for source in sources:
        assert (ROOT / source).exists() and source in allowed, source
    assert instructions(path, "FROM")[0].startswith("python:3.1")


@pytest.mark.slow
def test_what_a_dockerfile_copies_makes_the_same_wheel(tmp_path: Path) -> None:
    copies = {tuple(sorted(instructions(path, "COPY"))) for path in DOCKERFILES}
    assert len(copies) == 1  # both copy the same
    for line in copies.pop():
        *sources, target = line.split()
        for source in sources:
            to = tmp_path / "src-of-image" / (source if target == "./" else target)
            copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
            to.parent.mkdir(parents=True, exist_ok=True)
            copy(ROOT / source, to, **({"symlinks": True} if copy is shutil.copytree else {}))  # type: ignore[operator]
    listed: list[list[str]] = []
    for where in (ROOT, tmp_path / "src-of-image"):
        out = tmp_path / where.name
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out / "dist")]
        subprocess.run(command, cwd=where, check=True, capture_output=True)
        (wheel,) = (out / "dist").glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = sorted(name for name in archive.namelist() if "__pycache__" not in name)
        assert not any("\\" in name or fnmatch(name, "/*") for name in names)
        listed.append(names)
    assert listed[0] == listed[1]


def test_the_hub_reads_the_card_s_scores() -> None:
    from huggingface_hub import ModelCard

    for path in (ROOT / "models").glob("*/README.md"):
        if not path.read_text().startswith("---\nlibrary_name"):
            continue
        data = ModelCard.load(path).data
        assert data.eval_results and {one.metric_type for one in data.eval_results} == {"psnr", "ssim"}
        assert all(0 < float(one.metric_value) < 60 for one in data.eval_results)
        break
    else:
        pytest.fail("no card")


UNIX = {"fcntl", "grp", "posix", "pwd", "readline", "resource", "syslog", "termios"}
"""Modules that Windows lacks."""
UNIX_NAMES = {
    "os": {
        "O_DIRECTORY", "chroot", "fork", "getpgid", "getuid", "killpg", "mkfifo", "nice", "pread", "pwrite",
        "sched_getaffinity", "setsid", "statvfs", "sysconf", "uname", "wait3", "wait4",
    },
    "signal": {"SIGALRM", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2", "alarm", "pause", "setitimer"},
}  # fmt: skip
"""Names that Windows lacks."""
LEFT = {
    "synth/execute/memory.py": {"sysconf"},
    "synth/files/storage.py": {"O_DIRECTORY"},
    "synth/shards/receipts.py": {"pread"},
    "train/data/reader.py": {"pread"},
}
"""Where Windows is not served yet: docs/faq.md says so."""
SOURCES = [
    *sorted((ROOT / "synth").rglob("*.py")),
    *sorted((ROOT / "train").rglob("*.py")),
    *sorted((ROOT / "src/clearfuse").glob("*.py")),
]


def unguarded(tree: ast.AST) -> Iterator[ast.AST]:
    """All but what stands in a ``try`` that expects its absence, or behind a question for ``hasattr``."""
    for node in ast.iter_child_nodes(tree):
        words = "hasattr" if isinstance(node, ast.If | ast.IfExp) else "AttributeError|ImportError"
        asked = ast.unparse(node.test if isinstance(node, ast.If | ast.IfExp) else node) if _asks(node) else ""
        if not re.search(words, asked):
            yield node
            yield from unguarded(node)


def _asks(node: ast.AST) -> bool:
    return isinstance(node, ast.If | ast.IfExp | ast.Try)


def test_nothing_needs_a_module_or_a_name_of_unix_alone_but_what_is_known() -> None:
    words = re.compile(r"\b(" + "|".join([*UNIX, *UNIX_NAMES["os"], *UNIX_NAMES["signal"]]) + r")\b")
    found: dict[str, set[str]] = {}
    for path in SOURCES:
        text = path.read_text()
        for node in unguarded(ast.parse(text)) if words.search(text) else ():
            if isinstance(node, ast.Import | ast.ImportFrom):
                modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names]
                assert not UNIX & {module.partition(".")[0] for module in modules}, f"{path}:{node.lineno}"
            elif (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.attr in UNIX_NAMES.get(node.value.id, ())
            ):
                found.setdefault(path.relative_to(ROOT).as_posix(), set()).add(node.attr)
    assert found == LEFT


def test_processes_are_spawned_never_forked() -> None:
    for path in SOURCES:
        text = path.read_text()
        assert not re.search(r"""get_context\((?!"spawn"\))|set_start_method|"forkserver"|"fork\"""", text), path

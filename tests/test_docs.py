"""The generated documents are what the code says now; the README's commands run. Of all pages: test_pages.py."""

from __future__ import annotations

import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from clearfuse.synth.operators import OPERATORS
from conftest import ROOT, run_process
from pages import fenced


@pytest.fixture
def generate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    import generate  # pyright: ignore[reportMissingImports]

    yield generate
    sys.modules.pop("generate", None)


@pytest.mark.slow
def test_generated_pages_are_fresh(generate: Any) -> None:
    assert generate.stale() == []


PAGES = [
    *sorted((ROOT / "prompts").glob("*.toml")),
    *sorted((ROOT / "prompts/instructions").glob("*.toml")),
    *sorted((ROOT / "manifests/recipes").glob("*.toml")),
    *sorted((ROOT / "manifests/mixtures").glob("*.toml")),
    *sorted((ROOT / "manifests/datasets").glob("*.toml")),
    *sorted((ROOT / "manifests/published").glob("*.toml")),
    *sorted((ROOT / "manifests/runs").glob("*.toml")),
    *sorted((ROOT / "manifests/benchmarks").glob("*.toml")),
    ROOT / "manifests/fingerprints.toml",
]


def schema_of(page: Path) -> Draft202012Validator:
    """The JSON Schema that a TOML page names in its first line, for editors."""
    first = page.read_text().splitlines()[0]
    assert first.startswith("#:schema "), page
    return Draft202012Validator(json.loads((page.parent / first.removeprefix("#:schema ")).read_text()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_page_is_what_its_schema_says(page: Path) -> None:
    schema = schema_of(page)
    schema.check_schema(schema.schema)
    data = tomllib.loads(page.read_text())
    assert [error.message for error in schema.iter_errors(data)] == []
    assert not schema.is_valid(data | {"wieght": 1}) or page.stem == "fingerprints"


def test_what_a_run_writes_is_what_its_schemas_say() -> None:
    from clearfuse.train.designs.presets import PRESETS
    from clearfuse.train.runs.record import RunRecord
    from clearfuse.train.runs.settings import Settings

    pipeline, run = (
        json.loads((ROOT / f"docs/schemas/{name}.schema.json").read_text()) for name in ("pipeline", "run")
    )
    for name, preset in PRESETS.items():
        written = json.loads(json.dumps(preset.design.to_json()))  # as in the file: a tuple is a list there
        Draft202012Validator(pipeline).validate(written)
        record = RunRecord(schema=1, settings=Settings.of(name), shards=[(0, "vif-train-000000.tar", 10)])
        Draft202012Validator(run).validate(record.to_json())
        assert not Draft202012Validator(pipeline).is_valid(written | {"model": "unte"})


@pytest.mark.parametrize(
    "wrong",
    [
        {"haze": {"wieght": 2}},
        {"haze": {"params": {"visiblity": 300}}},
        {"haze": {"target": {"c": 1}}},
        {"haze": {"severity": 1.5}},
        {"hase": {}},
    ],
)
def test_an_editor_sees_a_recipe_s_mistake(wrong: dict[str, Any]) -> None:
    schema = schema_of(ROOT / "manifests/recipes/vif.toml")
    assert schema.is_valid({"schema": 1, "task": "vif", "operators": {"haze": {"params": {"visibility": [90, 300]}}}})
    assert not schema.is_valid({"schema": 1, "task": "vif", "operators": wrong})


@pytest.mark.parametrize("name", OPERATORS)
def test_every_operator_is_documented(name: str) -> None:
    assert f"## `{name}`" in (ROOT / "docs/operators.md").read_text()


def test_the_architecture_page_names_what_is_there() -> None:
    """Each file, and each name that a line gives after its file."""
    text = (ROOT / "docs/architecture.md").read_text()
    paths = re.findall(r"`((?:synth|train|docs|src)/[\w/.]*)`", text)
    assert len(paths) > 40
    for path in paths:
        assert (ROOT / path).exists(), path
    named = re.findall(r"`((?:synth|train)/[\w/]+\.py)`:\s+`(\w+)`", text)
    assert len(named) > 30
    for path, name in named:
        source = (ROOT / path).read_text()
        assert re.search(rf"^(class|def|async def) {name}\b|^{name}\b", source, re.MULTILINE), f"{path}: {name}"


def test_no_folder_has_more_modules_than_a_reader_can_hold() -> None:
    for half in ("synth", "train"):
        for folder in (ROOT / half, *(path for path in (ROOT / half).rglob("*") if path.is_dir())):
            modules = [path.name for path in folder.glob("*.py") if path.name not in ("__init__.py", "__main__.py")]
            assert len(modules) <= 13, f"{folder}: {len(modules)} modules"


def test_the_changelog_has_this_version() -> None:
    from clearfuse import __version__

    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert f'version = "{__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_no_page_or_source_names_a_machine() -> None:
    for path in [
        *(ROOT / "synth").rglob("*.py"),
        *(ROOT / "train").rglob("*.py"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "README.md",
    ]:
        assert not re.search(r"/(root|tmp|home/\w+)/", path.read_text()), path


@pytest.mark.slow
def test_the_readme_s_commands_run_as_they_stand(tmp_path: Path, msrs: Path, folder_pair: str) -> None:
    """Every ``synth`` line of the README, in order, on made data in place of the reader's own, a few pairs of each."""
    lines = [line for line in fenced(ROOT / "README.md") if line.startswith("synth ") and " vis.png" not in line]
    assert len(lines) >= 5
    for line in lines:
        if "--fuser paper" in line:  # needs the papers' weights
            continue
        few = ["--limit", "3"] if line.startswith("synth build") else []
        ran = run_process(*shlex.split(line.replace("/data/MSRS", str(msrs)))[1:], *few, cwd=tmp_path)
        assert ran.returncode == 0, f"{line}: {ran.stderr}"
    tree = {path.name for path in (tmp_path / "shards/msrs").iterdir()}
    assert tree >= {"vif-train-000000.tar", "vif-train-000000.json", "dataset.json", "README.md"}
    assert (tmp_path / "operators.png").is_file()

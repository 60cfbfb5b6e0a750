"""The wheel: what it holds, and that it works away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from conftest import ROOT


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built here and unpacked as pip would."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out / "site")
    return out / "site"


def test_the_wheel_carries_its_prompts_and_manifests(installed: Path) -> None:
    for folder in ("prompts", "manifests/datasets", "manifests/recipes"):
        shipped = {path.name for path in (installed / "synth/data" / folder).glob("*.toml")}
        assert shipped == {path.name for path in (ROOT / folder).glob("*.toml")} != set()
    text = (next(installed.glob("*.dist-info")) / "entry_points.txt").read_text()
    assert "synth = synth.cli:main" in text and "train = train.cli:main" in text
    assert {path.name for path in installed.iterdir() if path.is_dir()} >= {"synth", "train"}
    assert not (installed / "tests").exists()


@pytest.mark.slow
def test_the_wheel_works_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "synth.cli", *args]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    where = subprocess.run(
        [sys.executable, "-c", "import synth; print(synth.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.strip() == str(installed / "synth/__init__.py")
    assert "haze" in run("list", "prompts").stdout
    built = run("build", "--task", "vif", "--limit", "1", "--out", "o", "--executor", "serial")
    assert (built.returncode, built.stdout) == (0, "built 1 sample in 1 shard in o\n")


def test_the_constraints_pin_every_dependency() -> None:
    import re
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {
        line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").read_text().splitlines()
    }
    needed = project["dependencies"] + project["optional-dependencies"]["dev"]
    assert {re.split(r"[<>=\[]", need)[0].lower() for need in needed} <= pinned

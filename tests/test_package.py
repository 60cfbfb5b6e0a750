"""The wheel: what it holds, and that it works away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from conftest import ROOT

SOURCE = ROOT / "src"


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


@pytest.mark.slow
def test_the_wheel_carries_its_prompts_and_manifests(installed: Path) -> None:
    for folder in ("prompts", "manifests/datasets", "manifests/recipes"):
        shipped = {path.name for path in (installed / "clearfuse/data" / folder).glob("*.toml")}
        assert shipped == {path.name for path in (ROOT / folder).glob("*.toml")} != set()
    text = (next(installed.glob("*.dist-info")) / "entry_points.txt").read_text()
    assert all(f"{name} = clearfuse.{name}.cli:main" in text for name in ("synth", "train"))
    (info,) = installed.glob("*.dist-info")
    assert {path.name for path in installed.iterdir()} == {"clearfuse", info.name}
    assert (installed / "clearfuse/py.typed").exists()
    weights = "synth/depth/small.safetensors"
    assert (installed / "clearfuse" / weights).read_bytes() == (ROOT / weights).read_bytes()


@pytest.mark.slow
def test_the_wheel_works_away_from_the_checkout(installed: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1"}

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "clearfuse.synth.cli", *args]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    where = subprocess.run(
        [sys.executable, "-c", "import clearfuse; print(clearfuse.__file__)"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.strip() == str(installed / "clearfuse/__init__.py")
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
    extras = project["optional-dependencies"]
    needed = project["dependencies"] + extras["dev"] + extras["docs"]
    assert {re.split(r"[<>=\[]", need)[0].lower() for need in needed} <= pinned


TRAP = "raise SystemExit('the user\\'s own file ran: ' + __name__)\n"
SHADOWS = ("train", "synth", "types", "platform")
"""Names of files that a user may have in the folder where our commands run."""


@pytest.fixture
def user_folder(tmp_path: Path) -> Path:
    """A folder with a user's own modules, each of which ends the process that imports it."""
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text(TRAP)
    return tmp_path


def run_in(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run one of the environment's programs in a folder, with Python's usual path."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(SOURCE)}
    program = [str(Path(sys.executable).parent / command[0]), *command[1:]]
    return subprocess.run(program, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_users_modules_do_not_stand_in_for_ours(user_folder: Path) -> None:
    code = "from clearfuse import FusionPipeline, build; print(FusionPipeline.__module__, build.__module__)"
    ran = run_in(user_folder, "python", "-c", code)
    assert (ran.stdout, ran.stderr) == ("clearfuse.train.pipeline.fusion clearfuse.synth.builder.run\n", "")


@pytest.mark.slow
def test_commands_launchers_and_workers_run_in_a_folder_with_a_users_modules(user_folder: Path) -> None:
    for executor, command in (("processes", ["synth"]), ("ray", ["clearfuse", "synth"])):
        ran = run_in(
            user_folder, *command, "build", "--task", "vif", "--n", "1", "--limit", "2", "--workers", "2",
            "--executor", executor, "--out", executor,
        )  # fmt: skip
        assert ran.returncode == 0, ran.stderr
    options = (
        "--preset tiny-reg --steps 1 --batch 1 --crop 32 --device cpu --set config.width=64 --tracker none --workers 1"
    )
    fit = ["fit", "processes", *options.split(), "--out"]
    for name, launcher in {
        "command": ["train"],
        "torchrun": ["torchrun", "--no-python", str(Path(sys.executable).parent / "train")],
    }.items():
        ran = run_in(user_folder, *launcher, *fit, name)
        assert ran.returncode == 0 and (user_folder / name / "model.safetensors").is_file(), ran.stderr
    made = "print(build('vif', limit=2, workers=2, out='mine'))"
    (user_folder / "mine.py").write_text(f"from clearfuse import build\nif __name__ == '__main__':\n    {made}")
    (user_folder / "types.py").unlink()  # python itself imports it from the folder of a script
    ran = run_in(user_folder, "python", "mine.py")
    assert ran.returncode == 0 and "samples=2" in ran.stdout, ran.stderr
    ran = run_in(user_folder, "torchrun", "-m", "clearfuse.train", *fit, "module")
    assert ran.returncode == 0 and (user_folder / "module/model.safetensors").is_file(), ran.stderr

"""The log of a run, truncated on resume, and the trackers."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from clearfuse.synth.types import UserError, WorkIncomplete
from clearfuse.train.runs.logs import Log, NoLog
from clearfuse.train.runs.trackers import TRACKERS, choose_trackers, identity

SERVICE = """
import json, os
class Image:
    def __init__(self, value, caption=None):
        self.shape = list(value.shape)
class Run:
    def __init__(self, **options):
        print("a greeting on standard output")
        said.append(["init", options])
    def log(self, values, step=None):
        if os.environ.get("BREAKS"):
            raise OSError("no network")
        said.append(["log", step, {k: v if isinstance(v, float) else "picture" for k, v in values.items()}])
    def finish(self):
        said.append(["finish"])
said = []
def init(**options):
    if os.environ.get("FAILS"):
        raise RuntimeError("no login\\nand more")
    global run
    run = Run(**options)
    return run
def finish():
    run.finish()
"""


@pytest.fixture
def services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand-ins for the packages wandb and trackio."""
    (tmp_path / "packages").mkdir()
    for name in ("wandb", "trackio"):
        (tmp_path / f"packages/{name}.py").write_text(SERVICE)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path / "packages")
    yield
    for name in ("wandb", "trackio"):  # or others would take them for the real ones
        sys.modules.pop(name, None)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_after_the_step_are_cut_off(tmp_path: Path) -> None:
    with Log(tmp_path, 0, ()) as log:
        for step in (1, 2, 3):
            log.write(step, "train", {"loss": 1 / step}, {"samples_per_second": 5.0})
        log.write(3, "validation", {"loss": 0.1 + 0.2}, {})
    whole = (tmp_path / "log.jsonl").read_bytes()
    assert len(lines(tmp_path / "log.jsonl")) == 4 and len(lines(tmp_path / "speed.jsonl")) == 3
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 4, "kind": "tr')
    with Log(tmp_path, 2, ()) as log:
        log.write(3, "train", {"loss": 1 / 3}, {"samples_per_second": 7.0})
        log.write(3, "validation", {"loss": 0.1 + 0.2}, {})
    assert (tmp_path / "log.jsonl").read_bytes() == whole
    assert [line["samples_per_second"] for line in lines(tmp_path / "speed.jsonl")] == [5.0, 5.0, 7.0]


def test_a_service_that_breaks_is_said_once_and_the_run_goes_on(
    services: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Log(tmp_path, 0, ("wandb",)) as log:
        monkeypatch.setenv("BREAKS", "1")
        for step in (1, 2, 3):
            log.write(step, "train", {"loss": 1.0}, {})
    assert capsys.readouterr().err.count("wandb: no network; the run goes on, its log is whole") == 1
    assert len(lines(tmp_path / "log.jsonl")) == 3


@pytest.mark.slow
def test_tensorboard_has_the_curves_and_the_pictures(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    image = np.zeros((8, 12, 3), np.uint8)
    with Log(tmp_path, 0, ("tensorboard",), {"settings": {"lr": 0.1}}) as log:
        for step in (1, 2, 3):
            log.write(step, "train", {"loss": float(step)}, {"data_wait": 0.25})
        log.picture(3, image)
    with Log(tmp_path, 2, ("tensorboard",)) as log:
        log.write(3, "train", {"loss": 7.0}, {})
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(e.step, e.value) for e in board.Scalars("train/loss")] == [(1, 1.0), (2, 2.0), (3, 7.0)]
    assert board.Tags()["images"] == ["samples"] and board.Tags()["tensors"] == ["settings/text_summary"]
    assert (tmp_path / "samples/step-0000003.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_service_is_told_all_of_it(
    services: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    run = tmp_path / "mine"
    run.mkdir()
    assert choose_trackers([name, name]) == (name,)
    for step in (0, 1):
        with Log(run, step, (name,), {"settings": {"lr": 0.5}}) as log:
            log.write(step + 1, "train", {"loss": 2.0}, {"data_wait": 0.5})
        if step == 0:
            log.picture(1, np.zeros((8, 8, 3), np.uint8))
    assert capsys.readouterr().out == ""
    said = sys.modules[name].said  # type: ignore[attr-defined]
    assert [one[0] for one in said] == ["init", "log", "finish", "log", "init", "log", "finish"]
    options = said[0][1]
    assert options["project"] == "clearfuse" and options["resume"] == "allow"
    assert options["config"] == {"settings": {"lr": 0.5}} and said[4][1] == options, "the same run goes on"
    assert options["id" if name == "wandb" else "name"].endswith(identity(run)) and options["name"].startswith("mine")
    assert said[1] == ["log", 1, {"train/loss": 2.0, "train/data_wait": 0.5}]
    assert said[3] == ["log", 1, {"samples": "picture"}]


TRACKED = """
import sys
from pathlib import Path
import numpy as np
from clearfuse.train.runs.logs import Log
name, folder = sys.argv[1:]
for step in (0, 1):
    with Log(Path(folder), step, (name,), {"settings": {"lr": 0.5}}) as log:
        log.write(step + 1, "train", {"loss": 2.0}, {"data_wait": 0.5})
        log.picture(step + 1, np.zeros((8, 8, 3), np.uint8))
print("the result")
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_the_real_services_keep_a_run_offline(tmp_path: Path, name: str) -> None:
    """In a separate process: standard output contains only the result."""
    pytest.importorskip(name, reason=f"needs {name}")
    run, kept = tmp_path / "run", tmp_path / "kept"
    run.mkdir()
    own = {"WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1", "TRACKIO_DIR": str(kept)}
    command = [sys.executable, "-c", TRACKED, name, str(run)]
    ran = subprocess.run(command, capture_output=True, text=True, env=os.environ | own, check=False)
    assert (ran.returncode, ran.stdout) == (0, "the result\n"), ran.stderr
    written = {path.suffix for path in (kept if name == "trackio" else run / "wandb").rglob("*") if path.is_file()}
    assert {".png", ".db" if name == "trackio" else ".wandb"} <= written


def test_what_cannot_track_is_said(services: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILS", "1")
    with pytest.raises(UserError, match=r"^--tracker wandb: no login$"):
        Log(tmp_path, 0, ("wandb",))
    for names, said in (
        (
            ["tensorbord"],
            "unknown tracker 'tensorbord': did you mean 'tensorboard'? allowed: none, tensorboard, trackio, wandb",
        ),
        (["none", "wandb"], "--tracker none: stands alone, not beside wandb"),
    ):
        with pytest.raises(UserError) as error:
            choose_trackers(names)
        assert str(error.value) == said
    assert choose_trackers(["none"]) == () and choose_trackers(list(TRACKERS)) == tuple(TRACKERS)


def test_a_missing_package_is_named_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"^--tracker trackio: not installed; pip install trackio$"):
        choose_trackers(["trackio"])


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with Log(tmp_path, 0, ()) as log:
        log.write(1, "train", {"loss": 1.0}, {})
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(WorkIncomplete, match=r"log\.jsonl can't be written: No space left on device"):
            log.flush()


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    with NoLog() as log:
        log.write(1, "train", {"loss": 1.0}, {})
        log.picture(1, np.zeros((8, 8, 3), np.uint8))
        log.flush()
    assert list(tmp_path.iterdir()) == []

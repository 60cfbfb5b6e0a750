"""``train eval`` on the command line: output, exit codes and error messages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from made import made_shards

from clearfuse.synth.version import __version__
from conftest import Ran

pytestmark = pytest.mark.slow

Train = Callable[..., Ran]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("made"))


def test_eval_prints_the_table(train: Train, shards: Path, tmp_path: Path) -> None:
    ran = train(
        "eval",
        "--model",
        "none",
        shards / "vif",
        shards / "mef",
        "--out",
        tmp_path / "r",
        "--limit",
        "4",
        "--examples",
        "2",
    )
    assert ran.code == 0 and ran.out.isascii()
    lines = ran.out.splitlines()
    assert lines[0].split() == ["samples", "method", "PSNR", "SSIM", "VIF", "Qabf", "mean", "rank"]
    assert lines[1].split()[:4] == ["4", "classical", "+", "pyramid"]
    assert lines[3].split()[:5] == ["pyramid", "on", "clean", "(upper", "bound)"]
    first = ["task", "mef", "pyramid", "pyramid", "vif", "pyramid", "pyramid"]
    assert [line.split()[0] for line in lines[5:]] == first
    assert len({len(line) for line in lines[:4]}) == 1, "the columns are aligned"
    assert f"report.html, report.tex, report.md in {tmp_path / 'r'}" in ran.err
    assert len((tmp_path / "r/report.csv").read_text().splitlines()) == 1 + 4 * 3


def test_eval_json_is_one_object(train: Train, shards: Path, tmp_path: Path) -> None:
    ran = train("eval", "--model", "none", shards / "mef", "--out", tmp_path / "r", "--metrics", "qabf,Psnr", "--json")
    data = json.loads(ran.out)
    assert (ran.code, data["samples"], data["out"]) == (0, 3, str(tmp_path / "r"))
    assert [metric["name"] for metric in data["metrics"]] == ["Qabf", "PSNR"]
    assert data == json.loads((tmp_path / "r/report.json").read_text()) | {"out": data["out"]}


MISTAKES: list[tuple[list[str], str]] = [
    (["no/such"], "no/such: no such file or folder"),
    (["empty"], "empty: no shards in this folder"),
    (["bad.tar"], "bad.tar: not a whole shard: "),
    (["{shards}/mef", "--metrics", "psnr,sim"], "unknown metric 'sim': did you mean "),
    (["{shards}/mef", "--metrics", ","], "--metrics: names none; give some, such as PSNR,SSIM,VIF,Qabf"),
    (["{shards}/mef", "--limit", "0"], "--limit 0: must be at least 1"),
    (["{shards}/mef", "--examples", "-1"], "--examples -1: must be at least 0"),
    (["{shards}/mef", "--out", "bad.tar"], "--out bad.tar: is a file, must be a folder"),
    (["{shards}/mef", "--out", "s3://bucket/r"], "--out s3://bucket/r: must be local, not a URL"),
    (["{shards}/mef", "--metric", "psnr"], "No such option: --metric"),
    ([], "nothing to score: name shards, or folders of pairs by --pairs A,B[,GT]"),
]


@pytest.mark.parametrize(("args", "message"), MISTAKES, ids=[" ".join(args) for args, _ in MISTAKES])
def test_a_mistake_is_one_line_and_writes_nothing(
    train: Train, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.tar").write_bytes(b"no tar")
    ran = train("eval", "--model", "none", *(arg.format(shards=shards) for arg in args))
    assert (ran.code, ran.out) == (2, "")
    assert ran.error.startswith(f"train: error: {message}") and ran.err.count("error") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.tar", "empty"]


def test_a_damaged_sample_is_exit_1(train: Train, shards: Path, tmp_path: Path) -> None:
    data = (shards / "mef/mef-train-000000.tar").read_bytes().replace(b'"schema": 1', b'"schema": 9')
    (tmp_path / "x.tar").write_bytes(data)
    ran = train("eval", "--model", "none", tmp_path / "x.tar", "--out", tmp_path / "r")
    assert ran.code == 1 and ran.out == "" and not (tmp_path / "r").exists()
    assert ran.error == (
        "train: error: x.tar: sample 000000000: json: schema 9 is newer than this version reads (1); upgrade "
        "clearfuse; no report was written"
    )


def test_version_and_help(train: Train) -> None:
    assert train("--version").out == f"{__version__}\n"
    assert "eval" in train("--help").out


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, clearfuse.train.cli.app; print([m for m in ('numpy', 'cv2', 'torch', 'PIL') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_scoring_without_a_model_needs_no_torch() -> None:
    code = "import sys, clearfuse.train.evaluation.methods.choose; print('torch' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"

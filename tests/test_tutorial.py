"""The tutorial, command by command as it stands, with fewer samples and steps; what it shows is what is printed."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from clearfuse import doctor
from conftest import ROOT, Ran
from pages import blocks, fenced

pytestmark = pytest.mark.slow

PAGE = ROOT / "docs/tutorial.md"
FEWER = {"--limit": "4", "--steps": "2", "--samples": "1"}
SMALLER = {
    "synth build": "--executor serial",
    "synth verify": "--workers 1",
    "train fit": "--batch 2 --crop 32 --device cpu --tracker none --workers 1 --set config.width=64",
    "train eval": "--workers 1 --examples 1 --limit 1 --fuser none --device cpu",
    "train fuse": "--device cpu",
}
"""What the test adds to each command, to take seconds."""


def reduced(line: str) -> list[str]:
    """The words of a line, of a smaller build and a shorter run."""
    words = shlex.split(line)
    for number, word in enumerate(words[:-1]):
        if word in FEWER:
            words[number + 1] = FEWER[word]
    return words + SMALLER.get(" ".join(words[:2]), "").split()


def shape(line: str) -> str:
    """A line without its numbers, stars and widths."""
    return " ".join(re.sub(r"-?\d+(\.\d+)?\*?|\b(inf|nan)\b", "N", line).replace("samples", "sample").split())


def test_the_tutorial_runs_from_its_first_command_to_its_last(
    synth: Callable[..., Ran], train: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    lines = fenced(PAGE)
    ours = [line for line in lines if line.startswith(("synth ", "train "))]
    assert len(ours) > 12 and "clearfuse doctor" in lines
    assert doctor.main(["--offline"]) in (0, 1)
    capsys.readouterr()
    printed = ""
    for line in ours:
        name, *words = reduced(line)
        ran = (synth if name == "synth" else train)(*words)
        assert ran.code == 0, f"{line}: {ran.error}"
        printed += ran.err + ran.out
    found = {shape(line) for line in printed.splitlines()}
    shown = [line for kind, text in blocks(PAGE) if kind == "text" for line in text.splitlines() if line != "..."]
    assert len(shown) > 10 and [line for line in shown if shape(line) not in found] == []
    for name in ("sheet.png", "fused.png", "fused-compare.png", "auto.png", "runs/mine/pipeline.json"):
        assert (tmp_path / name).is_file(), name
    table = (tmp_path / "report/report.tex").read_text()
    assert all(name in table for name in ("PSNR", "mine", "clearfuse-small"))

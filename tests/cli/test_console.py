"""What is printed to standard error: one line a message, whatever it holds, wherever standard error goes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clearfuse.synth.console import one_line
from conftest import Ran


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a  b: é", "a  b: é"),
        ("OpenCV(4.11) error: (-215)\n  !buf.empty()\r\n", "OpenCV(4.11) error: (-215) !buf.empty()"),
        ("a\x1b[31m\x00b\x85c\u2028d\u2029", "a [31m b c d"),
    ],
)
def test_a_message_is_one_line(text: str, line: str) -> None:
    assert one_line(text) == line


@pytest.mark.parametrize("args", [["inspect"], ["build", "--task"], ["degrade", "--op", "haze", "--out", "o"]])
def test_a_name_with_a_line_break_is_one_line(args: list[str], tmp_path: Path, synth: Callable[..., Ran]) -> None:
    ran = synth(*args, f"{tmp_path}/a\nb\x1bc")
    assert ran.code == 2 and len(ran.err.splitlines()) == 1 and ran.error.startswith("synth: error: ")
    assert "a b c" in ran.error


BUILD = ("build", "--task", "vif", "--n", "1", "--limit", "2", "--executor", "processes", "--workers", "2")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["2>&-", "0<&- 2>&-", "2>/dev/full", ">&- 2>&-"])
def test_work_goes_on_without_standard_error(how: str, tmp_path: Path) -> None:
    if "full" in how and not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    command = [sys.executable, "-m", "clearfuse.synth.cli", *BUILD, "--out", str(tmp_path / "o")]
    done = subprocess.run(["sh", "-c", f'"$@" {how}', "sh", *command], capture_output=True, check=False, timeout=300)
    assert done.returncode == 0 and (tmp_path / "o/dataset.json").is_file()
    command = [sys.executable, "-m", "clearfuse.synth.cli", "verify", str(tmp_path / "o"), "--workers", "1"]
    assert subprocess.run(command, capture_output=True, check=False, timeout=300).returncode == 0
    command = [sys.executable, "-m", "clearfuse.synth.cli", "inspect", str(tmp_path / "none")]
    done = subprocess.run(["sh", "-c", f'"$@" {how}', "sh", *command], capture_output=True, check=False, timeout=300)
    assert done.returncode == 2

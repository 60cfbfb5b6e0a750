"""``clearfuse`` completes what its parts take, as the shell asks for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clearfuse import __main__ as command


def answer(words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What bash is told of the last word."""
    monkeypatch.setattr(sys, "argv", ["clearfuse"])
    monkeypatch.setenv("_CLEARFUSE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    with pytest.raises(SystemExit) as done:
        command.main()
    assert done.value.code == 0
    return capsys.readouterr().out.split()


def test_commands_and_options_are_completed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, wanted in (
        ("clearfuse ", {"synth", "train", "bench", "doctor"}),
        ("clearfuse synth b", {"build"}),
        ("clearfuse train fuse --pro", {"--prompt"}),
        ("clearfuse bench ", {"build", "verify", "extract", "run", "submit", "check", "leaderboard", "list"}),
        ("clearfuse doctor --o", {"--offline"}),
    ):
        assert {*answer(words, monkeypatch, capsys)} == wanted, words


def test_a_command_of_a_part_is_pointed_to(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, said in (
        ("fuse", "'fuse' is a part of another command: clearfuse train fuse"),
        ("build", "'build' is a part of another command: clearfuse synth build or clearfuse bench build"),
        ("sinth", "unknown command 'sinth': did you mean 'synth'? allowed: bench, doctor, synth, train"),
    ):
        monkeypatch.setattr(sys, "argv", ["clearfuse", name, "x.png"])
        with pytest.raises(SystemExit) as done:
            command.main()
        assert done.value.code == 2 and capsys.readouterr().err == f"clearfuse: error: {said}\n"


def test_it_is_installed_for_the_umbrella(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")  # typer's own: the shell is then named
    monkeypatch.setattr(sys, "argv", ["clearfuse", "--install-completion", "bash"])
    with pytest.raises(SystemExit) as done:
        command.main()
    assert done.value.code == 0 and "bash completion installed in" in capsys.readouterr().out
    (script,) = (path for path in tmp_path.rglob("clearfuse*") if path.is_file())
    assert "_CLEARFUSE_COMPLETE=complete_bash" in script.read_text()
    assert script.name in (tmp_path / ".bashrc").read_text()

"""The progress display: means over recent steps, occasional lines, nothing before the first step."""

from __future__ import annotations

import io
import sys

import pytest

from clearfuse.train.training.progress import EVERY, Pace, Report, _lines, show_progress


def step(number: int, steps: int = 1000, loss: float = 1.0) -> Report:
    return Report(number, steps, loss, 2e-4, samples=24, seconds=0.5, waited=0.01)


def test_a_line_says_loss_rate_speed_and_waiting() -> None:
    now = [0.0]
    pace = Pace(lambda: now[0])
    pace.add(Report(100, 1000))
    assert pace.line() == "" and pace.left() is None
    for number, loss in ((101, 2.0), (102, 1.0)):
        pace.add(step(number, loss=loss))
        now[0] += 2.0
    assert pace.line() == "loss 1.5, lr 2.0e-04, 48 samples/s, 2.0 % waiting for data"
    assert pace.left() == pytest.approx(898 * 4.0), "a step is what lies between two, validations too"
    for number in range(103, 160):
        pace.add(step(number, loss=0.25))
    assert pace.line().startswith("loss 0.25, "), "old steps no longer count"


def test_lines_come_seldom_and_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    update = _lines(lambda: now[0])
    update(Report(0, 50))
    for number in range(1, 51):
        now[0] += EVERY / 10
        update(step(number, 50))
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in said] == [f"step {n} of 50" for n in (10, 20, 30, 40, 50)]
    assert said[0].endswith("data, 40 s left") and said[-1].endswith("waiting for data")


def test_a_long_run_speaks_less(capsys: pytest.CaptureFixture[str]) -> None:
    now = [0.0]
    update = _lines(lambda: now[0])
    for number in range(1, 900):
        now[0] += 1.0
        update(step(number))
    said = [int(line.split()[1]) for line in capsys.readouterr().err.splitlines()]
    assert said[:60] == [*range(10, 600, 10), 650] and said[60:] == [710, 770, 830, 890]


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    terminal = sys.stderr
    with show_progress() as update:
        for number in range(3):
            update(step(number + 1, 3))
    assert "3/3" in terminal.getvalue() and "48 samples/s" in terminal.getvalue()  # type: ignore[attr-defined]

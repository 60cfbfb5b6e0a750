"""Threads that wait for each other sleep soon, so that a busy machine does not take a multiple of its share."""

from __future__ import annotations

import os
import sys

import pytest
import typer

from clearfuse.synth.console import SPINS, run_app


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, SPINS), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_a_command_says_how_long_threads_spin_unless_the_user_does(
    given: dict[str, str], spins: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # as it was is set again afterwards
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["x"])
    app, seen = typer.Typer(), list[str | None]()

    @app.command()
    def look() -> None:
        seen.append(os.environ.get("GOMP_SPINCOUNT"))

    with pytest.raises(SystemExit) as ended:
        run_app(app, "x")
    assert (ended.value.code, seen) == (0, [spins])

"""``train fit --dry-run``: how long a run would take, from some of its own steps."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from made import made_shards

from clearfuse.train.cli import estimate
from clearfuse.train.cli.options import FitOptions
from clearfuse.train.training.progress import Progress, Report
from conftest import Ran


@pytest.mark.parametrize(("repeats", "step"), [(1, 0.3), (2, 0.25)])
def test_the_estimate_is_its_arithmetic(monkeypatch: pytest.MonkeyPatch, repeats: int, step: float) -> None:
    """Steps of 0.3 s, 0.1 s of them waiting, and a validation of 2 s, by a clock that does not sleep."""
    now = [0.0]

    def runs(options: FitOptions, progress: Progress, note: object) -> None:
        assert options.steps == options.validate_every == estimate.MEASURED + 1 and options.trackers == ("none",)
        for number in range(1, estimate.MEASURED + 2):
            now[0] += 0.3 + (5.0 if number == 1 else 0.0) + (2.0 if number == options.steps else 0.0)
            progress(Report(number, options.steps, 1.0, 1e-3, 8, 0.3 + (5.0 if number == 1 else 0.0), 0.1))

    monkeypatch.setattr(estimate, "run_fit", runs)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    sets = (f"schedule.repeats={repeats}",)
    chosen = FitOptions(shards=("x",), preset="tiny-reg", steps=1000, batch=8, validate_every=300, sets=sets)
    found = estimate.estimate_fit(chosen)
    assert found.step == pytest.approx(step) and found.validation == pytest.approx(2.0) and found.validations == 4
    assert found.seconds == pytest.approx(1000 * step + 4 * 2.0) and found.samples == 8
    assert found.short * (step + 2 / 300) == pytest.approx(600, rel=0.01)


@pytest.mark.slow
def test_it_writes_nothing(train: Callable[..., Ran], tmp_path: Path) -> None:
    shards = made_shards(tmp_path) / "vif"
    before = sorted(tmp_path.rglob("*"))
    options = ["--preset", "tiny-reg", "--crop", "32", "--batch", "2", "--workers", "0", "--out", tmp_path / "run"]
    ran = train("fit", shards, *options, "--dry-run", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["seconds"] > 0 and sorted(tmp_path.rglob("*")) == before
    said = train("fit", shards, *options, "--dry-run").out
    assert said.startswith("1900 steps of 2 samples: about ") and said.count("\n") <= 2

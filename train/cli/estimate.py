"""What a run would take on this machine, from a few of its own steps, made in a temporary folder and thrown away."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clearfuse.synth import console
from clearfuse.train.cli.defaults import default_preset, run_fit, run_options
from clearfuse.train.cli.options import FitOptions
from clearfuse.train.designs.presets import find_preset
from clearfuse.train.runs.settings import Settings
from clearfuse.train.training.progress import Report

MEASURED = 5
"""Steps that are timed, after a first one that also compiles, and waits for the first samples."""
SHORT = 600.0
"""Seconds of the shorter run that is named."""


@dataclass(frozen=True)
class FitEstimate:
    """Seconds of a run of ``steps`` steps of ``samples`` each on this machine: in all, of a step and of a validation
    with its checkpoint, of which there are ``validations``. waiting: the share of a step's that waits for data. short:
    the steps of a run of ten minutes.
    """

    steps: int
    samples: int
    seconds: float
    step: float
    waiting: float
    validation: float
    validations: int
    short: int

    def to_json(self) -> dict[str, Any]:
        """The fields, as ``train fit --dry-run --json`` has them."""
        return dataclasses.asdict(self)

    def line(self) -> str:
        """What the command line prints."""
        whole = (
            f"{self.steps} steps of {console.plural(self.samples, 'sample')}: about "
            f"{console.format_duration(self.seconds)} on this machine ({self.step:.2g} s a step, of which "
            f"{100 * self.waiting:.0f} % waits for data; {console.plural(self.validations, 'validation')} with a "
            f"checkpoint, {self.validation:.2g} s each), from {MEASURED} steps made here; nothing written"
        )
        if self.seconds <= SHORT or self.short >= self.steps:
            return whole
        return f"{whole}\n--steps {self.short} takes ten minutes: the learning rate falls over the steps that there are"


def estimate_fit(chosen: FitOptions) -> FitEstimate:
    """Take a few steps and a validation of the run, anew and in a folder of their own. Raises as ``run_fit``.

    The first batches decode each of their samples, later ones one in ``repeats``: so much less is waited then.
    """
    name = chosen.preset or default_preset(chosen.init)
    settings = Settings.of(name, chosen.seed, [*chosen.sets, *chosen.changes], **chosen.changed)
    every = run_options(chosen, find_preset(name)).validate_every
    reports: list[Report] = []
    ends: list[float] = []

    def progress(report: Report) -> None:
        if report.loss is not None:
            reports.append(report)
            ends.append(time.monotonic())

    count = MEASURED + 1
    with tempfile.TemporaryDirectory() as folder:
        few = {"out": str(Path(folder) / "run"), "steps": count, "overwrite": False, "trackers": ("none",)}
        often = {"validate_every": count, "checkpoint_every": count}
        run_fit(chosen.model_copy(update={**few, **often}), progress, lambda line: None)
    timed = reports[1:]
    waited = sum(report.waited for report in timed) / len(timed) / settings.repeats
    step = sum(report.seconds - report.waited for report in timed) / len(timed) + waited
    # The last step is reported after its validation and checkpoint.
    validation = max(ends[-1] - ends[-2] - timed[-1].seconds, 0.0)
    validations = -(-settings.steps // every)
    share = step + validation / every
    return FitEstimate(
        settings.steps, settings.batch * settings.accumulate, settings.steps * step + validations * validation, step,
        waited / max(step, 1e-9), validation, validations, max(int(SHORT / share), 1),
    )  # fmt: skip

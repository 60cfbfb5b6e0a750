"""The progress display of ``train fit``: a bar on a terminal, occasional lines otherwise."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from clearfuse.synth import console
from clearfuse.synth.console import PLAIN, Unit

RECENT = 50
"""Steps over which loss and speed are averaged."""
EVERY, LATER, LONG = 10.0, 60.0, 600.0
"""Minimum seconds between lines: at first, and after a run has lasted ``LONG`` seconds."""


@dataclass(frozen=True)
class Report:
    """A finished step. loss, lr: of the step, None before the first; samples: in the step, over all ranks.

    seconds: duration of the step; waited: seconds of it spent waiting for data.
    """

    step: int
    steps: int
    loss: float | None = None
    lr: float | None = None
    samples: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    unit: Unit = PLAIN


Progress = Callable[[Report], None]


class Pace:
    """Averages over the recent steps. clock: returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._recent: deque[Report] = deque(maxlen=RECENT)
        self._began: tuple[float, int] | None = None

    def add(self, report: Report) -> None:
        """Add a step."""
        if report.loss is not None:
            self._recent.append(report)
            # From the end of the first step on, which compiles and waits for the first samples.
            self._began = self._began or (self._clock(), report.step)

    def left(self) -> float | None:
        """Estimated seconds left, including validations and checkpoints; None if unknown."""
        if self._began is None or not self._recent or self._recent[-1].step == self._began[1]:
            return None
        last = self._recent[-1]
        return (last.steps - last.step) * (self._clock() - self._began[0]) / (last.step - self._began[1])

    def line(self) -> str:
        """``loss 0.0312, lr 2.0e-04, 95.2 samples/s, 0.4 % waiting for data``."""
        if not self._recent:
            return ""
        spent = max(sum(report.seconds for report in self._recent), 1e-9)
        losses = [report.loss for report in self._recent if report.loss is not None]
        rate = sum(report.samples for report in self._recent) / spent
        waited = 100 * sum(report.waited for report in self._recent) / spent
        parts = [f"loss {self._recent[-1].unit.say(sum(losses) / len(losses))}", f"lr {self._recent[-1].lr or 0:.1e}"]
        return ", ".join([*parts, f"{rate:.3g} samples/s", f"{waited:.1f} % waiting for data"])


@contextmanager
def show_progress() -> Iterator[Progress]:
    """Context: shows the run's steps on standard error."""
    if sys.stderr.isatty():
        with _bar() as update:
            yield update
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.fields[status]}"))
    pace = Pace()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("fit", total=None, status="")

    def update(report: Report) -> None:
        pace.add(report)
        left = pace.left()
        ends = "" if left is None else f", {console.format_duration(left)} left"
        bar.start()  # at the first report, so that ranks that report nothing show nothing
        bar.update(task, completed=report.step, total=report.steps, status=pace.line() + ends)

    try:
        yield update
    finally:
        bar.stop()


def _lines(clock: Callable[[], float] = time.monotonic) -> Progress:
    start = clock()
    pace, last = Pace(clock), [start]

    def update(report: Report) -> None:
        pace.add(report)
        now = clock()
        pause = EVERY if now - start < LONG else LATER
        if report.loss is None or (report.step < report.steps and now - last[0] < pause):
            return
        last[0] = now
        left = pace.left()
        ends = "" if left is None or report.step == report.steps else f", {console.format_duration(left)} left"
        console.note(f"step {report.step} of {report.steps}: {pace.line()}{ends}")

    return update

"""What ``train fit`` shows as it goes: a bar on a terminal, a line now and then otherwise."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from clearfuse.synth import console

RECENT = 50
"""Steps over which loss and speed are averaged."""
EVERY, LATER, LONG = 10.0, 60.0, 600.0
"""Seconds between two lines at least: at first, and of a run that has gone on for so long."""


@dataclass(frozen=True)
class Report:
    """How a step went. loss and lr: of the step; None before the first. samples: in it, of all processes.

    seconds: the step took; waited: of them, for data.
    """

    step: int
    steps: int
    loss: float | None = None
    lr: float | None = None
    samples: int = 0
    seconds: float = 0.0
    waited: float = 0.0


Progress = Callable[[Report], None]


class Pace:
    """The recent steps in words. clock: seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._recent: deque[Report] = deque(maxlen=RECENT)
        self._began: tuple[float, int] | None = None

    def add(self, report: Report) -> None:
        """Take note of a step."""
        if report.loss is not None:
            self._recent.append(report)
            # From the end of the first step on: it compiles, and waits for the first samples.
            self._began = self._began or (self._clock(), report.step)

    def left(self) -> float | None:
        """Seconds left, with what validations and checkpoints take."""
        if self._began is None or not self._recent or self._recent[-1].step == self._began[1]:
            return None
        last = self._recent[-1]
        return (last.steps - last.step) * (self._clock() - self._began[0]) / (last.step - self._began[1])

    def line(self) -> str:
        """``loss 0.0312, lr 2.0e-04, 95.2 samples/s, 0.4 % waiting for data``."""
        if not self._recent:
            return ""
        spent = max(sum(one.seconds for one in self._recent), 1e-9)
        losses = [one.loss for one in self._recent if one.loss is not None]
        rate = sum(one.samples for one in self._recent) / spent
        waited = 100 * sum(one.waited for one in self._recent) / spent
        parts = [f"loss {sum(losses) / len(losses):.4g}", f"lr {self._recent[-1].lr or 0:.1e}"]
        return ", ".join([*parts, f"{rate:.3g} samples/s", f"{waited:.1f} % waiting for data"])


@contextmanager
def showing() -> Iterator[Progress]:
    """A display of the run's steps on standard error."""
    if sys.stderr.isatty():
        with _bar() as update:
            yield update
    else:
        yield _lines()


@contextmanager
def _bar() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TextColumn("{task.fields[said]}"))
    pace = Pace()
    bar = Progress(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task("fit", total=None, said="")

    def update(report: Report) -> None:
        pace.add(report)
        left = pace.left()
        ends = "" if left is None else f", {console.lasting(left)} left"
        bar.start()  # at the first report: processes that report nothing show nothing
        bar.update(task, completed=report.step, total=report.steps, said=pace.line() + ends)

    try:
        yield update
    finally:
        bar.stop()


def _lines(clock: Callable[[], float] = time.monotonic) -> Progress:
    began = clock()
    pace, said = Pace(clock), [began]

    def update(report: Report) -> None:
        pace.add(report)
        now = clock()
        pause = EVERY if now - began < LONG else LATER
        if report.loss is None or (report.step < report.steps and now - said[0] < pause):
            return
        said[0] = now
        left = pace.left()
        ends = "" if left is None or report.step == report.steps else f", {console.lasting(left)} left"
        console.note(f"step {report.step} of {report.steps}: {pace.line()}{ends}")

    return update

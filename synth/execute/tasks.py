"""Shared by the executors: supervision, retries and loss of tasks, and results in order."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from clearfuse.synth.types import WorkIncomplete

LOST = 3
"""Lost tasks after which a run gives up, since the cause is then not a single task."""

Work = Callable[[Any, Any], Any]
"""work(common, task) -> result; a module-level function, which can be pickled."""


@dataclass(frozen=True)
class Watch:
    """Supervision of tasks; the serial executor has none.

    timeout: seconds that a worker may go without a ``report``; None: no limit. name: a task's name in messages. lost:
    (task, reason) -> the result to use for a lost task, so that the others continue; without it, and from the
    ``LOST``-th lost task on, WorkIncomplete is raised.
    """

    timeout: float | None = None
    name: Callable[[Any], str] = str
    lost: Callable[[Any, str], Any] | None = None


@dataclass(frozen=True)
class Needs:
    """Requirements for workers on other machines: packages in the same versions, and local folders."""

    packages: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


def limit_threads() -> None:
    """Set cv2 to one thread, since tasks run in parallel."""
    import cv2

    cv2.setNumThreads(0)


@contextmanager
def one_thread(*, torch: bool = False) -> Iterator[None]:
    """One thread for torch in this process: sums over several have other last bits.

    torch: whether it will be used, though nobody has imported it yet.
    """
    if not torch and "torch" not in sys.modules:
        yield
        return
    from torch import get_num_threads, set_num_threads

    before = get_num_threads()
    set_num_threads(1)
    try:
        yield
    finally:
        set_num_threads(before)


_listener: Callable[[str], None] | None = None


def report(what: str) -> None:
    """Report, within a task, what the worker does next: it resets the time limit and is named if the worker dies."""
    if _listener is not None:
        _listener(what)


def listen(listener: Callable[[str], None] | None) -> None:
    """Send this process's reports to ``listener``; None discards them."""
    global _listener
    _listener = listener


class Losses:
    """Counts the lost tasks of a run and gives their substitute results, until there are too many."""

    def __init__(self, watch: Watch) -> None:
        self.watch, self.count = watch, 0

    def __call__(self, task: Any, why: str) -> Any:
        """The result to use for a lost task. Raises WorkIncomplete where there is none, or too many were lost."""
        self.count += 1
        if self.watch.lost is None or self.count >= LOST:
            others = f", and {self.count - 1} tasks before it" if self.count > 1 else ""
            raise WorkIncomplete(f"{self.watch.name(task)}: {why}{others}; run the same command to go on")
        return self.watch.lost(task, why)


@dataclass
class Ticket:
    """A task in flight: its position among the results, its attempts, and how many of these ended with a lost node."""

    number: int
    task: Any
    attempts: int = 0
    nodes: int = 0


@dataclass(frozen=True)
class Raised:
    """An exception of a task, kept until its turn."""

    error: BaseException


class Results:
    """A bounded, ordered queue: at most ``bound`` tasks are taken whose results are not yet returned."""

    def __init__(self, tasks: Iterable[Any], bound: int) -> None:
        self._tasks, self._bound = enumerate(tasks), bound
        self._again: deque[Ticket] = deque()
        self._done: dict[int, Any] = {}
        self._taken = self._returned = 0
        self._more = True

    def take(self) -> Ticket | None:
        """The next task; None where there is none, or results must be returned first."""
        if self._again:
            return self._again.popleft()
        if not self._more or self._taken - self._returned >= self._bound:
            return None
        number, task = next(self._tasks, (-1, None))
        self._more = number >= 0
        self._taken += self._more
        return Ticket(number, task) if self._more else None

    def again(self, ticket: Ticket) -> None:
        """Retry a task, before all others."""
        self._again.append(ticket)

    def put(self, ticket: Ticket, result: Any) -> None:
        """Store the result of a task."""
        self._done[ticket.number] = result

    def ready(self) -> Iterator[Any]:
        """The results whose turn has come. Raises the exceptions of their tasks."""
        while self._returned in self._done:
            result = self._done.pop(self._returned)
            self._returned += 1
            if isinstance(result, Raised):
                raise result.error from None
            yield result

"""What every executor shares: how tasks are watched, handed out, lost, and given back in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from clearfuse.synth.execute.memory import keep_freed_memory
from clearfuse.synth.types import WorkIncomplete

ATTEMPTS = 3
"""Workers that a task is given to: one may be killed for another's sake, three in a row die of the task."""
LOST = 3
"""Tasks that may be lost before a run gives up: then it is no single task's fault."""

Work = Callable[[Any, Any], Any]
"""work(common, task) -> result; a module's function, so that a worker can find it."""


@dataclass(frozen=True)
class Watch:
    """How tasks are watched.

    timeout: seconds that a worker may go without a ``report``, None for no limit; nobody watches the serial executor.
    name: what a message calls a task. lost: (task, why) -> the result that stands for a task that was lost, so that the
    others go on; without it, and after ``LOST`` of them, a lost task is a WorkIncomplete.
    """

    timeout: float | None = None
    name: Callable[[Any], str] = str
    lost: Callable[[Any, str], Any] | None = None


@dataclass(frozen=True)
class Needs:
    """What workers on other machines must have as it is here: packages that decide bytes, folders that are no URLs."""

    packages: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()


def limit_threads() -> None:
    """One thread a worker, since tasks run in parallel and cv2's own would get in the way; memory kept."""
    import cv2

    cv2.setNumThreads(0)
    keep_freed_memory()


_listener: Callable[[str], None] | None = None


def report(what: str) -> None:
    """Say what this worker begins, in the middle of a task: it is alive, and this is named if it is so no longer."""
    if _listener is not None:
        _listener(what)


def listen(listener: Callable[[str], None] | None) -> None:
    """Send this process's reports there."""
    global _listener
    _listener = listener


class Losses:
    """The tasks of a run that were lost: each becomes what its caller makes of it, until there are too many."""

    def __init__(self, watch: Watch) -> None:
        self.watch, self.count = watch, 0

    def __call__(self, task: Any, why: str) -> Any:
        """The result that stands for the task. Raises WorkIncomplete where there is none, or too many were lost."""
        self.count += 1
        if self.watch.lost is None or self.count >= LOST:
            more = f", and {self.count - 1} tasks before it" if self.count > 1 else ""
            raise WorkIncomplete(f"{self.watch.name(task)}: {why}{more}; run the same command to go on")
        return self.watch.lost(task, why)


@dataclass
class Ticket:
    """A task on its way: its place among the results, and how many workers it was given to."""

    number: int
    task: Any
    attempts: int = 0


@dataclass(frozen=True)
class Raised:
    """What a task raised: kept until its turn."""

    error: BaseException


class Results:
    """Tasks in, results out in the same order, bounded: at most ``bound`` tasks are taken and not yet given out."""

    def __init__(self, tasks: Iterable[Any], bound: int) -> None:
        self._tasks, self._bound = enumerate(tasks), bound
        self._again: deque[Ticket] = deque()
        self._done: dict[int, Any] = {}
        self._taken = self._given = 0
        self._more = True

    def take(self) -> Ticket | None:
        """The next task to hand out; None where there is none, or results must be given out first."""
        if self._again:
            return self._again.popleft()
        if not self._more or self._taken - self._given >= self._bound:
            return None
        number, task = next(self._tasks, (-1, None))
        self._more = number >= 0
        self._taken += self._more
        return Ticket(number, task) if self._more else None

    def again(self, ticket: Ticket) -> None:
        """Hand it out once more, before all others."""
        self._again.append(ticket)

    def put(self, ticket: Ticket, result: Any) -> None:
        """The result of a task."""
        self._done[ticket.number] = result

    def ready(self) -> Iterator[Any]:
        """The results whose turn it is. Raises what their tasks raised."""
        while self._given in self._done:
            result = self._done.pop(self._given)
            self._given += 1
            if isinstance(result, Raised):
                raise result.error from None
            yield result

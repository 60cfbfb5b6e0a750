"""Executors: run a function over tasks, bounded in flight, results in the order of the tasks.

A worker ends with its parent, uses one thread, and gets what is common to all tasks once. One that dies is replaced and
its task given to another, so a build survives what is not its own fault; a task that kills its workers, or a worker
that says nothing for longer than the time limit, is named.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from synth.memory import keep_freed_memory
from synth.types import WorkIncomplete, unknown

EXECUTORS = {
    "processes": "worker processes on this machine",
    "ray": "a Ray cluster, or a local one where none runs (an extra)",
    "serial": "in this process",
}

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


def find_executor(name: str) -> str:
    """The executor's name, checked before work begins."""
    if name not in EXECUTORS:
        raise unknown("executor", name, EXECUTORS)
    if name == "ray":
        from synth.cluster import ray_module

        ray_module()
    return name


@contextmanager
def ready(executor: str, workers: int | None, needs: Needs | None = None) -> Iterator[int]:
    """Workers to count on while inside: ``workers``, else all cores of this machine, or of the cluster.

    With Ray this connects to the cluster, or starts one, and checks that every node has what it ``needs``.
    """
    if executor == "ray":
        from synth.cluster import connected

        with connected(workers, needs or Needs()) as found:
            yield found
    else:
        yield 1 if executor == "serial" else workers or os.cpu_count() or 1


def run(
    work: Work, common: Any, tasks: Iterable[Any], *, workers: int, executor: str, watch: Watch | None = None
) -> Iterator[Any]:
    """Yield ``work(common, task)`` for each task, in order.

    As many tasks as workers run at a time, and results of as many again wait for their turn at most: memory does not
    grow with the number of tasks. What a task raises is raised in its turn.
    """
    if executor == "serial":
        settle()
        return (work(common, task) for task in tasks)
    if executor == "ray":
        from synth.cluster import run_ray

        return run_ray(work, common, tasks, workers, watch or Watch())
    from synth.processes import run_processes

    return run_processes(work, common, tasks, workers, watch or Watch())


def settle() -> None:
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

"""The one scheduler: hands tasks to workers, counts what is lost, tries again, and returns results in order.

Worker processes and a Ray cluster are two pools of it; ``benchmarks/scale.py`` simulates Ray with a virtual clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from clearfuse.synth.execute.tasks import Losses, Results, Ticket, Watch

ATTEMPTS = 3
"""Times that a task is tried: a worker may be killed by chance, three in a row die of the task."""
NODES = 10
"""Nodes that may be lost under a task: one goes by chance, ten in a row go because of the task."""


@dataclass(frozen=True)
class Died:
    """What became of a task whose worker is gone. node: a whole node was lost, which is not the task's fault.

    final: not to be tried again, such as a task over its time limit.
    """

    why: str
    node: bool = False
    final: bool = False


@runtime_checkable
class Pool(Protocol):
    """Workers, each with one task at a time."""

    def room(self) -> bool:
        """Whether a task can be given out."""
        ...

    def start(self, ticket: Ticket) -> None:
        """Give a task to a worker."""
        ...

    def busy(self) -> bool:
        """Whether a task is out."""
        ...

    def wait(self) -> Iterable[tuple[Ticket, Any]]:
        """Wait for a while; the tasks that ended, each with its result, its ``Raised`` or its ``Died``."""
        ...


def schedule(pool: Pool, tasks: Iterable[Any], bound: int, watch: Watch) -> Iterator[Any]:
    """The results of tasks, in order; at most ``bound`` tasks are out or wait for their turn."""
    results, lost = Results(tasks, bound), Losses(watch)
    while True:
        yield from results.ready()
        while pool.room() and (ticket := results.take()) is not None:
            ticket.attempts += 1
            pool.start(ticket)
        if not pool.busy():
            return
        for ticket, result in pool.wait():
            if not isinstance(result, Died):
                results.put(ticket, result)
                continue
            ticket.nodes += result.node
            if result.final or ticket.nodes >= NODES or ticket.attempts - ticket.nodes >= ATTEMPTS:
                results.put(ticket, lost(ticket.task, result.why))
            else:
                results.again(ticket)

"""Executors: run a function over tasks, with a bounded number in flight and results in order.

A worker ends with its parent, uses one thread, and gets the data common to all tasks once. One that dies is replaced
and its task retried, so that a build survives, say, a killed process; a task that kills its workers, and a worker that
reports nothing within the time limit, are errors that name the task.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from clearfuse.synth.execute.tasks import Needs, Watch, Work, limit_threads
from clearfuse.synth.types import check_name

EXECUTORS = {
    "processes": "worker processes on this machine",
    "ray": "a Ray cluster, or a local one where none runs (an extra)",
    "serial": "in this process",
}


def find_executor(name: str) -> str:
    """The executor's name, checked. Raises UserError for an unknown name and where Ray is not installed."""
    check_name("executor", name, EXECUTORS)
    if name == "ray":
        from clearfuse.synth.execute.ray import ray_module

        ray_module()
    return name


@contextmanager
def connect_workers(executor: str, workers: int | None, needs: Needs | None = None) -> Iterator[int]:
    """Yield the number of workers: ``workers``, else all cores of this machine or of the cluster.

    With Ray this connects to the cluster, or starts one, for the context, and checks every node for ``needs``.
    """
    if executor == "ray":
        from clearfuse.synth.execute.ray import connect_ray

        with connect_ray(workers, needs or Needs()) as found:
            yield found
    else:
        yield 1 if executor == "serial" else workers or os.cpu_count() or 1


def run_tasks(
    work: Work,
    common: Any,
    tasks: Iterable[Any],
    *,
    workers: int,
    executor: str,
    watch: Watch | None = None,
    waiting: int | None = None,
) -> Iterator[Any]:
    """Yield ``work(common, task)`` for each task, in order. An exception of a task is raised in its turn.

    waiting: results that may wait for their turn before workers wait too, so that memory does not grow with the number
    of tasks; as many as there are workers by default. Where results are small, more of them let the others go on
    while one task takes long.
    """
    waiting = workers if waiting is None else waiting
    if executor == "serial":
        limit_threads()
        return (work(common, task) for task in tasks)
    if executor == "ray":
        from clearfuse.synth.execute.ray import run_ray

        return run_ray(work, common, tasks, workers, watch or Watch(), waiting)
    from clearfuse.synth.execute.processes import run_processes

    return run_processes(work, common, tasks, workers, watch or Watch(), waiting)

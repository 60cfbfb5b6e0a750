"""Executors: run a function over tasks, bounded in flight, results in the order of the tasks.

A worker ends with its parent, uses one thread, and gets what is common to all tasks once.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from synth.memory import keep_freed_memory
from synth.types import UserError, WorkIncomplete, unknown

EXECUTORS = {
    "processes": "worker processes on this machine",
    "ray": "a Ray cluster, or a local one where none runs (an extra)",
    "serial": "in this process",
}

Work = Callable[[Any, Any], Any]
"""work(common, task) -> result; a module's function, so that a worker can find it."""


def find_executor(name: str) -> str:
    """The executor's name, checked before work begins."""
    if name not in EXECUTORS:
        raise unknown("executor", name, EXECUTORS)
    if name == "ray":
        _ray()
    return name


def run(work: Work, common: Any, tasks: Iterable[Any], *, workers: int, executor: str) -> Iterator[Any]:
    """Yield ``work(common, task)`` for each task, in order.

    At most twice as many tasks as workers are in flight. A worker that dies is a WorkIncomplete.
    """
    if executor == "serial" or (executor == "processes" and workers == 1):
        settle()
        return (work(common, task) for task in tasks)
    return (_run_processes if executor == "processes" else _run_ray)(work, common, tasks, workers)


def settle() -> None:
    """One thread a worker, since tasks run in parallel and cv2's own would get in the way; memory kept."""
    import cv2

    cv2.setNumThreads(0)
    keep_freed_memory()


def _run_processes(work: Work, common: Any, tasks: Iterable[Any], workers: int) -> Iterator[Any]:
    import multiprocessing

    pool = ProcessPoolExecutor(
        workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(os.getpid(), work, common),
    )
    flight: deque[Future[Any]] = deque()
    try:
        for task in tasks:
            flight.append(pool.submit(_work, task))
            if len(flight) >= 2 * workers:
                yield flight.popleft().result()
        while flight:
            yield flight.popleft().result()
    except BrokenProcessPool:
        raise WorkIncomplete("a worker died (killed, or out of memory); run the same command to go on") from None
    finally:
        if flight:  # interrupted: what is half done is worth nothing, and waiting for it costs minutes
            for process in multiprocessing.active_children():
                process.terminate()
        pool.shutdown(wait=True, cancel_futures=True)


_worker: tuple[Work, Any] | None = None


def _start_worker(parent: int, work: Work, common: Any) -> None:
    global _worker
    _worker = (work, common)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends us
    settle()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.2)
    os._exit(1)


def _work(task: Any) -> Any:
    if _worker is None:
        raise RuntimeError("the worker was not started by _start_worker")
    work, common = _worker
    return work(common, task)


def _ray() -> Any:
    try:
        import ray  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError("executor ray needs Ray: pip install 'clearfuse[ray]'") from None
    return ray


def _ray_work(work: Work, common: Any, task: Any) -> Any:
    settle()
    return work(common, task)


def _run_ray(work: Work, common: Any, tasks: Iterable[Any], workers: int) -> Iterator[Any]:
    ray = _ray()
    ours = not ray.is_initialized()
    if ours:
        ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, configure_logging=False)
    try:
        remote = ray.remote(num_cpus=1, max_retries=3)(_ray_work)
        shared = ray.put(common)
        flight: deque[Any] = deque()
        for task in tasks:
            flight.append(remote.remote(work, shared, task))
            if len(flight) >= 2 * workers:
                yield ray.get(flight.popleft())
        while flight:
            yield ray.get(flight.popleft())
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise WorkIncomplete(
            f"Ray lost a task for good: {type(error).__name__}; run the same command to go on"
        ) from None
    finally:
        if ours:
            ray.shutdown()

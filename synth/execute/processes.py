"""Worker processes on this machine, each connected to the parent by its own pipe and working on one task at a time.

A shared queue is unusable once a worker is killed while holding its lock. With pipes only the task of a dead worker
is lost, and the parent knows which one it is.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

import clearfuse
from clearfuse.synth import plugins
from clearfuse.synth.execute.schedule import Died, schedule
from clearfuse.synth.execute.tasks import (
    Raised,
    Ticket,
    Watch,
    Work,
    limit_threads,
    listen,
    report,
)
from clearfuse.synth.types import UserError

POLL = 1.0
"""Seconds between checks of silent workers."""
UNABLE = 71
"""Exit code of a worker that cannot send its result."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
"""Environment variables from which libraries read their number of threads when they are loaded."""
SAFE_PATH = "PYTHONSAFEPATH"
"""With it, Python does not import modules from the current directory, such as a user's ``types.py``."""


def run_processes(
    work: Work, common: Any, tasks: Iterable[Any], workers: int, watch: Watch, waiting: int
) -> Iterator[Any]:
    """The executor of worker processes on this machine: see ``run_tasks``."""
    pool = _Processes(work, common, workers, watch)
    try:
        yield from schedule(pool, tasks, workers + waiting, watch)
        for worker in pool.workers:
            worker.finish()
    finally:
        for worker in pool.workers:  # after an interruption, unfinished work is discarded
            worker.kill()


class _Processes:
    """The pool of worker processes, each started when there is a task for it."""

    def __init__(self, work: Work, common: Any, most: int, watch: Watch) -> None:
        self.work, self.common, self.most, self.watch = work, common, most, watch
        self.workers: list[_Worker] = []

    def room(self) -> bool:
        return len(self.workers) < self.most or any(worker.ticket is None for worker in self.workers)

    def start(self, ticket: Ticket) -> None:
        idle = next((worker for worker in self.workers if worker.ticket is None), None)
        if idle is None:
            self.workers.append(idle := _Worker(self.work, self.common))
        idle.send(ticket)

    def busy(self) -> bool:
        return any(worker.ticket is not None for worker in self.workers)

    def wait(self) -> Iterator[tuple[Ticket, Any]]:
        busy = [worker for worker in self.workers if worker.ticket is not None]
        for worker, ticket, why in _wait_for_messages(busy, self.watch):
            self.workers.remove(worker)
            yield ticket, Died(why, final=worker.hung)
        for worker in busy:
            if worker.answer is not None and worker.ticket is not None:
                ticket, (answer,) = worker.ticket, worker.answer
                worker.ticket = worker.answer = None
                yield ticket, answer


class _Worker:
    """A worker process as seen by its parent: its task, its last report, and for how long it has been silent."""

    def __init__(self, work: Work, common: Any) -> None:
        context = get_context("spawn")
        self.pipe, child_end = context.Pipe()
        self.process = context.Process(target=_run_worker, args=(child_end, os.getpid()), daemon=True)
        with _worker_environment():
            self.process.start()
        child_end.close()
        with suppress(OSError):  # a dead worker is noticed on receiving
            self.pipe.send(plugins.own())
            self.pipe.send((work, common))
        self.ticket: Ticket | None = None
        self.answer: tuple[Any] | None = None
        self.last, self.silent, self.hung = "", 0.0, False

    def send(self, ticket: Ticket) -> None:
        """Send it a task."""
        self.ticket, self.last, self.silent = ticket, "", 0.0
        with suppress(OSError):
            self.pipe.send(ticket.task)

    def receive(self) -> bool:
        """Receive one message; False where the worker is dead."""
        try:
            kind, value = self.pipe.recv()
        except (EOFError, OSError):
            return False
        self.silent = 0.0
        if kind == "at":
            self.last = value
        else:
            self.answer = (value,)
        return True

    def finish(self) -> None:
        """Let it exit: there are no more tasks."""
        self.pipe.close()
        self.process.join(10 * POLL)

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _wait_for_messages(busy: list[_Worker], watch: Watch) -> list[tuple[_Worker, Ticket, str]]:
    """Wait for messages; returns (worker, its task, reason) for workers that died or were killed after the time limit.

    A wait counts as at most ``POLL`` seconds, so that no worker times out because the parent was stopped or busy.
    """
    started = time.monotonic()
    ready = set(wait([worker.pipe for worker in busy], timeout=POLL))
    waited = min(time.monotonic() - started, POLL)
    failed: list[tuple[_Worker, Ticket, str]] = []
    for worker in busy:
        assert worker.ticket is not None
        worker.silent += waited
        if worker.pipe in ready:
            if not worker.receive():
                worker.process.join(10 * POLL)
                failed.append((worker, worker.ticket, f"{_describe(worker)}: {_cause(worker.process.exitcode)}"))
        elif watch.timeout is not None and worker.silent > watch.timeout:
            worker.hung = True
            failed.append(
                (worker, worker.ticket, f"{_describe(worker)}: nothing in {watch.timeout:g} s (--timeout): it hangs")
            )
        if failed and failed[-1][0] is worker:
            worker.kill()
    return failed


def _describe(worker: _Worker) -> str:
    return f"its worker at {worker.last}" if worker.last else "its worker"


def _cause(code: int | None) -> str:
    """The cause of a process's death, from its exit code; a negative one is a signal."""
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    names = {"SIGKILL": "killed, perhaps for want of memory", "SIGSEGV": "segmentation fault"}
    told = {getattr(signal, name): text for name, text in names.items() if hasattr(signal, name)}
    return told.get(-code) or f"died of signal {-code}"


@contextmanager
def _worker_environment() -> Iterator[None]:
    """The environment and module search path for starting a worker: one thread, safe imports.

    The folder of the user's program comes last in the path, where a ``platform.py`` cannot shadow Python's module.
    """
    before = {name: os.environ.get(name) for name in (*THREADS, SAFE_PATH)}
    path = list(sys.path)
    os.environ |= dict.fromkeys(before, "1")
    if clearfuse.is_users_folder(path[0]):
        sys.path[:] = [*path[1:], path[0]]
    try:
        yield
    finally:
        sys.path[:] = path
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _run_worker(pipe: Connection, parent: int) -> None:
    """The main loop of a worker: receives the common data and tasks from the pipe, sends reports and results."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent also gets it, and stops the workers
    die_with_parent(parent)
    listen(lambda what: pipe.send(("at", what)))
    try:
        _serve_tasks(pipe)
    except (EOFError, ConnectionError):
        pass  # no more tasks
    except Exception:  # such as out of memory: the parent reports the exit code
        os._exit(UNABLE)


def _serve_tasks(pipe: Connection) -> None:
    try:
        given = pipe.recv()
        try:
            plugins.adopt(given)
        except UserError:
            pipe.recv_bytes()  # the work, which may be of a plugin's classes
            raise
        work, common = pipe.recv()  # unpickling imports the modules
        limit_threads()
        report("")
    except (EOFError, ConnectionError):
        raise
    except Exception as error:  # sent as the result of the first task
        pipe.recv()
        pipe.send(("done", Raised(_picklable(error))))
        return
    while True:
        task = pipe.recv()
        try:
            answer = work(common, task)
        except Exception as error:  # raised in the parent, in order
            answer = Raised(_picklable(error))
        pipe.send(("done", answer))


def _picklable(error: Exception) -> Exception:
    """The error, or a RuntimeError with its text where it is a library's own, which may not be picklable."""
    own_type = type(error).__module__.partition(".")[0] in ("builtins", "clearfuse")
    return error if own_type else RuntimeError(f"{type(error).__name__}: {error}")


def die_with_parent(parent: int) -> None:
    """Exit this process at once when the process with the id ``parent`` is no longer its parent."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

"""Worker processes on this machine: one task a worker, each heard through a pipe of its own.

A shared queue would be lost with the first worker that is killed while it holds the lock; here a dead worker takes
nothing with it but its task, and the parent knows which one that is.
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
from clearfuse.synth.execute.tasks import (
    ATTEMPTS,
    Losses,
    Raised,
    Results,
    Ticket,
    Watch,
    Work,
    limit_threads,
    listen,
    report,
)

POLL = 1.0
"""Seconds between two looks at silent workers."""
UNABLE = 71
"""Exit code of a worker that cannot answer."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
"""What libraries read their number of threads from, when they are loaded."""
SAFE_PATH = "PYTHONSAFEPATH"
"""Under it a new Python does not take modules from the folder where it is started: a ``types.py`` of the user's."""


def run_processes(work: Work, common: Any, tasks: Iterable[Any], workers: int, watch: Watch) -> Iterator[Any]:
    """The executor of worker processes on this machine: see ``run_tasks``."""
    results, lost = Results(tasks, 2 * workers), Losses(watch)
    crew: list[_Worker] = []
    try:
        while True:
            yield from results.ready()
            while (idle := next((one for one in crew if one.ticket is None), None)) or len(crew) < workers:
                if (ticket := results.take()) is None:
                    break
                if idle is None:
                    crew.append(idle := _Worker(work, common))
                idle.give(ticket)
            busy = [one for one in crew if one.ticket is not None]
            if not busy:
                break
            for one, ticket, why in _hear(busy, watch):
                crew.remove(one)
                if one.hung or ticket.attempts >= ATTEMPTS:
                    results.put(ticket, lost(ticket.task, why))
                else:
                    results.again(ticket)
            for one in busy:
                if one.answer is not None and one.ticket is not None:
                    results.put(one.ticket, one.answer[0])
                    one.ticket = one.answer = None
        for one in crew:
            one.leave()
    finally:
        for one in crew:  # where it was interrupted, what is half done is worth nothing
            one.stop()


class _Worker:
    """A worker process as its parent sees it: the task it has, what it said last, and for how long it is silent."""

    def __init__(self, work: Work, common: Any) -> None:
        context = get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, os.getpid()), daemon=True)
        with _worker_environment():
            self.process.start()
        theirs.close()
        with suppress(OSError):  # that it is dead is found where it is listened to
            self.pipe.send((work, common))
        self.ticket: Ticket | None = None
        self.answer: tuple[Any] | None = None
        self.last, self.silent, self.hung = "", 0.0, False

    def give(self, ticket: Ticket) -> None:
        """Hand it a task."""
        ticket.attempts += 1
        self.ticket, self.last, self.silent = ticket, "", 0.0
        with suppress(OSError):
            self.pipe.send(ticket.task)

    def hear(self) -> bool:
        """Take one message; False where the worker is dead."""
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

    def leave(self) -> None:
        """Let it end by itself: there are no more tasks."""
        self.pipe.close()
        self.process.join(10 * POLL)

    def stop(self) -> None:
        """End it now."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _hear(busy: list[_Worker], watch: Watch) -> list[tuple[_Worker, Ticket, str]]:
    """Wait for messages; (worker, its task, why) of the workers that died, or are silent for too long and were ended.

    A wait counts as ``POLL`` seconds at most, so that nobody is late because the parent itself was stopped or busy.
    """
    began = time.monotonic()
    ready = set(wait([one.pipe for one in busy], timeout=POLL))
    waited = min(time.monotonic() - began, POLL)
    gone: list[tuple[_Worker, Ticket, str]] = []
    for one in busy:
        assert one.ticket is not None
        one.silent += waited
        if one.pipe in ready:
            if not one.hear():
                one.process.join(10 * POLL)
                gone.append((one, one.ticket, f"{_on(one)}: {_cause(one.process.exitcode)}"))
        elif watch.timeout is not None and one.silent > watch.timeout:
            one.hung = True
            gone.append((one, one.ticket, f"{_on(one)}: nothing in {watch.timeout:g} s (--timeout): it hangs"))
        if gone and gone[-1][0] is one:
            one.stop()
    return gone


def _on(worker: _Worker) -> str:
    return f"its worker at {worker.last}" if worker.last else "its worker"


def _cause(code: int | None) -> str:
    """Why a process died, by its exit code: a negative one is a signal."""
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    names = {signal.SIGKILL: "killed, perhaps for want of memory", signal.SIGSEGV: "segmentation fault"}
    return names.get(-code) or f"died of signal {-code}"  # type: ignore[call-overload]


@contextmanager
def _worker_environment() -> Iterator[None]:
    """What a worker starts with: libraries read the environment when they are loaded, and modules come from the path.

    The folder of the user's program comes last in it, where a ``platform.py`` hides no module of Python's.
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


def _serve(pipe: Connection, parent: int) -> None:
    """A worker's life: what is common, then tasks, from the pipe; what it begins, and what came of it, back."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it too, and ends us
    die_with_parent(parent)
    listen(lambda what: pipe.send(("at", what)))
    try:
        _serve_tasks(pipe)
    except (EOFError, ConnectionError):
        pass  # no more tasks
    except Exception:  # no memory to answer, say: the parent names the exit code, and a traceback helps nobody
        os._exit(UNABLE)


def _serve_tasks(pipe: Connection) -> None:
    try:
        work, common = pipe.recv()  # imports what it needs
        limit_threads()
        report("")
    except (EOFError, ConnectionError):
        raise
    except Exception as error:  # the answer to the first task
        pipe.recv()
        pipe.send(("done", Raised(_portable(error))))
        return
    while True:
        task = pipe.recv()
        try:
            answer = work(common, task)
        except Exception as error:  # raised in the parent, in its turn
            answer = Raised(_portable(error))
        pipe.send(("done", answer))


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same and can be sent: a library's own may not survive the pipe."""
    ours = type(error).__module__.partition(".")[0] in ("builtins", "clearfuse")
    return error if ours else RuntimeError(f"{type(error).__name__}: {error}")


def die_with_parent(parent: int) -> None:
    """Leave as soon as the process of this number is no longer this one's parent, whatever is going on."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

"""Shared by both command lines: one-line errors, exit codes, progress bars, formatted numbers."""

from __future__ import annotations

import io
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NoReturn

import typer

from clearfuse.synth.types import UserError, WorkIncomplete

SHARDS = "Folders of shards, shards, patterns (*, {000..012}), or their URLs."
"""The help of every argument that names shards."""
INTERRUPTED = 130
"""What the parser returns for Ctrl-C; the command then exits with 1, as for other incomplete work."""
SPINS = "1000"
"""Turns (some 20 to 50 µs) that a thread of GNU's OpenMP waits for the others before it sleeps. By default 300,000, in
which it keeps a core from whoever it waits for: where others work too, a training takes twenty times as long.
"""


def run_app(app: typer.Typer, name: str) -> NoReturn:
    """Run a command line and exit: 0 done, 1 incomplete, 2 refused before work starts. --debug shows tracebacks."""
    _open_standard_files()
    os.environ["PYTHONSAFEPATH"] = "1"  # worker processes must not import modules from the current directory
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    argv = [arg for arg in sys.argv[1:] if arg != "--debug"]
    debug = len(argv) < len(sys.argv) - 1
    try:
        code = typer.main.get_command(app).main(args=argv, prog_name=name, standalone_mode=False)
    except Exception as error:
        if debug:
            raise
        code = _explain(error, name)
    except KeyboardInterrupt:
        code = INTERRUPTED
    if code == INTERRUPTED:
        code = _fail(name, "interrupted; run the same command to go on", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _explain(error: Exception, name: str) -> int:
    if isinstance(error, WorkIncomplete):
        return _fail(name, str(error), 1)
    if isinstance(error, UserError):
        return _fail(name, str(error), 2)
    if isinstance(error, BrokenPipeError):
        return 1
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error.ctx.get_help())  # type: ignore[attr-defined]
        return 2
    message = getattr(error, "format_message", None)
    if message is not None:  # the parser's own: unknown option, missing argument
        return _fail(name, message(), 2)
    if type(error).__name__ == "Abort":
        return INTERRUPTED
    return _fail(name, f"{type(error).__name__}: {error} (add --debug for the traceback)", 1)


def _fail(name: str, message: str, code: int) -> int:
    note(f"{name}: error: {message}")
    return code


def _open_standard_files() -> None:
    """Put the null device in place of standard files that the caller closed: the next file opened would get their
    numbers, and what libraries print would be written into it. Names of files that are no text are printed in escapes.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest number that is free: this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115  # for good
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def plural(number: int, noun: str) -> str:
    """``1 shard``, ``2 shards``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def format_bytes(size: float) -> str:
    """``512 bytes``, ``1.5 GB``: decimal units."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" or size >= 99.5 else f"{size:.2g} {unit}"


def format_duration(seconds: float) -> str:
    """``20 s``, ``5 min``, ``3.5 h``, ``12 days``."""
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.0f} days"


@dataclass(frozen=True)
class Unit:
    """What a loss is said in: ``factor`` times the number that is minimised and logged, with the unit's name."""

    name: str = ""
    factor: float = 1.0

    def say(self, value: float) -> str:
        """``0.0312``, or ``-24.31 dB``."""
        return f"{value * self.factor:.4g}{self.name and f' {self.name}'}"


PLAIN = Unit()
DECIBEL = Unit("dB", 10 / math.log(10))
"""Of a natural logarithm of a squared error: 10 log10 of it."""
UNITS = {unit.name: unit for unit in (PLAIN, DECIBEL)}


_BREAKS = re.compile(r"\s*[\x00-\x1f\x7f-\x9f\u2028\u2029]+\s*")


def one_line(text: str) -> str:
    """A text without line breaks and control characters, which names of files and messages of libraries may have."""
    return _BREAKS.sub(" ", text).strip()


def note(line: str) -> None:
    """Print a line to standard error, so that standard output holds the result only. Where it can't be written, work
    goes on.
    """
    with suppress(OSError):
        print(one_line(line), file=sys.stderr)


@contextmanager
def progress(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar with rate and time left on a terminal, else a plain line every ten seconds.

    Yields ``update(done, total)``.
    """
    if sys.stderr.isatty():
        with _bar(what, unit) as update:
            yield update
    else:
        yield _lines(what, unit)


@contextmanager
def _bar(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    started, first = time.monotonic(), None
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, rate="")

        def update(done: int, total: int) -> None:
            nonlocal first
            first = done if first is None else first
            rate = (done - first) / max(time.monotonic() - started, 1e-9)
            bar.update(task, completed=done, total=total, rate=f"{rate:.1f} {unit}/s")

        yield update


def _lines(what: str, unit: str, every: float = 10.0) -> Callable[[int, int], None]:
    state: dict[str, Any] = {"started": time.monotonic(), "printed": time.monotonic(), "first": None}

    def update(done: int, total: int) -> None:
        now = time.monotonic()
        if state["first"] is None:
            state["first"] = done
        if done < total and now - state["printed"] < every:
            return
        if done == total == state["first"]:
            return
        state["printed"] = now
        rate = (done - state["first"]) / max(now - state["started"], 1e-9)
        left = f", {(total - done) / rate:.0f} s left" if rate > 0 and done < total else ""
        note(f"{what}: {done} of {total} {unit} ({rate:.1f}/s{left})")

    return update

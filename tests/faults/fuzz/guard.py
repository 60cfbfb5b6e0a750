"""What every input must do: end in time, stay within memory, and be used or refused by one line that names it."""

from __future__ import annotations

import resource
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from clearfuse.synth.console import one_line
from clearfuse.synth.types import UserError, WorkIncomplete

LONGEST = 5
"""Seconds of a processor for one input: by the clock a busy machine takes any number of times as long."""
WAITS = 60
"""Seconds by the clock, for what waits and takes no processor."""
MOST_MEMORY = 1 << 30
"""Bytes for one input, above what the process holds anyway."""
LONGEST_LINE = 3000


class Hangs(BaseException):
    """An input took too long; no reader's ``except Exception`` may hold it."""


class Fails(AssertionError):
    """An input that was neither used nor refused as it should be."""


@contextmanager
def guarded() -> Iterator[None]:
    """Raise ``Hangs`` after ``LONGEST`` or ``WAITS`` seconds, and Fails where more than ``MOST_MEMORY`` was held."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Hangs(f"more than {LONGEST} s of a processor, or {WAITS} s of waiting")

    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the most memory held is counted from here
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    handlers = {number: signal.signal(number, stop) for number in (signal.SIGALRM, signal.SIGPROF)}
    started = time.process_time()
    resource.setrlimit(resource.RLIMIT_DATA, (_memory("VmData") + 2 * MOST_MEMORY, limits[1]))
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    signal.setitimer(signal.ITIMER_REAL, WAITS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        resource.setrlimit(resource.RLIMIT_DATA, limits)
    if (took := time.process_time() - started) > LONGEST:
        raise Fails(f"took {took:.1f} s")
    if (held := _memory("VmHWM") - before) > MOST_MEMORY:
        raise Fails(f"held {held >> 20} MB")


def _memory(name: str) -> int:
    """Bytes that this process holds, by the system's count."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) << 10


def attempt(use: Callable[[], object], names: str, counts: Counter[str]) -> None:
    """Use an input as a command does. names: what a refusal must name. Raises Fails; the outcome is counted."""
    try:
        with guarded():
            use()
    except (UserError, WorkIncomplete) as error:
        check_line(str(error), names)
        counts["refused" if isinstance(error, UserError) else "incomplete"] += 1
    except Hangs as error:
        raise Fails(f"hangs: {error}") from error
    except Fails:
        raise
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise Fails(f"{type(error).__name__}: {error}") from error
    else:
        counts["used"] += 1


def check_line(line: str, names: str) -> None:
    """Raise Fails where a refusal is not one line that names the input."""
    if not line.strip() or names not in line:
        raise Fails(f"does not name {names}: {line[:500]!r}")
    if len(line) > LONGEST_LINE:
        raise Fails(f"a line of {len(line)} characters: {line[:500]!r}")
    if "Traceback" in line or "\n" in one_line(line):
        raise Fails(f"no line: {line[:500]!r}")

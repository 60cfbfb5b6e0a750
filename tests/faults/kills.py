"""A build of forty small shards, started as a process, watched and killed: what the tests of interruptions share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clearfuse.synth.builder.run import build
from conftest import folder_bytes, save, textured

SHARDS = 40
PLAN: dict[str, Any] = {"shard_size": 4, "n": "2", "executor": "serial"}
"""The build of ``command`` as Python has it, but for its variants: 20 make ``SHARDS`` shards."""


def make_pairs(root: Path) -> Path:
    """Eight small training pairs in the layout of MSRS."""
    for number in range(8):
        save(root / "train/vi" / f"{number:05d}D.png", textured(number, 96, 80))
        save(root / "train/ir" / f"{number:05d}D.png", textured(100 + number, 96, 80, channels=1))
    return root


WORKERS = ("spawn_main", "ray::_serve", "ray::IDLE")
"""What is in, or begins, the command line of a worker."""
_MADE: dict[str, Any] = {}


def uninterrupted(factory: pytest.TempPathFactory) -> tuple[Path, dict[str, bytes]]:
    """The pairs, and what a build of ``command`` that nobody interrupts leaves; made once a session."""
    if not _MADE:
        pairs, out = make_pairs(factory.mktemp("pairs")), factory.mktemp("expected")
        build("vif", data=[f"msrs={pairs}"], out=str(out), variants=20, **PLAN)
        _MADE.update(pairs=pairs, files=folder_bytes(out))
    return _MADE["pairs"], _MADE["files"]


def command(data: Path, out: Path, *more: str, executor: str = "processes") -> list[str]:
    """A build of ``SHARDS`` shards."""
    plan = ["--variants", "20", "--shard-size", "4", "--n", "2", "--workers", "2", "--executor", executor]
    where = ["--data", f"msrs={data}", "--out", str(out)]
    return [sys.executable, "-m", "clearfuse.synth.cli", "build", "--task", "vif", *where, *plan, *more]


def finish(args: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return subprocess.run(args, capture_output=True, text=True, timeout=300, check=False, **options)  # type: ignore[call-overload]


def start(args: list[str]) -> subprocess.Popen[bytes]:
    """Start in a session of its own, quietly."""
    return subprocess.Popen(args, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def landed(out: Path) -> int:
    """Shards with a receipt."""
    return len(list(out.glob("vif-train-*.json")))


def session(leader: int) -> dict[int, str]:
    """The command lines of the processes of a session that run: a zombie does not."""
    found: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == leader and fields[0] != "Z":
                found[int(entry.name)] = (entry / "cmdline").read_text()
        except OSError:
            continue
    return found


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll until true, or fail naming what did not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.005)
    pytest.fail(f"{what} did not happen within {seconds} s")


def kill(process: subprocess.Popen[bytes], *, whole: bool) -> None:
    """SIGKILL to the whole group, or to the parent alone; returns when nobody works any more.

    Of a Ray cluster whose driver is gone, daemons that do nothing stay for a minute.
    """
    (os.killpg if whole else os.kill)(process.pid, signal.SIGKILL)
    process.wait()

    def working() -> list[str]:
        lines = session(process.pid).values()
        return [line for line in lines if whole or line.startswith(WORKERS[1:]) or WORKERS[0] in line]

    wait_for(lambda: not working(), 120, f"the end of every worker: {working()}")


def kill_at(args: list[str], out: Path, shards: int, delay: float, *, whole: bool = True) -> bool:
    """Start a build, kill it ``delay`` seconds after that many shards are there; False where it was done before."""
    process = start(args)
    wait_for(lambda: landed(out) >= shards or process.poll() is not None, 120, f"{shards} shards")
    end = time.monotonic() + delay
    while process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    if process.poll() is not None:
        assert process.returncode == 0
        return False
    kill(process, whole=whole)
    return True

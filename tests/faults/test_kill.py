"""Kill -9 in the middle of a build, of the whole group and of the parent alone: the same bytes after a resume."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import folder_bytes

pytestmark = pytest.mark.slow


def command(msrs: Path, out: Path, workers: int) -> list[str]:
    """A build of 24 shards."""
    options = ["--variants", "8", "--shard-size", "2", "--n", "3", "--workers", str(workers)]
    return [
        sys.executable,
        "-m",
        "synth.cli",
        "build",
        "--task",
        "vif",
        "--data",
        f"msrs={msrs}",
        "--out",
        str(out),
        *options,
    ]


def alive(group: int) -> bool:
    """Whether any process of the group runs (a zombie does not)."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            return True
    return False


def wait_for(condition: object, seconds: float, what: str) -> None:
    """Poll until true, or fail naming what did not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.01)
    pytest.fail(f"{what} did not happen within {seconds} s")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to see the workers")
@pytest.mark.parametrize("whom", ["group", "parent"])
@pytest.mark.parametrize("after", [1, 5])
def test_killed_and_resumed_ends_in_the_same_bytes(tmp_path: Path, msrs: Path, whom: str, after: int) -> None:
    expected, out = tmp_path / "expected", tmp_path / "out"
    subprocess.run(command(msrs, expected, 1), check=True, capture_output=True)
    process = subprocess.Popen(command(msrs, out, 2), start_new_session=True, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(list(out.glob("*-*-??????.json"))) >= after, 60, f"{after} shards")
    if whom == "group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_for(lambda: not alive(process.pid), 10, "the end of every worker")
    assert not (out / "dataset.json").exists()
    subprocess.run(command(msrs, out, 2), check=True, capture_output=True)
    assert folder_bytes(out) == folder_bytes(expected)


def test_a_killed_worker_is_replaced(tmp_path: Path, msrs: Path) -> None:
    expected, out = tmp_path / "expected", tmp_path / "out"
    subprocess.run(command(msrs, expected, 1), check=True, capture_output=True)
    process = subprocess.Popen(command(msrs, out, 2), start_new_session=True, stderr=subprocess.DEVNULL)
    wait_for(lambda: any(out.glob("*-*-??????.json")), 60, "a shard")
    os.kill(workers_of(process.pid)[0], signal.SIGKILL)
    assert process.wait(timeout=120) == 0
    assert folder_bytes(out) == folder_bytes(expected)


def workers_of(pid: int) -> list[int]:
    """The worker processes of a build."""
    children = map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    return [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_two_builds_do_not_write_to_one_folder(tmp_path: Path, msrs: Path) -> None:
    out = tmp_path / "out"
    first = subprocess.Popen(command(msrs, out, 2), start_new_session=True, stderr=subprocess.DEVNULL)
    wait_for(lambda: any(out.glob("*-*-??????.json")), 60, "a shard")
    second = subprocess.run(command(msrs, out, 1), capture_output=True, text=True, check=False)
    assert second.returncode == 2
    assert second.stderr.splitlines()[-1] == (
        f"synth: error: another build is writing to {out}: wait for it, or use another --out"
    )
    assert first.wait(timeout=60) == 0


def test_a_file_size_limit_ends_in_one_line_and_resumes(tmp_path: Path, msrs: Path) -> None:
    import resource

    out = tmp_path / "out"

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    ran = subprocess.run(command(msrs, out, 1), capture_output=True, text=True, check=False, preexec_fn=limit)
    assert ran.returncode == 1
    assert "cannot be written: File too large; run the same command to go on" in ran.stderr.splitlines()[-1]
    assert not list(out.glob("*.tar")) and not list(out.glob(".tmp-*"))
    assert subprocess.run(command(msrs, out, 1), capture_output=True, check=False).returncode == 0

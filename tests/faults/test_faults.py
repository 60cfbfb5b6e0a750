"""Power cuts, full and read-only disks, workers that crash, hang or lack memory: one line, then the same bytes."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kills import PLAN, SHARDS, command, finish, landed, start, uninterrupted, wait_for

from clearfuse.synth.builder.run import build
from clearfuse.synth.files.folders import LOCK, folder_lock
from clearfuse.synth.seeds import generator
from clearfuse.synth.types import UserError, WorkIncomplete
from conftest import folder_bytes

pytestmark = pytest.mark.slow

SHARD = "vif-train-000001"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pairs of all builds here."""
    return uninterrupted(tmp_path_factory)[0]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a build that nobody interrupts leaves."""
    return uninterrupted(tmp_path_factory)[1]


class Cut(BaseException):
    """The power goes."""


class Disk:
    """A folder on a disk that keeps what was fsynced, and of the rest what it likes.

    Content is kept when the file is fsynced, a name when its folder is. At the cut every name is by chance as it was
    at the folder's last fsync or as it is now, and a content that was never fsynced is cut short by chance.
    """

    def __init__(self, folder: Path, cut: int, seed: int) -> None:
        self.folder, self.left, self.rng = folder, cut, generator(seed)
        self.names = self.now() if folder.is_dir() else {}
        self.contents = {inode: (folder / name).read_bytes() for name, inode in self.names.items()}
        self.survives: dict[str, bytes] = {}
        self._fsync = os.fsync

    def now(self) -> dict[str, int]:
        """Names and inodes as the running system sees them."""
        return {path.name: path.stat().st_ino for path in self.folder.iterdir()}

    def fsync(self, descriptor: int) -> None:
        """``os.fsync``, until the power goes."""
        self.left -= 1
        if self.left < 0:
            self.survives = dict(self.after())
            raise Cut
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path == self.folder:
            self.names = self.now()
        elif path.parent == self.folder:
            self.contents[path.stat().st_ino] = path.read_bytes()
        self._fsync(descriptor)

    def after(self) -> Iterator[tuple[str, bytes]]:
        """What is there when the power is back."""
        now = self.now()
        for name in sorted(self.names.keys() | now.keys()):
            inode = (self.names if self.rng.random() < 0.5 else now).get(name)
            if inode in self.contents:
                yield name, self.contents[inode]
            elif inode is not None:
                whole = (self.folder / name).read_bytes()
                yield name, whole[: int(self.rng.integers(0, len(whole) + 1))]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc to name descriptors")
def test_power_cuts(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight cuts of one build, each resumed from what the disk kept, at seeded points between two fsyncs."""
    whole, out = tmp_path / "whole", tmp_path / "out"
    plan = {"data": [f"msrs={data}"], "variants": 2, **PLAN}
    build("vif", out=str(whole), **plan)
    seen: set[int] = set()
    for seed in range(8):
        disk = Disk(out, int(generator(seed).integers(0, 16)), seed)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", disk.fsync)
            try:
                build("vif", out=str(out), **plan)
            except Cut:
                shutil.rmtree(out)
                out.mkdir()
                for name, content in disk.survives.items():
                    (out / name).write_bytes(content)
                seen.add(len(disk.survives))
                continue
        assert folder_bytes(out) == folder_bytes(whole)
        shutil.rmtree(out)
    build("vif", out=str(out), **plan)
    assert folder_bytes(out) == folder_bytes(whole)
    assert len(seen) > 2


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    at = tmp_path / "disk"
    at.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1200k", "none", str(at)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs the right to mount a tmpfs")
    yield at
    subprocess.run(["umount", str(at)], check=True)


def test_a_full_disk_then_a_read_only_one_then_room(data: Path, expected: dict[str, bytes], disk: Path) -> None:
    out = disk / "out"
    ran = finish(command(data, out))
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].endswith(
        ".tar: cannot be written: No space left on device; run the same command to go on"
    )
    assert 0 < landed(out) < SHARDS
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    with pytest.raises(UserError, match=r"--out .*/out: cannot be written: Read-only file system"):
        build("vif", data=[f"msrs={data}"], out=str(out), variants=20, **PLAN)
    subprocess.run(["mount", "-o", "remount,rw,size=64m", str(disk)], check=True)
    build("vif", data=[f"msrs={data}"], out=str(out), variants=20, **PLAN)
    assert folder_bytes(out) == expected


def test_a_file_size_limit_ends_in_one_line_and_resumes(data: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with pytest.raises(WorkIncomplete, match="cannot be written: File too large; run the same command to go on"):
            build("vif", data=[f"msrs={data}"], out=str(out), variants=2, **PLAN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(out.glob("*.tar")) and not list(out.glob(".tmp-*"))
    build("vif", data=[f"msrs={data}"], out=str(out), variants=2, **PLAN)
    assert {path.name: path.read_bytes() for path in out.glob("vif-*")}.items() <= expected.items()


WORKER = f"""
import ctypes, os, resource, time
import clearfuse.synth.builder.pack
whole = clearfuse.synth.builder.pack.render

def render(spec, prepared, variant, key):
    if key == "000000005":  # of {SHARD}
        if os.environ["FAULT"] == "segfault":
            ctypes.string_at(0)
        if os.environ["FAULT"] == "hang":
            time.sleep(600)
        if os.environ["FAULT"] == "memory":
            used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), resource.getrlimit(resource.RLIMIT_AS)[1]))
            bytearray(1 << 30)
    return whole(spec, prepared, variant, key)

if os.environ.get("FAULT"):
    clearfuse.synth.builder.pack.render = render
"""
"""A sitecustomize: what every process of a build runs first."""

FAULTS = {
    "segfault": ": segmentation fault",
    "hang": ": nothing in 10 s (--timeout): it hangs",
    "memory": ": MemoryError: ",
}


def test_workers_that_crash_hang_or_run_out_of_memory(data: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WORKER)
    out = tmp_path / "out"
    args = command(data, out, "--timeout", "10")
    for fault, why in FAULTS.items():
        ran = finish(args, env=os.environ | {"FAULT": fault, "PYTHONPATH": str(tmp_path)})
        assert ran.returncode == 1 and "Traceback" not in ran.stderr
        line = ran.stderr.splitlines()[-1]
        assert line.startswith(f"synth: error: 1 of 40 shards failed: {SHARD}.tar: ") and why in line
        assert "msrs/0000" in line and line.endswith("; run the same command to go on")
        assert landed(out) == SHARDS - 1 and not list(out.glob(".tmp-*")) and not (out / "dataset.json").exists()
    build("vif", data=[f"msrs={data}"], out=str(out), variants=20, **PLAN)
    assert folder_bytes(out) == expected


def test_the_lock_of_a_killed_process_is_free_and_its_file_goes(tmp_path: Path) -> None:
    code = "import sys,time; from pathlib import Path; from clearfuse.synth.files.folders import folder_lock\n"
    code += "with folder_lock(Path(sys.argv[1])): print('locked', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"locked\n"
        with pytest.raises(UserError, match="another run is writing to"), folder_lock(tmp_path, "run"):
            pass
        holder.kill()
        holder.wait()
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    with folder_lock(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_two_builds_do_not_write_to_one_folder(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = start(command(data, out))
    wait_for(lambda: landed(out) > 0, 120, "a shard")
    with pytest.raises(UserError) as error:
        build("vif", data=[f"msrs={data}"], out=str(out), variants=20, **PLAN)
    assert str(error.value) == f"another build is writing to {out}: wait for it, or use another --out"
    assert first.wait(timeout=120) == 0

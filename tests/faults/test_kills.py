"""Kills at seeded random points, of processes and of a Ray build: the end state has the uninterrupted build's bytes.

Four kills and one of Ray here; ``CLEARFUSE_KILLS=50,10`` for the full count.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from kills import PLAN, SHARDS, command, finish, kill_at, landed, session, start, uninterrupted, wait_for

from clearfuse.synth.builder.run import build
from clearfuse.synth.files.folders import LOCK
from clearfuse.synth.seeds import generator
from clearfuse.synth.types import UserError
from conftest import folder_bytes, save, textured

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc to see the processes"),
]

PROCESSES, RAY = map(int, os.environ.get("CLEARFUSE_KILLS", "4,1").split(","))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pairs of all builds here."""
    return uninterrupted(tmp_path_factory)[0]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a build that nobody interrupts leaves."""
    return uninterrupted(tmp_path_factory)[1]


def killed_to_the_end(data: Path, out: Path, executor: str, kills: int, expected: dict[str, bytes]) -> dict[str, bytes]:
    """Kill builds in one folder until they are done, begin anew in an empty one; each end state is compared.

    Gives back the last one.

    Most kills come some shards further and a moment later, wherever that is; a fifth soon after the start. Every second
    one ends the parent alone, which its workers notice.
    """
    rng, args, done = generator(2026), command(data, out, executor=executor), 0
    while done < kills:
        before = landed(out)
        ahead = int(rng.integers(1, 14)) if rng.random() < 0.8 else 0
        delay = float(rng.uniform(0, 0.1 if ahead else 3.0))
        if kill_at(args, out, min(before + ahead, SHARDS), delay, whole=done % 2 == 0):
            done += 1
            partial = folder_bytes(out) if out.exists() else {}
            landed_files = {n: content for n, content in partial.items() if not n.startswith((".tmp-", LOCK))}
            wrong = [n for n, content in landed_files.items() if expected[n] != content]
            assert not wrong, f"after kill {done}: {wrong}"
        else:
            assert folder_bytes(out) == expected
            shutil.rmtree(out)
    assert finish(args).returncode == 0
    return folder_bytes(out)


def test_kills_of_a_build(data: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    assert killed_to_the_end(data, tmp_path / "out", "processes", PROCESSES, expected) == expected


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """A local cluster for each run."""
    pytest.importorskip("ray", reason="needs the extra clearfuse[ray]")
    monkeypatch.setenv("RAY_ADDRESS", "local")


def test_kills_of_a_ray_build(ray: None, data: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    assert killed_to_the_end(data, tmp_path / "out", "ray", RAY, expected) == expected


@pytest.mark.parametrize(("executor", "worker"), [("processes", "spawn_main"), ("ray", "ray::_serve")])
def test_a_killed_worker_is_replaced(
    ray: None, data: Path, expected: dict[str, bytes], tmp_path: Path, executor: str, worker: str
) -> None:
    out = tmp_path / "out"
    process = start(command(data, out, executor=executor))
    wait_for(lambda: landed(out) > 2, 120, "the first shards")
    os.kill(next(pid for pid, line in session(process.pid).items() if worker in line), signal.SIGKILL)
    assert process.wait(timeout=120) == 0
    assert folder_bytes(out) == expected


def test_killed_while_it_grows(data: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    out = tmp_path / "out"
    build("vif", data=[f"msrs={data}"], out=str(out), variants=10, **PLAN)
    first = {path.name: path.stat().st_mtime_ns for path in out.glob("vif-*")}
    assert kill_at(command(data, out, "--extend"), out, 30, 0.0)
    with pytest.raises(UserError, match="holds another build: seed was 0, is 1"):
        build("vif", data=[f"msrs={data}"], out=str(out), variants=20, extend=True, seed=1, **PLAN)
    build("vif", data=[f"msrs={data}"], out=str(out), variants=20, extend=True, **PLAN)
    assert folder_bytes(out) == expected
    assert first == {name: (out / name).stat().st_mtime_ns for name in first}


def test_rejects_are_counted_alike_after_kills(data: Path, tmp_path: Path) -> None:
    """A pair that is too small in every variant: whoever finishes says the same of it, and decides the same."""
    pairs = tmp_path / "pairs"
    shutil.copytree(data, pairs)
    for side, channels in (("vi", 3), ("ir", 1)):
        save(pairs / "train" / side / "00009D.png", textured(9, 48, 48, channels=channels))
    more = ("--variants", "6")
    ran, killed = tmp_path / "ran", tmp_path / "killed"
    whole = finish(command(pairs, ran, *more))
    assert kill_at(command(pairs, killed, *more), killed, 6, 0.0)
    after = finish(command(pairs, killed, *more))
    line = "synth: error: 6 of 54 samples rejected, over --max-rejects 0.01: msrs/00009D: 48x48 is too small: no ratio"
    for out, done in ((ran, whole), (killed, after)):
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith(line) and done.stderr.rstrip().endswith(f"are in {out}/*.json")
    assert folder_bytes(killed) == folder_bytes(ran)
    assert list(json.loads((killed / "dataset.json").read_bytes())["rejects"].values()) == [6]
    accepted = finish(command(pairs, killed, *more, "--max-rejects", "0.2"))
    assert accepted.returncode == 0 and "(18 were there), 6 rejected" in accepted.stdout
    assert folder_bytes(killed) == folder_bytes(ran)

"""Executors: ordered results, bounded tasks in flight, workers that die, hang or raise; nodes that differ."""

from __future__ import annotations

import ctypes
import itertools
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from clearfuse.synth.builder.run import build
from clearfuse.synth.execute import ray as cluster
from clearfuse.synth.execute.ray import ray_module
from clearfuse.synth.execute.run import connect_workers, run_tasks
from clearfuse.synth.execute.schedule import ATTEMPTS
from clearfuse.synth.execute.tasks import Needs, Watch, report
from clearfuse.synth.types import UserError, WorkIncomplete

pytestmark = pytest.mark.slow

EXECUTORS = ["serial", "processes", "ray"]


def slow_square(common: int, task: int) -> int:
    """Later tasks finish first."""
    time.sleep(0.02 * (4 - task % 5))
    return common + task * task


def mishap(folder: str, task: tuple[str, int]) -> int:
    """Kill or stop the worker as the task says, the first ``count`` times."""
    kind, count = task
    report(f"{kind}/1")
    for attempt in range(count):
        flag = Path(folder) / f"{kind}-{attempt}"
        if not flag.exists():
            flag.touch()
            if kind == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif kind == "segfault":
                ctypes.string_at(0)
            elif kind == "hang":
                time.sleep(600)
            elif kind == "exit":
                os._exit(3)
            elif kind == "raise":
                raise ValueError("no good")
    return count


def threads(_: None, task: int) -> dict[str, Any]:
    """A worker's thread settings."""
    import cv2
    import torch

    assert task >= 0
    return {"cv2": cv2.getNumThreads(), "torch": torch.get_num_threads(), "folder": os.getcwd()}


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """A local cluster of two CPUs for this module."""
    try:
        ray_module()
    except UserError as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))  # so that workers can import this module
        patch.setenv("RAY_ADDRESS", "local")
        with connect_workers("ray", 2):
            yield


@pytest.fixture
def executor(request: pytest.FixtureRequest) -> str:
    """An executor's name; for Ray with its cluster."""
    if request.param == "ray":
        request.getfixturevalue("ray")
    return request.param


@pytest.mark.parametrize("executor", EXECUTORS, indirect=True)
def test_results_come_in_order_and_tasks_are_taken_as_they_are_needed(executor: str) -> None:
    taken = itertools.count()

    def tasks() -> Iterator[int]:
        for task in range(12):
            next(taken)
            yield task

    results = run_tasks(slow_square, 100, tasks(), workers=2, executor=executor)
    assert next(results) == 100
    assert next(taken) <= 4 + 1
    assert list(results) == [100 + i * i for i in range(1, 12)]


def test_no_tasks_no_workers() -> None:
    assert list(run_tasks(slow_square, 0, [], workers=2, executor="processes")) == []


@pytest.mark.parametrize("executor", EXECUTORS, indirect=True)
def test_what_a_task_raises_is_raised_in_its_turn(executor: str, tmp_path: Path) -> None:
    results = run_tasks(mishap, str(tmp_path), [("fine", 1), ("raise", 1)], workers=2, executor=executor)
    assert next(results) == 1
    with pytest.raises(ValueError, match="no good"):
        next(results)


@pytest.mark.parametrize("executor", EXECUTORS[1:], indirect=True)
@pytest.mark.parametrize("kind", ["kill", "segfault"])
def test_a_worker_that_dies_is_replaced(executor: str, kind: str, tmp_path: Path) -> None:
    tasks = [("fine", 0), (kind, 1), *[("fine", i) for i in range(2, 6)]]
    assert list(run_tasks(mishap, str(tmp_path), tasks, workers=2, executor=executor)) == [0, 1, 2, 3, 4, 5]


WHY = {
    "kill": "its worker at kill/1: killed, perhaps for want of memory",
    "segfault": "its worker at segfault/1: segmentation fault",
    "exit": "its worker at exit/1: ended with exit code 3",
    "hang": "its worker at hang/1: nothing in 4 s (--timeout): it hangs",
}


@pytest.mark.parametrize("kind", list(WHY))
def test_a_task_that_kills_its_workers_is_named_and_the_others_go_on(kind: str, tmp_path: Path) -> None:
    watch = Watch(timeout=4, lost=lambda task, why: f"{task[0]}: {why}")
    tasks = [(kind, 9), ("fine", 7)]
    found = list(run_tasks(mishap, str(tmp_path), tasks, workers=2, executor="processes", watch=watch))
    assert found == [f"{kind}: {WHY[kind]}", 7]
    assert len(list(tmp_path.glob(f"{kind}-*"))) == (1 if kind == "hang" else ATTEMPTS)


def test_ray_names_a_task_that_kills_or_stops_its_workers(ray: None, tmp_path: Path) -> None:
    watch = Watch(timeout=1, lost=lambda task, why: f"{task[0]}: {why}")
    tasks = [("kill", 9), ("fine", 7), ("hang", 9)]
    found = list(run_tasks(mishap, str(tmp_path), tasks, workers=2, executor="ray", watch=watch))
    why = "its workers died, 3 in a row, the last at {}/1: killed, out of memory, or silent for 1 s (--timeout)"
    assert found == [f"kill: {why.format('kill')}", 7, f"hang: {why.format('hang')}"]


def test_too_many_lost_tasks_end_the_run(tmp_path: Path) -> None:
    watch = Watch(name=lambda task: f"shard {task[0]}", lost=lambda task, why: why)
    tasks = [("exit", 99)] * 20
    with pytest.raises(WorkIncomplete) as error:
        list(run_tasks(mishap, str(tmp_path), tasks, workers=2, executor="processes", watch=watch))
    assert str(error.value) == (
        "shard exit: its worker at exit/1: ended with exit code 3, and 2 tasks before it; run the same command to go on"
    )


@pytest.mark.parametrize("executor", EXECUTORS[1:], indirect=True)
def test_a_worker_has_one_thread_and_the_callers_folder(executor: str) -> None:
    (found,) = run_tasks(threads, None, [1], workers=1, executor=executor)
    assert found == {"cv2": 1, "torch": 1, "folder": os.getcwd()}


def test_the_environment_is_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    list(run_tasks(slow_square, 0, [1], workers=1, executor="processes"))
    assert os.environ["OMP_NUM_THREADS"] == "7" and "MKL_NUM_THREADS" not in os.environ


def test_every_node_is_asked_for_what_it_has(ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = ("clearfuse", "numpy", "libwebp")
    with connect_workers("ray", None, Needs(packages, (str(tmp_path),))) as workers:
        assert workers == 2
    with (
        pytest.raises(UserError, match=r"executor ray: node .* does not see .*/nowhere: give URLs, or folders"),
        connect_workers("ray", 2, Needs(packages, (str(tmp_path / "nowhere"),))),
    ):
        pass
    monkeypatch.setattr(cluster, "_make_probe", lambda: lambda packages, folders: ({"numpy": str(os.getpid())}, []))
    with (
        pytest.raises(UserError, match=r"node .* has numpy \d+, this machine \d+: bytes depend on it"),
        connect_workers("ray", 2, Needs(packages)),
    ):
        pass


def test_a_node_that_joins_later_is_asked_before_it_works(ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect_workers("ray", 2, Needs(("clearfuse", "numpy"))):
        assert list(run_tasks(slow_square, 1, [2], workers=2, executor="ray")) == [5]
        monkeypatch.setattr(cluster, "_make_probe", lambda: lambda packages, folders: ({"numpy": "0.9"}, []))
        with pytest.raises(WorkIncomplete) as error:
            list(run_tasks(slow_square, 1, [2], workers=2, executor="ray"))
    assert re.fullmatch(
        r"executor ray: node \S+ has no python, this machine .*: bytes depend on it, install the same there, "
        "or take it out: it joined after the build began; run the same command to go on",
        str(error.value),
    )


def test_a_build_that_an_executor_refuses_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def refuses(*_: Any) -> Iterator[int]:
        raise UserError("executor ray: node b has no numpy")
        yield 0

    monkeypatch.setattr("clearfuse.synth.builder.run.connect_workers", refuses)
    (tmp_path / "there").mkdir()
    for out in ("there", "there/one/two"):
        with pytest.raises(UserError, match="node b has no numpy"):
            build("vif", limit=1, executor="ray", out=str(tmp_path / out))
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]


def test_a_time_limit_that_nobody_keeps_is_refused() -> None:
    with pytest.raises(UserError, match="--timeout 5: has no effect with --executor serial, where nobody watches"):
        build("vif", limit=1, executor="serial", timeout=5.0)


def test_a_package_that_a_node_lacks_is_named() -> None:
    said = cluster._mismatch("b", {"clearfuse": "0.1 (source 12)"}, {"clearfuse": None}, [])
    assert said is not None and "node b has no clearfuse, this machine 0.1 (source 12)" in said


def test_an_address_where_no_cluster_answers_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess
    import sys

    code = "from clearfuse.synth.execute.run import connect_workers\nwith connect_workers('ray', 2): pass"
    env = os.environ | {"RAY_ADDRESS": "127.0.0.1:1"}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert (
        "clearfuse.synth.types.UserError: executor ray: RAY_ADDRESS=127.0.0.1:1: [Errno 111] Connection refused; start"
        in ran.stderr.splitlines()[-1]
    )

"""The scheduler on pools of its own: lost nodes, dead workers, slow tasks; and a build on a simulated cluster."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from clearfuse.synth.builder import resume, run
from clearfuse.synth.execute.schedule import ATTEMPTS, NODES, Died, schedule
from clearfuse.synth.execute.tasks import Ticket, Watch
from clearfuse.synth.types import WorkIncomplete

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from scale import simulate  # pyright: ignore[reportMissingImports]
from simulated_store import World  # pyright: ignore[reportMissingImports]

sys.path.pop()  # its fusers.py would stand before tests/fusers, which is a folder alone

SOUND: dict[str, Any] = {"slow": 0.0, "stuck": 0.0, "killed": 0.0, "lost": 0.0, "spread": 0.0}
"""A world in which nothing goes wrong."""


@dataclass
class Scripted:
    """A pool of workers whose tasks say what becomes of them: (result, rounds, ends of its first attempts)."""

    most: int
    out: dict[int, tuple[Ticket, int]] = field(default_factory=dict[int, tuple[Ticket, int]])
    started: list[int] = field(default_factory=list[int])

    def room(self) -> bool:
        return len(self.out) < self.most

    def start(self, ticket: Ticket) -> None:
        self.started.append(ticket.number)
        self.out[ticket.number] = ticket, ticket.task[1]

    def busy(self) -> bool:
        return bool(self.out)

    def wait(self) -> Iterator[tuple[Ticket, Any]]:
        for number, (ticket, rounds) in list(self.out.items()):
            if rounds > 1:
                self.out[number] = ticket, rounds - 1
                continue
            del self.out[number]
            result, _, ends = ticket.task
            yield ticket, (ends[ticket.attempts - 1] if ticket.attempts <= len(ends) else result)


NODE, WORKER = Died("its node", node=True), Died("its worker")


@pytest.mark.parametrize(
    ("ends", "attempts", "result"),
    [
        ([NODE] * (NODES - 1), NODES, "done"),
        ([NODE] * NODES, NODES, "lost: its node"),
        ([WORKER] * (ATTEMPTS - 1), ATTEMPTS, "done"),
        ([WORKER] * ATTEMPTS, ATTEMPTS, "lost: its worker"),
        ([NODE, WORKER, NODE, NODE, WORKER, NODE], 7, "done"),
        ([Died("it hangs", final=True)], 1, "lost: it hangs"),
    ],
)
def test_a_task_is_blamed_for_its_workers_and_not_for_its_nodes(ends: list[Died], attempts: int, result: str) -> None:
    pool = Scripted(2)
    watch = Watch(lost=lambda task, why: f"lost: {why}")
    found = list(schedule(pool, [("done", 1, ends), ("fine", 1, [])], 4, watch))
    assert found == [result, "fine"]
    assert pool.started.count(0) == attempts


def test_many_lost_nodes_do_not_end_a_run_and_three_lost_tasks_do() -> None:
    assert list(schedule(Scripted(3), [(i, 1, [NODE] * 5) for i in range(20)], 6, Watch())) == list(range(20))
    with pytest.raises(WorkIncomplete, match="its worker, and 2 tasks before it; run the same command to go on"):
        list(schedule(Scripted(3), [(i, 1, [WORKER] * 9) for i in range(20)], 6, Watch(lost=lambda task, why: why)))


def test_one_slow_task_holds_the_others_up_only_where_few_results_may_wait() -> None:
    tasks = [("slow", 50, []), *((i, 1, []) for i in range(90))]
    for waiting, expected in ((2, 4), (90, 91)):
        pool = Scripted(2)
        results = schedule(pool, tasks, 2 + waiting, Watch())
        assert next(results) == "slow"
        assert len(pool.started) >= min(expected, 50) and (waiting > 2 or len(pool.started) == expected)


@pytest.mark.slow
def test_a_build_on_nodes_that_get_lost_has_every_shard_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """``simulate`` compares dataset.json with the plan and the store: it raises where a shard is missing or twice."""
    monkeypatch.setattr(resume, "FEW", 100)  # so that workers read the receipts
    world = World(nodes=20, cores=4, lost=0.95, detect=10, replace=60, killed=0.01, copied=True)
    found = simulate(world, 800 * 250, 250)
    assert found.shards == 800 and found.samples == 200_000 and not found.failed
    assert found.lost >= 10 and found.wasted > 0
    assert found.requests["GET, worker"] >= 800 and found.requests["GET, driver"] <= 2
    assert found.requests["LIST, driver"] < 16  # pages of one listing at the end, and questions
    assert 0 < found.idle < 0.25


def test_what_the_workers_code_writes_is_what_a_simulated_one_copies() -> None:
    real, copied = (simulate(World(nodes=2, cores=4, copied=copied, **SOUND), 40 * 64, 64) for copied in (False, True))
    assert (real.shards, real.samples, real.failed) == (copied.shards, copied.samples, copied.failed) == (40, 2560, 0)
    workers = {name: count for name, count in real.requests.items() if name.endswith("worker")}
    assert workers == {name: count for name, count in copied.requests.items() if name.endswith("worker")}
    assert workers["HEAD, worker"] == 40


def test_fewer_shards_than_workers_are_whole_tasks_where_one_process_could_not_write_their_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "FED", 8)
    assert simulate(World(nodes=20, cores=4, **SOUND), 10 * 16, 16).requests["PUT, worker"] == 20
    assert "PUT, worker" not in simulate(World(nodes=20, cores=4, **SOUND), 7 * 16, 16).requests

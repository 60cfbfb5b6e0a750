"""A cluster and an object store, simulated: a virtual clock, fake nodes, and counted requests.

The build's own code runs: its plan, the scheduler (``synth/execute``), the tasks' code in the workers, shards' receipts
and the last files. What surrounds it is simulated: ``Cluster`` is the module ``ray`` as ``synth/execute/ray.py``
sees it, ``Store`` a file system of fsspec. A worker's time is virtual; the driver's is its processor time, measured,
plus what Ray and the store make it wait.
"""

from __future__ import annotations

import heapq
import itertools
import math
import pickle
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from simulated_store import Lost, Store, World

from clearfuse.synth.builder.pack import SampleTask, ShardTask
from clearfuse.synth.files.storage import THREADS

HOUR = 3600.0


@dataclass(eq=False)
class Node:
    """A node: how many times slower it is, when it came, and the tasks on it."""

    slowness: float
    since: float
    tasks: set[Task] = field(default_factory=set["Task"])
    gone: bool = False


@dataclass(eq=False)
class Task:
    """A task given out; also what Ray calls its reference. given, began: when; seconds: its length once it runs."""

    call: Callable[[], Any]
    payload: Any
    node: Node | None = None
    began: float = 0.0
    seconds: float = 0.0
    given: float = 0.0
    result: Any = None
    error: BaseException | None = None


class _Value:
    """What ``put`` gives back."""

    numbers = itertools.count()

    def __init__(self, value: Any) -> None:
        self.value, self.number = value, next(self.numbers)

    def hex(self) -> str:
        return f"{self.number:x}"


class RayError(Exception):
    """The base of Ray's errors."""


class RayTaskError(RayError):
    def __init__(self, cause: BaseException) -> None:
        super().__init__(str(cause))
        self.cause = cause


class NodeDiedError(RayError):
    pass


class WorkerCrashedError(RayError):
    pass


class ObjectLostError(RayError):
    pass


class OutOfMemoryError(RayError):
    pass


class Cluster:
    """Nodes that take tasks, get lost and are replaced, behind the names of the module ``ray``."""

    exceptions = SimpleNamespace(
        RayError=RayError, RayTaskError=RayTaskError, NodeDiedError=NodeDiedError, ObjectLostError=ObjectLostError,
        WorkerCrashedError=WorkerCrashedError, OutOfMemoryError=OutOfMemoryError,
    )  # fmt: skip

    def __init__(self, world: World, store: Store) -> None:
        self.world, self.store, self.clock = world, store, store.clock
        self.rng = np.random.Generator(np.random.Philox(world.seed))
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = itertools.count()
        self.free: deque[Node] = deque()
        self.queue: deque[Task] = deque()
        self.ended: dict[Task, None] = {}
        self.moment = 0.0
        """When the last event was."""
        self.counts: Counter[str] = Counter()
        self.spans: list[float] = []
        """Seconds of nodes that are gone."""
        self.nodes: set[Node] = set()
        self.useful = self.wasted = 0.0
        """Seconds of workers, in tasks whose result came and in others."""
        for _ in range(world.nodes):
            self._join()

    # What synth/execute/ray.py calls.

    def is_initialized(self) -> bool:
        return True

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": self.world.nodes * self.world.cores}

    def put(self, value: Any) -> _Value:
        return _Value(value)

    def remote(self, **_: Any) -> Callable[[Any], Any]:
        def make(what: Any) -> Any:
            if isinstance(what, type):
                return SimpleNamespace(remote=lambda: _Actor(what(), self.counts))
            return SimpleNamespace(remote=lambda *given: self._submit(what, *given))

        return make

    def _submit(self, call: Callable[..., Any], *given: Any) -> Task:
        payload = given[3]
        pickle.dumps(payload, 5)  # Ray does: the driver's own time
        with self.clock.outside():
            self.clock.spend(self.world.submit)
            if isinstance(payload, ShardTask):
                self.clock.spend(self.world.plan * (self.world.stands - 1) * len(payload.samples))
            self._catch_up()
            task = Task(lambda: call(*given), payload, given=self.clock.now)
            self.queue.append(task)
            self._assign(self.clock.now)
            return task

    def wait(
        self, refs: list[Task], num_returns: int = 1, timeout: float | None = None
    ) -> tuple[list[Task], list[Task]]:
        """One task that ended, or by ``timeout=0`` all that did since the last such call; the second list is empty."""
        with self.clock.outside():
            self.clock.spend(self.world.wait * len(refs))
            self._catch_up()
            while timeout is None and not self.ended:
                self._next()
            if timeout is None:
                return [next(iter(self.ended))], []
            ready, self.ended = list(self.ended), {}
            return ready, []

    def get(self, ref: Any, timeout: float | None = None) -> Any:
        if isinstance(ref, _Value):
            return ref.value
        if ref.error is not None:
            raise ref.error
        return ref.result

    def cancel(self, ref: Task, force: bool) -> None:
        self.counts["cancelled"] += 1

    def kill(self, actor: Any) -> None:
        pass

    # The simulated world.

    def _at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), what))

    def _next(self) -> None:
        self.moment, _, what = heapq.heappop(self.events)
        what()
        self.clock.now = max(self.clock.now, self.moment)

    def _catch_up(self) -> None:
        """What happened while the driver was at other things."""
        while self.events and self.events[0][0] <= self.clock.now:
            self._next()

    def _join(self) -> None:
        now = self.moment
        slow = self.rng.random() < self.world.slow
        node = Node(self.world.slowness if slow else 1.0, now)
        self.nodes.add(node)
        self.free.extend([node] * self.world.cores)
        if self.world.lost:
            hours = self.rng.exponential(1 / -math.log1p(-self.world.lost))
            self._at(now + HOUR * hours, lambda: self._lose(node))

    def _lose(self, node: Node) -> None:
        """A node is gone with its tasks; what each of them had written by then stays."""
        node.gone = True
        self.nodes.discard(node)
        self.counts["nodes lost"] += 1
        self.spans.append(self.moment - node.since)
        for task in node.tasks:
            self.wasted += self.moment - task.began
            left = task.began + task.seconds - self.moment
            upload = self._upload(task)
            if left < upload / 2:  # its shard is there, and nobody is told
                self._carry_out(task)
            elif left < upload:  # its tar alone is there
                self.store.no_receipt = True
                self._carry_out(task)
                self.store.no_receipt = False
            said = "died: its worker" if self.world.blame else "died: its node"
            task.error = WorkerCrashedError(said) if self.world.blame else NodeDiedError(said)
            self._at(self.moment + self.world.detect, lambda task=task: self._end(task))
        node.tasks.clear()
        self._at(self.moment + self.world.replace, self._replaced)

    def _replaced(self) -> None:
        self._join()
        self._assign(self.moment)

    def _assign(self, now: float) -> None:
        while self.queue and self.free:
            node = self.free.popleft()
            if node.gone:
                continue
            task = self.queue.popleft()
            task.node, task.began = node, max(now, task.given)
            task.seconds = self._length(task, node)
            node.tasks.add(task)
            died = isinstance(task.payload, ShardTask) and self.rng.random() < self.world.killed
            until = self.rng.random() if died else 1.0
            self._at(task.began + until * task.seconds, lambda task=task, died=died: self._finish(task, died))

    def _finish(self, task: Task, died: bool) -> None:
        node = task.node
        assert node is not None
        if node.gone:
            return
        node.tasks.discard(task)
        self.free.append(node)
        if died:
            self.counts["workers killed"] += 1
            self.wasted += self.moment - task.began
            task.error = WorkerCrashedError("died: its worker")
        else:
            self.useful += task.seconds
            self._carry_out(task)
        self._end(task)
        self._assign(self.moment)

    def _carry_out(self, task: Task) -> None:
        """The code of the task, as the worker runs it."""
        self.clock.working = True
        try:
            if self.world.copied and self.store.template and isinstance(task.payload, ShardTask):
                self.store.copy(task.payload)
                task.result = ("done", None)
            else:
                task.result = task.call()
        except Lost:
            pass
        except Exception as error:  # what the driver gets of it
            task.error = RayTaskError(error)
        finally:
            self.clock.working = False

    def _end(self, task: Task) -> None:
        self.ended[task] = None

    def _length(self, task: Task, node: Node) -> float:
        world = self.world
        if isinstance(task.payload, SampleTask):
            return world.stands * world.sample * node.slowness
        if not isinstance(task.payload, ShardTask):  # receipts to read
            return world.latency * (1 + len(task.payload) / THREADS)
        stuck = world.stuckness if self.rng.random() < world.stuck else 1.0
        drawn = math.exp(world.spread * self.rng.standard_normal())
        count = world.stands * len(task.payload.samples)
        return count * world.sample * drawn * node.slowness * stuck + self._upload(task)

    def _upload(self, task: Task) -> float:
        """Seconds from the first byte of a shard's tar in the store to its receipt there: four requests."""
        if not isinstance(task.payload, ShardTask):
            return 0.0
        size = self.world.stands * len(task.payload.samples) * self.world.sample_bytes
        return 4 * self.world.latency + size / self.world.rate

    def idle(self) -> float:
        """The share of all nodes' time in which a core had no task."""
        there = sum(self.spans) + sum(self.clock.now - node.since for node in self.nodes)
        running = sum(self.clock.now - task.began for node in self.nodes for task in node.tasks)
        return 1 - (self.useful + self.wasted + running) / (there * self.world.cores)


class _Actor:
    """An actor's handle, whose calls are counted."""

    def __init__(self, actor: Any, counts: Counter[str]) -> None:
        self._actor, self._counts = actor, counts

    def __getattr__(self, name: str) -> Any:
        def call(*given: Any) -> _Value:
            self._counts["calls of an actor"] += 1
            return _Value(getattr(self._actor, name)(*given))

        return SimpleNamespace(remote=call)

"""A cluster and an object store that are played: a virtual clock, fake nodes, and counted requests.

The build's own code runs: its plan, the scheduler (``synth/execute``), the tasks' code in the workers, shards' receipts
and the last files. Played are what stands around it: ``Cluster`` is the module ``ray`` as ``synth/execute/ray.py``
sees it, ``Store`` a file system of fsspec. A worker's time is virtual; the driver's is its processor time, measured,
plus what Ray and the store make it wait.
"""

from __future__ import annotations

import hashlib
import heapq
import itertools
import json
import math
import os
import pickle
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import numpy as np
from fsspec.asyn import get_loop

from clearfuse.synth.builder.pack import ShardTask
from clearfuse.synth.files.storage import THREADS
from clearfuse.synth.shards.tar import SHARD, shard_name

HOUR = 3600.0
PAGE = 1000
"""Objects of a listing that S3 gives at once."""
PART, SINGLE = 50 << 20, 100 << 20
"""Bytes of a part, and from how many on s3fs uploads in parts."""


@dataclass(frozen=True)
class World:
    """What the played cluster and store are like. Times in seconds.

    sample: seconds of a core a sample. sample_bytes: of its members in the tar. stands: real samples that a planned one
    stands for, in time, bytes and the driver's work alike. spread: the standard deviation of the logarithm of a shard's
    time. slow, slowness: share of nodes that are slower, and how many times. stuck, stuckness: share of shards that
    take longer, and how many times. killed: share of shards whose worker dies. lost: share of nodes lost an hour.
    detect: until a lost node is noticed. replace: until another has its place. latency: of a request to the store;
    rate: bytes/s of a worker's transfer. submit, wait: the driver's time in Ray to give out a task, and to ask for the
    state of one task; plan: the driver's time a sample that is not played, since another stands for it.
    """

    nodes: int
    cores: int = 16
    sample: float = 1 / 4.4
    sample_bytes: float = 0.86e6
    stands: int = 1
    spread: float = 0.1
    slow: float = 0.02
    slowness: float = 3.0
    stuck: float = 1e-4
    stuckness: float = 20.0
    killed: float = 1e-5
    lost: float = 0.05
    detect: float = 30.0
    replace: float = 600.0
    latency: float = 0.03
    rate: float = 100e6
    submit: float = 0.45e-3
    wait: float = 0.3e-6
    plan: float = 10e-6
    seed: int = 0
    copied: bool = False
    """Whether a worker copies the receipt of the first shard, which the build's code wrote, with its own names."""
    blame: bool = False
    """Whether a lost node looks like a dead worker: what Ray's own count of retries makes of it."""


class Clock:
    """Virtual seconds. What the driver computes passes as its processor time; what it waits for is added."""

    def __init__(self) -> None:
        self.now = self.driver = 0.0
        self.working = False
        """Whether a worker's code runs, whose time the driver does not spend."""
        self._since = time.process_time()
        self._depth = 0

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Code of the played world: the driver's time until now is counted, that within is not."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        if self._depth == 0:
            self.spend(time.process_time() - self._since)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._since = time.process_time()

    def spend(self, seconds: float) -> None:
        """The driver computes."""
        self.now += seconds
        self.driver += seconds

    def request(self, seconds: float) -> None:
        """The driver asks the store, in one of its threads; workers' requests are in their tasks' time."""
        if not self.working:
            self.now += seconds / (1 if threading.current_thread() is threading.main_thread() else THREADS)


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


def sha256_of(name: str) -> str:
    """The hash of a tar that is not written: of its name."""
    return hashlib.sha256(name.encode()).hexdigest()


class Lost(Exception):
    """A worker is gone before it wrote its receipt."""


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
        """One task that ended, or with ``timeout=0`` all that did since the last such call; the second list is empty."""
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

    # The played world.

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


class Store(fsspec.AbstractFileSystem):
    """A store of objects on the disk: receipts in one file, tars by their size alone; its requests are counted."""

    protocol = "played"
    cachable = False
    world: World
    current: Store

    def __init__(self, world: World | None = None, folder: Path | None = None) -> None:
        super().__init__()
        if world is None or folder is None:  # what fsspec makes of a URL
            self.__dict__ = Store.current.__dict__
            return
        Store.current = self
        self.world, self.folder, self.loop = world, folder, get_loop()
        self.clock, self.requests, self.up, self.down = Clock(), Counter[str](), 0, 0
        self.receipts = (folder / "receipts").open("w+b", buffering=1 << 20)
        self.end = 0
        self.kind = ("", "")
        self.lock = threading.Lock()
        self.tars = np.full(1024, -1, np.int64)
        self.at = np.full(1024, -1, np.int64)
        self.sizes = np.zeros(1024, np.int32)
        self.written = np.zeros(1024, np.uint8)
        """How often each shard's receipt was written."""
        self.no_receipt = False
        self.template: tuple[str, str, str, bytes] | None = None
        """Of the first shard: its name, its sample's key, its hash, its receipt."""

    def copy(self, task: ShardTask) -> None:
        """Land a shard as the build's code would: a question, a tar of the size of the first, and its receipt."""
        assert self.template is not None
        name, key, sha256, receipt = self.template
        own = {name: task.name, key: f"{task.samples[0].index:09d}", sha256: sha256_of(task.name)}
        for before, after in own.items():
            receipt = receipt.replace(before.encode(), after.encode())
        shard, size = self._shard(task.name), int(self.tars[self._number(name)])
        assert shard is not None
        self._ask("HEAD")
        self._ask("LIST")
        self._land(task.name, size, b"")
        if self.no_receipt:
            raise Lost
        self._land(task.name[:-3] + "json", len(receipt), receipt)

    def _number(self, name: str) -> int:
        found = self._shard(name)
        assert found is not None
        return found[0]

    def _land(self, path: str, size: int, data: bytes) -> None:
        """A shard's object, counted."""
        number, kind = self._shard(path) or (-1, "")
        self._ask("PUT", size, 1 if size < SINGLE else 2 + -(-size // PART))
        self.up += size
        if kind == "tar":
            self.tars[number] = size
            return
        self.at[number], self.sizes[number] = self.end, size
        self.receipts.write(data)
        self.end += size
        self.written[number] += 1
        if self.template is None:
            key, sha256 = next(iter(json.loads(data)["offsets"])), json.loads(data)["sha256"]
            self.template = (path[:-4].rpartition("/")[2] + "tar", key, sha256, data)

    def _ask(self, kind: str, size: float = 0.0, count: int = 1) -> None:
        with self.lock:
            self.requests[f"{kind}, {'worker' if self.clock.working else 'driver'}"] += count
        self.clock.request(count * self.world.latency + size / self.world.rate)

    def _shard(self, path: str) -> tuple[int, str] | None:
        """(number, tar or json) of a shard's object."""
        if (found := SHARD.match(path.rpartition("/")[2])) is None:
            return None
        self.kind = (found[1], found[2])
        number = int(found[3])
        while number >= len(self.tars):
            self.tars, self.at = (np.concatenate([one, np.full_like(one, -1)]) for one in (self.tars, self.at))
            self.sizes, self.written = (np.concatenate([one, one * 0]) for one in (self.sizes, self.written))
        return number, found[4]

    def _file(self, path: str) -> Path:
        return self.folder / path.replace("/", "+")

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        with self.clock.outside():
            shard, file = self._shard(rpath), Path(lpath)
            size = file.stat().st_size
            if shard is not None and shard[1] == "json" and self.no_receipt:
                raise Lost
            if shard is not None:
                self._land(rpath, size, file.read_bytes() if shard[1] == "json" else b"")
                return
            self._ask("PUT", size)
            self.up += size
            file.replace(self._file(rpath))
            file.touch()

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        with self.clock.outside():
            shard = self._shard(path)
            if shard is None:
                data = self._file(path).read_bytes()
            else:
                if self.at[shard[0]] < 0:
                    raise FileNotFoundError(path)
                self.receipts.flush()
                data = os.pread(self.receipts.fileno(), int(self.sizes[shard[0]]), int(self.at[shard[0]]))
            self._ask("GET", len(data))
            self.down += len(data)
            return data

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        with self.clock.outside():
            shard, size = self._shard(path), -1
            if shard is not None:
                size = int(self.tars[shard[0]] if shard[1] == "tar" else self.sizes[shard[0]] or -1)
            elif self._file(path).is_file():
                size = self._file(path).stat().st_size
            self._ask("HEAD")
            if size >= 0:
                return {"name": path, "size": size, "type": "file"}
            self._ask("LIST")  # is it a folder?
            raise FileNotFoundError(path)

    def rm_file(self, path: str) -> None:
        with self.clock.outside():
            self._ask("DELETE")
            self._file(path).unlink()

    def _open(self, path: str, mode: str = "rb", **_: Any) -> Any:
        with self.clock.outside():
            size = self._file(path).stat().st_size
            self._ask("GET", size, max(1, -(-size // (8 << 20))))
            self.down += size
            return self._file(path).open("rb")

    async def _iterdir(self, bucket: str, prefix: str = "", **_: Any) -> AsyncIterator[dict[str, Any]]:
        """As of s3fs: what a listing gives, a page at a time."""
        names = self._names(f"{bucket}/{prefix}")
        while some := list(itertools.islice(names, PAGE)):
            self.requests["LIST, driver"] += 1
            self.clock.now += self.world.latency + PAGE * 0.1e-3
            for name, size in some:
                yield {"name": name, "size": size, "type": "file"}
        self.requests["LIST, driver"] += 1

    def _names(self, start: str) -> Iterator[tuple[str, int]]:
        """All objects whose paths begin so."""
        within = start.replace("/", "+")
        for file in sorted(self.folder.iterdir()):
            if file.name.startswith(within):
                yield start + file.name.removeprefix(within), file.stat().st_size
        folder, _, rest = start.rpartition("/")
        for number in range(len(self.tars)):
            tar = shard_name(*self.kind, number)
            for name, size in ((tar, self.tars[number]), (tar[:-3] + "json", self.sizes[number] or -1)):
                if size >= 0 and name.startswith(rest):
                    yield f"{folder}/{name}", int(size)

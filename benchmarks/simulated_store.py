"""The simulated world: its clock, and its object store, which counts requests; see ``simulated_cluster.py``."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
from fsspec.asyn import get_loop

from clearfuse.synth.builder.pack import ShardTask
from clearfuse.synth.files.storage import THREADS
from clearfuse.synth.shards.tar import SHARD, shard_name

PAGE = 1000
"""Objects of a listing that S3 gives at once."""
PART, SINGLE = 50 << 20, 100 << 20
"""Bytes of a part, and from how many on s3fs uploads in parts."""


@dataclass(frozen=True)
class World:
    """What the simulated cluster and store are like. Times in seconds.

    sample: seconds of a core a sample. sample_bytes: of its members in the tar. stands: real samples that a planned one
    stands for, in time, bytes and the driver's work alike. spread: the standard deviation of the logarithm of a shard's
    time. slow, slowness: share of nodes that are slower, and how many times. stuck, stuckness: share of shards that
    take longer, and how many times. killed: share of shards whose worker dies. lost: share of nodes lost an hour.
    detect: until a lost node is noticed. replace: until another has its place. latency: of a request to the store;
    rate: bytes/s of a worker's transfer. submit, wait: the driver's time in Ray to give out a task, and to ask for the
    state of one task; plan: the driver's time a sample that is not simulated, since another stands for it.
    """

    nodes: int
    cores: int = 16
    sample: float = 1 / 4.4
    sample_bytes: float = 1.32e6
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
        """Code of the simulated world: the driver's time until now is counted, that within is not."""
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


def sha256_of(name: str) -> str:
    """The hash of a tar that is not written: of its name."""
    return hashlib.sha256(name.encode()).hexdigest()


class Lost(Exception):
    """A worker is gone before it wrote its receipt."""


class Store(fsspec.AbstractFileSystem):
    """A store of objects on the disk: receipts in one file, tars by their size alone; its requests are counted."""

    protocol = "simulated"
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

"""The Ray executor: a running cluster (``RAY_ADDRESS``, or ``ray start`` on this machine), else a local one.

Workers may be on other machines and share nothing with the driver. So before work starts, every node is checked for
the versions on which the output depends and for access to local folders.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, no_type_check

from clearfuse.synth import plugins
from clearfuse.synth.execute.schedule import ATTEMPTS, NODES, Died, schedule
from clearfuse.synth.execute.tasks import (
    Needs,
    Raised,
    Ticket,
    Watch,
    Work,
    limit_threads,
    listen,
)
from clearfuse.synth.types import UserError, WorkIncomplete

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "(?s).",
}
"""Ray's environment, without messages of its daemons on standard output, which is for results."""

STORE = 256 << 20
"""Size in bytes of a local cluster's object store, for samples in flight; what does not fit is spilled to disk."""

_ADDRESS = re.compile(r"(ray://)?(?P<host>[^/]+):(?P<port>\d+)\Z")
CONNECT = 10.0
"""Time limit for connecting to a cluster, in seconds."""
ANSWER = 120.0
"""Time limit for a node's answer, in seconds."""


def ray_module() -> Any:
    """The module ``ray``. Raises UserError, with the pip command, where it is not installed."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError:
        raise UserError("executor ray needs Ray: pip install 'clearfuse[ray]'") from None
    return ray


_checked: tuple[Needs, dict[str, str | None]] = (Needs(), {})
"""The requirements that every node was checked for, and this machine's versions."""


@contextmanager
def connect_ray(workers: int | None, needs: Needs) -> Iterator[int]:
    """Connect to a cluster, or start a local one, for the context; yields the number of workers. Raises UserError.

    An existing connection of the caller is used and kept.
    """
    global _checked
    ray, before = ray_module(), _checked
    logger = logging.getLogger("ray")
    level, started = logger.level, not ray.is_initialized()
    logger.setLevel(logging.ERROR)
    try:
        if started:
            _connect(ray, workers)
        here = _check_nodes(ray, needs)
        _checked = (needs, here) if here else before
        cpus = int(ray.cluster_resources().get("CPU", 0))
        yield workers or max(cpus, 1)
    finally:
        _checked = before
        if started:
            ray.shutdown()
        logger.setLevel(level)


def _connect(ray: Any, workers: int | None) -> None:
    address = os.environ.get("RAY_ADDRESS")
    if address and (match := _ADDRESS.match(address)):  # fail early: Ray retries for minutes
        try:
            socket.create_connection((match["host"].strip("[]"), int(match["port"])), timeout=CONNECT).close()
        except OSError as error:
            raise _no_cluster(f"RAY_ADDRESS={address}", error) from None
    quiet = {"log_to_driver": False, "configure_logging": False}
    try:
        if address in (None, "", "local"):
            try:
                cpus = workers or os.cpu_count()
                ray.init(num_cpus=cpus, include_dashboard=False, object_store_memory=STORE, **quiet)
                return
            except ValueError:  # a cluster is running, which knows its number of processors
                pass
        ray.init(**quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise _no_cluster(f"RAY_ADDRESS={address}" if address else "the cluster of ray start", error) from None


def _no_cluster(where: str, error: Exception) -> UserError:
    return UserError(
        f"executor ray: {where}: {_first_line(error)}; start the cluster, or set RAY_ADDRESS=local for one of its own"
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _make_probe() -> Callable[[Sequence[str], Sequence[str]], tuple[dict[str, str | None], list[str]]]:
    """A function that returns a machine's versions and missing folders.

    A closure, since Ray pickles closures by value: it runs on nodes where this package is not installed.
    """

    @no_type_check
    def probe(packages, folders):
        import hashlib
        import importlib.metadata
        import importlib.util
        import os
        import pathlib
        import platform

        @no_type_check
        def package_version(name):
            try:
                if name == "libwebp":
                    from PIL import features

                    return str(features.version("webp"))
                found = importlib.metadata.version(name)
            except ImportError:
                return None
            if name != "clearfuse":
                return found
            spec = importlib.util.find_spec("clearfuse.synth")
            if spec is None or spec.origin is None:
                return None
            root = pathlib.Path(spec.origin).parent
            source = hashlib.sha256()
            for path in sorted(root.rglob("*.py")):
                source.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
            return f"{found} (source {source.hexdigest()[:8]})"

        have = {"python": platform.python_version()} | {name: package_version(name) for name in packages}
        return have, [folder for folder in folders if not os.path.isdir(folder)]

    return probe


def _check_nodes(ray: Any, needs: Needs) -> dict[str, str | None]:
    """Check every node that has processors; returns this machine's versions.

    Raises UserError naming the first node with other versions, or without one of the folders.
    """
    if not (needs.packages or needs.folders):
        return {}
    probe = _make_probe()
    here, _ = probe(needs.packages, ())
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) > 0]
    asked = {}
    for node in nodes:
        at = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        remote = ray.remote(num_cpus=0, scheduling_strategy=at)(probe)
        asked[node["NodeManagerAddress"]] = remote.remote(needs.packages, needs.folders)
    for name, answer in asked.items():
        try:
            versions, missing = ray.get(answer, timeout=ANSWER)
        except ray.exceptions.RayError as error:
            raise UserError(f"executor ray: node {name} does not answer: {_first_line(error)}") from None
        if (mismatch := _mismatch(name, here, versions, missing)) is not None:
            raise UserError(mismatch)
    return here


def _mismatch(
    name: str, here: dict[str, str | None], versions: dict[str, str | None], missing: Sequence[str]
) -> str | None:
    """What differs on a node, as an error message; None where nothing does."""
    different = [package for package, version in here.items() if versions.get(package) != version]
    if different:
        has = versions.get(different[0])
        difference = f"has {different[0]} {has}" if has else f"has no {different[0]}"
        return (
            f"executor ray: node {name} {difference}, this machine {here[different[0]]}: bytes depend on it, "
            "install the same there"
        )
    if missing:
        return f"executor ray: node {name} does not see {missing[0]}: give URLs, or folders that every node mounts"
    return None


def _make_server(
    needs: Needs, here: dict[str, str | None]
) -> Callable[[Sequence[Any], str, int, Any, Any], tuple[str, Any]]:
    """The function that does tasks on a node; a closure, like the probe.

    A node may join after the others were checked. So the first task of each worker checks its own node; where that
    differs, the worker refuses its tasks with the reason.
    """
    probe, packages, folders = _make_probe(), needs.packages, needs.folders
    asked: dict[str, Any] = {}

    @no_type_check
    def _serve(job, key, number, task, ledger):
        if here and key not in asked:
            from ray.util import get_node_ip_address

            asked[key] = (get_node_ip_address(), *probe(packages, folders))
        if here and (any(asked[key][1].get(name) != have for name, have in here.items()) or asked[key][2]):
            return "refused", asked[key]

        return "done", do_task(job, key, number, task, ledger)

    return _serve


def _make_ledger() -> type:
    """The actor class that records the workers' reports, since the driver gets nothing from a task before it ends."""

    @no_type_check
    class Ledger:
        def __init__(self):
            self.last = {}

        def record(self, number, what):
            self.last.pop(number, None)
            self.last[number] = what
            if len(self.last) > 10_000:  # those of finished tasks
                del self.last[next(iter(self.last))]

        def of(self, number):
            return self.last.get(number, "")

    return Ledger


def run_ray(work: Work, common: Any, tasks: Iterable[Any], workers: int, watch: Watch, waiting: int) -> Iterator[Any]:
    """The Ray executor: see ``run_tasks``."""
    with connect_ray(workers, Needs()):
        pool = _Cluster(work, common, workers, watch)
        try:
            yield from schedule(pool, tasks, workers + waiting, watch)
        finally:
            pool.close()


class _Cluster:
    """The pool of a Ray cluster's workers.

    Ray tries nothing again: it counts a lost node as a death of the task's, and not every retry would report.
    """

    def __init__(self, work: Work, common: Any, most: int, watch: Watch) -> None:
        self.ray, self.most, self.watch = ray_module(), most, watch
        needs, here = _checked
        self.remote = self.ray.remote(num_cpus=1, max_retries=0)(_make_server(needs, here))
        self.ledger = self.ray.remote(num_cpus=0)(_make_ledger()).remote()
        environment = {name: value for name, value in os.environ.items() if name.startswith("CLEARFUSE_")}
        self.job = self.ray.put((work, common, watch.timeout, os.getcwd(), environment))
        self.plugins = self.ray.put(plugins.own())
        self.flight: dict[Any, Ticket] = {}

    def room(self) -> bool:
        return len(self.flight) < self.most

    def start(self, ticket: Ticket) -> None:
        """A task that has lost a worker reports each step; all tasks at once would be more than one actor can take."""
        ledger = self.ledger if ticket.attempts > 1 else None
        job = [self.plugins, self.job]
        self.flight[self.remote.remote(job, self.job.hex(), ticket.number, ticket.task, ledger)] = ticket

    def busy(self) -> bool:
        return bool(self.flight)

    def wait(self) -> Iterator[tuple[Ticket, Any]]:
        """All that ended, by two calls: one takes a millisecond for a few thousand tasks, however few of them ended."""
        out = list(self.flight)
        self.ray.wait(out)
        for ref in self.ray.wait(out, num_returns=len(out), timeout=0)[0]:
            ticket = self.flight.pop(ref)
            yield ticket, self._result(ref, ticket)

    def _result(self, ref: Any, ticket: Ticket) -> Any:
        """The result of a task, its exception, or how its worker died."""
        errors = self.ray.exceptions
        try:
            kind, result = self.ray.get(ref)
        except errors.RayTaskError as error:
            return Raised(error.cause)
        except (errors.NodeDiedError, errors.ObjectLostError):
            return Died(f"its nodes were lost, {NODES} in a row", node=True)
        except (errors.WorkerCrashedError, errors.OutOfMemoryError):
            limit = "" if self.watch.timeout is None else f", or silent for {self.watch.timeout:g} s (--timeout)"
            at = _ask_ledger(self.ledger.of, ticket.number) if ticket.attempts > 1 else None
            last = f", the last at {at}" if at else ""
            return Died(f"its workers died, {ATTEMPTS} in a row{last}: killed, out of memory{limit}")
        except errors.RayError as error:
            raise WorkIncomplete(
                f"{self.watch.name(ticket.task)}: Ray lost it: {type(error).__name__}: {_first_line(error)}; "
                "run the same command to go on"
            ) from None
        if kind == "done":
            return result
        mismatch = _mismatch(result[0], _checked[1], result[1], result[2])
        raise WorkIncomplete(
            f"{mismatch}, or take it out: it joined after the build began; run the same command to go on"
        )

    def close(self) -> None:
        """Discard what is out, after an interruption."""
        for ref in self.flight:
            self.ray.cancel(ref, force=True)
        self.ray.kill(self.ledger)


def _ask_ledger(method: Any, *what: Any) -> Any:
    """Call a method of the ledger; None where it does not answer, since reports are only for messages."""
    ray = ray_module()
    try:
        return ray.get(method.remote(*what), timeout=CONNECT)
    except ray.exceptions.RayError:
        return None


_job: tuple[str, Any] = ("", None)


def do_task(job: Sequence[Any], key: str, number: int, task: Any, ledger: Any) -> Any:
    """Run a task, on a worker. ``job``, its plugins before its work, is fetched once per process."""
    global _job
    if _job[0] != key:
        plugins.adopt(ray_module().get(job[0]))
        _job = (key, ray_module().get(job[1]))
        limit_threads()
    work, common, timeout, folder, environment = _job[1]
    os.environ.update(environment)
    if os.path.isdir(folder):
        os.chdir(folder)  # relative paths refer to the driver's
    with open(os.devnull, "w") as nowhere:

        def forward(what: str) -> None:
            if timeout is not None:
                _limit(timeout, nowhere)
            if ledger is not None:
                _ask_ledger(ledger.record, number, what)  # wait, so that the last report is known if this process dies

        listen(forward)
        try:
            if timeout is not None:
                _limit(timeout, nowhere)
            return work(common, task)
        finally:
            faulthandler.cancel_dump_traceback_later()
            listen(None)


def _limit(seconds: float, file: Any) -> None:
    """Exit this process after that many seconds, even where it hangs in a library, unless called again before."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=file)

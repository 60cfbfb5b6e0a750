"""Ray as an executor: the cluster that runs (``RAY_ADDRESS``, or ``ray start`` on this machine), else a local one.

Nothing is shared with the workers but what a task carries: they may be on other machines. So every node is asked,
before work begins, for the versions that decide bytes and for the folders that are no URLs.
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

from clearfuse.synth.execute.tasks import (
    ATTEMPTS,
    Losses,
    Needs,
    Raised,
    Results,
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
"""Ray's environment: it would print what its daemons say to standard output, which is the result's."""

STORE = 256 << 20
"""Bytes of a local cluster's object store: samples in flight, at most; what does not fit goes to disk."""

_ADDRESS = re.compile(r"(ray://)?(?P<host>[^/]+):(?P<port>\d+)\Z")
CONNECT = 10.0
"""Seconds that a cluster has to accept a connection."""
ANSWER = 120.0
"""Seconds that a node has to say what it has."""


def ray_module() -> Any:
    """Ray. Raises UserError with the pip line where it is not installed."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.util.scheduling_strategies
    except ImportError:
        raise UserError("executor ray needs Ray: pip install 'clearfuse[ray]'") from None
    return ray


_asked: tuple[Needs, dict[str, str | None]] = (Needs(), {})
"""What every node was asked for before the work, and what this machine has of it."""


@contextmanager
def connected(workers: int | None, needs: Needs) -> Iterator[int]:
    """Connect, or start a local cluster for as long; gives the workers to count on. Raises UserError, one line.

    Inside a connection of the caller's own, that one serves and stays.
    """
    global _asked
    ray, before = ray_module(), _asked
    logger = logging.getLogger("ray")
    level, ours = logger.level, not ray.is_initialized()
    logger.setLevel(logging.ERROR)
    try:
        if ours:
            _connect(ray, workers)
        here = _check_nodes(ray, needs)
        _asked = (needs, here) if here else before
        there = int(ray.cluster_resources().get("CPU", 0))
        yield workers or max(there, 1)
    finally:
        _asked = before
        if ours:
            ray.shutdown()
        logger.setLevel(level)


def _connect(ray: Any, workers: int | None) -> None:
    address = os.environ.get("RAY_ADDRESS")
    if address and (found := _ADDRESS.match(address)):  # Ray itself would try for minutes
        try:
            socket.create_connection((found["host"].strip("[]"), int(found["port"])), timeout=CONNECT).close()
        except OSError as error:
            raise _nobody(f"RAY_ADDRESS={address}", error) from None
    quiet = {"log_to_driver": False, "configure_logging": False}
    try:
        if address in (None, "", "local"):
            try:
                cpus = workers or os.cpu_count()
                ray.init(num_cpus=cpus, include_dashboard=False, object_store_memory=STORE, **quiet)
                return
            except ValueError:  # a cluster runs, and has the number of its own processors
                pass
        ray.init(**quiet)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise _nobody(f"RAY_ADDRESS={address}" if address else "the cluster of ray start", error) from None


def _nobody(where: str, error: Exception) -> UserError:
    return UserError(
        f"executor ray: {where}: {_first_line(error)}; start the cluster, or set RAY_ADDRESS=local for one of its own"
    )


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _make_probe() -> Callable[[Sequence[str], Sequence[str]], tuple[dict[str, str | None], list[str]]]:
    """What a machine has. A closure, since Ray sends closures whole: it runs where this package is not installed."""

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
    """Ask every node that has processors. Raises UserError naming the first that would make other bytes, or none.

    Gives back what this machine has.
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
            there, unseen = ray.get(answer, timeout=ANSWER)
        except ray.exceptions.RayError as error:
            raise UserError(f"executor ray: node {name} does not answer: {_first_line(error)}") from None
        if (wrong := _wrong(name, here, there, unseen)) is not None:
            raise UserError(wrong)
    return here


def _wrong(name: str, here: dict[str, str | None], there: dict[str, str | None], unseen: Sequence[str]) -> str | None:
    """Why a node would make other bytes, or none; None where it would not."""
    other = [package for package, version in here.items() if there.get(package) != version]
    if other:
        has = there.get(other[0])
        said = f"has {other[0]} {has}" if has else f"has no {other[0]}"
        return (
            f"executor ray: node {name} {said}, this machine {here[other[0]]}: bytes depend on it, "
            "install the same there"
        )
    if unseen:
        return f"executor ray: node {name} does not see {unseen[0]}: give URLs, or folders that every node mounts"
    return None


def _make_server(
    needs: Needs, here: dict[str, str | None]
) -> Callable[[Sequence[Any], str, int, Any, Any], tuple[str, Any]]:
    """What does tasks on a node. A closure, as the probe is: a node may join after all others were asked.

    So the first task of each worker asks its own node; one that would make other bytes does none, and says why.
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
    """Where workers say what they begin: the driver hears nothing of a task until it ends."""

    @no_type_check
    class Ledger:
        def __init__(self):
            self.last = {}

        def say(self, number, what):
            self.last.pop(number, None)
            self.last[number] = what
            if len(self.last) > 10_000:  # those of tasks long done
                del self.last[next(iter(self.last))]

        def of(self, number):
            return self.last.get(number, "")

    return Ledger


def run_ray(work: Work, common: Any, tasks: Iterable[Any], workers: int, watch: Watch) -> Iterator[Any]:
    """The executor of a Ray cluster: see ``run_tasks``. A task whose worker dies is given to another by Ray."""
    with connected(workers, Needs()):
        ray = ray_module()
        needs, here = _asked
        remote = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(_make_server(needs, here))
        ledger = ray.remote(num_cpus=0)(_make_ledger()).remote()
        environment = {name: value for name, value in os.environ.items() if name.startswith("CLEARFUSE_")}
        job = ray.put((work, common, watch.timeout, os.getcwd(), environment))
        results, lost = Results(tasks, 2 * workers), Losses(watch)
        flight: dict[Any, Ticket] = {}
        try:
            while True:
                yield from results.ready()
                while len(flight) < workers and (ticket := results.take()) is not None:
                    flight[remote.remote([job], job.hex(), ticket.number, ticket.task, ledger)] = ticket
                if not flight:
                    break
                for ref in ray.wait(list(flight))[0]:
                    ticket = flight.pop(ref)
                    results.put(ticket, _answer(ray, ref, ticket, lost, watch, ledger))
        finally:
            for ref in flight:
                ray.cancel(ref, force=True)
            ray.kill(ledger)


def _answer(ray: Any, ref: Any, ticket: Ticket, lost: Losses, watch: Watch, ledger: Any) -> Any:
    """What a task gave, or raised, or what stands for it where Ray lost it for good."""
    try:
        kind, result = ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        return Raised(error.cause)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError, ray.exceptions.NodeDiedError):
        limit = "" if watch.timeout is None else f", or silent for {watch.timeout:g} s (--timeout)"
        at = _tell(ledger.of, ticket.number)
        last = f", the last at {at}" if at else ""
        return lost(ticket.task, f"its workers died, {ATTEMPTS} in a row{last}: killed, out of memory{limit}")
    except ray.exceptions.RayError as error:
        raise WorkIncomplete(
            f"{watch.name(ticket.task)}: Ray lost it: {type(error).__name__}: {_first_line(error)}; "
            "run the same command to go on"
        ) from None
    if kind == "done":
        return result
    wrong = _wrong(result[0], _asked[1], result[1], result[2])
    raise WorkIncomplete(f"{wrong}, or take it out: it joined after the build began; run the same command to go on")


def _tell(method: Any, *what: Any) -> Any:
    """Ask the ledger; None where it does not answer: what it knows is for messages alone."""
    ray = ray_module()
    try:
        return ray.get(method.remote(*what), timeout=CONNECT)
    except ray.exceptions.RayError:
        return None


_held: tuple[str, Any] = ("", None)


def do_task(job: Sequence[Any], key: str, number: int, task: Any, ledger: Any) -> Any:
    """On a worker: do a task. ``job`` is fetched once a process, not once a task."""
    global _held
    if _held[0] != key:
        _held = (key, ray_module().get(job[0]))
        limit_threads()
    work, common, timeout, folder, environment = _held[1]
    os.environ.update(environment)
    if os.path.isdir(folder):
        os.chdir(folder)  # relative paths are the driver's
    with open(os.devnull, "w") as nowhere:

        def hear(what: str) -> None:
            if timeout is not None:
                _limit(timeout, nowhere)
            _tell(ledger.say, number, what)  # and wait: what is said last must be known when this process dies of it

        listen(hear)
        try:
            if timeout is not None:
                _limit(timeout, nowhere)
            return work(common, task)
        finally:
            faulthandler.cancel_dump_traceback_later()
            listen(None)


def _limit(seconds: float, file: Any) -> None:
    """End this process in so many seconds, even where it hangs inside a library, unless called again before."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=file)

"""Scoring in parts: each is one process's, lands on disk as lines of JSON, and is there or not when work goes on.

Nothing is kept in memory but the part in hand: a million samples take as much as a hundred. The cut into parts, their
bytes and what is summed from them do not depend on the number of processes, nor on where a run was killed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from clearfuse.synth.execute.run import run_tasks
from clearfuse.synth.execute.tasks import Watch, limit_threads, one_thread
from clearfuse.synth.execute.tasks import report as say
from clearfuse.synth.files.storage import landing
from clearfuse.synth.plugins import loaded
from clearfuse.synth.types import BadPair, WorkIncomplete
from clearfuse.synth.version import __version__
from clearfuse.train.evaluation.samples import PART, PARTS, Part, Portion, cut
from clearfuse.train.evaluation.scoring import Method, Record, score_sample
from clearfuse.train.metrics import Metric, find_metric

Progress = Callable[[int, int], None]
SCHEMA = 3


@dataclass(frozen=True)
class Work:
    """What every part has in common. folder: where the parts land; digest: of all that decides their bytes; device:
    where metrics are computed, see ``measure``.
    """

    methods: tuple[Method, ...]
    metrics: tuple[str, ...]
    profile: str
    folder: Path
    digest: str
    device: str | None = None

    def path(self, part: Part) -> Path:
        """Where a part lands."""
        return self.folder / f"{part.number:07d}.jsonl"

    def header(self, part: Part) -> bytes:
        """A part's first line: whose it is, and how many lines follow."""
        facts = {"schema": SCHEMA, "digest": self.digest, "part": part.number, "samples": part.samples}
        return json.dumps(facts).encode() + b"\n"

    def done(self, part: Part) -> bool:
        """Whether a part is there, whole."""
        try:
            with self.path(part).open("rb") as file:
                return file.readline() == self.header(part) and sum(1 for _ in file) == part.samples
        except FileNotFoundError:
            return False

    def records(self, part: Part) -> list[Record]:
        """The records of a part that is done."""
        with self.path(part).open("rb") as file:
            file.readline()
            return [Record.parse(line, len(self.metrics)) for line in file]


def planned(
    folder: Path,
    portions: Sequence[Portion],
    methods: Sequence[Method],
    metrics: Sequence[Metric],
    profile: str = "strict",
    device: str | None = None,
) -> Work:
    """The work of an evaluation, whose parts lie in a folder of ``folder`` that the digest names.

    The digest covers methods with what decides their pixels, metrics, profile, shards with their content and how many
    samples of each, the versions and plugins that compute, and the kind of device if it is not arrays.
    """
    shards = [[one.path.name, one.take, *one.content()] for one in portions]
    named = [[method.name, method.identity, method.upper_bound] for method in methods]
    versions = [__version__, np.__version__, cv2.__version__]
    decides = [SCHEMA, PART, versions, profile, [metric.name for metric in metrics], named, shards]
    decides += [plugin.record() for plugin in loaded()]
    decides += [] if device is None else [f"metrics on {device.partition(':')[0]}"]
    digest = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:16]
    names = tuple(metric.name for metric in metrics)
    return Work(tuple(methods), names, profile, folder / f"parts-{digest}", digest, device)


def score_part(work: Work, part: Part) -> int:
    """Score the samples of a part, land their records, say how many. Raises WorkIncomplete, naming shard and sample."""
    name = part.path.name
    metrics = [find_metric(metric, work.profile) for metric in work.metrics]
    lines: list[bytes] = []
    try:
        for sample in part.read():
            say(f"{name}, sample {sample.key}")
            scored = score_sample(sample, name, work.methods, metrics, work.profile, work.device)
            lines.append(Record.of(scored, work.methods).line())
    except (ValueError, KeyError, OSError, BadPair, WorkIncomplete) as error:
        said = f"a sample's json has no {error}" if isinstance(error, KeyError) else str(error)
        raise WorkIncomplete(f"{name}: {said.removeprefix(f'{name}: ')}; no report was written") from None
    with landing(work.path(part)) as file:
        file.write(work.header(part))
        file.writelines(lines)
    return part.samples


def score_parts(
    work: Work, portions: Sequence[Portion], workers: int, progress: Progress = lambda done, total: None
) -> None:
    """Score every part that is not done. What is killed goes on with the same call.

    Raises WorkIncomplete where a sample can't be read or scored; the parts that are done stay.
    """
    work.folder.mkdir(parents=True, exist_ok=True)
    total, done = sum(portion.take for portion in portions), 0
    done = sum(part.samples for part in cut(portions) if work.done(part))
    progress(done, total)
    todo = (part for part in cut(portions) if not work.done(part))
    executor = "serial" if workers == 1 else "processes"
    try:
        limit_threads()
        with one_thread():
            watch = Watch(name=lambda part: f"{part.path.name}, samples {part.start} to {part.stop}")
            how: dict[str, Any] = {"workers": workers, "executor": executor, "watch": watch}
            # A part's result is a number, so nobody waits for the one who has a large sample.
            for samples in run_tasks(score_part, work, todo, **how, waiting=PARTS):
                done += samples
                progress(done, total)
    except BaseException:
        with suppress(OSError):  # parts that are done stay
            work.folder.rmdir()
        raise


def records(work: Work, portions: Sequence[Portion]) -> Iterator[list[Record]]:
    """The records of all parts, a part at a time, in order. Raises WorkIncomplete where one is gone."""
    for part in cut(portions):
        if not work.done(part):
            raise WorkIncomplete(f"{work.path(part)}: is gone or cut short; run the same command to go on")
        yield work.records(part)


def first_records(work: Work, portions: Sequence[Portion], takes: Sequence[int]) -> Iterator[Record]:
    """The records of the first samples of each portion, as many as ``takes`` says, in order."""
    places, take = iter(takes), 0
    for part in cut(portions):
        take = next(places) if part.start == 0 else take
        if part.start < take:
            yield from work.records(part)[: take - part.start]


def forget(work: Work) -> None:
    """Remove the parts, once the report has landed."""
    shutil.rmtree(work.folder)


ON_GPU = 4
"""Processes that share a GPU where nobody says how many: each holds the networks; metrics take the cores meanwhile."""


def processes(workers: int | None, gpu: bool = False) -> int:
    """How many processes: as many as said, else all cores, but ``ON_GPU`` where a GPU is shared."""
    cores = os.cpu_count() or 1
    return workers or (min(cores, ON_GPU) if gpu else cores)

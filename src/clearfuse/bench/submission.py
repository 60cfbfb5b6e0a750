"""A method's scores on a benchmark as one JSON file, and whether such a file is what it says."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from clearfuse.bench.page import FOLDER, BenchmarkFile, load_page
from clearfuse.synth.console import plural
from clearfuse.synth.files.folders import writing
from clearfuse.synth.files.jsonstream import write_json
from clearfuse.synth.files.resources import resource_names
from clearfuse.synth.files.schema import Schema, StrictModel, validate
from clearfuse.synth.files.storage import local, read_small, same
from clearfuse.synth.shards.records import Sha256
from clearfuse.synth.types import UserError, check_name, look_up

SCORES = "bench.json"
GROUPS = ("overall", "data set", "operator", "n", "severity")
"""The groups of a report that a submission has."""
OFF = 2e-5
"""What means of groups, rounded to six digits each, may be off their sum's mean, relative or absolute."""
REAL_TRACK = "real"


class Score(StrictModel):
    """A metric's mean over the samples of a group."""

    mean: float | None
    """Null where it is infinite or undefined."""
    low: float | None = None
    """The lower end of the 95 % bootstrap interval."""
    high: float | None = None
    """The upper end."""
    count: Annotated[int, Field(ge=0)]
    """Samples in the mean."""


class GroupScores(StrictModel):
    """The scores on some samples."""

    samples: Annotated[int, Field(ge=0)]
    """How many there are, with an image of the method or without."""
    metrics: dict[str, Score]
    """By metric."""


class Track(StrictModel):
    """The scores of a task, or of real pairs."""

    samples: Annotated[int, Field(ge=0)]
    """Samples scored."""
    of: Annotated[int, Field(ge=0)]
    """Samples of the shards; more than were scored where ``bench run --limit`` was given."""
    groups: dict[str, dict[str, GroupScores]]
    """By kind of group (overall, data set, operator, n, severity) and name."""


class RunMethod(StrictModel):
    """A method of ``bench run``."""

    name: str
    ceiling: bool = False
    """Whether it was given the clean pair: no method, but a bound."""
    weights: Sha256 | None = None
    """The sha256 of its model.safetensors."""
    images: Sha256 | None = None
    """Of results, a hash over the names and bytes of the images."""


class RunFile(StrictModel):
    """``bench.json`` of ``bench run``: what was scored."""

    schema_: Schema
    benchmark: str
    """The page's name."""
    definition: Sha256
    """Of the page: what is built, and by what it is scored."""
    shards: dict[str, Sha256]
    """The sha256 of the shards that were scored."""
    versions: dict[str, str]
    """Of what computed the scores."""
    methods: list[RunMethod]
    tracks: dict[str, Sha256]
    """The reports' folders, vif, mef, mff and real, with a hash of what decides each."""
    of: dict[str, Annotated[int, Field(ge=0)]]
    """Samples of all shards by track, of which a limit may have left out some."""


class Submission(StrictModel):
    """One method's scores on a benchmark."""

    schema_: Schema
    benchmark: str
    """The benchmark's name."""
    definition: Sha256
    """The hash of its page."""
    method: Annotated[str, Field(min_length=1, max_length=80)]
    """The method's name on the leaderboard."""
    about: Annotated[str, Field(max_length=400)] = ""
    """What it is, in a sentence."""
    url: Annotated[str, Field(pattern=r"^(https://\S+)?$", max_length=400)] = ""
    """Where it is to be found."""
    trained_on: list[str] = []  # noqa: RUF012
    """Sets whose pairs it was trained on, as its author says."""
    ceiling: bool = False
    """Whether it was given the clean pair: no method, but a bound."""
    weights: Sha256 | None = None
    """The sha256 of the model's weights."""
    images: Sha256 | None = None
    """Of results, a hash over the names and bytes of the images."""
    versions: dict[str, str]
    """Of what computed the scores."""
    shards: dict[str, Sha256]
    """The sha256 of the shards that were scored."""
    tracks: dict[str, Track]
    """By task, and real."""


class ReportScore(Score):
    """Of ``report.json`` of ``train eval``, which says more than is read here."""

    model_config = ConfigDict(extra="ignore")


class ReportGroup(StrictModel):
    """A group of a report's samples."""

    model_config = ConfigDict(extra="ignore")

    samples: Annotated[int, Field(ge=0)]
    methods: dict[str, dict[str, ReportScore]]


class ReportMethod(StrictModel):
    """A method of a report."""

    model_config = ConfigDict(extra="ignore")

    name: str


class Report(StrictModel):
    """``report.json``: what is read of it."""

    model_config = ConfigDict(extra="ignore")

    samples: Annotated[int, Field(ge=0)]
    methods: list[ReportMethod]
    groups: dict[str, dict[str, ReportGroup]]


def read_submission(path: Path) -> Submission:
    """A submission's file. Raises UserError, one line, where it is none."""
    return validate(Submission, read_small(path), str(path))


def submit(
    scores: str, method: str | None, out: str, *, name: str = "", about: str = "", url: str = "",
    trained_on: tuple[str, ...] = (),
) -> Submission:  # fmt: skip
    """Write a method's scores in the folder of ``bench run`` as one file, and give them.

    method: its name in the reports; None: the only one that is neither a bound nor in every run. name: on the
    leaderboard. Raises UserError where there is no such method.
    """
    folder = local(scores, "SCORES")
    path = folder / SCORES
    if not path.is_file():
        raise UserError(f"{scores}: no {SCORES}: not the folder of a bench run")
    run = validate(RunFile, read_small(path), str(path))
    methods = {one.name: one for one in run.methods}
    if method is None:
        own = [one.name for one in run.methods if one.weights or one.images]
        if len(own) != 1:
            raise UserError(f"--method: name one of {', '.join(methods)}")
        method = own[0]
    chosen = look_up("method", method, methods)
    if unknown := sorted(run.tracks.keys() - run.of.keys()):
        raise UserError(f"{path}: of: {unknown[0]}, which was scored, is missing")
    reports = {track: folder / track / "report.json" for track in run.tracks}
    if any(same(Path(out), read) for read in (path, *reports.values())):
        raise UserError(f"--out {out}: is what the scores are read from; choose another file")
    tracks = {track: _track(report, method, run.of[track]) for track, report in reports.items()}
    tracks = {track: one for track, one in tracks.items() if one is not None}
    written = {
        "schema": 1, "benchmark": run.benchmark, "definition": run.definition, "method": name or method, "about": about,
        "url": url, "trained_on": sorted(trained_on), "ceiling": chosen.ceiling, "weights": chosen.weights,
        "images": chosen.images, "versions": run.versions, "shards": run.shards, "tracks": tracks,
    }  # fmt: skip
    submission = validate(Submission, written, out)
    with writing(out) as target:
        write_json(target, written)
    return submission


def _track(path: Path, method: str, of: int) -> dict[str, Any] | None:
    """A method's part of a report; None where it was not scored: a bound, of real pairs. of: samples of its shards."""
    if not path.is_file():
        raise UserError(f"{path}: is missing: run bench run again")
    report = validate(Report, read_small(path), str(path))
    if method not in {one.name for one in report.methods}:
        return None
    groups = {
        by: {name: _group(one, method) for name, one in report.groups[by].items()}
        for by in GROUPS
        if by in report.groups
    }
    return {"samples": report.samples, "of": of, "groups": groups}


def _group(group: ReportGroup, method: str) -> dict[str, Any]:
    stats = group.methods.get(method, {})
    metrics = {name: {field: getattr(stat, field) for field in Score.model_fields} for name, stat in stats.items()}
    return {"samples": group.samples, "metrics": metrics}


def check_submission(submission: Submission, page: BenchmarkFile | None = None) -> tuple[list[str], list[str]]:
    """(problems, notes): what speaks against it, and what it does not cover, a line each.

    page: the benchmark's; the one that ships without it. Raises UserError where there is none of its name.
    """
    if page is None:
        check_name("benchmark", submission.benchmark, resource_names(FOLDER))
        page = load_page(submission.benchmark)
    problems: list[str] = []
    if submission.definition != page.definition:
        problems.append(f"definition: is of another '{page.name}' than {page.path.name} is now")
    for name, sha256 in submission.shards.items():
        wanted = page.shards.get(name)
        if wanted is None:
            problems.append(f"shards: {name} is none of {page.name}")
        elif wanted.sha256 != sha256:
            problems.append(f"shards: {name} has sha256 {sha256[:12]}…, the benchmark's {wanted.sha256[:12]}…")
    problems += [
        f"trained_on: {name} is none of the sets of {page.name}"
        for name in submission.trained_on
        if name not in {entry.name for entry in page.sets}
    ]
    for name, track in submission.tracks.items():
        problems += [f"tracks: {name}: {line}" for line in _wrong_track(page, submission, name, track)]
    return problems, list(_not_covered(page, submission))


def _wrong_track(page: BenchmarkFile, submission: Submission, name: str, track: Track) -> Iterator[str]:
    """What is wrong with the numbers of a track."""
    if name not in (*page.tasks, REAL_TRACK):
        yield f"unknown; allowed: {', '.join((*page.tasks, REAL_TRACK))}"
        return
    expected = sum(page.shards[shard].samples for shard in tracks_of(page, submission.shards).get(name, ()))
    if track.of != expected:
        yield f"{track.of} samples, its shards hold {expected}"
    if track.samples > track.of:
        yield f"{track.samples} samples scored of {track.of}"
    wanted = page.real_metrics if name == REAL_TRACK else page.metrics
    overall = track.groups.get("overall", {}).get("all")
    if overall is None or overall.samples != track.samples:
        yield f"no overall scores of its {track.samples} samples"
        return
    for by, groups in track.groups.items():
        for group, one in groups.items():
            if set(one.metrics) != set(wanted):
                yield f"{by} {group}: has {', '.join(one.metrics) or 'no metrics'}, not {', '.join(wanted)}"
    for by in ("n", "data set"):  # each sample is in one of these, and in one alone
        groups = list(track.groups.get(by, {}).values())
        if sum(one.samples for one in groups) != track.samples:
            yield f"{by}: {sum(one.samples for one in groups)} samples together, {track.samples} overall"
        for metric in wanted:
            parts = [one.metrics[metric] for one in groups if metric in one.metrics]
            total = overall.metrics.get(metric)
            if total is not None and total.mean is not None and not _adds_up(total, parts):
                yield f"{metric}: the means by {by} are not those of {total.mean} overall"


def _adds_up(total: Score, parts: list[Score]) -> bool:
    """Whether a mean is that of the means of disjoint groups."""
    known = [(one.mean, one.count) for one in parts if one.mean is not None and one.count]
    if sum(count for _, count in known) != total.count or not total.count or total.mean is None:
        return False
    mean = sum(mean * count for mean, count in known) / total.count
    return math.isclose(mean, total.mean, rel_tol=OFF, abs_tol=OFF)


def _not_covered(page: BenchmarkFile, submission: Submission) -> Iterator[str]:
    """What of the benchmark the scores leave out."""
    absent = [name for name in page.shards if name not in submission.shards]
    if absent:
        sets = sorted({name.rpartition("/")[0].rpartition("-")[0] for name in absent})
        yield f"covers {len(submission.shards)} of {plural(len(page.shards), 'shard')}: nothing of {', '.join(sets)}"
    for name in tracks_of(page, submission.shards):
        if name not in submission.tracks:
            yield f"{name}: not scored"
    for name, track in submission.tracks.items():
        if track.samples < track.of:
            yield f"{name}: {track.samples} of {track.of} samples scored"
        overall = track.groups.get("overall", {}).get("all")
        most = max((one.count for one in overall.metrics.values()), default=0) if overall is not None else 0
        if most < track.samples:  # a metric alone may be infinite: of a picture that is its ground truth
            yield f"{name}: {track.samples - most} of {track.samples} samples without an image"


def tracks_of(page: BenchmarkFile, shards: Mapping[str, Any]) -> dict[str, list[str]]:
    """The shards that are the page's, by track, in its order."""
    found: dict[str, list[str]] = {}
    for entry in page.sets:
        track = REAL_TRACK if entry.kind == REAL_TRACK else entry.task
        for part in page.parts(entry):
            if names := [name for name in part.shards if name in shards and name in page.shards]:
                found.setdefault(track, []).extend(names)
    return found

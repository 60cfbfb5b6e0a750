"""``train metrics agree``: how far metrics rank fused images as others do: as people did, or as published."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from clearfuse.synth.files.storage import read_small
from clearfuse.synth.types import UserError, unknown
from clearfuse.train.evaluation.files import FileScores, score_files
from clearfuse.train.evaluation.options import ScoringOptions
from clearfuse.train.evaluation.stress.ranks import kendall, ranks, spearman
from clearfuse.train.metrics import Metric, find_metric

Progress = Callable[[int, int], None]
METHOD = "{method}"
"""Stands, in the path of fused images, for each method of the table."""
ONLY = "fused"
"""The method of a table without methods."""


@dataclass(frozen=True)
class Scores:
    """Scores of fused images by others. columns: their names. values: by method, image and column."""

    columns: tuple[str, ...]
    values: Mapping[str, Mapping[str, Mapping[str, float]]]


@dataclass(frozen=True)
class Agreement:
    """How far a metric ranks as a column of scores does, both so that more is better. NaN where there is no rank.

    within: Kendall's τ among the fused images of a scene, mean over ``scenes``. overall: Spearman's ρ over all
    ``images``. methods: τ of the methods' means; same: how many of ``of`` methods are at the same place by both.
    largest: of a column of published values of the metric itself, the largest difference to ours, as a share of it.
    """

    metric: str
    column: str
    within: float
    scenes: int
    overall: float
    images: int
    methods: float
    same: int
    of: int
    largest: float | None = None


def read_scores(path: str) -> Scores:
    """A table of scores: CSV with a line of names, or JSON lines (``.jsonl``).

    Of each fused image its ``image`` (the name of the pair), its ``method`` (may be left out where there is one alone)
    and numbers by name, which in JSON may stand in an object ``scores``; an empty cell is no score. Raises UserError,
    naming the line, for what can't be read.
    """
    columns: dict[str, None] = {}
    values: dict[str, dict[str, dict[str, float]]] = {}
    for number, row in _rows(path):
        where = f"--scores {path}, line {number}"
        image = row.pop("image", None)
        method = str(row.pop("method", None) or ONLY)
        if image in (None, ""):
            raise UserError(f"{where}: has no image: a line names its image, its method and its scores")
        of_method = values.setdefault(method, {})
        if str(image) in of_method:
            raise UserError(f"{where}: image {image} of {method} has scores already")
        found = {name: _number(text, f"{where}: {name}") for name, text in row.items() if text not in (None, "")}
        of_method[str(image)] = found
        columns |= dict.fromkeys(found)
    if not columns:
        raise UserError(f"--scores {path}: has no scores")
    return Scores(tuple(columns), values)


def _rows(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of a table with their numbers, as names and cells."""
    try:
        text = read_small(path, f"--scores {path}").decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"--scores {path}: cannot be read: is no text in UTF-8") from None
    lines = text.splitlines()
    if not path.endswith(".jsonl"):
        reader = csv.DictReader(lines)
        try:
            names = [name for name in reader.fieldnames or () if name]
            if (twice := next((name for name in names if names.count(name) > 1), None)) is not None:
                raise UserError(f"--scores {path}: two columns are named {twice[:40]}")
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(f"--scores {path}, line {reader.line_num}: not as many cells as the first line has")
                yield reader.line_num, dict(row)
        except csv.Error as error:  # such as a cell without an end
            raise UserError(f"--scores {path}, line {reader.line_num + 1}: is no line of a table: {error}") from None
        return
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError):
            row = ()
        if row is None:
            continue
        if not isinstance(row, dict):
            raise UserError(f"--scores {path}, line {number}: is no JSON object")
        inner = row.pop("scores", {})
        if not isinstance(inner, dict):
            raise UserError(f"--scores {path}, line {number}: scores must be an object of numbers by name")
        yield number, {**row, **inner}


def _number(text: Any, where: str) -> float:
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{where}: {str(text)[:40]} is no number")
    return value


def agree(
    options: ScoringOptions,
    scores: str,
    *,
    lower: str | None = None,
    progress: Progress = lambda done, total: None,
) -> list[Agreement]:
    """Measure fused images and compare with scores by others, metric by metric and column by column.

    options: see ``score_files``; ``{method}`` in a single ``fused`` stands for each method of the table. scores: see
    ``read_scores``. lower: names, separated by commas, of the columns where less is better. A column with the name of
    one of the profile's metrics holds published values of that metric: it is compared with that metric alone, by the
    metric's direction. Without options.metrics, those metrics are measured where every column is one of them, else all
    of the profile that can run. Raises UserError before work begins.
    """
    table = read_scores(scores)
    published = {column: metric.name for column in table.columns if (metric := _metric(column, options.profile))}
    worse = [name.strip() for name in lower.split(",")] if lower else []
    for name in worse:
        if name not in table.columns:
            raise unknown("column of --lower", name, table.columns)
    fused, metrics = options.fused, options.metrics
    if len(fused) == 1 and METHOD in fused[0]:
        fused = tuple(f"{method}={fused[0].replace(METHOD, method)}" for method in table.values)
    if metrics is None:
        metrics = ",".join(dict.fromkeys(published.values())) if len(published) == len(table.columns) else "all"
    options = options.model_copy(update={"fused": fused, "metrics": metrics})
    measured = score_files(options, progress=progress, before=_some_scored(table))
    found: list[Agreement] = []
    for column in table.columns:
        for metric in measured.metrics:
            own = published.get(column) == metric.name
            if own or column not in published:
                found.append(compare(table, column, measured, metric, worse=column in worse, own=own))
    return found


def _metric(column: str, profile: str) -> Metric | None:
    try:
        return find_metric(column, profile)
    except UserError:
        return None


def _some_scored(table: Scores) -> Callable[[Mapping[str, Sequence[str]]], None]:
    """A check, before work begins, that at least one fused image has scores."""

    def check(images: Mapping[str, Sequence[str]]) -> None:
        known = _by_method(table, list(images))
        if not any(set(names) & set(known.get(method, ())) for method, names in images.items()):
            method, names = next(iter(images.items()))
            first = next(iter(next(iter(table.values.values()))))
            raise UserError(
                f"--scores: none of its images is among the fused ones: it has {first} of {', '.join(table.values)}, "
                f"and there are {', '.join(list(names)[:3])} of {method}"
            )

    return check


def _by_method(table: Scores, methods: Sequence[str]) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
    """The scores by method; those of a table without methods are the only one's."""
    if set(table.values) == {ONLY} and len(methods) == 1:
        return {methods[0]: table.values[ONLY]}
    return table.values


def compare(
    table: Scores, column: str, measured: FileScores, metric: Metric, *, worse: bool = False, own: bool = False
) -> Agreement:
    """A metric beside a column of scores. worse: less of the column is better. own: it holds the metric's values."""
    scored = _by_method(table, list(measured.values))
    methods = [name for name in measured.values if name in scored]
    images = list(dict.fromkeys(image for name in methods for image in measured.values[name] if image in scored[name]))
    sign = 1.0 if metric.direction == "higher" else -1.0
    ours = _values(measured.values, methods, images, metric.name)
    theirs = _values(scored, methods, images, column)
    known = np.isfinite(ours) & np.isfinite(theirs)
    x, y = sign * ours, (sign if own else -1.0 if worse else 1.0) * theirs
    taus = [kendall(x[known[:, k], k], y[known[:, k], k]) for k in range(len(images)) if known[:, k].sum() > 1]
    taus = [tau for tau in taus if not math.isnan(tau)]
    rows = [i for i in range(len(methods)) if known[i].any()]
    means = np.array([[np.mean(v[i, known[i]]) for i in rows] for v in (x, y)]).reshape(2, -1)
    share = np.abs(ours[known] - theirs[known]) / np.maximum(np.abs(theirs[known]), 1e-12)
    return Agreement(
        metric.name, column,
        float(np.mean(taus)) if taus else math.nan, len(taus),
        spearman(x[known], y[known]) if known.any() else math.nan, int(known.sum()),
        kendall(*means) if len(rows) > 1 else math.nan,
        int((ranks(means[0]) == ranks(means[1])).sum()), len(rows),
        float(share.max(initial=0.0)) if own else None,
    )  # fmt: skip


def _values(
    of: Mapping[str, Mapping[str, Mapping[str, float]]], methods: Sequence[str], images: Sequence[str], name: str
) -> Float64[np.ndarray, "methods images"]:
    rows = [[of[method].get(image, {}).get(name, math.nan) for image in images] for method in methods]
    return np.array(rows, dtype=np.float64).reshape(len(methods), len(images))


def to_text(found: Sequence[Agreement]) -> str:
    """Aligned columns for a terminal, of each column of scores the metrics that agree most first."""
    head = ("scores", "metric", "within a scene", "over all", "of methods", "same place", "largest difference")
    rows = [head]
    order = {column: at for at, column in enumerate(dict.fromkeys(one.column for one in found))}
    for one in sorted(found, key=lambda one: (order[one.column], -_or_least(one.within), -_or_least(one.overall))):
        numbers = [f"{v:+.3f}" if not math.isnan(v) else "–" for v in (one.within, one.overall, one.methods)]
        largest = "" if one.largest is None else f"{one.largest:.2%}"
        rows.append((one.column, one.metric, *numbers, f"{one.same} of {one.of}" if one.of > 1 else "–", largest))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    scenes, images = max(one.scenes for one in found), max(one.images for one in found)
    about = f"Kendall's tau within a scene (mean of {scenes}) and of the methods' means, "
    return "\n".join([*lines, about + f"Spearman's rho over all {images} images; 1: the same order."])


def _or_least(value: float) -> float:
    return -2.0 if math.isnan(value) else value


def to_json(found: Sequence[Agreement], profile: str) -> dict[str, Any]:
    """The object that ``--json`` prints; null for what is undefined."""
    rows = [
        {k: None if isinstance(v, float) and math.isnan(v) else round(v, 6) if isinstance(v, float) else v
         for k, v in asdict(one).items()}
        for one in found
    ]  # fmt: skip
    return {"schema": 1, "profile": profile, "agreement": rows}

"""The papers' tables as data (``manifests/published/*.toml``), and ours in the same form beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from synth.resources import read_toml, resource_dir
from train.evaluation.summary import Evaluation

ABSENT = "–"
"""What stands in a cell that nobody has."""


@dataclass(frozen=True)
class Column:
    """A metric of a table. group: the heading over it. by, of: the group of samples that ours is measured on; None
    where evaluation has no such number. digits: decimals as printed, None where the table mixes them.
    """

    group: str
    metric: str
    by: str | None
    of: str
    digits: int | None = None


@dataclass(frozen=True)
class Row:
    """A row as published: its values by column, None where the paper has none; why it was not run here."""

    name: str
    values: tuple[float | None, ...]
    why: str


@dataclass(frozen=True)
class Published:
    """A table of a paper. about: what its caption says; ours: why ours can't stand in it, or how it gets there."""

    name: str
    paper: str
    source: str
    about: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""


@lru_cache(maxsize=1)
def published_tables() -> tuple[Published, ...]:
    """All tables, in the order of their names."""
    found = sorted(resource_dir("manifests/published").glob("*.toml"))
    return tuple(_read(path.stem, read_toml(path)) for path in found)


def _read(name: str, data: Mapping[str, Any]) -> Published:
    digits = data["digits"] or [None]
    columns = [
        Column(group["name"], metric, group.get("by"), group.get("of", ""), digits[k % len(digits)])
        for group in data["groups"]
        for k, metric in enumerate(group["metrics"])
    ]
    rows: list[Row] = []
    for row in data["rows"]:
        values = tuple(None if value == "" else float(value) for value in row["values"])
        if len(values) != len(columns):
            raise ValueError(f"{name}: row '{row['name']}' has {len(values)} values for {len(columns)} columns")
        rows.append(Row(row["name"], values, row.get("why", data["why"])))
    return Published(
        *(name, data["paper"], data["table"], data["about"]), tuple(columns), tuple(rows), data.get("note", "")
    )


def papers_metrics() -> list[str]:
    """The strict metrics that the tables need, in the order in which they first appear."""
    found = (column.metric for table in published_tables() for column in table.columns if column.by)
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Line:
    """A row of a table with ours in it: texts by column. published: the paper's number; why: what is not there, why."""

    name: str
    texts: tuple[str, ...]
    published: bool
    why: str = ""


@dataclass(frozen=True)
class Beside:
    """A published table with our methods' rows below the paper's, and columns for data sets that only we have."""

    table: Published
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]


def beside(evaluation: Evaluation) -> list[Beside]:
    """Every published table with ours: same columns, same metrics, and those of the task's data sets at hand."""
    return [_beside(table, evaluation) for table in published_tables()]


def _beside(table: Published, evaluation: Evaluation) -> Beside:
    columns = [*table.columns, *_more(table, evaluation)]
    digits = {metric.name: metric.digits for metric in evaluation.metrics}
    lines: list[Line] = []
    for row in table.rows:
        texts = [_printed(value, column.digits) for value, column in zip(row.values, table.columns, strict=True)]
        lines.append(Line(row.name, (*texts, *[ABSENT] * (len(columns) - len(texts))), True, row.why))
    for i, method in enumerate(evaluation.methods):
        if not any(column.by for column in columns):
            break
        cells = [_value(evaluation, i, column) for column in columns]
        if all(cell is None for cell in cells):
            continue
        texts = [
            ABSENT if cell is None else f"{cell:.{digits[column.metric]}f}"
            for cell, column in zip(cells, columns, strict=True)
        ]
        lines.append(Line(method.name + (" (ceiling)" if method.ceiling else ""), tuple(texts), False))
    return Beside(table, tuple(columns), tuple(lines))


def _printed(value: float | None, digits: int | None) -> str:
    """A published figure as the paper prints it."""
    if value is None:
        return ABSENT
    return f"{value:.10g}" if digits is None else f"{value:.{digits}f}"


def _more(table: Published, evaluation: Evaluation) -> list[Column]:
    """The same metrics over the data sets of the table's tasks that the paper has not."""
    held: dict[tuple[str, str], list[str]] = {}
    for column in table.columns:
        if column.by is not None:
            task, _, rest = column.of.partition(" ")
            form = f"{task} {{}}{rest.removeprefix(rest.split(' ')[0])}"
            held.setdefault((column.by, form), []).append(column.metric)
    found: list[Column] = []
    known = {column.of for column in table.columns}
    for (by, form), metrics in held.items():
        task = form.partition(" ")[0]
        for name in sorted(evaluation.groups.get("data set", {})):
            if not name.startswith(f"{task} "):
                continue
            of = form.format(name.removeprefix(f"{task} "))
            if of not in known and of in evaluation.groups.get(by, {}):
                found += [Column(of, metric, by, of) for metric in dict.fromkeys(metrics)]
    return found


def _value(evaluation: Evaluation, method: int, column: Column) -> float | None:
    """Ours, or None where there are no such samples, or the metric was not measured or has no finite mean."""
    if column.by is None:
        return None
    group = evaluation.groups.get(column.by, {}).get(column.of)
    places = [k for k, metric in enumerate(evaluation.metrics) if metric.name == column.metric]
    if group is None or not places:
        return None
    mean = group.stat(method, places[0]).mean
    return mean if math.isfinite(mean) else None


def not_run(table: Beside) -> list[str]:
    """Why rows and columns are empty: a line each reason."""
    reasons: dict[str, list[str]] = {}
    for line in table.lines:
        if line.why:
            reasons.setdefault(line.why, []).append(line.name)
    lines = [f"Not run here, figures as published: {', '.join(names)}: {why}." for why, names in reasons.items()]
    ours: Sequence[Line] = [line for line in table.lines if not line.published]
    empty = [c for k, c in enumerate(table.columns) if c.by and all(line.texts[k] == ABSENT for line in ours)]
    groups = list(dict.fromkeys(column.group for column in empty if column.group))
    if groups:
        lines.append(f"Ours has no number, for want of such samples or of the metric, in: {', '.join(groups)}.")
    return [*lines, table.table.note] if table.table.note else lines

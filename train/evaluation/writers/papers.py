"""The papers' tables as data (``manifests/published/*.toml``), and ours in the same form beside them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

from clearfuse.synth.files.resources import read_toml, resource_dir
from clearfuse.train.evaluation.summary import Evaluation
from clearfuse.train.evaluation.writers.tables import ARROWS
from clearfuse.train.metrics import METRICS

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

    @property
    def title(self) -> str:
        """The metric with the arrow of its better direction, where it is one of ours."""
        found = METRICS.get(self.metric)
        return self.metric if found is None else f"{self.metric} {ARROWS[found.direction]}"


@dataclass(frozen=True)
class PaperRow:
    """A row as published: its values by column, None where the paper has none; why it was not run here."""

    name: str
    values: tuple[float | None, ...]
    why: str


@dataclass(frozen=True)
class Published:
    """A table of a paper. source: the paper's short name and its number; about: what its caption says; note: what to
    know of ours in it.
    """

    name: str
    paper: str
    year: int
    source: str
    about: str
    columns: tuple[Column, ...]
    rows: tuple[PaperRow, ...]
    note: str = ""


@lru_cache(maxsize=1)
def published_tables() -> tuple[Published, ...]:
    """All tables, by the paper's year and their names."""
    found = sorted(resource_dir("manifests/published").glob("*.toml"))
    tables = (_read(path.stem, read_toml(path)) for path in found)
    return tuple(sorted(tables, key=lambda table: (table.year, table.name)))


def _read(name: str, data: Mapping[str, Any]) -> Published:
    digits = data["digits"] or [None]
    columns = [
        Column(group["name"], metric, group.get("by"), group.get("of", ""), digits[k % len(digits)])
        for group in data["groups"]
        for k, metric in enumerate(group["metrics"])
    ]
    rows: list[PaperRow] = []
    for row in data["rows"]:
        values = tuple(None if value == "" else float(value) for value in row["values"])
        if len(values) != len(columns):
            raise ValueError(f"{name}: row '{row['name']}' has {len(values)} values for {len(columns)} columns")
        rows.append(PaperRow(row["name"], values, row.get("why", data["why"])))
    source = f"{data['paper'].partition(':')[0]}, {data['table']}"
    head = (name, data["paper"], data["year"], source, data["about"])
    return Published(*head, tuple(columns), tuple(rows), data.get("note", ""))


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
    """A published table with our methods' rows below the paper's, and columns for data sets that only we have. notes:
    what is not there, and why.
    """

    table: Published
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    def groups(self) -> list[tuple[str, int]]:
        """The groups of neighbouring columns, and how many columns each has."""
        return [(name, len(list(held))) for name, held in groupby(self.columns, key=lambda column: column.group)]


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
    return Beside(table, tuple(columns), tuple(lines), tuple(_notes(table, columns, evaluation)))


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


def _notes(table: Published, columns: Sequence[Column], evaluation: Evaluation) -> Iterator[str]:
    """Why rows and columns are empty, a line each reason, and the table's own note."""
    reasons: dict[str, list[str]] = {}
    for row in table.rows:
        reasons.setdefault(row.why, []).append(row.name)
    for why, names in reasons.items():
        yield f"Not run here, figures as published: {', '.join(names)}: {why}."
    measured = {metric.name for metric in evaluation.metrics}
    ours = [column for column in columns if column.by]
    lacking = [column.group for column in ours if column.of not in evaluation.groups.get(str(column.by), {})]
    if lacking:
        yield f"Ours has no number, since there are no such samples here, in: {', '.join(dict.fromkeys(lacking))}."
    unmeasured = dict.fromkeys(column.metric for column in ours if column.metric not in measured)
    if unmeasured:
        why = [f"{name} {evaluation.absent[name]}" if name in evaluation.absent else name for name in unmeasured]
        yield f"Not measured: {'; '.join(why)}."
    if table.note:
        yield table.note

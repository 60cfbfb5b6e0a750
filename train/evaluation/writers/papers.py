"""The papers' tables (``manifests/published/*.toml``), and comparisons of them with an evaluation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Annotated, Literal

from pydantic import Field, model_validator

from clearfuse.synth.files.resources import read_toml, resource_dir
from clearfuse.synth.files.schema import Schema, StrictModel, validate
from clearfuse.train.evaluation.summary import Evaluation
from clearfuse.train.evaluation.writers.tables import ARROWS
from clearfuse.train.metrics import METRICS

ABSENT = "–"
"""The text of an empty cell."""


class GroupFields(StrictModel):
    """A heading of a table, over columns."""

    name: str
    metrics: Annotated[list[str], Field(min_length=1)]
    by: str | None = None
    """The kind of group that ours is measured on; without it, evaluation has no such number."""
    of: str = ""
    """The group: task, data set and what else there is."""


class RowFields(StrictModel):
    """A method's figures as printed."""

    name: str
    values: list[float | Literal[""]]
    """By column, "" where the paper has none."""
    why: str | None = None
    """Why it was not run here; the table's."""


class PublishedFields(StrictModel):
    """A table of a paper, ``manifests/published/*.toml``."""

    schema_: Schema
    paper: str
    """Its short name, a colon and its title."""
    year: Annotated[int, Field(ge=1900, le=2100)]
    table: str
    """The table's number."""
    about: str
    """What its caption says."""
    why: str
    """Why its methods were not run here."""
    digits: list[Annotated[int, Field(ge=0, le=17)]]
    """Decimals of each column, in turn; none where the table mixes them."""
    note: str = ""
    """What to know of ours in it."""
    groups: Annotated[list[GroupFields], Field(min_length=1)]
    """Its columns."""
    rows: list[RowFields]
    """Its lines."""

    @model_validator(mode="after")
    def _full(self) -> PublishedFields:
        columns = sum(len(group.metrics) for group in self.groups)
        for row in self.rows:
            if len(row.values) != columns:
                raise ValueError(f"row '{row.name}' has {len(row.values)} values for {columns} columns")
        return self


@dataclass(frozen=True)
class Column:
    """A column of a paper's table. group: the heading above the metric; by, of: kind and name of the evaluation's group
    to compare with, by None if there is none; digits: decimals as printed, None where the table mixes them.
    """

    group: str
    metric: str
    by: str | None
    of: str
    digits: int | None = None

    @property
    def title(self) -> str:
        """The metric, with the arrow of its better direction if it is in ``METRICS``."""
        found = METRICS.get(self.metric)
        return self.metric if found is None else f"{self.metric} {ARROWS[found.direction]}"


@dataclass(frozen=True)
class PaperRow:
    """A published row. values: by column, None where the paper has none; why: the reason it was not run here."""

    name: str
    values: tuple[float | None, ...]
    why: str


@dataclass(frozen=True)
class Published:
    """A table of a paper. source: the paper's short name and the table's number; about: its caption; note: a remark on
    comparing with it.
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
    """All tables, sorted by year and name."""
    found = sorted(resource_dir("manifests/published").glob("*.toml"))
    tables = (_table(path.stem, validate(PublishedFields, read_toml(path), str(path))) for path in found)
    return tuple(sorted(tables, key=lambda table: (table.year, table.name)))


def _table(name: str, data: PublishedFields) -> Published:
    digits = data.digits or [None]
    columns = tuple(
        Column(group.name, metric, group.by, group.of, digits[k % len(digits)])
        for group in data.groups
        for k, metric in enumerate(group.metrics)
    )
    rows = tuple(
        PaperRow(row.name, tuple(None if value == "" else value for value in row.values), row.why or data.why)
        for row in data.rows
    )
    source = f"{data.paper.partition(':')[0]}, {data.table}"
    return Published(name, data.paper, data.year, source, data.about, columns, rows, data.note)


def papers_metrics() -> list[str]:
    """The metrics of the profile ``strict`` that the tables need, in order of first appearance."""
    found = (column.metric for table in published_tables() for column in table.columns if column.by)
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class ComparisonRow:
    """A row of a comparison. texts: by column; published: whether it is the paper's; why: the reason it was not run."""

    name: str
    texts: tuple[str, ...]
    published: bool
    why: str = ""


@dataclass(frozen=True)
class PaperComparison:
    """A published table with rows for the evaluated methods, and columns for data sets that the paper lacks. notes: why
    cells are empty.
    """

    table: Published
    columns: tuple[Column, ...]
    rows: tuple[ComparisonRow, ...]
    notes: tuple[str, ...]

    def groups(self) -> list[tuple[str, int]]:
        """The headings of adjacent columns, and the number of columns of each."""
        return [(name, len(list(columns))) for name, columns in groupby(self.columns, key=lambda column: column.group)]


def compare_with_papers(evaluation: Evaluation) -> list[PaperComparison]:
    """Compare an evaluation with each published table, and add columns for the task's other evaluated data sets."""
    return [_compare(table, evaluation) for table in published_tables()]


def _compare(table: Published, evaluation: Evaluation) -> PaperComparison:
    columns = [*table.columns, *_further_columns(table, evaluation)]
    digits = {metric.name: metric.digits for metric in evaluation.metrics}
    rows: list[ComparisonRow] = []
    for row in table.rows:
        texts = [_format(value, column.digits) for value, column in zip(row.values, table.columns, strict=True)]
        rows.append(ComparisonRow(row.name, (*texts, *[ABSENT] * (len(columns) - len(texts))), True, row.why))
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
        rows.append(ComparisonRow(method.name + (" (upper bound)" if method.upper_bound else ""), tuple(texts), False))
    return PaperComparison(table, tuple(columns), tuple(rows), tuple(_notes(table, columns, evaluation)))


def _format(value: float | None, digits: int | None) -> str:
    """A published number as the paper prints it."""
    if value is None:
        return ABSENT
    return f"{value:.10g}" if digits is None else f"{value:.{digits}f}"


def _further_columns(table: Published, evaluation: Evaluation) -> list[Column]:
    """Columns of the same metrics for evaluated data sets of the table's tasks that the paper lacks."""
    metrics_by_form: dict[tuple[str, str], list[str]] = {}
    for column in table.columns:
        if column.by is not None:
            task, _, rest = column.of.partition(" ")
            form = f"{task} {{}}{rest.removeprefix(rest.split(' ')[0])}"
            metrics_by_form.setdefault((column.by, form), []).append(column.metric)
    columns: list[Column] = []
    known = {" ".join(column.of.split()[:2]) for column in table.columns}  # task and data set
    for (by, form), metrics in metrics_by_form.items():
        task = form.partition(" ")[0]
        for name in sorted(evaluation.groups.get("data set", {})):
            if not name.startswith(f"{task} ") or name in known:
                continue
            of = form.format(name.removeprefix(f"{task} "))
            if of in evaluation.groups.get(by, {}):
                columns += [Column(of, metric, by, of) for metric in dict.fromkeys(metrics)]
    return columns


def _value(evaluation: Evaluation, method: int, column: Column) -> float | None:
    """The evaluation's mean; None if there are no such samples, or the metric was not measured or is not finite."""
    if column.by is None:
        return None
    group = evaluation.groups.get(column.by, {}).get(column.of)
    indices = [k for k, metric in enumerate(evaluation.metrics) if metric.name == column.metric]
    if group is None or not indices:
        return None
    mean = group.stat(method, indices[0]).mean
    return mean if math.isfinite(mean) else None


def _notes(table: Published, columns: Sequence[Column], evaluation: Evaluation) -> Iterator[str]:
    """Why rows and columns are empty, one line per reason, and the table's note."""
    reasons: dict[str, list[str]] = {}
    for row in table.rows:
        reasons.setdefault(row.why, []).append(row.name)
    for why, names in reasons.items():
        yield f"Not run here, figures as published: {', '.join(names)}: {why}."
    measured = {metric.name for metric in evaluation.metrics}
    comparable = [column for column in columns if column.by]
    without_samples = [
        column.group for column in comparable if column.of not in evaluation.groups.get(str(column.by), {})
    ]
    if without_samples:
        names = ", ".join(dict.fromkeys(without_samples))
        yield f"Ours has no number, since there are no such samples here, in: {names}."
    unmeasured = dict.fromkeys(column.metric for column in comparable if column.metric not in measured)
    if unmeasured:
        why = [f"{name} {evaluation.absent[name]}" if name in evaluation.absent else name for name in unmeasured]
        yield f"Not measured: {'; '.join(why)}."
    if table.note:
        yield table.note

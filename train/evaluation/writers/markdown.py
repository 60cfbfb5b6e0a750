"""A report as Markdown, and as aligned columns for a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clearfuse.train.evaluation.summary import Evaluation
from clearfuse.train.evaluation.writers.papers import PaperComparison
from clearfuse.train.evaluation.writers.tables import (
    LEVEL_SIGN,
    Cell,
    Table,
    faithfulness_table,
    group_kinds,
    notes,
    table,
)
from clearfuse.train.metrics.marks import explain

PAPERS_TITLE = "Beside the papers"


def to_markdown(evaluation: Evaluation, papers: Sequence[PaperComparison] = ()) -> str:
    """The report as a Markdown page."""
    parts = ["# Fused images, scored", "\n".join(f"- {_md(line)}" for line in notes(evaluation))]
    origins = faithfulness_table(evaluation)
    tables = [*(table(evaluation, by) for by in group_kinds(evaluation)), *([origins] if origins else [])]
    for table_ in tables:
        parts += [f"## {table_.title}", markdown_table(table_), *_omitted(table_)]
    for comparison in papers:
        lines = [_line(("method", *_headings(comparison))), "|" + "---|" * (len(comparison.columns) + 1)]
        lines += [
            _line((f"*{_md(line.name)}*" if line.published else _md(line.name), *line.texts))
            for line in comparison.rows
        ]
        about = f"{comparison.table.about}. {comparison.table.paper}. Italic: as published; the rest: measured here."
        parts += [f"## {PAPERS_TITLE}: {comparison.table.source}", _md(about), "\n".join(lines)]
        parts.append("\n".join(f"- {_md(line)}" for line in comparison.notes))
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_table(table_: Table) -> str:
    """A table's lines, without its title."""
    lines = [_line(table_.header), "|" + "---|" * len(table_.header)]
    return "\n".join([*lines, *(_line(_format_cell(cell) for cell in row) for row in table_.rows)])


def _omitted(table_: Table) -> list[str]:
    return [f"{table_.omitted} more are in report.json and summary.csv."] if table_.omitted else []


def _line(texts: Iterable[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _md(text: str) -> str:
    return text.replace("|", "\\|")


def _format_cell(cell: Cell) -> str:
    text = cell.text + (f" {LEVEL_SIGN}" if cell.not_worse else "")
    return f"**{text}**" if cell.rank == 1 else f"<ins>{text}</ins>" if cell.rank == 2 else _md(text)


def _headings(comparison: PaperComparison) -> list[str]:
    return [f"{column.group} {column.title}".strip() for column in comparison.columns]


def to_text(evaluation: Evaluation) -> str:
    """Aligned columns for a terminal, the best marked with a star: overall, and by task if there are several."""
    blocks: list[str] = []
    for by in ("overall", "task") if len(evaluation.groups["task"]) > 1 else ("overall",):
        table_ = table(evaluation, by, interval=False, arrows=False)
        blocks.append(text_table(table_))
    rewarded = explain((metric.name for metric in evaluation.metrics), evaluation.profile, plain=True)
    return "\n\n".join([*blocks, rewarded] if rewarded else blocks)


def text_table(table_: Table) -> str:
    """A table as aligned columns, the best marked with a star, without its title."""
    lines = [table_.header, *(tuple(c.text + ("*" if c.rank == 1 else " ") for c in row) for row in table_.rows)]
    widths = [max(len(line[k].rstrip(" ")) for line in lines) + 1 for k in range(len(table_.header))]
    return "\n".join(_align(line, widths, table_.text) for line in lines)


def _align(line: tuple[str, ...], widths: Sequence[int], left: int) -> str:
    texts = [text if text.endswith(("*", " ")) else text + " " for text in line]
    pairs = enumerate(zip(texts, widths, strict=True))
    return " ".join(f"{t:<{w}}" if k < left else f"{t:>{w}}" for k, (t, w) in pairs).rstrip()

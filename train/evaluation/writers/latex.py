"""A report as LaTeX tables in the style of papers: booktabs, best bold, second underlined, arrows."""

from __future__ import annotations

from collections.abc import Sequence

from clearfuse.train.evaluation.summary import Evaluation
from clearfuse.train.evaluation.writers.papers import ComparisonRow, PaperComparison
from clearfuse.train.evaluation.writers.tables import Cell, Table, faithfulness_table, group_kinds, notes, table

TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
        "†": r"$^\dagger$", "‡": r"$^\ddagger$", "≥": r"$\geq$",
    }
)  # fmt: skip


PACKAGES = "% \\usepackage{booktabs, graphicx}"


def latex_table(table_: Table) -> str:
    """A table whose first column is text, the others numbers."""
    head = [text.translate(TEX) for text in table_.header]
    lines = [" & ".join(map(_tex, row)) + r" \\" for row in table_.rows]
    return _float(table_.title, "l" + "r" * (len(head) - 1), [head], lines)


def to_latex(evaluation: Evaluation, papers: Sequence[PaperComparison] = ()) -> str:
    """A file to ``\\input``: a table for each kind of group; needs booktabs and graphicx."""
    parts = [PACKAGES, *(f"% {line}" for line in notes(evaluation))]
    for by in group_kinds(evaluation):
        table_ = table(evaluation, by, interval=False)
        lead = table_.text - 2
        header = [table_.header[k].translate(TEX) for k in (*range(lead), *range(table_.text - 1, len(table_.header)))]
        lines: list[str] = []
        for row in table_.rows:
            if lead and row[0].text and lines:
                lines.append(r"\midrule")
            cells = [*row[:lead], *row[table_.text - 1 :]]
            lines.append(" & ".join(map(_tex, cells)) + r" \\")
        parts.append(_float(table_.title, "l" * (lead + 1) + "r" * (len(header) - lead - 1), [header], lines))
    if origins := faithfulness_table(evaluation):
        parts.append(latex_table(origins))
    for comparison in papers:
        lines = [
            " & ".join(text.translate(TEX) for text in (_label(row), *row.texts)) + r" \\" for row in comparison.rows
        ]
        first = next((k for k, line in enumerate(comparison.rows) if not line.published), None)
        if first:
            lines.insert(first, r"\midrule")
        caption = f"{comparison.table.source}: {comparison.table.about}. Rows marked (p) as published"
        parts.append(_float(caption, "l" + "r" * len(comparison.columns), _header_lines(comparison), lines))
    return "\n\n".join(parts) + "\n"


def _label(line: ComparisonRow) -> str:
    return f"{line.name} (p)" if line.published else line.name


def _tex(cell: Cell) -> str:
    text = cell.text.translate(TEX) + (r"$^\dagger$" if cell.not_worse else "")
    return rf"\textbf{{{text}}}" if cell.rank == 1 else rf"\underline{{{text}}}" if cell.rank == 2 else text


def _header_lines(comparison: PaperComparison) -> list[list[str]]:
    """Two header lines: the groups above their metrics."""
    over = ["", *(rf"\multicolumn{{{n}}}{{c}}{{{name.translate(TEX)}}}" for name, n in comparison.groups())]
    return [over, ["Method", *(column.title.translate(TEX) for column in comparison.columns)]]


def _float(caption: str, columns: str, header: Sequence[Sequence[str]], lines: Sequence[str]) -> str:
    head = [" & ".join(line) + r" \\" for line in header]
    rows = [r"\toprule", *head, r"\midrule", *lines, r"\bottomrule"]
    body = [rf"\begin{{tabular}}{{{columns}}}", *rows, r"\end{tabular}"]
    resized = ["\\resizebox{\\linewidth}{!}{%", *body, "}"]
    table_lines = [
        r"\begin{table}[t]",
        r"\centering",
        rf"\caption{{{caption.translate(TEX)}.}}",
        *resized,
        r"\end{table}",
    ]
    return "\n".join(table_lines)

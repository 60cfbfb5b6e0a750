"""A report as LaTeX tables in the form that papers print: booktabs, best bold, second underlined, arrows."""

from __future__ import annotations

from collections.abc import Sequence

from clearfuse.train.evaluation.summary import Evaluation
from clearfuse.train.evaluation.writers.papers import Beside, Line
from clearfuse.train.evaluation.writers.tables import Cell, notes, table, tabled

TEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", "↑": r"$\uparrow$", "↓": r"$\downarrow$",
        "†": r"$^\dagger$", "≥": r"$\geq$",
    }
)  # fmt: skip


def to_latex(evaluation: Evaluation, papers: Sequence[Beside] = ()) -> str:
    """A file to ``\\input``: a table for each grouping, as papers print them; needs booktabs and graphicx."""
    parts = ["% \\usepackage{booktabs, graphicx}", *(f"% {line}" for line in notes(evaluation))]
    for by in tabled(evaluation):
        one = table(evaluation, by, interval=False)
        lead = one.text - 2
        header = [one.header[k].translate(TEX) for k in (*range(lead), *range(one.text - 1, len(one.header)))]
        lines: list[str] = []
        for row in one.rows:
            if lead and row[0].text and lines:
                lines.append(r"\midrule")
            cells = [*row[:lead], *row[one.text - 1 :]]
            lines.append(" & ".join(map(_tex, cells)) + r" \\")
        parts.append(_float(one.title, "l" * (lead + 1) + "r" * (len(header) - lead - 1), [header], lines))
    for one in papers:
        lines = [" & ".join(text.translate(TEX) for text in (_named(row), *row.texts)) + r" \\" for row in one.lines]
        first = next((k for k, line in enumerate(one.lines) if not line.published), None)
        if first:
            lines.insert(first, r"\midrule")
        caption = f"{one.table.source}: {one.table.about}. Rows marked (p) as published"
        parts.append(_float(caption, "l" + "r" * len(one.columns), _spanned(one), lines))
    return "\n\n".join(parts) + "\n"


def _named(line: Line) -> str:
    return f"{line.name} (p)" if line.published else line.name


def _tex(cell: Cell) -> str:
    text = cell.text.translate(TEX) + (r"$^\dagger$" if cell.level else "")
    return rf"\textbf{{{text}}}" if cell.rank == 1 else rf"\underline{{{text}}}" if cell.rank == 2 else text


def _spanned(one: Beside) -> list[list[str]]:
    """Two lines of header: the groups over their metrics."""
    over = ["", *(rf"\multicolumn{{{n}}}{{c}}{{{name.translate(TEX)}}}" for name, n in one.groups())]
    return [over, ["Method", *(column.title.translate(TEX) for column in one.columns)]]


def _float(caption: str, columns: str, header: Sequence[Sequence[str]], lines: Sequence[str]) -> str:
    head = [" & ".join(line) + r" \\" for line in header]
    rows = [r"\toprule", *head, r"\midrule", *lines, r"\bottomrule"]
    body = [rf"\begin{{tabular}}{{{columns}}}", *rows, r"\end{tabular}"]
    wide = ["\\resizebox{\\linewidth}{!}{%", *body, "}"]
    whole = [r"\begin{table}[t]", r"\centering", rf"\caption{{{caption.translate(TEX)}.}}", *wide, r"\end{table}"]
    return "\n".join(whole)

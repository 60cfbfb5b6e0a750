"""The tables of a report as rows of cells, and the notes that a reader must have; what writes them is elsewhere."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from clearfuse.train.evaluation.bootstrap import FEWEST, INTERVAL, LEVEL, RESAMPLES, Stat
from clearfuse.train.evaluation.methods.fusers import METHODS
from clearfuse.train.evaluation.summary import Evaluation
from clearfuse.train.metrics import find_profile

LEAST = 64
"""No sample has a smaller side."""
KINDS = ("full-reference", "fusion", "no-reference")
SHOWN = 40
"""Rows of groups that a page has of one kind; all are in report.json and summary.csv."""
TITLES = {
    "overall": "Overall",
    "task": "By task",
    "data set": "By data set",
    "operator": "By degradation",
    "n": "By number of degradations",
    "severity": "By mean severity",
    "combination": "By combination",
    "ground truth": "By what made the ground truth",
}
ARROWS = {"higher": "↑", "lower": "↓"}
LEVEL_SIGN = "†"


@dataclass(frozen=True)
class Cell:
    """A text of a table. rank: 1 the best of its column, 2 the second, 0 else; level: not significantly worse."""

    text: str
    rank: int = 0
    level: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells below a header. text: how many columns at the left are words. cut: groups that are not shown."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    text: int
    cut: int = 0


def shown(stat: Stat, digits: int, interval: bool) -> str:
    """``17.81 [17.02, 18.60]``."""
    text = "undefined" if math.isnan(stat.mean) else f"{stat.mean:.{digits}f}"
    if math.isnan(stat.mean) and stat.missing and not stat.undefined:
        text = "missing"
    if interval and stat.low is not None and stat.high is not None:
        text += f" [{stat.low:.{digits}f}, {stat.high:.{digits}f}]"
    return text


def table(evaluation: Evaluation, by: str, *, interval: bool = True, arrows: bool = True) -> Table:
    """One group a few rows, one row a method; the last column is the mean of the method's ranks over the metrics."""
    signs = {name: f" {sign}" if arrows else "" for name, sign in ARROWS.items()}
    header = (by, "samples", "method", *(m.name + signs[m.direction] for m in evaluation.metrics), "mean rank")
    rows: list[tuple[Cell, ...]] = []
    groups = evaluation.ordered(by)
    for name, group in groups[:SHOWN]:
        best, second = ([group.marked(k, rank) for k in range(len(evaluation.metrics))] for rank in (1, 2))
        for i, method in enumerate(evaluation.methods):
            head = (Cell(name), Cell(str(group.samples))) if i == 0 else (Cell(""), Cell(""))
            cells = [
                Cell(
                    shown(group.stat(i, k), metric.digits, interval),
                    1 if i in best[k] else 2 if i in second[k] else 0,
                    group.level(i, k),
                )
                for k, metric in enumerate(evaluation.metrics)
            ]
            rank = group.ranks[i]
            label = method.name + (" (ceiling)" if method.ceiling else "")
            rows.append((*head, Cell(label), *cells, Cell("-" if rank is None else f"{rank:.2f}")))
    if by == "overall":
        return Table(TITLES[by], header[1:], tuple(row[1:] for row in rows), 2)
    return Table(TITLES[by], header, tuple(rows), 3, max(len(groups) - SHOWN, 0))


def tabled(evaluation: Evaluation) -> list[str]:
    """What there is a table by: where no step is named there is no operator, and real pairs have no ground truth."""
    return [by for by in TITLES if by in evaluation.groups]


def notes(evaluation: Evaluation) -> list[str]:
    """What a reader must know to read the numbers."""
    tasks = ", ".join(f"{name} {group.samples}" for name, group in evaluation.ordered("task"))
    held = sum(portion.total for portion in evaluation.portions)
    kinds = {kind: [m.name for m in evaluation.metrics if m.kind == kind] for kind in KINDS}
    shards = "1 shard" if len(evaluation.portions) == 1 else f"{len(evaluation.portions)} shards"
    lines = [f"{evaluation.samples} of {held} samples in {shards} ({tasks})."]
    if kinds["full-reference"]:
        lines.append(f"{', '.join(kinds['full-reference'])}: against the ground truth.")
    if evaluation.real:
        lines += _of_real(evaluation)
    elif kinds["fusion"]:
        lines.append(f"{', '.join(kinds['fusion'])}: the clean pair as the two sources.")
    if kinds["no-reference"]:
        lines.append(f"{', '.join(kinds['no-reference'])}: of the fused image alone.")
    lines += [f"Not run: {name} {reason}." for name, reason in {**evaluation.absent, **evaluation.left_out}.items()]
    lines.append(
        f"Profile {evaluation.profile}: {find_profile(evaluation.profile).doc}. Brackets: {INTERVAL:.0%} bootstrap "
        f"interval of the mean, {RESAMPLES} resamples of pairs. Bold (* as plain text): the best mean; underlined: the "
        f"second; {LEVEL_SIGN}: not significantly worse than the best (paired bootstrap, p ≥ {LEVEL} after Holm, from "
        f"{FEWEST} pairs on); ceilings aside."
    )
    if any(method.name.startswith(("classical", "networks")) for method in evaluation.methods):
        lines.append(
            "Restoration before fusion is told each sample's recorded steps, with the kernel of a blur and the level "
            "of noise: more than a method under test is told."
        )
    same = evaluation.groups.get("ground truth", {}).get("pyramid")
    if same is not None:
        lines.append(
            f"The ground truth of {same.samples} samples is the pyramid fuser's own, on the whole image: there the "
            "ceiling differs from it only by what lies outside the crop."
        )
    if evaluation.partial:
        lines.append(
            f"{evaluation.partial} prompts ask for a part of the steps: their ground truth keeps the rest, and the "
            "clean pair is no ceiling."
        )
    return [*lines, *_lacking(evaluation), *_left_out(evaluation)]


def _of_real(evaluation: Evaluation) -> list[str]:
    """What the numbers of real pairs mean, and which there can't be."""
    held = find_profile(evaluation.profile)
    usual = (held.metrics[name] for name in held.usual or held.metrics)
    absent = ", ".join(metric.name for metric in usual if metric.kind == "full-reference")
    ceilings = ", ".join(method.name for method in METHODS.values() if method.ceiling)
    fusion = ", ".join(metric.name for metric in evaluation.metrics if metric.kind == "fusion")
    lines = [f"Left out: {absent + ' (no ground truth) and ' if absent else ''}{ceilings} (no clean pair)."]
    if not fusion:
        return lines
    kept = "what a method keeps of noise and haze counts for it"
    return [
        f"{fusion}: the degraded pair itself as the two sources, since real pairs have no clean side: {kept}.",
        *lines,
    ]


def _lacking(evaluation: Evaluation) -> Iterator[str]:
    """Which methods had no image of some samples; then its means are of other samples than the others'."""
    overall = evaluation.groups["overall"]["all"]
    for i, method in enumerate(evaluation.methods):
        count = overall.stat(i, 0).missing
        if count:
            named = evaluation.lacking.get(method.name, ())
            first = ", ".join(named) + (", ..." if count > len(named) else "")
            yield f"{method.name}: no image for {count} of {overall.samples} samples, left out of its means: {first}."


def _left_out(evaluation: Evaluation) -> list[str]:
    lines: list[str] = []
    overall = evaluation.groups["overall"]["all"]
    for i, method in enumerate(evaluation.methods):
        for k, metric in enumerate(evaluation.metrics):
            stat = overall.stat(i, k)
            for count, what in ((stat.infinite, "infinite"), (stat.undefined, "undefined")):
                if count:
                    lines.append(f"{method.name}, {metric.name}: {count} values are {what}, left out of the mean.")
    sizes = [f"{m.name} of images under {m.smallest}x{m.smallest}" for m in evaluation.metrics if m.smallest > LEAST]
    return [*lines, f"Undefined: {', '.join(sizes)}."] if sizes else lines

"""The tables of a report as rows of cells, and its notes, independent of the output format."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from clearfuse.synth.console import plural
from clearfuse.train.evaluation.bootstrap import INTERVAL, LEVEL, MIN_PAIRS, PERMUTATIONS, RESAMPLES, Stat
from clearfuse.train.evaluation.methods.fusers import METHODS
from clearfuse.train.evaluation.summary import Evaluation
from clearfuse.train.metrics import find_profile
from clearfuse.train.metrics.faithfulness import ORIGINS
from clearfuse.train.metrics.marks import explain, mark

LEAST = 64
"""The minimum side of a sample, pixels."""
KINDS = ("full-reference", "fusion", "no-reference")
SHOWN = 40
"""Maximum number of groups in a table; all are in report.json and summary.csv."""
TITLES = {
    "overall": "Overall",
    "task": "By task",
    "category": "By what the prompt asks for",
    "data set": "By data set",
    "operator": "By degradation",
    "n": "By number of degradations",
    "severity": "By mean severity",
    "combination": "By combination",
    "ground truth": "By what made the ground truth",
}
ORIGINS_TITLE = "Where the pixels come from"
ARROWS = {"higher": "↑", "lower": "↓"}
LEVEL_SIGN = "†"


@dataclass(frozen=True)
class Cell:
    """A cell of a table. rank: 1 the best of its column, 2 the second, 0 others; not_worse: than the best,
    significantly.
    """

    text: str
    rank: int = 0
    not_worse: bool = False


@dataclass(frozen=True)
class Table:
    """A table. text: the number of text columns at the left; omitted: the number of groups that are not shown."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    text: int
    omitted: int = 0


def format_stat(stat: Stat, digits: int, interval: bool) -> str:
    """Format as ``17.81 [17.02, 18.60]``."""
    text = "undefined" if math.isnan(stat.mean) else f"{stat.mean:.{digits}f}"
    if math.isnan(stat.mean) and stat.missing and not stat.undefined:
        text = "missing"
    if interval and stat.low is not None and stat.high is not None:
        text += f" [{stat.low:.{digits}f}, {stat.high:.{digits}f}]"
    return text


def table(evaluation: Evaluation, by: str, *, interval: bool = True, arrows: bool = True) -> Table:
    """The table of a kind of groups: one row per group and method; the last column is the mean rank over
    the metrics.
    """
    signs = {name: f" {sign}" if arrows else "" for name, sign in ARROWS.items()}
    marks = {m.name: mark(m.name, evaluation.profile, plain=not arrows) for m in evaluation.metrics}
    names = (
        m.name + signs[m.direction] + (f" {marks[m.name]}" if arrows and marks[m.name] else marks[m.name])
        for m in evaluation.metrics
    )
    header = (by, "samples", "method", *names, "mean rank")
    rows: list[tuple[Cell, ...]] = []
    groups = evaluation.ordered(by)
    for name, group in groups[:SHOWN]:
        best, second = ([group.with_rank(k, rank) for k in range(len(evaluation.metrics))] for rank in (1, 2))
        for i, method in enumerate(evaluation.methods):
            head = (Cell(name), Cell(str(group.samples))) if i == 0 else (Cell(""), Cell(""))
            cells = [
                Cell(
                    format_stat(group.stat(i, k), metric.digits, interval),
                    1 if i in best[k] else 2 if i in second[k] else 0,
                    group.not_worse(i, k),
                )
                for k, metric in enumerate(evaluation.metrics)
            ]
            rank = group.ranks[i]
            label = method.name + (" (upper bound)" if method.upper_bound else "")
            rows.append((*head, Cell(label), *cells, Cell("-" if rank is None else f"{rank:.2f}")))
    if by == "overall":
        return Table(TITLES[by], header[1:], tuple(row[1:] for row in rows), 2)
    return Table(TITLES[by], header, tuple(rows), 3, max(len(groups) - SHOWN, 0))


def faithfulness_table(evaluation: Evaluation) -> Table | None:
    """The shares of the pixels by origin, a row per method; None where no image was scored."""
    rows = [
        (
            Cell(method.name + (" (upper bound)" if method.upper_bound else "")),
            *(Cell(f"{one:.1%}") for one in found["all"]),
        )
        for method in evaluation.methods
        if (found := evaluation.faithfulness.get(method.name))
    ]
    return Table(ORIGINS_TITLE, ("method", *ORIGINS), tuple(rows), 1) if rows else None


def group_kinds(evaluation: Evaluation) -> list[str]:
    """The kinds of groups to tabulate: those that the evaluation has."""
    return [by for by in TITLES if by in evaluation.groups]


def notes(evaluation: Evaluation) -> list[str]:
    """The notes that explain the numbers."""
    tasks = ", ".join(f"{name} {group.samples}" for name, group in evaluation.ordered("task"))
    total = sum(portion.total for portion in evaluation.portions)
    kinds = {kind: [m.name for m in evaluation.metrics if m.kind == kind] for kind in KINDS}
    where = plural(len(evaluation.portions), "source")
    if all(portion.path.suffix == ".tar" for portion in evaluation.portions):
        where = plural(len(evaluation.portions), "shard")
    lines = [f"{evaluation.samples} of {total} samples in {where} ({tasks})."]
    if kinds["full-reference"]:
        lines.append(f"{', '.join(kinds['full-reference'])}: against the ground truth.")
    if evaluation.real:
        lines += _of_real(evaluation)
    elif kinds["fusion"]:
        lines.append(f"{', '.join(kinds['fusion'])}: the clean pair as the two sources.")
    if kinds["no-reference"]:
        lines.append(f"{', '.join(kinds['no-reference'])}: of the fused image alone.")
    if rewarded := explain((m.name for m in evaluation.metrics), evaluation.profile):
        lines.append(rewarded)
    if evaluation.faithfulness:
        sources = "the pair itself" if evaluation.real else "the clean pair"
        lines.append(
            f"{ORIGINS_TITLE}: shares of the pixels around which the structure is that of a, b, both or neither of "
            f"{sources}; of neither is what is invented or left of a degradation (local linear regression of the luma)."
        )
    lines += [f"{name} {what}." for name, what in evaluation.trained_on.items()]
    lines += [f"Not run: {name} {reason}." for name, reason in {**evaluation.absent, **evaluation.left_out}.items()]
    lines.append(
        f"Profile {evaluation.profile}: {find_profile(evaluation.profile).doc}. Brackets: {INTERVAL:.0%} bootstrap "
        f"interval of the mean, {RESAMPLES} resamples of pairs. Bold (* as plain text): the best mean; underlined: the "
        f"second; {LEVEL_SIGN}: not significantly worse than the best (paired bootstrap, p ≥ {LEVEL} after Holm, from "
        f"{MIN_PAIRS} pairs on); upper bounds are not ranked."
    )
    for method, tested in evaluation.differs.items():
        found = ", ".join(f"{name} p = {p:.2g}" for name, p in tested.items())
        lines.append(
            f"Whether what {method} notes differs between degradations: {found} (permutation test of the sum of "
            f"squares between degradations, {PERMUTATIONS:,} permutations; a small p: it does)."
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
            "upper bound differs from it only by what lies outside the crop."
        )
    if evaluation.partial:
        lines.append(
            f"{evaluation.partial} prompts ask for a part of the steps: their ground truth keeps the rest, and the "
            "clean pair is no upper bound."
        )
    return [*lines, *_without_image(evaluation), *_left_out(evaluation)]


def _of_real(evaluation: Evaluation) -> list[str]:
    """What the numbers of real pairs mean, and which are left out."""
    profile = find_profile(evaluation.profile)
    defaults = (profile.metrics[name] for name in profile.usual or profile.metrics)
    absent = ", ".join(metric.name for metric in defaults if metric.kind == "full-reference" and not evaluation.truth)
    upper_bounds = ", ".join(method.name for method in METHODS.values() if method.upper_bound)
    fusion = ", ".join(metric.name for metric in evaluation.metrics if metric.kind == "fusion")
    lines = [f"Left out: {absent + ' (no ground truth) and ' if absent else ''}{upper_bounds} (no clean pair)."]
    if not fusion:
        return lines
    kept = "what a method keeps of noise and haze counts for it"
    return [
        f"{fusion}: the pair itself as the two sources, since it has no clean side: {kept}.",
        *lines,
    ]


def _without_image(evaluation: Evaluation) -> Iterator[str]:
    """The methods without an image for some samples, which are left out of their means."""
    overall = evaluation.groups["overall"]["all"]
    for i, method in enumerate(evaluation.methods):
        count = overall.stat(i, 0).missing
        if count:
            named = evaluation.without_image.get(method.name, ())
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

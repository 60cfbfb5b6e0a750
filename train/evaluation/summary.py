"""What an evaluation found: a table of statistics a group, ranked and tested."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from clearfuse.train.evaluation.bootstrap import LEVEL, Stat, Tally, holm
from clearfuse.train.evaluation.samples import Portion
from clearfuse.train.evaluation.scoring import Method, Scored
from clearfuse.train.metrics import Metric


@dataclass(frozen=True)
class Group:
    """The samples of one group, and the statistics of each method and metric. ranks: by method, the mean of its ranks
    over the metrics; None for a ceiling and for a method that some metric has no mean of.
    """

    samples: int
    stats: tuple[tuple[Stat, ...], ...]
    ranks: tuple[float | None, ...]

    def stat(self, method: int, metric: int) -> Stat:
        """One cell."""
        return self.stats[method][metric]

    def marked(self, metric: int, rank: int) -> set[int]:
        """The methods of a rank in a metric: 1 the best, 2 the second; nobody where nobody competes."""
        ranked = {i: row[metric].rank for i, row in enumerate(self.stats) if row[metric].rank is not None}
        return {i for i, found in ranked.items() if found == rank} if len(ranked) > 1 else set()

    def level(self, method: int, metric: int) -> bool:
        """Whether a method that is not the best is not significantly worse than it."""
        p = self.stats[method][metric].p
        return p is not None and p >= LEVEL


def summarised(tally: Tally, methods: Sequence[Method], metrics: Sequence[Metric]) -> Group:
    """The statistics of a tally: means, intervals, ranks among those that compete, p of the difference to the best."""
    stats = [[tally.stat(i, k) for k in range(len(metrics))] for i in range(len(methods))]
    competing = [i for i, method in enumerate(methods) if not method.ceiling]
    for k, metric in enumerate(metrics):
        sign = -1 if metric.direction == "higher" else 1
        means = {i: sign * stats[i][k].mean for i in competing if not math.isnan(stats[i][k].mean)}
        if not means:
            continue
        for i, mean in means.items():
            stats[i][k] = replace(stats[i][k], rank=1 + sum(other < mean for other in means.values()))
        best = min(means, key=lambda i: means[i])
        tested = {i: tally.differs(i, best, k) for i in means if means[i] > means[best] and math.isfinite(means[i])}
        known = {i: p for i, p in tested.items() if p is not None and math.isfinite(means[best])}
        for i, p in zip(known, holm(list(known.values())), strict=True):
            stats[i][k] = replace(stats[i][k], p=p)
    ranks = [_mean([stat.rank for stat in row]) for row in stats]
    return Group(tally.samples, tuple(map(tuple, stats)), tuple(ranks))


def _mean(ranks: Iterable[int | None]) -> float | None:
    known = list(ranks)
    found = [rank for rank in known if rank is not None]
    return sum(found) / len(found) if known and len(found) == len(known) else None


@dataclass
class Evaluation:
    """What a pass over shards found. ``groups``: what a sample is grouped by -> its value -> statistics. absent:
    metrics that were wanted and could not run, and why. left_out: methods that could not, and why. lacking: of methods
    that had no image for some samples, the first of these.
    """

    methods: tuple[Method, ...]
    metrics: tuple[Metric, ...]
    portions: tuple[Portion, ...]
    groups: dict[str, dict[str, Group]] = field(default_factory=dict[str, dict[str, Group]])
    examples: list[Scored] = field(default_factory=list[Scored])
    partial: int = 0
    profile: str = "strict"
    absent: Mapping[str, str] = field(default_factory=dict[str, str])
    left_out: Mapping[str, str] = field(default_factory=dict[str, str])
    lacking: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])

    @property
    def samples(self) -> int:
        """Samples scored."""
        return self.groups["overall"]["all"].samples if self.groups else 0

    @property
    def real(self) -> bool:
        """Whether the pairs have no clean side and no ground truth: then they are their own sources."""
        return any(portion.real for portion in self.portions)

    def ordered(self, by: str) -> list[tuple[str, Group]]:
        """The groups in the order of their names, numbers as numbers; combinations by their size, then the number of
        their samples.
        """
        if by == "combination":
            return sorted(self.groups[by].items(), key=lambda item: (item[0].count(" + "), -item[1].samples, item[0]))
        return sorted(self.groups[by].items(), key=lambda item: (len(item[0]) if by == "n" else 0, item[0]))

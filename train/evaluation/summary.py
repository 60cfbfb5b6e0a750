"""The result of an evaluation: for each group of samples a table of statistics, with ranks and tests."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from clearfuse.train.evaluation.bootstrap import LEVEL, RunningSums, Stat, holm
from clearfuse.train.evaluation.samples import Portion
from clearfuse.train.evaluation.scoring import Method, Scored
from clearfuse.train.metrics import Metric


@dataclass(frozen=True)
class Group:
    """A group of samples. samples: their number; stats: by method and metric; ranks: for each method the mean of its
    ranks over the metrics, None for an upper bound and for a method without a mean in some metric.
    """

    samples: int
    stats: tuple[tuple[Stat, ...], ...]
    ranks: tuple[float | None, ...]

    def stat(self, method: int, metric: int) -> Stat:
        """The statistics of a method and metric."""
        return self.stats[method][metric]

    def with_rank(self, metric: int, rank: int) -> set[int]:
        """The methods with a rank in a metric: 1 the best, 2 the second; none if fewer than two are ranked."""
        ranks = {i: row[metric].rank for i, row in enumerate(self.stats) if row[metric].rank is not None}
        return {i for i, value in ranks.items() if value == rank} if len(ranks) > 1 else set()

    def not_worse(self, method: int, metric: int) -> bool:
        """Whether a method other than the best was tested and is not significantly worse than the best."""
        p = self.stats[method][metric].p
        return p is not None and p >= LEVEL


def summarise(sums: RunningSums, methods: Sequence[Method], metrics: Sequence[Metric]) -> Group:
    """Means, intervals, ranks (without upper bounds), and p of the difference to the best."""
    stats = [[sums.stat(i, k) for k in range(len(metrics))] for i in range(len(methods))]
    competing = [i for i, method in enumerate(methods) if not method.upper_bound]
    for k, metric in enumerate(metrics):
        sign = -1 if metric.direction == "higher" else 1
        means = {i: sign * stats[i][k].mean for i in competing if not math.isnan(stats[i][k].mean)}
        if not means:
            continue
        for i, mean in means.items():
            stats[i][k] = replace(stats[i][k], rank=1 + sum(other < mean for other in means.values()))
        best = min(means, key=lambda i: means[i])
        tested = {i: sums.p_value(i, best, k) for i in means if means[i] > means[best] and math.isfinite(means[i])}
        known = {i: p for i, p in tested.items() if p is not None and math.isfinite(means[best])}
        for i, p in zip(known, holm(list(known.values())), strict=True):
            stats[i][k] = replace(stats[i][k], p=p)
    ranks = [_mean([stat.rank for stat in row]) for row in stats]
    return Group(sums.samples, tuple(map(tuple, stats)), tuple(ranks))


def _mean(ranks: Iterable[int | None]) -> float | None:
    ranks = list(ranks)
    known = [rank for rank in ranks if rank is not None]
    return sum(known) / len(known) if ranks and len(known) == len(ranks) else None


@dataclass
class Evaluation:
    """The result of an evaluation. groups: kind of group -> name -> statistics; examples: samples to show; partial:
    number of samples whose prompt asks to remove only some degradations; absent, left_out: metrics and methods that
    could not run, and why; trained_on: models that were trained on some of the shards, and on how many; without_image:
    for methods without an image for some samples, the first of these; noted: what methods noted, by method, note and
    degradation, "all" included, the means over its samples; differs: p that a note is the same under all degradations,
    by method and note; preferences: of their weights, by method, note and axis;
    faithfulness: the shares of the pixels by origin, by method and degradation, "all" included, means over samples.
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
    trained_on: Mapping[str, str] = field(default_factory=dict[str, str])
    without_image: Mapping[str, Sequence[str]] = field(default_factory=dict[str, Sequence[str]])
    noted: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]] = field(default_factory=dict[str, Any])
    differs: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Any])
    preferences: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict[str, Any])
    faithfulness: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict[str, Any])

    @property
    def samples(self) -> int:
        """The number of scored samples."""
        return self.groups["overall"]["all"].samples if self.groups else 0

    @property
    def real(self) -> bool:
        """Whether the pairs have no clean images; they are then their own sources."""
        return any(portion.real for portion in self.portions)

    @property
    def truth(self) -> bool:
        """Whether the pairs have a ground truth."""
        return all(portion.truth for portion in self.portions)

    def ordered(self, by: str) -> list[tuple[str, Group]]:
        """The groups of a kind sorted by name, numbers numerically; combinations by the number of degradations, then by
        decreasing number of samples.
        """
        if by == "combination":
            return sorted(self.groups[by].items(), key=lambda item: (item[0].count(" + "), -item[1].samples, item[0]))
        return sorted(self.groups[by].items(), key=lambda item: (len(item[0]) if by == "n" else 0, item[0]))

"""Means, bootstrap intervals and significance of differences from running sums, in constant memory; and a permutation
test of groups of samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from clearfuse.synth.seeds import generator, seed_of

RESAMPLES = 1000
INTERVAL = 0.95
LEVEL = 0.05
"""Significance level: differences with a smaller p after Holm's correction are significant."""
PERMUTATIONS = 9999
MIN_PAIRS = 6
"""Minimum number of pairs for a test: with five, no sign test can be significant at 0.05."""


@dataclass(frozen=True)
class Stat:
    """The mean of the finite values and its interval, and the numbers of finite, infinite, undefined, missing values.

    mean: infinite if all defined values are, NaN if none is defined; low, high: None for fewer than two finite values
    from two pairs. p: of the difference to the best method's mean, after Holm's correction; None for the best method,
    for upper bounds, and where it was not tested.
    """

    mean: float
    low: float | None
    high: float | None
    count: int
    infinite: int
    undefined: int
    missing: int = 0
    rank: int | None = None
    p: float | None = None


def resample_weights(*cluster: int | str) -> Int[np.ndarray, " resamples"]:
    """How often each resample draws this cluster of samples: Poisson(1), seeded by the cluster.

    The counts of a bootstrap of N clusters are multinomial; for large N they are independent Poisson(1), which needs
    neither N nor an order nor a second pass. All methods share the counts of a sample, so their differences are paired;
    all samples of an image pair share them too, since their values are not independent: pairs are resampled.
    Source: Hanley, MacGibbon, Computer Methods and Programs in Biomedicine 83, 2006; clusters: Davison, Hinkley,
    Bootstrap Methods and their Application, 1997, section 3.8.
    """
    return generator(seed_of("bootstrap", *cluster)).poisson(1.0, RESAMPLES)


class RunningSums:
    """Running sums of a table of values ``(methods, metrics)``, and of its bootstrap resamples."""

    def __init__(self, methods: int, metrics: int) -> None:
        self.samples = 0
        self.clusters: set[int] = set()
        self.shape = (methods, metrics)
        self._sum = np.zeros(self.shape)
        self._count, self._infinite = np.zeros((2, *self.shape), int)
        self._missing = np.zeros(methods, int)
        self._resampled, self._weight = np.zeros((2, *self.shape, RESAMPLES))

    @staticmethod
    def size(methods: int, metrics: int) -> int:
        """Approximate size in bytes."""
        return methods * metrics * RESAMPLES * 16

    def add(
        self,
        values: Float64[np.ndarray, "samples methods metrics"],
        weights: Int[np.ndarray, "samples resamples"],
        clusters: Sequence[int],
        missing: np.ndarray | None = None,
    ) -> None:
        """Add samples with the weights and ids of their clusters. missing: (samples, methods), booleans."""
        finite = np.isfinite(values)
        values_or_0 = np.where(finite, values, 0.0)
        self.samples += len(values)
        self._sum += values_or_0.sum(axis=0)
        self._count += finite.sum(axis=0)
        self._infinite += np.isinf(values).sum(axis=0)
        self._missing += 0 if missing is None else missing.sum(axis=0)
        counts = weights.astype(np.float64)
        self._resampled += (values_or_0.reshape(len(values), -1).T @ counts).reshape(*self.shape, RESAMPLES)
        if finite.all():  # nearly always: the weights of all cells are then equal
            self._weight += counts.sum(axis=0)
        else:
            self._weight += (finite.reshape(len(values), -1).T.astype(np.float64) @ counts).reshape(self._weight.shape)
        if len(self.clusters) < MIN_PAIRS:
            self.clusters.update(clusters)

    def resample_means(self, method: int, metric: int) -> Float64[np.ndarray, " resamples"]:
        """The mean of each resample; NaN where it is empty."""
        weight = self._weight[method, metric]
        return np.divide(self._resampled[method, metric], weight, out=np.full(RESAMPLES, np.nan), where=weight > 0)

    def stat(self, method: int, metric: int) -> Stat:
        """The mean and percentile interval of a method and metric."""
        cell = (method, metric)
        count, infinite, missing = int(self._count[cell]), int(self._infinite[cell]), int(self._missing[method])
        undefined = self.samples - count - infinite - missing
        if count == 0:
            return Stat(math.inf if infinite else math.nan, None, None, 0, infinite, undefined, missing)
        mean = float(self._sum[cell] / count)
        if count == 1 or len(self.clusters) < 2:
            return Stat(mean, None, None, count, infinite, undefined, missing)
        means = self.resample_means(method, metric)
        low, high = np.nanquantile(means, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
        return Stat(mean, float(low), float(high), count, infinite, undefined, missing)

    def p_value(self, method: int, best: int, metric: int) -> float | None:
        """The two-sided p of a paired bootstrap test that the means of two methods are equal; None for fewer than 6
        pairs.

        Twice the share (k + 1) / (resamples + 1) of resamples whose difference has the rarer sign.
        """
        if len(self.clusters) < MIN_PAIRS:
            return None
        difference = self.resample_means(best, metric) - self.resample_means(method, metric)
        difference = difference[np.isfinite(difference)]
        if not len(difference):
            return None
        tail = min(int((difference <= 0).sum()), int((difference >= 0).sum()))
        return min(2 * (tail + 1) / (len(difference) + 1), 1.0)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's correction: each p times the number of p not smaller, made monotone, at most 1.

    Controls the family-wise error rate. Source: Holm, Scandinavian J. Statistics 6, 1979.
    """
    adjusted, lower_bound = [0.0] * len(ps), 0.0
    for rank, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        lower_bound = max(lower_bound, min((len(ps) - rank) * ps[i], 1.0))
        adjusted[i] = lower_bound
    return adjusted


def permutation_p(values: Float64[np.ndarray, "samples numbers"], groups: Sequence[str], seed: int = 0) -> float | None:
    """p of a permutation test that samples of all groups have the same distribution; None without two groups, or where
    no group has two samples.

    The statistic is the sum of squares between groups, Σ_g n_g |mean_g − mean|²; p = (k + 1) / (m + 1), k of m random
    permutations of the groups reach it. Source: Phipson, Smyth, Statistical Applications in Genetics and Molecular
    Biology 9(1), 2010.
    """
    names, labels, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    if len(names) < 2 or sizes.max() < 2:
        return None
    centred = values - values.mean(axis=0)

    def between(order: np.ndarray) -> float:
        sums = np.stack([np.bincount(order, column, len(names)) for column in centred.T])
        return float((sums**2 / sizes).sum())

    rng = generator(seed_of("permutation", seed))
    found = between(labels) * (1 - 1e-12)  # equal but for rounding counts as reached
    reached = sum(between(rng.permutation(labels)) >= found for _ in range(PERMUTATIONS))
    return (reached + 1) / (PERMUTATIONS + 1)

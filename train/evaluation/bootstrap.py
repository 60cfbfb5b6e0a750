"""Means, their bootstrap intervals and the significance of differences, by running sums: memory does not grow."""

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
"""Differences of a smaller p, after Holm, are significant."""
FEWEST = 6
"""Pairs from which on a difference is tested: the sign of five can't be significant at 0.05 in any test."""


@dataclass(frozen=True)
class Stat:
    """The mean of the finite values and its interval, and how many were finite, infinite, undefined and missing.

    ``mean`` is infinite where every defined value is, not a number where none is defined; ``low`` and ``high`` are
    None for fewer than two finite values of two pairs. p: of the difference to the best method's mean, after Holm;
    None for the best itself, for ceilings, and where it was not tested.
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
    """How often each resample draws this cluster of samples: Poisson(1), from the cluster's own seed.

    The counts of a bootstrap of N are multinomial; for N large they are independent Poisson(1), which needs no N, no
    order and no second pass. Every method of a sample shares them, so their differences are paired; so do all samples
    of a pair, whose values are not independent: pairs are resampled, not samples.
    Source: Hanley, MacGibbon, Computer Methods and Programs in Biomedicine 83, 2006; clusters: Davison, Hinkley,
    Bootstrap Methods and their Application, 1997, section 3.8.
    """
    return generator(seed_of("bootstrap", *cluster)).poisson(1.0, RESAMPLES)


class Tally:
    """Running sums of a table of values ``(methods, metrics)``, and of its resamples."""

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
        """Bytes that one takes, about."""
        return methods * metrics * RESAMPLES * 16

    def add(
        self,
        values: Float64[np.ndarray, "samples methods metrics"],
        weights: Int[np.ndarray, "samples resamples"],
        clusters: Sequence[int],
        missing: np.ndarray | None = None,
    ) -> None:
        """Count samples: their values, their clusters' weights and names. missing: (samples, methods), booleans."""
        finite = np.isfinite(values)
        known = np.where(finite, values, 0.0)
        self.samples += len(values)
        self._sum += known.sum(axis=0)
        self._count += finite.sum(axis=0)
        self._infinite += np.isinf(values).sum(axis=0)
        self._missing += 0 if missing is None else missing.sum(axis=0)
        drawn = weights.astype(np.float64)
        self._resampled += (known.reshape(len(values), -1).T @ drawn).reshape(*self.shape, RESAMPLES)
        if finite.all():  # as nearly always: then every cell draws alike
            self._weight += drawn.sum(axis=0)
        else:
            self._weight += (finite.reshape(len(values), -1).T.astype(np.float64) @ drawn).reshape(self._weight.shape)
        if len(self.clusters) < FEWEST:
            self.clusters.update(clusters)

    def resampled(self, method: int, metric: int) -> Float64[np.ndarray, " resamples"]:
        """The mean of each resample; not a number where one drew nothing."""
        weight = self._weight[method, metric]
        return np.divide(self._resampled[method, metric], weight, out=np.full(RESAMPLES, np.nan), where=weight > 0)

    def stat(self, method: int, metric: int) -> Stat:
        """The mean and the percentile interval of one cell."""
        at = (method, metric)
        count, infinite, missing = int(self._count[at]), int(self._infinite[at]), int(self._missing[method])
        undefined = self.samples - count - infinite - missing
        if count == 0:
            return Stat(math.inf if infinite else math.nan, None, None, 0, infinite, undefined, missing)
        mean = float(self._sum[at] / count)
        if count == 1 or len(self.clusters) < 2:
            return Stat(mean, None, None, count, infinite, undefined, missing)
        means = self.resampled(method, metric)
        low, high = np.nanquantile(means, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
        return Stat(mean, float(low), float(high), count, infinite, undefined, missing)

    def differs(self, method: int, best: int, metric: int) -> float | None:
        """The p of the paired bootstrap, two-sided, that two methods' means are equal: twice the smaller share of the
        resamples in which their difference has either sign, (k + 1) / (resamples + 1); None for fewer than 6 pairs.
        """
        if len(self.clusters) < FEWEST:
            return None
        difference = self.resampled(best, metric) - self.resampled(method, metric)
        difference = difference[np.isfinite(difference)]
        if not len(difference):
            return None
        tail = min(int((difference <= 0).sum()), int((difference >= 0).sum()))
        return min(2 * (tail + 1) / (len(difference) + 1), 1.0)


def holm(ps: Sequence[float]) -> list[float]:
    """Each p times the number of those not smaller, never below one before it, at most 1.

    The chance of any false finding among them stays below the level. Source: Holm, Scandinavian J. Statistics 6, 1979.
    """
    adjusted, least = [0.0] * len(ps), 0.0
    for place, i in enumerate(sorted(range(len(ps)), key=lambda i: ps[i])):
        least = max(least, min((len(ps) - place) * ps[i], 1.0))
        adjusted[i] = least
    return adjusted

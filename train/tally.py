"""Means and their bootstrap intervals in one pass: memory does not grow with the samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from synth.seeds import generator, seed_of

RESAMPLES = 1000
INTERVAL = 0.95


@dataclass(frozen=True)
class Stat:
    """The mean of the finite values and its interval, and how many values were finite, infinite and undefined.

    ``mean`` is infinite where every defined value is, not a number where none is defined; ``low`` and ``high`` are
    None for fewer than two finite values.
    """

    mean: float
    low: float | None
    high: float | None
    count: int
    infinite: int
    undefined: int


def resample_weights(*sample: int | str) -> Int[np.ndarray, " resamples"]:
    """How often each resample draws this sample: Poisson(1), from the sample's own seed.

    The counts of a bootstrap of N samples are multinomial; for N large they are independent Poisson(1), which needs
    no N, no order and no second pass. Every method of a sample shares them, so their differences are paired.
    Source: Hanley, MacGibbon, Computer Methods and Programs in Biomedicine 83, 2006.
    """
    return generator(seed_of("bootstrap", *sample)).poisson(1.0, RESAMPLES)


class Tally:
    """Running sums of a table of values ``(methods, metrics)``, and of its resamples."""

    def __init__(self, methods: int, metrics: int) -> None:
        self.samples = 0
        self._sum = np.zeros((methods, metrics))
        self._count, self._infinite = np.zeros((2, methods, metrics), int)
        self._resampled, self._weight = np.zeros((2, methods, metrics, RESAMPLES))

    def add(self, values: Float64[np.ndarray, "methods metrics"], weights: Int[np.ndarray, " resamples"]) -> None:
        """Count one sample."""
        finite = np.isfinite(values)
        known = np.where(finite, values, 0.0)
        self.samples += 1
        self._sum += known
        self._count += finite
        self._infinite += np.isinf(values)
        self._resampled += known[..., None] * weights
        self._weight += finite[..., None] * weights

    def stat(self, method: int, metric: int) -> Stat:
        """The mean and the percentile interval of one cell."""
        at = (method, metric)
        count, infinite = int(self._count[at]), int(self._infinite[at])
        undefined = self.samples - count - infinite
        if count == 0:
            return Stat(math.inf if infinite else math.nan, None, None, 0, infinite, undefined)
        mean = float(self._sum[at] / count)
        if count == 1:
            return Stat(mean, None, None, count, infinite, undefined)
        drawn = self._weight[at] > 0
        means = self._resampled[at][drawn] / self._weight[at][drawn]
        low, high = np.quantile(means, [(1 - INTERVAL) / 2, (1 + INTERVAL) / 2])
        return Stat(mean, float(low), float(high), count, infinite, undefined)

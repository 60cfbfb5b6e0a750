"""Aggregates the records on disk to the groups of a report, in as many passes as a memory limit requires."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from clearfuse.synth.seeds import seed_of
from clearfuse.train.evaluation.bootstrap import RunningSums, permutation_p, resample_weights
from clearfuse.train.evaluation.scoring import FAITHFULNESS, FUSION, Method, Record
from clearfuse.train.evaluation.summary import Evaluation, summarise
from clearfuse.train.metrics import Metric

MEMORY = 96 << 20
"""Bytes for the running sums of the groups of one pass, independent of the number of samples."""
MAX_NAMED = 5
"""Maximum number of samples without an image that are named, for each method."""
MAX_TESTED = 4096
"""Maximum number of samples, the first ones, whose notes are tested for a difference between degradations."""

Records = Callable[[], Iterable[Sequence[Record]]]
"""Returns the records of all parts, part by part; called once for each pass."""


def aggregate(evaluation: Evaluation, records: Records) -> Evaluation:
    """Fill in an evaluation's groups, and the samples that methods have no image for, from its records."""
    methods, metrics = evaluation.methods, evaluation.metrics
    counts: Counter[tuple[str, str]] = Counter()
    without_image: dict[str, list[str]] = {}
    evaluation.partial = 0
    sums = NoteSums()
    for part in records():
        for record in part:
            counts.update(record.groups())
            evaluation.partial += record.partial
            sums.add(record)
            for method, missing in zip(methods, record.missing, strict=True):
                if missing and len(names := without_image.setdefault(method.name, [])) < MAX_NAMED:
                    names.append(f"{record.shard} {record.key} ({record.dataset}/{record.pair})")
    if {name for by, name in counts if by == "category"} <= {FUSION}:
        del counts["category", FUSION]  # nothing is asked for but fusion: that is the overall table again
    evaluation.without_image, noted = without_image, sums.means()
    evaluation.faithfulness = {name: notes.pop(FAITHFULNESS) for name, notes in noted.items() if FAITHFULNESS in notes}
    evaluation.noted = {name: notes for name, notes in noted.items() if notes}
    evaluation.differs = sums.differs()
    known = {method.name: method.preferences() for method in methods if method.preferences is not None}
    evaluation.preferences = {name: found for name, found in known.items() if found}
    pass_size = max(MEMORY // RunningSums.size(len(methods), len(metrics)), 1)
    remaining = iter(sorted(counts))
    while batch := list(islice(remaining, pass_size)):
        for (by, name), found in _sums(set(batch), records, methods, metrics).items():
            evaluation.groups.setdefault(by, {})[name] = summarise(found, methods, metrics)
    return evaluation


class NoteSums:
    """Sums of what methods noted, by method, note and degradation."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str, str], tuple[int, np.ndarray]] = {}
        self._first: dict[tuple[str, str], list[tuple[str, tuple[float, ...]]]] = {}

    def add(self, record: Record) -> None:
        """Add a sample, to "all" and to each of its degradations."""
        groups = ["all", *dict.fromkeys(op for op, _, _ in record.steps)]
        for method, notes in record.noted.items():
            for name, values in notes.items():
                for group in groups:
                    count, total = self._sums.get((method, name, group), (0, np.zeros(len(values))))
                    self._sums[method, name, group] = count + 1, total + values
                first = self._first.setdefault((method, name), [])
                if name != FAITHFULNESS and len(first) < MAX_TESTED:
                    first.append((" + ".join(groups[1:]), values))

    def means(self) -> dict[str, dict[str, dict[str, list[float]]]]:
        """The means, by method, note and degradation."""
        found: dict[str, dict[str, dict[str, list[float]]]] = {}
        for (method, name, group), (count, total) in sorted(self._sums.items()):
            found.setdefault(method, {}).setdefault(name, {})[group] = (total / count).tolist()
        return found

    def differs(self) -> dict[str, dict[str, float]]:
        """p that a note is the same under all combinations of degradations, by method and note; of ``MAX_TESTED``
        samples at most.
        """
        found: dict[str, dict[str, float]] = {}
        for (method, name), first in sorted(self._first.items()):
            if first and (p := permutation_p(np.array([each for _, each in first]), [mix for mix, _ in first])):
                found.setdefault(method, {})[name] = p
        return found


def _sums(
    groups: set[tuple[str, str]], records: Records, methods: Sequence[Method], metrics: Sequence[Metric]
) -> dict[tuple[str, str], RunningSums]:
    """The running sums of some groups, in one pass."""
    sums = {group: RunningSums(len(methods), len(metrics)) for group in sorted(groups)}
    for part in records():
        members: dict[tuple[str, str], list[int]] = {}
        for index, record in enumerate(part):
            for group in record.groups():
                if group in groups:
                    members.setdefault(group, []).append(index)
        if not members:
            continue
        values = np.stack([record.values for record in part])
        missing = np.array([record.missing for record in part])
        weights = np.stack([resample_weights(record.dataset, record.pair) for record in part])
        clusters = [seed_of(record.dataset, record.pair) for record in part]
        for group, indices in members.items():
            group_clusters = [clusters[index] for index in indices]
            sums[group].add(values[indices], weights[indices], group_clusters, missing[indices])
    return sums


def of_records(records: Sequence[Record]) -> Records:
    """Records in memory as a single part."""

    def parts() -> Iterator[Sequence[Record]]:
        yield records

    return parts

"""From the records on disk to the groups of a report, in as many passes as bounded memory takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import numpy as np

from clearfuse.synth.seeds import seed_of
from clearfuse.train.evaluation.bootstrap import Tally, resample_weights
from clearfuse.train.evaluation.scoring import Method, Record
from clearfuse.train.evaluation.summary import Evaluation, summarised
from clearfuse.train.metrics import Metric

MEMORY = 96 << 20
"""Bytes for the sums of the groups that one pass counts; a million samples and a thousand are alike."""
NAMED = 5
"""Samples that a method had no image for, to name."""

Records = Callable[[], Iterable[Sequence[Record]]]
"""The records of all parts, a part at a time; called once a pass."""


def aggregated(evaluation: Evaluation, records: Records) -> Evaluation:
    """Fill in an evaluation's groups, and what is missing, from its records."""
    methods, metrics = evaluation.methods, evaluation.metrics
    counts: Counter[tuple[str, str]] = Counter()
    lacking: dict[str, list[str]] = {}
    evaluation.partial = 0
    for part in records():
        for record in part:
            counts.update(record.groups())
            evaluation.partial += record.partial
            for method, missing in zip(methods, record.missing, strict=True):
                if missing and len(names := lacking.setdefault(method.name, [])) < NAMED:
                    names.append(f"{record.shard} {record.key} ({record.dataset}/{record.pair})")
    evaluation.lacking = lacking
    at_once = max(MEMORY // Tally.size(len(methods), len(metrics)), 1)
    left = iter(sorted(counts))
    while batch := list(islice(left, at_once)):
        for (by, name), tally in _tallied(set(batch), records, methods, metrics).items():
            evaluation.groups.setdefault(by, {})[name] = summarised(tally, methods, metrics)
    return evaluation


def _tallied(
    wanted: set[tuple[str, str]], records: Records, methods: Sequence[Method], metrics: Sequence[Metric]
) -> dict[tuple[str, str], Tally]:
    """The sums of some groups, in one pass."""
    tallies = {group: Tally(len(methods), len(metrics)) for group in sorted(wanted)}
    for part in records():
        members: dict[tuple[str, str], list[int]] = {}
        for place, record in enumerate(part):
            for group in record.groups():
                if group in wanted:
                    members.setdefault(group, []).append(place)
        if not members:
            continue
        values = np.stack([record.values for record in part])
        missing = np.array([record.missing for record in part])
        weights = np.stack([resample_weights(record.dataset, record.pair) for record in part])
        clusters = [seed_of(record.dataset, record.pair) for record in part]
        for group, places in members.items():
            of = [clusters[place] for place in places]
            tallies[group].add(values[places], weights[places], of, missing[places])
    return tallies


def of_records(records: Sequence[Record]) -> Records:
    """Records in memory, as one part."""

    def once() -> Iterator[Sequence[Record]]:
        yield records

    return once

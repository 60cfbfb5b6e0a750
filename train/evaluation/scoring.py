"""Scores a sample: each method's fused image, each metric's value, and the record written to disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64

from clearfuse.synth.shards.sample import Sample
from clearfuse.synth.types import UserError
from clearfuse.train.evaluation.measure import measure
from clearfuse.train.evaluation.samples import Portion
from clearfuse.train.metrics import Metric, find_metric, find_profile, usual_metrics
from clearfuse.train.metrics.base import codes, luma
from clearfuse.train.metrics.faithfulness import Sources

SEVERITIES = ("0 to 0.33", "0.33 to 0.67", "0.67 to 1")
"""Groups by the mean severity of a sample's degradations."""


@dataclass(frozen=True)
class Method:
    """A method to compare.

    fuse(sample): the fused image, uint8, or None if there is none; must be picklable, since it is sent to worker
    processes. upper_bound: whether it uses what methods are not given, the clean pair; it is then not ranked. identity:
    everything besides the name that determines its pixels. notes(): what it noted of the latest sample, by name;
    preferences(): what its weights say of these notes, by note and axis.
    """

    name: str
    fuse: Callable[[Sample], np.ndarray | None]
    upper_bound: bool = False
    identity: str = ""
    notes: Callable[[], Mapping[str, tuple[float, ...]]] | None = None
    preferences: Callable[[], Mapping[str, Mapping[str, float]]] | None = None


FUSION = "fusion"
"""The category of a sample that says none."""

FAITHFULNESS = "faithfulness"
"""The note of every fused image: the shares of its pixels by origin, in the order of ``faithfulness.ORIGINS``."""

Noted = Mapping[str, Mapping[str, tuple[float, ...]]]
"""By method and name."""


@dataclass(frozen=True)
class Scored:
    """A sample's fused images by method, without missing ones, and values; rows are methods, columns are metrics.

    noted: what methods noted of it.
    """

    shard: str
    sample: Sample
    fused: Mapping[str, np.ndarray]
    values: Float64[np.ndarray, "methods metrics"]
    noted: Noted = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Record:
    """The record of a scored sample, a line of JSON. steps: (operator, target, severity or None) of its degradations;
    truth: the fuser of its ground truth, None without one; partial: whether its prompt asks to remove only some of
    them; missing: for each method, whether it had no image; noted: what methods noted of it; category: what its prompt
    asks for.
    """

    shard: str
    key: str
    dataset: str
    pair: str
    task: str
    n: int
    steps: tuple[tuple[str, str, float | None], ...]
    truth: str | None
    partial: bool
    values: Float64[np.ndarray, "methods metrics"]
    missing: tuple[bool, ...]
    noted: Noted = field(default_factory=dict[str, Any])
    category: str = FUSION

    @staticmethod
    def of(scored: Scored, methods: Sequence[Method]) -> Record:
        """The record of a scored sample."""
        sample, meta = scored.sample, scored.sample.meta
        return Record(
            *(scored.shard, sample.key, meta.dataset, meta.pair, meta.task, meta.n),
            steps=tuple((step.op, step.target, step.severity) for step in sample.meta.steps),
            truth=None if sample.meta.real else meta.fuser.name,
            partial=meta.partial,
            values=scored.values,
            missing=tuple(method.name not in scored.fused for method in methods),
            noted=scored.noted,
            category=meta.category,
        )

    def line(self) -> bytes:
        """A line of JSON. Values have ten digits; infinite and undefined ones are strings, as JSON has no
        such numbers.
        """
        facts = [self.shard, self.key, self.dataset, self.pair, self.task, self.n, self.steps, self.truth, self.partial]
        rows = [
            None if missing else [float(f"{v:.10g}") if np.isfinite(v) else str(v) for v in row]
            for row, missing in zip(self.values.tolist(), self.missing, strict=True)
        ]
        return _line([*facts, rows, self.noted, *([self.category] if self.category != FUSION else [])])

    @staticmethod
    def parse(line: bytes, metrics: int) -> Record:
        """The inverse of ``line``. metrics: the number of metrics."""
        data = json.loads(line)
        category = data.pop() if isinstance(data[-1], str) else FUSION
        *facts, steps, truth, partial, rows, noted = data
        values = [[np.nan] * metrics if row is None else [float(v) for v in row] for row in rows]
        return Record(
            *facts, tuple((op, target, severity) for op, target, severity in steps), truth, partial,
            np.array(values, np.float64).reshape(len(rows), metrics), tuple(row is None for row in rows),
            {method: {name: tuple(each) for name, each in notes.items()} for method, notes in noted.items()}, category,
        )  # fmt: skip

    @property
    def severity(self) -> float | None:
        """The mean severity of its degradations; None if none has one."""
        known = [severity for _, _, severity in self.steps if severity is not None]
        return sum(known) / len(known) if known else None

    def groups(self) -> Iterator[tuple[str, str]]:
        """The groups (kind, name) that it belongs to; those of kind "cell" are cells of the papers' tables."""
        operators = [op for op, _, _ in self.steps]
        mix = " + ".join(operators) if len(operators) != 1 else f"{operators[0]} alone"
        yield "overall", "all"
        yield "task", self.task
        yield "category", self.category
        yield "data set", f"{self.task} {self.dataset}"
        for op in dict.fromkeys(operators):
            yield "operator", op
        if operators:
            yield "combination", mix
        yield "n", str(self.n)
        if self.severity is not None:
            yield "severity", SEVERITIES[min(int(3 * self.severity), 2)]
        if self.truth is not None:
            yield "ground truth", self.truth
        yield "cell", f"{self.task} {self.dataset} n={self.n}"
        if len(operators) == 1:
            yield "cell", f"{self.task} {self.dataset} {mix}"


def _line(data: Sequence[Any]) -> bytes:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def choose_metrics(text: str | None, profile: str = "strict") -> tuple[Metric, ...]:
    """Parse ``PSNR,ssim`` to metrics, without duplicates; ``all`` or None: all of the profile's, or its default ones,
    that can run here.

    Raises UserError for a named metric that is unknown or whose package is not installed.
    """
    available = find_profile(profile).metrics
    if text is None or text.strip().lower() == "all":
        names = usual_metrics(profile, True) if text is None else list(available)
        return tuple(available[name] for name in names if not available[name].missing())
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UserError("--metrics: names none; give some, such as PSNR,SSIM,VIF,Qabf, or all")
    chosen = {metric.name: metric for metric in (find_metric(name, profile) for name in names)}
    for metric in chosen.values():
        if reason := metric.missing():
            raise UserError(f"--metrics {metric.name}: {reason}")
    return tuple(chosen.values())


def absent_metrics(text: str | None, profile: str = "strict") -> dict[str, str]:
    """The metrics that ``choose_metrics`` leaves out for ``all`` or None: why they can't run here, and what to do."""
    available = find_profile(profile)
    every = text is not None and text.strip().lower() == "all"
    names = (available.usual or available.metrics) if text is None else available.metrics if every else ()
    return {name: reason for name in names if (reason := available.metrics[name].missing())}


def select_applicable(
    portions: Sequence[Portion], methods: Sequence[Method], metrics: Sequence[Metric], profile: str = "strict"
) -> tuple[tuple[Method, ...], tuple[Metric, ...]]:
    """The methods and metrics that apply to the samples: those that need no clean images where there are none, and no
    ground truth where there is none.

    Raises UserError if no metric is left.
    """
    kept = tuple(method for method in methods if not (method.upper_bound and any(p.real for p in portions)))
    if all(portion.truth for portion in portions):
        return kept, tuple(metrics)
    applicable = tuple(metric for metric in metrics if metric.kind != "full-reference")
    if not applicable:
        available = find_profile(profile).metrics.values()
        allowed = ", ".join(metric.name for metric in available if metric.kind != "full-reference")
        names = ", ".join(metric.name for metric in metrics)
        raise UserError(f"--metrics {names}: needs a ground truth, which these pairs have not; allowed: {allowed}")
    return kept, applicable


def score_sample(
    sample: Sample,
    shard: str,
    methods: Sequence[Method],
    metrics: Sequence[Metric],
    profile: str = "strict",
    device: str | None = None,
) -> Scored:
    """Fuse a sample with each method, and score against its ground truth and against the clean pair as sources.

    The sources are the clean pair, so that keeping the noise and haze of the degraded pair is not rewarded. For real
    pairs, which have neither a clean pair nor a ground truth, they are the pair itself. A metric is NaN on a sample
    smaller than its minimum size. Of each fused image it is noted where its pixels come from, by the same sources.
    device: see ``measure``.
    """
    images = sample.images
    a, b = (images[name if sample.meta.real else f"clean_{name}"] for name in ("a", "b"))
    names = [metric.name for metric in metrics if metric.smallest <= min(a.shape[:2])]
    values = np.full((len(methods), len(metrics)), np.nan)
    sources = Sources(*(luma(codes(image, name)) for name, image in (("a", a), ("b", b))))
    fused, noted = fuse_sample(sample, methods)
    try:
        rows = measure(fused, a, b, images.get("gt"), names, profile, device)
    except ValueError as error:
        raise ValueError(f"sample {sample.key}: {error}") from None
    places = [place for place, metric in enumerate(metrics) if metric.name in names]
    for i, method in enumerate(methods):
        if method.name in rows:
            values[i, places] = rows[method.name]
            shares = sources.shares(luma(codes(fused[method.name], method.name)))
            noted[method.name] = {**noted[method.name], FAITHFULNESS: shares}
    return Scored(shard, sample, fused, values, noted)


def fuse_sample(
    sample: Sample, methods: Sequence[Method]
) -> tuple[dict[str, np.ndarray], dict[str, Mapping[str, tuple[float, ...]]]]:
    """A sample's fused images by method, without missing ones, and what the methods noted of it."""
    fused: dict[str, np.ndarray] = {}
    noted: dict[str, Mapping[str, tuple[float, ...]]] = {}
    for method in methods:
        try:
            image = method.fuse(sample)
            if image is None:
                continue
            fused[method.name] = image
            noted[method.name] = dict(method.notes() if method.notes is not None else {})
        except (ValueError, UserError) as error:
            raise ValueError(f"sample {sample.key}: {method.name}: {error}") from None
    return fused, noted


Methods = Callable[[Sequence[Portion]], Sequence[Method]]
"""Returns the methods to compare, if they depend on the samples."""

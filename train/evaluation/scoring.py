"""One sample scored: every method's fused image, every metric's value, and the record that is kept of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from clearfuse.synth.shards.sample import Sample
from clearfuse.synth.types import UserError
from clearfuse.train.evaluation.samples import Portion
from clearfuse.train.metrics import Metric, evaluate, find_metric, find_profile, usual_metrics

SEVERITIES = ("0 to 0.33", "0.33 to 0.67", "0.67 to 1")
"""Thirds of the mean severity of a sample's steps."""


@dataclass(frozen=True)
class Method:
    """What makes a fused image (uint8) from a sample; None where it has none for it.

    fuse: a module's function or an object that can be pickled, since worker processes get it. A ceiling sees what no
    method may: it takes no part in ranks. identity: what decides its pixels, beside its name.
    """

    name: str
    fuse: Callable[[Sample], np.ndarray | None]
    ceiling: bool = False
    identity: str = ""


@dataclass(frozen=True)
class Scored:
    """One sample's fused images, without those that a method has not, and values; rows are methods, columns metrics."""

    shard: str
    sample: Sample
    fused: Mapping[str, np.ndarray]
    values: Float64[np.ndarray, "methods metrics"]


@dataclass(frozen=True)
class Record:
    """What is kept of a scored sample, a line of JSON. steps: (operator, target, severity or None); truth: the fuser
    of its ground truth, None where it has none; partial: whether its prompt asks for a part of the steps only.
    missing: by method, whether it had no image.
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
        )

    def line(self) -> bytes:
        """One line. Ten digits a value; what is infinite or undefined as a word, which JSON has no number for."""
        facts = [self.shard, self.key, self.dataset, self.pair, self.task, self.n, self.steps, self.truth, self.partial]
        rows = [
            None if missing else [float(f"{v:.10g}") if np.isfinite(v) else str(v) for v in row]
            for row, missing in zip(self.values.tolist(), self.missing, strict=True)
        ]
        return json.dumps([*facts, rows], ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"

    @staticmethod
    def parse(line: bytes, metrics: int) -> Record:
        """The record of a line that ``line`` wrote, of samples with so many metrics."""
        *facts, steps, truth, partial, rows = json.loads(line)
        values = [[np.nan] * metrics if row is None else [float(v) for v in row] for row in rows]
        return Record(
            *facts, tuple((op, target, severity) for op, target, severity in steps), truth, partial,
            np.array(values, np.float64).reshape(len(rows), metrics), tuple(row is None for row in rows),
        )  # fmt: skip

    @property
    def severity(self) -> float | None:
        """The mean severity of its steps; None where none has one."""
        known = [severity for _, _, severity in self.steps if severity is not None]
        return sum(known) / len(known) if known else None

    def groups(self) -> Iterator[tuple[str, str]]:
        """What it is counted under. The last three are the cells of the papers' tables."""
        operators = [op for op, _, _ in self.steps]
        mix = " + ".join(operators) if len(operators) != 1 else f"{operators[0]} alone"
        yield "overall", "all"
        yield "task", self.task
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


def choose_metrics(text: str | None, profile: str = "strict") -> tuple[Metric, ...]:
    """The metrics of ``PSNR,ssim``, each once, in the order asked; ``all`` or None: the profile's, or its usual ones,
    that can run here.

    Raises UserError, before work begins, for a metric that is named and needs a package which is not there.
    """
    held = find_profile(profile).metrics
    if text is None or text.strip().lower() == "all":
        names = usual_metrics(profile, True) if text is None else list(held)
        return tuple(held[name] for name in names if not held[name].missing())
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UserError("--metrics: names none; give some, such as PSNR,SSIM,VIF,Qabf, or all")
    chosen = {metric.name: metric for metric in (find_metric(name, profile) for name in names)}
    for metric in chosen.values():
        if reason := metric.missing():
            raise UserError(f"--metrics {metric.name}: {reason}")
    return tuple(chosen.values())


def absent_metrics(text: str | None, profile: str = "strict") -> dict[str, str]:
    """The metrics that ``text``, all of them or None, would name and that can't run here: why, and what to do."""
    held = find_profile(profile)
    names = (held.usual or held.metrics) if text is None else held.metrics if text.strip().lower() == "all" else ()
    return {name: reason for name in names if (reason := held.metrics[name].missing())}


def suited(
    portions: Sequence[Portion], methods: Sequence[Method], metrics: Sequence[Metric], profile: str = "strict"
) -> tuple[tuple[Method, ...], tuple[Metric, ...]]:
    """The methods and metrics that can be had of the samples: all, or of real pairs those that need nothing clean.

    Raises UserError where no metric is left.
    """
    if not any(portion.real for portion in portions):
        return tuple(methods), tuple(metrics)
    left = tuple(metric for metric in metrics if metric.kind != "full-reference")
    if not left:
        held = find_profile(profile).metrics.values()
        allowed = ", ".join(metric.name for metric in held if metric.kind != "full-reference")
        names = ", ".join(metric.name for metric in metrics)
        raise UserError(f"--metrics {names}: needs a ground truth, which real pairs have not; allowed: {allowed}")
    return tuple(method for method in methods if not method.ceiling), left


def score_sample(
    sample: Sample, shard: str, methods: Sequence[Method], metrics: Sequence[Metric], profile: str = "strict"
) -> Scored:
    """Fuse with every method and score: against the sample's ground truth, and the clean pair as the two sources.

    The clean pair, since a method that keeps the noise and the haze of the degraded one must not gain by it. A real
    pair has nothing else: it is its own two sources, and has no ground truth. A metric is undefined on a sample that
    is smaller than it needs.
    """
    images = sample.images
    a, b = (images[name if sample.meta.real else f"clean_{name}"] for name in ("a", "b"))
    names = [metric.name for metric in metrics if metric.smallest <= min(a.shape[:2])]
    fused: dict[str, np.ndarray] = {}
    values = np.full((len(methods), len(metrics)), np.nan)
    for i, method in enumerate(methods):
        try:
            image = method.fuse(sample)
            if image is None:
                continue
            fused[method.name] = image
            row: Mapping[str, Any] = evaluate(image, a, b, images.get("gt"), names, profile)
        except (ValueError, UserError) as error:
            raise ValueError(f"sample {sample.key}: {method.name}: {error}") from None
        values[i] = [row.get(metric.name, np.nan) for metric in metrics]
    return Scored(shard, sample, fused, values)


Methods = Callable[[Sequence[Portion]], Sequence[Method]]
"""What is compared, where it depends on the samples."""

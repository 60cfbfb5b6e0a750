"""Methods scored on the samples of shards: one pass, one record a sample and method, aggregates by group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from synth.fusers import PyramidFuser
from synth.shards import Sample, read_samples, read_spans
from synth.types import UserError, WorkIncomplete
from synth.verify import find_local_shards
from train.metrics import Metric, evaluate, find_metric, find_profile, usual_metrics
from train.tally import Tally, resample_weights

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Method:
    """What makes a fused image (uint8) from a sample. A ceiling sees what no method may: it takes no part in ranks."""

    name: str
    fuse: Callable[[Sample], np.ndarray]
    ceiling: bool = False


def pyramid_on_degraded(sample: Sample) -> np.ndarray:
    """The weight-free fuser on what a method is given."""
    return PyramidFuser()(sample.images["a"], sample.images["b"], sample.meta["task"])


def pyramid_on_clean(sample: Sample) -> np.ndarray:
    """The weight-free fuser on the clean crops: what perfect restoration before it would reach."""
    return PyramidFuser()(sample.images["clean_a"], sample.images["clean_b"], sample.meta["task"])


METHODS: dict[str, Method] = {
    "pyramid on degraded": Method("pyramid on degraded", pyramid_on_degraded),
    "pyramid on clean": Method("pyramid on clean", pyramid_on_clean, ceiling=True),
}


@dataclass(frozen=True)
class Portion:
    """The first ``take`` of a shard's ``total`` samples. real: they have no clean side and no ground truth."""

    path: Path
    take: int
    total: int
    real: bool = False


@dataclass(frozen=True)
class Scored:
    """One sample's fused images and values; rows of ``values`` are methods, columns metrics."""

    shard: str
    sample: Sample
    fused: Mapping[str, np.ndarray]
    values: np.ndarray


@dataclass
class Evaluation:
    """What a pass over shards found. ``groups``: what a sample is grouped by -> its value -> sums. absent: metrics that
    were wanted and could not run, and why.
    """

    methods: tuple[Method, ...]
    metrics: tuple[Metric, ...]
    portions: tuple[Portion, ...]
    groups: dict[str, dict[str, Tally]] = field(default_factory=dict[str, dict[str, Tally]])
    examples: list[Scored] = field(default_factory=list[Scored])
    partial: int = 0
    profile: str = "strict"
    absent: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def samples(self) -> int:
        """Samples scored."""
        return self.groups["overall"]["all"].samples if self.groups else 0

    @property
    def real(self) -> bool:
        """Whether the pairs have no clean side and no ground truth: then they are their own sources."""
        return any(portion.real for portion in self.portions)

    def ordered(self, by: str) -> list[tuple[str, Tally]]:
        """The groups in the order of their names, numbers as numbers."""
        return sorted(self.groups[by].items(), key=lambda item: (len(item[0]) if by == "n" else 0, item[0]))


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


def plan_portions(paths: Sequence[str], limit: int | None = None) -> tuple[Portion, ...]:
    """The shards and how many samples of each: all, or ``limit`` spread evenly over them.

    Reads headers only. Raises UserError, before work begins, where there are no samples, a shard is cut short, or some
    shards are of real pairs and others not, whose numbers have other meanings.
    """
    if limit is not None and limit < 1:
        raise UserError(f"--limit {limit}: must be at least 1")
    found = list({path.resolve(): path for path in find_local_shards(paths)}.values())
    counted = [count_samples(path) for path in found]
    totals, real = [total for total, _ in counted], [is_real for total, is_real in counted if total]
    if not sum(totals):
        raise UserError(f"{', '.join(paths)}: no samples in these shards")
    if any(real) and not all(real):
        one = next(path for path, (total, is_real) in zip(found, counted, strict=True) if total and is_real)
        raise UserError(f"{one}: its pairs are real, without ground truth, those of other shards not: score them apart")
    takes = spread(sum(totals) if limit is None else limit, totals)
    return tuple(Portion(p, take, *of) for p, take, of in zip(found, takes, counted, strict=True) if take)


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


def count_samples(path: Path) -> tuple[int, bool]:
    """Samples of a tar, from its headers, and whether its pairs are real.

    Raises UserError where it is no tar, cut short, or lean.
    """
    try:
        spans = read_spans(path)
    except ValueError as error:
        raise UserError(f"{path}: {error}; see synth verify") from None
    held = {name.partition(".")[0] for span in spans[:1] for name in span.members}
    if "clean_a" in held and not held & {"a", "b", "txt"}:
        raise UserError(f"{path}: is lean, without degraded images to score: build it without --lean")
    return len(spans), {"a", "b"} <= held and not held & {"clean_a", "clean_b", "gt"}


def spread(wanted: int, totals: Sequence[int]) -> list[int]:
    """``wanted`` shared out evenly over places that hold ``totals``, earlier ones first; all where there are fewer."""
    takes = [0] * len(totals)
    left = min(wanted, sum(totals))
    while left:
        open_ = [i for i, total in enumerate(totals) if takes[i] < total]
        each = max(left // len(open_), 1)
        for i in open_[:left]:
            more = min(each, totals[i] - takes[i], left)
            takes[i] += more
            left -= more
    return takes


def groups_of(sample: Sample) -> Iterator[tuple[str, str]]:
    """What a sample is counted under: everything, its task, each of its operators, n, what made its ground truth."""
    yield "overall", "all"
    yield "task", sample.meta["task"]
    for step in sample.steps:
        yield "operator", step.op
    yield "n", str(sample.meta["n"])
    if not sample.real:
        yield "ground truth", sample.meta["fuser"]["name"]


def score_sample(
    sample: Sample, shard: str, methods: Sequence[Method], metrics: Sequence[Metric], profile: str = "strict"
) -> Scored:
    """Fuse with every method and score: against the sample's ground truth, and the clean pair as the two sources.

    The clean pair, since a method that keeps the noise and the haze of the degraded one must not gain by it. A real
    pair has nothing else: it is its own two sources, and has no ground truth. A metric is undefined on a sample that
    is smaller than it needs.
    """
    images = sample.images
    a, b = (images[name if sample.real else f"clean_{name}"] for name in ("a", "b"))
    names = [metric.name for metric in metrics if metric.smallest <= min(a.shape[:2])]
    fused: dict[str, np.ndarray] = {}
    values = np.zeros((len(methods), len(metrics)))
    for i, method in enumerate(methods):
        fused[method.name] = method.fuse(sample)
        try:
            row = evaluate(fused[method.name], a, b, images.get("gt"), names, profile)
        except ValueError as error:
            raise ValueError(f"sample {sample.key}: {method.name}: {error}") from None
        values[i] = [row.get(metric.name, np.nan) for metric in metrics]
    return Scored(shard, sample, fused, values)


def score_shards(
    portions: Sequence[Portion],
    methods: Sequence[Method],
    metrics: Sequence[Metric],
    *,
    profile: str = "strict",
    examples: int = 0,
    record: Callable[[Scored], None] = lambda scored: None,
    progress: Progress = lambda done, total: None,
) -> Evaluation:
    """Score every sample once, hand each to ``record``, keep sums and ``examples`` samples spread over the shards.

    Raises WorkIncomplete, naming shard and sample, where one can't be read or scored.
    """
    result = Evaluation(tuple(methods), tuple(metrics), tuple(portions), profile=profile)
    total, done = sum(portion.take for portion in portions), 0
    shown = spread(examples, [portion.take for portion in portions])
    for place, portion in enumerate(portions):
        for position, scored in enumerate(_scored(portion, methods, metrics, profile)):
            weights = resample_weights(place, position)
            for by, value in groups_of(scored.sample):
                tallies = result.groups.setdefault(by, {})
                tallies.setdefault(value, Tally(len(methods), len(metrics))).add(scored.values, weights)
            result.partial += len(scored.sample.meta["prompt"]["asked"]) < scored.sample.meta["n"]
            record(scored)
            if position < shown[place]:
                result.examples.append(scored)
            done += 1
            progress(done, total)
    return result


def _scored(portion: Portion, methods: Sequence[Method], metrics: Sequence[Metric], profile: str) -> Iterator[Scored]:
    name = portion.path.name
    try:
        for sample in islice(read_samples(portion.path), portion.take):
            yield score_sample(sample, name, methods, metrics, profile)
    except (ValueError, KeyError) as error:
        said = str(error) if isinstance(error, ValueError) else f"a sample's json has no {error}"
        raise WorkIncomplete(f"{name}: {said.removeprefix(f'{name}: ')}; no report was written") from None

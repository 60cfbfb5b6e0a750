"""``train metrics stress``: how each metric answers to disturbances of a good fusion, and how far metrics agree."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from clearfuse.synth.datasets.find import builtin_pairs, find_all, own_task
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.datasets.read import read_pair
from clearfuse.synth.datasets.select import Match, with_match
from clearfuse.synth.execute.run import run_tasks
from clearfuse.synth.execute.tasks import Watch, one_thread
from clearfuse.synth.execute.tasks import report as say
from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.types import TASKS, BadPair, PairRef, Task, UserError, WorkIncomplete
from clearfuse.train.evaluation.parts import processes
from clearfuse.train.evaluation.samples import spread
from clearfuse.train.evaluation.scoring import choose_metrics
from clearfuse.train.evaluation.stress.disturb import DISTURBANCES, Scene
from clearfuse.train.evaluation.stress.ranks import kendall, spearman
from clearfuse.train.metrics import Metric, evaluate
from clearfuse.train.metrics.marks import Answer

Progress = Callable[[int, int], None]
SCENES = 4
"""Built-in scenes of each task where nothing else is named."""
CROP = 320
"""The side of the crop that is disturbed, pixels: 25 versions by all metrics take seconds so."""


@dataclass(frozen=True)
class Stress:
    """What a stress test found.

    pairs: their keys, by task. values: by scene, version and metric; the first version is the undisturbed fusion, the
    others are the strengths of the disturbances in their order. NaN where a metric is undefined.
    """

    profile: str
    metrics: tuple[Metric, ...]
    pairs: dict[str, list[str]]
    values: Float64[np.ndarray, "scenes versions metrics"]

    def of(self, disturbance: str) -> Float64[np.ndarray, "scenes strengths metrics"]:
        """The values of a disturbance, the undisturbed fusion's first."""
        at = 1
        for one in DISTURBANCES.values():
            if one.name == disturbance:
                return np.concatenate([self.values[:, :1], self.values[:, at : at + len(one.strengths)]], 1)
            at += len(one.strengths)
        raise KeyError(disturbance)

    def answer(self, metric: int, disturbance: str) -> Answer | None:
        """How a metric answers to a disturbance; None where it is defined in no scene."""
        values = self.of(disturbance)[:, :, metric]
        values = values[~np.isnan(values).any(1)]
        sign = 1.0 if self.metrics[metric].direction == "higher" else -1.0
        strengths = np.arange(values.shape[1], dtype=np.float64)
        trends = [0.0 if math.isnan(found := spearman(strengths, sign * row)) else found for row in values]
        if not trends:
            return None
        with np.errstate(invalid="ignore", divide="ignore"):
            changes = (values[:, 1:] - values[:, :1]) / np.abs(values[:, :1])
        known = changes[np.isfinite(changes).all(1)]
        if not len(known):
            return Answer(float(np.mean(trends)), None, None)
        medians = np.median(known, axis=0)
        best = int(np.argmax(sign * medians))
        return Answer(float(np.mean(trends)), float(medians[-1]), float(medians[best]))

    def agreement(self, by: Callable[[np.ndarray, np.ndarray], float] = kendall) -> Float64[np.ndarray, "m m"]:
        """Rank correlations of metrics over all versions of a scene, means over the scenes; NaN where there is none."""
        signs = np.array([1.0 if metric.direction == "higher" else -1.0 for metric in self.metrics])
        good = self.values * signs
        count = len(self.metrics)
        found = np.full((len(good), count, count), np.nan)
        for at, scene in enumerate(good):
            for i in range(count):
                for k in range(i, count):
                    known = ~np.isnan(scene[:, [i, k]]).any(1)
                    if known.sum() > 1:
                        found[at, i, k] = found[at, k, i] = by(scene[known, i], scene[known, k])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # a metric that is undefined in every scene
            return np.nanmean(found, 0)


@dataclass(frozen=True)
class _Work:
    metrics: tuple[str, ...]
    smallest: tuple[int, ...]
    profile: str
    crop: int | None


def stress(
    *,
    data: Sequence[str] = (),
    match: Match = None,
    task: Task | None = None,
    limit: int | None = None,
    crop: int | None = CROP,
    metrics: str | None = None,
    profile: str = "strict",
    workers: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Stress:
    """Disturb the pyramid fusion of pairs and score every version against the undisturbed pair.

    Metrics of full reference compare with the undisturbed fusion. data: ``NAME=DIR``, repeatable; without any,
    ``SCENES`` built-in scenes of each task. task: the only one. limit: pairs of each task or set, spread evenly over
    it. crop: the side of a centre crop; None: whole pictures. metrics: see ``choose_metrics``; None: all. Raises
    UserError before work begins, WorkIncomplete for a pair that can't be read or scored.
    """
    chosen = choose_metrics(metrics or "all", profile)
    refs = _pairs(data, match, task, limit)
    work = _Work(tuple(m.name for m in chosen), tuple(m.smallest for m in chosen), profile, crop)
    count = min(processes(workers), len(refs))
    found: list[np.ndarray] = []
    progress(0, len(refs))
    with one_thread():
        watch = Watch(name=lambda ref: f"pair {ref.key}")
        executor = "serial" if count == 1 else "processes"
        for values in run_tasks(score_pair, work, refs, workers=count, executor=executor, watch=watch):
            found.append(values)
            progress(len(found), len(refs))
    pairs: dict[str, list[str]] = {}
    for ref in refs:
        pairs.setdefault(f"{ref.task} {ref.dataset}", []).append(ref.key)
    return Stress(profile, chosen, pairs, np.stack(found))


def score_pair(work: _Work, ref: PairRef) -> Float64[np.ndarray, "versions metrics"]:
    """The values of all versions of a pair's fusion. Raises WorkIncomplete, naming the pair."""
    try:
        pair = read_pair(ref)
        a, b = (_centre(image, work.crop) for image in (pair.a, pair.b))
        scene = Scene(ref.task, a, b, PyramidFuser()(a, b, ref.task))
        side = min(scene.fused.shape[:2])
        names = [name for name, smallest in zip(work.metrics, work.smallest, strict=True) if smallest <= side]
        rows: list[list[float]] = []
        versions = [(one.name, s, one.of) for one in DISTURBANCES.values() for s in one.strengths]
        for name, strength, of in [("undisturbed", 0.0, lambda scene, _: scene.fused), *versions]:
            say(f"pair {ref.key}, {name} {strength:g}")
            values = evaluate(of(scene, strength), scene.a, scene.b, scene.fused, names, work.profile)
            rows.append([values.get(metric, math.nan) for metric in work.metrics])
    except (BadPair, ValueError) as error:
        raise WorkIncomplete(f"pair {ref.key}: {error}") from None
    return np.array(rows)


def _centre(image: np.ndarray, side: int | None) -> np.ndarray:
    if side is None:
        return image
    y, x = (max(length - side, 0) // 2 for length in image.shape[:2])
    return np.ascontiguousarray(image[y : y + side, x : x + side])


def _pairs(data: Sequence[str], match: Match, task: Task | None, limit: int | None) -> list[PairRef]:
    found: list[PairRef] = []
    for item in with_match(data, match):
        name, _, location = item.partition("=")
        if not location:
            raise UserError(f"--data {item}: must be NAME=DIR, such as msrs=/data/MSRS")
        manifest = load_manifest(name)
        if manifest.single:
            raise UserError(f"--data {item}: has single pictures, and a fusion is of two")
        found += _some(find_all(manifest, location, task or own_task(manifest)).pairs, limit)
    for one in () if data else (task,) if task else TASKS:
        found += _some(builtin_pairs(one, "test", limit or SCENES), limit)
    return found


def _some(refs: Sequence[PairRef], limit: int | None) -> list[PairRef]:
    (take,) = spread(min(limit or len(refs), len(refs)), [len(refs)])
    return [refs[i * len(refs) // take] for i in range(take)]

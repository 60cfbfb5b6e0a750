"""``train metrics``: scores of image files, without shards."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from clearfuse.synth.console import plural
from clearfuse.synth.datasets.match import split_pattern
from clearfuse.synth.datasets.read import read_image
from clearfuse.synth.files.folders import check_folder
from clearfuse.synth.types import MODALITIES, BadPair, Modality, UserError, WorkIncomplete, check_name
from clearfuse.train.evaluation.options import ScoringOptions
from clearfuse.train.evaluation.origins import origin_map, origin_picture
from clearfuse.train.evaluation.scoring import choose_metrics
from clearfuse.train.metrics import evaluate
from clearfuse.train.metrics.base import Metric
from clearfuse.train.metrics.faithfulness import ORIGINS, shares
from clearfuse.train.metrics.marks import explain, mark
from clearfuse.train.pipeline.pictures.find import images_by_key, some_names
from clearfuse.train.pipeline.pictures.write import write_image
from clearfuse.train.pipeline.task import as_task

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class FileScores:
    """Values by method, image and metric, NaN where a metric is undefined or the image too small for it.

    metrics: what was measured. missing: methods' images that are not there. origins: the shares of the pixels by
    origin, by method and image, where they were asked for.
    """

    metrics: tuple[Metric, ...]
    values: Mapping[str, Mapping[str, Mapping[str, float]]]
    missing: Mapping[str, Sequence[str]]
    origins: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict[str, Any])
    profile: str = "strict"

    def mean_origins(self) -> dict[str, list[float]]:
        """The shares of the pixels by origin, by method, means over its images."""
        return {name: np.mean(list(images.values()), 0).tolist() for name, images in self.origins.items()}

    def means(self) -> dict[str, dict[str, float]]:
        """By method and metric, over the images where the metric is defined; NaN where it is in none."""
        return {
            method: {metric.name: _mean([values[metric.name] for values in images.values()]) for metric in self.metrics}
            for method, images in self.values.items()
        }


def score_files(
    options: ScoringOptions,
    *,
    faithfulness: str | None = None,
    progress: Progress = lambda done, total: None,
    before: Callable[[Mapping[str, Sequence[str]]], None] = lambda images: None,
) -> FileScores:
    """Score fused images beside their pair: files, or folders of files with the same names up to the extension.

    options.fused: ``PATH`` or ``NAME=PATH``, one a method; a path may end in a pattern of names, as ``DIR/{key}_CNN``.
    options.metrics, options.profile: see ``choose_metrics``; without a ground truth, metrics that need one are left out
    unless they are named. faithfulness: a folder for pictures of where pixels come from, METHOD/NAME.png. before:
    called with each method's image names before work begins.

    Raises UserError before work begins; WorkIncomplete at the end, naming the images that could not be scored.
    """
    a, gt, task, scale, profile = options.a, options.gt, options.task, options.scale, options.profile
    check_name("task", task, MODALITIES)
    chosen = _metrics(options.metrics, profile, gt is not None)
    methods = _named(options.fused)
    paths = {"a": a, "b": options.b} | ({} if gt is None else {"gt": gt})
    alone = all(Path(path).is_file() for path in (*paths.values(), *methods.values()))
    stem = Path(a).stem if alone else None  # the names of single files do not matter
    patterns = dict(zip("ab", options.match, strict=True)) if options.match else {}
    pairs = {name: _images(path, stem, patterns.get(name)) for name, path in paths.items()}
    names = list(pairs["a"])
    for name, images in pairs.items():
        lone = [[x[key].name for key in x if key not in y] for x, y in ((pairs["a"], images), (images, pairs["a"]))]
        if any(lone):
            sides = "; ".join(
                f"{path} has {some_names(one)} alone" for path, one in zip((a, paths[name]), lone, strict=True)
            )
            raise UserError(f"{a} and {paths[name]}: not of the same names: {sides}")
    results: dict[str, dict[str, Path]] = {}
    for method, path in methods.items():
        folder, pattern = split_pattern(path)
        results[method] = _images(folder, None if pattern else stem, pattern or None)
    missing = {method: [name for name in names if name not in images] for method, images in results.items()}
    for method, absent in missing.items():
        if len(absent) == len(names):
            raise UserError(f"{methods[method]}: has no image of a name in {a}, such as {some_names(names)}")
    before({method: [name for name in names if name in images] for method, images in results.items()})

    maps = None if faithfulness is None else _maps_folder(faithfulness, list(results))
    origins: dict[str, dict[str, tuple[float, ...]]] = {method: {} for method in results} if maps else {}

    def score(name: str) -> dict[str, dict[str, float] | str]:
        """The values by method, or what was wrong with its image."""
        found: dict[str, dict[str, float] | str] = {}
        try:
            kinds: dict[str, Modality] = {"a": "visible", "b": MODALITIES[task]["b"], "gt": "visible"}
            images = {side: read_image(str(files[name]), kinds[side], scale)[0] for side, files in pairs.items()}
        except BadPair as error:
            return dict.fromkeys(results, f"{name}: {error}")
        for method, files in results.items():
            if name in files:
                try:
                    image = read_image(str(files[name]), scale=scale)[0]
                    measured = [m.name for m in chosen if m.smallest <= min(image.shape[:2])]
                    values = evaluate(image, images["a"], images["b"], images.get("gt"), measured, profile)
                    if maps is not None:
                        origin = origin_map(image, images["a"], images["b"])
                        write_image(maps / method / f"{name}.png", origin_picture(image, origin, as_task(task)))
                        origins[method][name] = shares(origin)
                    found[method] = {metric.name: values.get(metric.name, math.nan) for metric in chosen}
                except (BadPair, ValueError) as error:
                    found[method] = f"{files[name].name}: {error}"
        return found

    scored: dict[str, dict[str, dict[str, float]]] = {method: {} for method in results}
    wrong: list[str] = []
    with ThreadPoolExecutor(options.workers or os.cpu_count()) as pool:
        for done, (name, found) in enumerate(zip(names, pool.map(score, names), strict=True)):
            for method, values in found.items():
                if isinstance(values, str):
                    wrong.append(values)
                else:
                    scored[method][name] = values
            progress(done + 1, len(names))
    if wrong:
        raise WorkIncomplete(f"{plural(len(wrong), 'image')} could not be scored: {'; '.join(wrong[:5])}")
    return FileScores(chosen, scored, missing, origins, profile)


def _maps_folder(path: str, methods: Sequence[str]) -> Path:
    """The folder of the maps. Raises UserError where it is a file, or a method's name is no name of a folder."""
    folder = check_folder(path, "--faithfulness")
    if wrong := next((name for name in methods if Path(name).name != name), None):
        raise UserError(f"--faithfulness: the method '{wrong}' can't be a folder's name: say NAME=PATH")
    return folder


def _metrics(text: str | None, profile: str, truth: bool) -> tuple[Metric, ...]:
    chosen = choose_metrics(text, profile)
    if truth:
        return chosen
    named = text is not None and text.strip().lower() != "all"
    needy = [metric.name for metric in chosen if metric.kind == "full-reference"]
    if named and needy:
        raise UserError(f"--metrics {needy[0]}: needs --gt, a ground truth")
    return tuple(metric for metric in chosen if metric.kind != "full-reference")


def _named(texts: Sequence[str]) -> dict[str, str]:
    """Paths by method: ``NAME=PATH``, or the path's own name."""
    named: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or Path(text).exists():
            name, path = Path(text).name, text
        if name in named:
            raise UserError(f"two methods are called '{name}': say NAME=PATH")
        named[name] = path
    return named


def _images(path: str, stem: str | None, pattern: str | None = None) -> dict[str, Path]:
    """The images of a folder by key, see ``images_by_key``, or the one file, by ``stem`` where it is given."""
    place = Path(path)
    if not place.exists():
        raise UserError(f"{path}: no such file or folder")
    if not place.is_dir():
        return {stem or place.stem: place}
    found, others = images_by_key(place, pattern)
    if not found:
        raise UserError(f"{path}: no images in this folder: it has {some_names(others)}")
    return found


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def to_text(scores: FileScores) -> str:
    """Aligned columns for a terminal: the means, the best of several marked with a star."""
    means = scores.means()
    origins = scores.mean_origins()
    about = [f"from {name}" for name in ORIGINS] if origins else []
    names = [metric.name + mark(metric.name, scores.profile, plain=True) for metric in scores.metrics]
    rows = [("method", *names, *about, "images")]
    for method, values in means.items():
        cells = [_cell(metric, values[metric.name], [other[metric.name] for other in means.values()])
                 for metric in scores.metrics]  # fmt: skip
        cells += [f"{share:.1%}" for share in origins.get(method, ())]
        rows.append((method, *cells, str(len(scores.values[method]))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    lines += [f"{method}: {plural(len(names), 'image')} missing: {some_names(names)}"
              for method, names in scores.missing.items() if names]  # fmt: skip
    rewarded = explain((metric.name for metric in scores.metrics), scores.profile, plain=True)
    return "\n".join([*lines, rewarded] if rewarded else lines)


def _cell(metric: Metric, value: float, all_values: Sequence[float]) -> str:
    if math.isnan(value):
        return "undefined "
    known = [one for one in all_values if not math.isnan(one)]
    best = (max if metric.direction == "higher" else min)(known)
    return f"{value:.{metric.digits}f}{'*' if value == best and len(all_values) > 1 else ' '}"

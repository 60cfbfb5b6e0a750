"""Scores of a detector or segmenter on the fused images of several methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from clearfuse.train.downstream.coco import Detections, Objects, average_precision
from clearfuse.train.downstream.fit import Record
from clearfuse.train.downstream.iou import class_iou, confusion, mean_iou
from clearfuse.train.downstream.networks import Network
from clearfuse.train.downstream.pictures import Pictures
from clearfuse.train.downstream.sources import Source

Progress = Callable[[int, int], None]
AT_ONCE = 8
"""Pictures that a network sees at once."""


@dataclass(frozen=True)
class Scores:
    """Of one method, in [0, 1]; NaN where nothing is there to be found. means: by measure; classes: AP or IoU."""

    method: str
    upper_bound: bool
    means: dict[str, float]
    classes: dict[str, float]


@dataclass(frozen=True)
class Scored:
    """The scores of all methods. found, there: detections by method and objects, in the order of the pictures' keys."""

    model: str
    record: Record
    source: Source
    pictures: Pictures
    scores: tuple[Scores, ...]
    there: tuple[Objects, ...] = ()
    found: dict[str, list[Detections]] = field(default_factory=dict[str, "list[Detections]"])


def score_pictures(
    model: str,
    network: Network,
    record: Record,
    source: Source,
    pictures: Pictures,
    bounds: dict[str, bool],
    progress: Progress = lambda done, total: None,
) -> Scored:
    """Score the network on pictures that are there. bounds: by method, whether it is an upper bound."""
    names = network.classes
    scores: list[Scores] = []
    there = tuple(objects_of(pictures, key, names) for key in pictures.keys) if pictures.kind == "detection" else ()
    every: dict[str, list[Detections]] = {}
    total, done = len(pictures.methods) * len(pictures.keys), 0
    for method in pictures.methods:
        found: list[Detections] = []
        counts = np.zeros((len(names), len(names)), np.int64)
        for at in range(0, len(pictures.keys), AT_ONCE):
            keys = pictures.keys[at : at + AT_ONCE]
            images = [pictures.image(method, key) for key in keys]
            if pictures.kind == "detection":
                found += network.detect(images)
            else:
                for key, one in zip(keys, network.segment(images), strict=True):
                    counts += confusion(one, renumbered(pictures.classes(key), source.classes, names), len(names))
            done += len(keys)
            progress(done, total)
        if pictures.kind == "detection":
            every[method] = found
            precision = average_precision(found, there, len(names))
            means, by_class = precision.summary(), [precision.mean(name=number) for number in range(len(names))]
        else:
            means, by_class = {"mIoU": mean_iou(counts)}, class_iou(counts).tolist()
        scores.append(Scores(method, bounds.get(method, False), means, dict(zip(names, by_class, strict=True))))
    return Scored(model, record, source, pictures, tuple(scores), there, every)


def objects_of(pictures: Pictures, key: str, names: Sequence[str]) -> Objects:
    """What is to be found in a pair, with the numbers of the network's classes."""
    boxes = pictures.boxes(key)
    return Objects(
        np.array([box[1:5] for box in boxes], np.float64).reshape(-1, 4),
        np.array([names.index(box.name) for box in boxes], np.int64),
        np.array([box.difficult for box in boxes], np.bool_),
    )


def renumbered(classes: np.ndarray, own: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """A map of a set's own numbers with those of the network: a set's manifest may list its classes otherwise now."""
    table = np.arange(256, dtype=np.uint8)
    table[: len(own)] = [names.index(name) for name in own]
    return table[classes]


def order_of(values: Sequence[float]) -> list[int]:
    """1 for the greatest values, 2 for the second, 0 for others and NaN; equal as they are printed."""
    rounded = [math.nan if math.isnan(value) else round(100 * value, 2) for value in values]
    known = sorted({value for value in rounded if not math.isnan(value)}, reverse=True)[:2]
    return [known.index(value) + 1 if value in known else 0 for value in rounded]

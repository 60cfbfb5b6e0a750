"""What a detector or segmenter finds, drawn into the fused images: ``examples/KEY.png``, a panel a method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from clearfuse.train.downstream.coco import Detections, Objects
from clearfuse.train.downstream.networks import Network
from clearfuse.train.downstream.scores import Scored, renumbered
from clearfuse.train.evaluation.samples import spread
from clearfuse.train.pipeline.pictures.write import write_sheet

FOLDER = "examples"
CERTAIN = 0.3
"""Least score of a detection that is drawn."""
COLOURS = (
    (230, 70, 60), (60, 200, 90), (70, 120, 240), (240, 190, 40), (190, 80, 220), (60, 200, 210), (240, 130, 40),
    (150, 160, 60), (220, 110, 150), (110, 110, 200), (90, 150, 120), (200, 200, 200),
)  # fmt: skip


def write_examples(done: Scored, network: Network, folder: Path, count: int) -> None:
    """Draw what is there, into the first method's image, and what is found in each, for pairs spread over the set."""
    keys = done.pictures.keys
    (take,) = spread(min(count, len(keys)), [len(keys)])
    for number in range(take):
        at = number * len(keys) // take
        key = keys[at]
        panels = [("what is there", _truth(done, network, key, at))]
        for method in done.pictures.methods:
            image = done.pictures.image(method, key)
            if done.record.kind == "detection":
                drawn = boxes_in(image, done.found[method][at], network.classes)
            else:
                drawn = classes_over(image, network.segment([image])[0], network.classes)
            panels.append((method, drawn))
        names = "  ".join(f"{number}: {name}" for number, name in enumerate(network.classes))
        write_sheet(folder / FOLDER / f"{key}.png", panels, (key, names))


def _truth(done: Scored, network: Network, key: str, at: int) -> np.ndarray:
    image = done.pictures.image(done.pictures.methods[0], key)
    if done.record.kind == "detection":
        return boxes_in(image, done.there[at], network.classes)
    there = renumbered(done.pictures.classes(key), done.source.classes, network.classes)
    return classes_over(image, there, network.classes)


def boxes_in(image: np.ndarray, found: Detections | Objects, classes: Sequence[str]) -> np.ndarray:
    """The picture with a box around each object, in its class's colour; of detections those that are ``CERTAIN``."""
    out = image.copy()
    sure = found.scores >= CERTAIN if isinstance(found, Detections) else np.ones(len(found.boxes), np.bool_)
    for (left, top, width, height), kind in zip(found.boxes[sure], found.classes[sure], strict=True):
        corners = [(round(left), round(top)), (round(left + width) - 1, round(top + height) - 1)]
        cv2.rectangle(out, *corners, COLOURS[int(kind) % len(COLOURS)], max(out.shape[1] // 320, 1))
    return out


def classes_over(image: np.ndarray, classes: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The picture half covered by the colours of its pixels' classes; of those without one, none."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(names)] = [COLOURS[number % len(COLOURS)] for number in range(len(names))]
    known = (classes < len(names))[..., None]
    return np.where(known, (image.astype(np.uint16) + table[classes]) // 2, image).astype(np.uint8)

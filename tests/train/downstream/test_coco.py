"""COCO's average precision: against a count from the definitions alone, and pycocotools' own numbers."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
import pytest

from clearfuse.synth.seeds import generator
from clearfuse.train.downstream.coco import (
    MOST,
    RECALLS,
    SIZES,
    THRESHOLDS,
    Detections,
    Objects,
    average_precision,
    overlaps,
    results,
    to_coco,
)

NAMES = ("person", "car", "lamp", "bus")
FROZEN = {
    "AP": 0.0617518849, "AP50": 0.1237347652, "AP75": 0.0473202448, "APs": 0.1190739127, "APm": 0.0512629836,
    "APl": 0.1548752165,
}  # fmt: skip
"""What pycocotools 2.0 says of ``drawn(7)``."""


def drawn(seed: int, images: int = 12) -> tuple[list[Detections], list[Objects]]:
    """Random objects of all sizes, crowds among them, and what a poor detector finds of them; no bus is anywhere.

    Scores are coarse, so that many are equal, and there is an image without objects and one without detections.
    """
    rng = generator(seed)
    found: list[Detections] = []
    there: list[Objects] = []
    for image in range(images):
        count = 0 if image == 3 else int(rng.integers(1, 14))
        sides = np.exp(rng.uniform(np.log(8), np.log(220), (count, 2)))
        boxes = np.hstack([rng.uniform(0, 400, (count, 2)), sides])
        classes = rng.integers(0, 3, count)
        there.append(Objects(boxes, classes, rng.random(count) < 0.15))
        near = boxes.repeat(3, 0)
        moved = near + rng.normal(0, 0.08, near.shape) * np.hstack([near[:, 2:], near[:, 2:]])
        wrong = np.hstack([rng.uniform(0, 400, (130, 2)), rng.uniform(5, 120, (130, 2))])
        every = np.vstack([moved, wrong]) if image != 5 else np.zeros((0, 4))
        kinds = np.concatenate([classes.repeat(3), rng.integers(0, 3, 130)])[: len(every)]
        found.append(Detections(np.maximum(every, 1e-3), kinds, rng.integers(1, 40, len(every)) / 40))
    return found, there


def iou(one: np.ndarray, other: np.ndarray, crowd: bool) -> float:
    """Of two boxes, number by number."""
    width = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    height = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    shared = max(width, 0.0) * max(height, 0.0)
    return shared / (one[2] * one[3] if crowd else one[2] * one[3] + other[2] * other[3] - shared)


def counted(
    found: Sequence[Detections], there: Sequence[Objects], name: int, threshold: float, limits: tuple[float, float]
) -> float | None:
    """AP of one class, threshold and range of sizes, from the definitions: no sorting of objects, no running sums."""
    hits: list[tuple[float, int, int, bool]] = []
    total = 0
    for image, (one, truth) in enumerate(zip(found, there, strict=True)):
        objects = [
            (b, bool(o)) for b, k, o in zip(truth.boxes, truth.classes, truth.left_out, strict=True) if k == name
        ]
        of_size = [limits[0] <= b[2] * b[3] <= limits[1] for b, _ in objects]
        total += sum(fits and not crowd for fits, (_, crowd) in zip(of_size, objects, strict=True))
        mine = sorted((-s, i) for i, (s, k) in enumerate(zip(one.scores, one.classes, strict=True)) if k == name)[:MOST]
        free = set(range(len(objects)))
        for place, (minus, i) in enumerate(mine):
            reach = {g: iou(one.boxes[i], objects[g][0], objects[g][1]) for g in range(len(objects))}
            near = [g for g in reach if reach[g] >= threshold and (g in free or objects[g][1])]
            good = [g for g in near if of_size[g] and not objects[g][1]]
            pick = max(good or near, key=lambda g: (reach[g], g), default=None)
            free.discard(pick if pick is not None else -1)
            area = one.boxes[i][2] * one.boxes[i][3]
            if pick is None and not limits[0] <= area <= limits[1]:
                continue
            if pick is None or pick in good:
                hits.append((minus, image, place, pick is not None))
    if not total:
        return None
    points: list[tuple[float, float]] = []
    right = 0
    for rank, (*_, is_right) in enumerate(sorted(hits), 1):
        right += is_right
        points.append((right / total, right / rank))
    return float(np.mean([max((p for r, p in points if r >= recall), default=0.0) for recall in RECALLS]))


def test_it_is_what_the_definitions_say() -> None:
    found, there = drawn(3, 6)
    precision = average_precision(found, there, len(NAMES))
    for name in range(len(NAMES)):
        for size, limits in SIZES.items():
            for threshold in THRESHOLDS[::3].tolist():
                wanted = counted(found, there, name, threshold, limits)
                value = precision.mean(threshold=threshold, name=name, size=size)
                assert np.isnan(value) if wanted is None else abs(value - wanted) < 1e-9, (name, size, threshold)


def test_it_is_what_pycocotools_said() -> None:
    summary = average_precision(*drawn(7), len(NAMES)).summary()
    assert summary == pytest.approx(FROZEN, abs=1e-6)


@pytest.mark.parametrize("seed", range(8))
def test_it_is_what_pycocotools_says(seed: int) -> None:
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found, there = drawn(seed)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = to_coco(there, NAMES, [(f"{i}.png", 640, 640) for i in range(len(there))])
        truth.createIndex()
        theirs = COCOeval(truth, truth.loadRes(results(found)), "bbox")
        theirs.evaluate()
        theirs.accumulate()
        theirs.summarize()
    ours = average_precision(found, there, len(NAMES))
    assert list(ours.summary().values()) == pytest.approx(theirs.stats[:6], abs=1e-6)
    every = theirs.eval["precision"][..., -1]
    assert np.allclose(np.where(every < 0, np.nan, every), ours.values, atol=1e-6, equal_nan=True)


def test_perfect_detections_and_none() -> None:
    _, there = drawn(5)
    sure = [Detections(o.boxes, o.classes, np.ones(len(o.boxes))) for o in there]
    precision = average_precision(sure, there, len(NAMES))
    assert precision.mean() == precision.mean(name=0) == 1 and np.isnan(precision.mean(name=3)), "no bus is there"
    nothing = [Detections(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0)) for _ in there]
    assert average_precision(nothing, there, len(NAMES)).mean() == 0


def test_overlaps_of_boxes() -> None:
    one, other = np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 10, 10], [0, 0, 20, 20], [30, 30, 5, 5]])
    plain = overlaps(one, other, np.zeros(3, np.bool_))
    assert plain.tolist() == [[50 / 150, 100 / 400, 0]]
    assert overlaps(one, other, np.ones(3, np.bool_)).tolist() == [[0.5, 1, 0]]

"""COCO's evaluation of detections: average precision over thresholds of IoU.

Source: Lin et al., Microsoft COCO: Common objects in context, ECCV 2014, and https://cocodataset.org/#detection-eval;
where the text leaves a choice, that of pycocotools 2.0 is taken, so that the numbers are its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

THRESHOLDS: Float[np.ndarray, " t"] = np.linspace(0.5, 0.95, 10)
"""Of IoU, from which a detection finds an object."""
RECALLS: Float[np.ndarray, " r"] = np.linspace(0, 1, 101)
"""At which precision is read."""
SIZES = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Least and greatest area of objects, pixels."""
MOST = 100
"""Detections of an image and class that count, the most certain ones."""

Boxes = Float[np.ndarray, "n 4"]
"""Left, top, width and height of boxes, pixels."""


@dataclass(frozen=True)
class Objects:
    """What is in an image: boxes, the class of each, and whether it is left out of the count (a crowd, or difficult).

    A detection may lie on one that is left out, as may any number of them, without being right or wrong.
    """

    boxes: Boxes
    classes: Int[np.ndarray, " n"]
    left_out: Bool[np.ndarray, " n"]


@dataclass(frozen=True)
class Detections:
    """What a detector found in an image: boxes, the class of each, and how certain it is of it."""

    boxes: Boxes
    classes: Int[np.ndarray, " n"]
    scores: Float[np.ndarray, " n"]


@dataclass(frozen=True)
class Precision:
    """Precision by threshold, recall, class and range of sizes; NaN of a class that no image has in that range."""

    values: Float[np.ndarray, "t r classes sizes"]

    def mean(self, *, threshold: float | None = None, name: int | None = None, size: str = "all") -> float:
        """Average precision, over all thresholds or at one, of all classes or of one; NaN without objects."""
        found = self.values[..., list(SIZES).index(size)]
        if threshold is not None:
            found = found[[int(np.argmin(np.abs(THRESHOLDS - threshold)))]]
        if name is not None:
            found = found[..., [name]]
        known = found[~np.isnan(found)]
        return float(known.mean()) if known.size else math.nan

    def summary(self) -> dict[str, float]:
        """AP, AP50 and AP75, and AP of small, medium and large objects."""
        return {
            "AP": self.mean(),
            "AP50": self.mean(threshold=0.5),
            "AP75": self.mean(threshold=0.75),
            "APs": self.mean(size="small"),
            "APm": self.mean(size="medium"),
            "APl": self.mean(size="large"),
        }


def overlaps(
    found: Boxes, there: Float[np.ndarray, "m 4"], left_out: Bool[np.ndarray, " m"]
) -> Float[np.ndarray, "n m"]:
    """Intersection over union of each detection with each object; over the detection alone where that is left out.

    IoU = |A ∩ B| / |A ∪ B|, of a crowd |A ∩ B| / |A| with the detection A.
    """
    low = np.maximum(found[:, None, :2], there[None, :, :2])
    high = np.minimum(found[:, None, :2] + found[:, None, 2:], there[None, :, :2] + there[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=2)
    own, other = np.prod(found[:, 2:], axis=1)[:, None], np.prod(there[:, 2:], axis=1)[None]
    whole = np.where(left_out[None], own, own + other - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def average_precision(found: Sequence[Detections], there: Sequence[Objects], classes: int) -> Precision:
    """Precision of the detections in images, in the order of their objects. classes: how many there are, from 0 on."""
    values = np.full((len(THRESHOLDS), len(RECALLS), classes, len(SIZES)), np.nan)
    for name in range(classes):
        images = [_of_class(one, truth, name) for one, truth in zip(found, there, strict=True)]
        for at, limits in enumerate(SIZES.values()):
            matched = [_match(*image, limits) for image in images]
            values[:, :, name, at] = _precision(matched)
    return Precision(values)


_Image = tuple[
    Float[np.ndarray, " n"], Boxes, Float[np.ndarray, "n m"], Float[np.ndarray, "m 4"], Bool[np.ndarray, " m"]
]
"""Of one class in one image: scores and boxes found, the most certain first, their overlaps with the boxes there, these
boxes, and whether they are left out."""


def _of_class(found: Detections, there: Objects, name: int) -> _Image:
    mine, own = found.classes == name, there.classes == name
    order = np.argsort(-found.scores[mine], kind="stable")[:MOST]
    scores, boxes = found.scores[mine][order], found.boxes[mine][order]
    left_out = there.left_out[own]
    return scores, boxes, overlaps(boxes, there.boxes[own], left_out), there.boxes[own], left_out


@dataclass(frozen=True)
class _Matched:
    """scores: of the detections; right, counted: by threshold, whether one finds an object, and whether it counts.

    objects: how many count.
    """

    scores: Float[np.ndarray, " n"]
    right: Bool[np.ndarray, "t n"]
    counted: Bool[np.ndarray, "t n"]
    objects: int


def _match(
    scores: Float[np.ndarray, " n"],
    boxes: Boxes,
    iou: Float[np.ndarray, "n m"],
    there: Float[np.ndarray, "m 4"],
    left_out: Bool[np.ndarray, " m"],
    limits: tuple[float, float],
) -> _Matched:
    """Each detection, the most certain first, takes the object that it overlaps most among those that are free.

    An object that counts is taken before one that does not (left out, or of another size), whatever their overlaps;
    one that is left out is never used up. Detections of another size that find nothing do not count.
    """
    low, high = limits
    area = np.prod(there[:, 2:], axis=1)
    ignored = left_out | (area < low) | (area > high)
    order = np.argsort(ignored, kind="stable")  # those that count first
    near = [order[row[order] >= THRESHOLDS[0]].tolist() for row in iou]
    right = np.zeros((len(THRESHOLDS), len(scores)), np.bool_)
    counted = np.ones_like(right)
    size = np.prod(boxes[:, 2:], axis=1)
    outside = (size < low) | (size > high)
    for t, threshold in enumerate(THRESHOLDS):
        taken = np.zeros(len(there), np.bool_)
        for d in range(len(scores)):
            best, at = min(threshold, 1 - 1e-10), -1
            for g in near[d]:
                if taken[g] and not left_out[g]:
                    continue
                if at >= 0 and not ignored[at] and ignored[g]:
                    break
                if iou[d, g] >= best:
                    best, at = iou[d, g], g
            right[t, d] = at >= 0
            counted[t, d] = not ignored[at] if at >= 0 else not outside[d]
            if at >= 0:
                taken[at] = True
    return _Matched(scores, right, counted, int((~ignored).sum()))


def _precision(images: Sequence[_Matched]) -> Float[np.ndarray, "t r"]:
    """Precision at each of ``RECALLS``: the highest at that recall or a greater one, 0 beyond the last; NaN without
    objects.

    Over all images, the most certain detection first: recall = right / objects, precision = right / (right + wrong).
    """
    objects = sum(image.objects for image in images)
    if not objects:
        return np.full((len(THRESHOLDS), len(RECALLS)), np.nan)
    scores = np.concatenate([image.scores for image in images])
    order = np.argsort(-scores, kind="stable")
    right = np.concatenate([image.right for image in images], axis=1)[:, order]
    counted = np.concatenate([image.counted for image in images], axis=1)[:, order]
    hits, misses = np.cumsum(right & counted, axis=1), np.cumsum(~right & counted, axis=1)
    out = np.zeros((len(THRESHOLDS), len(RECALLS)))
    for t in range(len(THRESHOLDS)):
        recall = hits[t] / objects
        precision = hits[t] / np.maximum(hits[t] + misses[t], np.spacing(1))
        best = np.maximum.accumulate(precision[::-1])[::-1]
        at = np.searchsorted(recall, RECALLS, side="left")
        reached = at < len(best)
        out[t, reached] = best[at[reached]]
    return out


def to_coco(
    there: Sequence[Objects], names: Sequence[str], pictures: Sequence[tuple[str, int, int]]
) -> dict[str, object]:
    """The objects as a COCO file of instances has them. pictures: name, width and height of each image."""
    annotations = [
        {
            "image_id": image, "category_id": int(kind) + 1, "bbox": box.tolist(), "area": float(box[2] * box[3]),
            "iscrowd": int(out),
        }
        for image, one in enumerate(there, 1)
        for box, kind, out in zip(one.boxes, one.classes, one.left_out, strict=True)
    ]  # fmt: skip
    return {
        "images": [{"id": i, "file_name": name, "width": w, "height": h} for i, (name, w, h) in enumerate(pictures, 1)],
        "annotations": [{"id": number, **one} for number, one in enumerate(annotations, 1)],
        "categories": [{"id": number, "name": name} for number, name in enumerate(names, 1)],
    }


def results(found: Sequence[Detections]) -> list[Mapping[str, object]]:
    """The detections as COCO's format of results has them, beside ``to_coco``."""
    return [
        {
            "image_id": image, "category_id": int(kind) + 1, "bbox": box.tolist(), "score": float(score),
        }
        for image, one in enumerate(found, 1)
        for box, kind, score in zip(one.boxes, one.classes, one.scores, strict=True)
    ]  # fmt: skip

"""Training batches: fused images with their boxes or label maps, mirrored and cropped at random."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from clearfuse.synth.seeds import generator, seed_of
from clearfuse.train.downstream.networks import Preparation
from clearfuse.train.downstream.pictures import Pictures

LEAST = 0.6
"""Of a crop's sides to the picture's, which are drawn alike."""
SEEN = 0.4
"""Share of a box that a crop must show, or the box is left out."""


@dataclass(frozen=True)
class Crop:
    """A part of a picture, pixels; mirrored: left and right change places."""

    x: int
    y: int
    width: int
    height: int
    mirrored: bool

    def of(self, image: np.ndarray) -> np.ndarray:
        """The part, ``(height, width)`` with what channels there are."""
        part = image[self.y : self.y + self.height, self.x : self.x + self.width]
        return np.ascontiguousarray(part[:, ::-1] if self.mirrored else part)


@dataclass(frozen=True)
class Batch:
    """images: uint8 ``(n, h, w, 3)``. labels: as the network's loss takes them."""

    images: np.ndarray
    labels: Any


@dataclass(frozen=True)
class Batches:
    """The batches of a run, each a function of its position and the seed alone."""

    pictures: Pictures
    classes: Sequence[str]
    preparation: Preparation
    size: int
    seed: int
    threads: int = 2

    def __call__(self, steps: int) -> Iterator[Batch]:
        """The first batches, each made while the one before is used."""
        with ThreadPoolExecutor(self.threads) as pool:
            ahead = [pool.submit(self.one, position) for position in range(self.size)]
            for step in range(1, steps + 1):
                ready = [future.result() for future in ahead]
                if step < steps:
                    ahead = [pool.submit(self.one, step * self.size + place) for place in range(self.size)]
                yield self._collated(ready)

    def one(self, position: int) -> tuple[np.ndarray, Any]:
        """A sample: every one once an epoch, in an order drawn anew."""
        keys, methods = self.pictures.keys, self.pictures.methods
        epoch, place = divmod(position, len(keys) * len(methods))
        order = generator(seed_of(self.seed, "order", epoch)).permutation(len(keys) * len(methods))
        of_method, of_key = divmod(int(order[place]), len(keys))
        key = keys[of_key]
        image = self.pictures.image(methods[of_method], key)
        crop = _draw(image.shape[:2], generator(seed_of(self.seed, "crop", position)))
        shown = self.preparation.resized(crop.of(image))
        if self.pictures.kind == "detection":
            return shown, self._boxes(key, crop)
        height, width = self.preparation.size
        classes = cv2.resize(
            crop.of(self.pictures.classes(key)), (width, height), interpolation=cv2.INTER_NEAREST_EXACT
        )
        return shown, torch.from_numpy(classes.astype(np.int64))

    def _boxes(self, key: str, crop: Crop) -> dict[str, Tensor]:
        """Centres and sides as shares of the crop, and classes, of the boxes that it shows enough of."""
        kinds: list[int] = []
        found: list[tuple[float, float, float, float]] = []
        for box in self.pictures.boxes(key):
            left, right = np.clip([box.left - crop.x, box.left + box.width - crop.x], 0, crop.width)
            top, bottom = np.clip([box.top - crop.y, box.top + box.height - crop.y], 0, crop.height)
            if box.difficult or (right - left) * (bottom - top) < SEEN * box.width * box.height:
                continue
            left, right = (crop.width - right, crop.width - left) if crop.mirrored else (left, right)
            kinds.append(self.classes.index(box.name))
            found.append(
                (
                    (left + right) / 2 / crop.width, (top + bottom) / 2 / crop.height,
                    (right - left) / crop.width, (bottom - top) / crop.height,
                )
            )  # fmt: skip
        boxes = torch.tensor(found, dtype=torch.float32).reshape(-1, 4)
        return {"class_labels": torch.tensor(kinds, dtype=torch.int64), "boxes": boxes}

    def _collated(self, ready: Sequence[tuple[np.ndarray, Any]]) -> Batch:
        images = np.stack([image for image, _ in ready])
        labels = [label for _, label in ready]
        return Batch(images, labels if self.pictures.kind == "detection" else torch.stack(labels))


def _draw(size: tuple[int, int], rng: np.random.Generator) -> Crop:
    share = float(rng.uniform(LEAST, 1))
    height, width = (max(round(share * side), 1) for side in size)
    y, x = (int(rng.integers(side - part + 1)) for side, part in zip(size, (height, width), strict=True))
    return Crop(x, y, width, height, bool(rng.random() < 0.5))

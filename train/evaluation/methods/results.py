"""Folders of anybody's fused images as methods of an evaluation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clearfuse.synth.datasets.read import read_image
from clearfuse.synth.seeds import seed_of
from clearfuse.synth.shards.sample import Sample
from clearfuse.synth.shards.tar import SHARD
from clearfuse.synth.types import BadPair, UserError
from clearfuse.train.evaluation.samples import Portion
from clearfuse.train.evaluation.scoring import Method

ENDINGS = (".png", ".webp", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
"""What is taken for an image, in the order in which it is looked for."""


@dataclass(frozen=True)
class Results:
    """A folder of fused images. A sample's is the first there is of TASK/KEY, DATASET/PAIR, TASK/PAIR, KEY and PAIR,
    with any ending of an image; a slash in PAIR may be a folder or ``_``, and of a pair's second version on it is
    followed by ``-vVARIANT``.

    keyed: the tasks in which a key names one sample, since their shards are one build's. flat: whether it does so
    among all tasks.
    """

    folder: Path
    keyed: frozenset[str]
    flat: bool

    def names(self, sample: Sample) -> list[str]:
        """Where a sample's image may be, without its ending, the surest first."""
        meta = sample.meta
        task, version = meta.task, meta.variant
        pair = f"{meta.pair}-v{version}" if version else meta.pair
        pairs = dict.fromkeys((pair, pair.replace("/", "_")))
        named = [f"{task}/{sample.key}"] if task in self.keyed else []
        named += [f"{folder}/{one}" for folder in (meta.dataset, task) for one in pairs]
        return [*named, *([sample.key] if self.flat else []), *pairs]

    def find(self, sample: Sample) -> Path | None:
        """The file of a sample; None where there is none."""
        for name in self.names(sample):
            for suffix in ENDINGS:
                for ending in (suffix, suffix.upper()):
                    path = self.folder / f"{name}{ending}"
                    if path.is_file():
                        return path
        return None

    def __call__(self, sample: Sample) -> np.ndarray | None:
        """The image, None where there is none. Raises ValueError where it can't be read or is of another size."""
        path = self.find(sample)
        if path is None:
            return None
        try:
            image = read_image(str(path))[0]
        except BadPair as error:
            raise ValueError(f"{path.name}: {error}") from None
        height, width = sample.images["a"].shape[:2]
        if image.shape[:2] != (height, width):
            size = f"{image.shape[1]}x{image.shape[0]}"
            raise ValueError(f"{path.name} is {size}, the sample {width}x{height}: fuse the sample's own crop")
        return image


def result_methods(named: Sequence[str], portions: Sequence[Portion]) -> tuple[Method, ...]:
    """The folders of ``NAME=DIR`` as methods. Raises UserError where one is not there, or holds no image."""
    builds = {(_task(portion), portion.path.resolve().parent) for portion in portions}
    tasks = [task for task, _ in builds]
    keyed = frozenset(task for task in tasks if tasks.count(task) == 1)
    made: list[Method] = []
    for text in named:
        name, _, place = text.partition("=")
        if not name or not place:
            raise UserError(f"--results {text}: must be NAME=DIR, such as DRMF=results/drmf")
        folder = Path(place)
        if not folder.is_dir():
            raise UserError(f"--results {text}: {folder} is no folder")
        count, content = 0, 0
        for facts in _images(folder):  # in whatever order the folder gives them, none kept
            count, content = count + 1, (content + seed_of(*facts)) % 2**64
        if not count:
            raise UserError(f"--results {text}: no images in {folder}: allowed are {', '.join(ENDINGS)}")
        made.append(Method(name, Results(folder, keyed, len(builds) == 1), identity=f"{count} {content:x}"))
    return tuple(made)


def _task(portion: Portion) -> str:
    found = SHARD.match(portion.path.name)
    return found[1] if found else ""


def _images(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and time of each image in a folder and below."""
    for root, _, files in os.walk(folder):
        for name in files:
            if Path(name).suffix.lower() in ENDINGS:
                path = Path(root) / name
                facts = path.stat()
                yield str(path.relative_to(folder)), facts.st_size, facts.st_mtime_ns

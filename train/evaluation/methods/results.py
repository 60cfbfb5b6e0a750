"""Folders of fused images as methods of an evaluation."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from clearfuse.synth.datasets.read import read_image
from clearfuse.synth.files.pictures import EXTENSIONS
from clearfuse.synth.seeds import seed_of
from clearfuse.synth.shards.sample import Sample
from clearfuse.synth.shards.tar import SHARD
from clearfuse.synth.types import BadPair, UserError
from clearfuse.train.evaluation.samples import Portion
from clearfuse.train.evaluation.scoring import Method

PREFERRED = (".png", ".webp", ".tif", ".tiff", ".bmp", ".jpg", ".jpeg")
ENDINGS = (*PREFERRED, *sorted(EXTENSIONS - set(PREFERRED)))
"""File extensions of images, in order of preference."""


@dataclass(frozen=True)
class Results:
    """A folder of fused images. A sample's image is the first that exists of TASK/KEY, DATASET/PAIR, TASK/PAIR, KEY and
    PAIR, with an image's file extension; a slash in PAIR is a folder or ``_``, and for variants above 0 PAIR is
    followed by ``-vVARIANT``.

    keyed: the tasks in which a key is unique, since their shards are of one build. flat: whether it is unique over all
    tasks. scale: the count of white in pictures of 16 bits, see ``pictures.decode``.
    """

    folder: Path
    keyed: frozenset[str]
    flat: bool
    scale: int | None = None

    def names(self, sample: Sample) -> list[str]:
        """Candidate paths of a sample's image without extension, the most specific first."""
        meta = sample.meta
        task, version = meta.task, meta.variant
        pair = f"{meta.pair}-v{version}" if version else meta.pair
        pairs = dict.fromkeys((pair, pair.replace("/", "_")))
        names = [f"{task}/{sample.key}"] if task in self.keyed else []
        names += [f"{folder}/{pair}" for folder in (meta.dataset, task) for pair in pairs]
        return [*names, *([sample.key] if self.flat else []), *pairs]

    def find(self, sample: Sample) -> Path | None:
        """The file of a sample, or None."""
        for name in self.names(sample):
            for suffix in ENDINGS:
                for ending in (suffix, suffix.upper()):
                    path = self.folder / f"{name}{ending}"
                    if path.is_file():
                        return path
        return None

    def __call__(self, sample: Sample) -> np.ndarray | None:
        """The image, or None. Raises ValueError if it can't be read or has another size."""
        path = self.find(sample)
        if path is None:
            return None
        try:
            image = read_image(str(path), scale=self.scale)[0]
        except BadPair as error:
            raise ValueError(f"{path.name}: {error}") from None
        height, width = sample.images["a"].shape[:2]
        if image.shape[:2] != (height, width):
            size = f"{image.shape[1]}x{image.shape[0]}"
            raise ValueError(
                f"{path.name} is {size}, the pair {width}x{height}: a result has the size of the pair that was fused"
            )
        return image


def result_methods(
    options: Sequence[str], portions: Sequence[Portion], scale: int | None = None, kind: type[Results] = Results
) -> tuple[Method, ...]:
    """Methods for options ``NAME=DIR``. Raises UserError if a folder does not exist or has no images.

    kind: how their images are named.
    """
    builds = {(_task(portion), portion.path.resolve().parent) for portion in portions}
    tasks = [task for task, _ in builds]
    keyed = frozenset(task for task in tasks if tasks.count(task) == 1)
    methods: list[Method] = []
    for text in options:
        name, _, directory = text.partition("=")
        if not name or not directory:
            raise UserError(f"--results {text}: must be NAME=DIR, such as DRMF=results/drmf")
        folder = Path(directory)
        if not folder.is_dir():
            raise UserError(f"--results {text}: {folder} is no folder")
        count, content = 0, 0
        for facts in _images(folder):  # a sum of hashes does not depend on their order
            count, content = count + 1, (content + seed_of(*facts)) % 2**64
        if not count:
            raise UserError(f"--results {text}: no images in {folder}: allowed are {', '.join(ENDINGS)}")
        identity = f"{count} {content:x}{f' {scale}' if scale else ''}"
        methods.append(Method(name, kind(folder, keyed, len(builds) == 1, scale), identity=identity))
    return tuple(methods)


def _task(portion: Portion) -> str:
    match = SHARD.match(portion.path.name)
    return match[1] if match else ""


def _images(folder: Path) -> Iterator[tuple[str, int, int]]:
    """Name, size and modification time of each image in a folder and its subfolders."""
    for root, _, files in os.walk(folder):
        for name in files:
            if Path(name).suffix.lower() in ENDINGS:
                path = Path(root) / name
                facts = path.stat()
                yield str(path.relative_to(folder)), facts.st_size, facts.st_mtime_ns

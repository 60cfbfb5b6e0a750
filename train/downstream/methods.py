"""Whose fused images: a picture of the pair alone, fusers, our models and folders of anybody's results, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from clearfuse.synth.shards.sample import Sample
from clearfuse.synth.types import UserError
from clearfuse.train.downstream.sources import Source
from clearfuse.train.evaluation.evaluate import check_names
from clearfuse.train.evaluation.methods.fusers import (
    CLASSICAL,
    LEARNED,
    METHODS,
    fuser_methods,
    model_methods,
)
from clearfuse.train.evaluation.methods.results import result_methods
from clearfuse.train.evaluation.scoring import Method

TRUTH = "gt"
ONE_PICTURE = ("a", "b")
BESIDE = ("pyramid", "classical", *LEARNED)
"""The names beside models: the pictures of the pair, the ground truth, and fusers of the (degraded) pair."""
NAMES = (*ONE_PICTURE, *BESIDE, TRUTH)


@dataclass(frozen=True)
class Stored:
    """A method: an image of the sample as it is; an infrared one too, in its one channel."""

    name: str

    def __call__(self, sample: Sample) -> np.ndarray | None:
        """The image, uint8 ``(h, w, c)``."""
        return sample.images.get(self.name)


def usual(source: Source) -> tuple[str, ...]:
    """The names where nobody names any: those that need no weights, and the ground truth where it is another image."""
    return (*ONE_PICTURE, "pyramid", *(("classical", TRUTH) if source.degrades else ()))


def find_methods(
    source: Source, names: Sequence[str], results: Sequence[str] = (), device: str | None = None
) -> tuple[Method, ...]:
    """The methods of these names (see ``NAMES``; another is a model's folder or hub id) and of ``NAME=DIR`` of results.

    Raises UserError for one that cannot be had, or two of one name.
    """
    methods: list[Method] = []
    for name in names:
        methods.append(_named(source, name) if name in NAMES else model_methods((name,), device, None, {})[0])
    return check_names([*methods, *result_methods(results, ())])


def _named(source: Source, name: str) -> Method:
    if name == TRUTH and source.real:
        raise UserError(f"--method {name}: real pairs have no ground truth")
    if name == "classical" and not source.degrades:
        raise UserError(f"--method {name}: undoes what a recipe did: goes with --recipe")
    if name in LEARNED:
        return next(method for method in fuser_methods((name,)) if method.name.endswith("on degraded"))
    if name in ONE_PICTURE or name == TRUTH:
        return Method(name, Stored(name), upper_bound=name == TRUTH and source.degrades)
    return _renamed({"pyramid": METHODS["pyramid on degraded"].fuse, "classical": CLASSICAL.fuse}[name], name)


def _renamed(fuse: Callable[[Sample], np.ndarray | None], name: str) -> Method:
    return Method(name, fuse)

"""What is compared: fusers on the degraded, the restored and the clean pair, and fitted models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from clearfuse.synth.files.checkpoints import digest
from clearfuse.synth.fusers import DeFuseFuser, PyramidFuser, SwinFusionFuser
from clearfuse.synth.fusers.weights import WEIGHTS, find_weights, how_to_get
from clearfuse.synth.shards.sample import Sample
from clearfuse.synth.types import UserError, unknown
from clearfuse.train.evaluation.methods.classical import ClassicalThenFused
from clearfuse.train.evaluation.scoring import Method


def pyramid_on_degraded(sample: Sample) -> np.ndarray:
    """The weight-free fuser on what a method is given."""
    return PyramidFuser()(sample.images["a"], sample.images["b"], sample.meta.task)


def pyramid_on_clean(sample: Sample) -> np.ndarray:
    """The weight-free fuser on the clean crops: what perfect restoration before it would reach."""
    return PyramidFuser()(sample.images["clean_a"], sample.images["clean_b"], sample.meta.task)


METHODS: dict[str, Method] = {
    "pyramid on degraded": Method("pyramid on degraded", pyramid_on_degraded),
    "pyramid on clean": Method("pyramid on clean", pyramid_on_clean, ceiling=True),
}
"""What every report has."""

CLASSICAL = Method("classical + pyramid", ClassicalThenFused(PyramidFuser()))


@dataclass(frozen=True)
class SwinFused:
    """SwinFusion on the degraded or the restored pair, of the tasks that there are weights of."""

    tasks: tuple[str, ...]
    restore: bool = False

    def __call__(self, sample: Sample) -> np.ndarray | None:
        """The fused image, None for another task."""
        if sample.meta.task not in self.tasks:
            return None
        return _fused(SwinFusionFuser(), self.restore, sample)


@dataclass(frozen=True)
class DeFused:
    """DeFuse on the degraded or the restored pair."""

    restore: bool = False

    def __call__(self, sample: Sample) -> np.ndarray:
        """The fused image."""
        return _fused(DeFuseFuser(), self.restore, sample)


def _fused(fuser: SwinFusionFuser | DeFuseFuser, restore: bool, sample: Sample) -> np.ndarray:
    if restore:
        return ClassicalThenFused(fuser)(sample)
    return fuser(sample.images["a"], sample.images["b"], sample.meta.task)


LEARNED = ("swinfusion", "defuse")
"""Fusers that need weights."""


def fuser_methods(names: Sequence[str] | None) -> tuple[Method, ...]:
    """The learned fusers, on the degraded pair and after classical restoration: those named, None for all that have
    weights on disk; ``none`` is no fuser. Raises UserError for one that is not known, or is named and has no weights.
    """
    wanted = [name for name in names if name != "none"] if names else list(LEARNED)
    for name in wanted:
        if name not in LEARNED:
            raise unknown("learned fuser", name, (*LEARNED, "none"))
    found = {task: path for task in ("vif", "mef", "mff") if (path := find_weights(f"swinfusion-{task}"))}
    made: list[Method] = []
    if found and "swinfusion" in wanted:
        of = " ".join(map(digest, found.values()))
        made += [
            Method("swinfusion on degraded", SwinFused(tuple(found)), identity=of),
            Method("classical + swinfusion", SwinFused(tuple(found), restore=True), identity=of),
        ]
    if "defuse" in wanted and (path := find_weights("defuse")):
        made += [
            Method("defuse on degraded", DeFused(), identity=digest(path)),
            Method("classical + defuse", DeFused(restore=True), identity=digest(path)),
        ]
    for name in names or ():
        if name != "none" and not any(method.name.startswith(name) for method in made):
            weights = next(key for key in WEIGHTS if key.startswith(name))
            raise UserError(f"--fuser {name}: has no weights here: {how_to_get(weights)}")
    return tuple(made)


def absent_fusers() -> dict[str, str]:
    """The learned fusers that have no weights on disk: why they do not run, and what to do."""
    lacking = [name for name in WEIGHTS if find_weights(name) is None]
    each = {fuser: [name for name in lacking if name.startswith(fuser)] for fuser in LEARNED}
    return {
        fuser: f"has no weights here ({', '.join(names)}): see synth weights list"
        for fuser, names in each.items()
        if names
    }


@dataclass(frozen=True)
class Modelled:
    """A fitted model on what it is given: the degraded pair and the sample's prompt. It loads at its first image."""

    model: str
    device: str | None
    loading: tuple[tuple[str, Any], ...]
    sampling: tuple[tuple[str, Any], ...]

    def __call__(self, sample: Sample) -> np.ndarray:
        """The fused image."""
        images, pipeline = sample.images, loaded(self.model, self.device, self.loading)
        task = sample.meta.task
        return pipeline(images["a"], images["b"], task=task, prompt=sample.prompt, **dict(self.sampling))


@lru_cache(maxsize=8)
def loaded(model: str, device: str | None, loading: tuple[tuple[str, Any], ...]) -> Any:
    """The pipeline, kept for the next image of this process. Raises UserError where it can't be loaded."""
    from clearfuse.train.pipeline.files import load_pipeline

    return load_pipeline(model, device, **dict(loading))


def model_methods(
    models: Sequence[str] | None, device: str | None, loading: Mapping[str, Any] | None, sampling: Mapping[str, Any]
) -> tuple[Method, ...]:
    """The models as methods; ``none`` is no model, None the only run's. Raises UserError where one can't be loaded."""
    names = [name for name in models if name != "none"] if models else [_only()]
    if len({short(name) for name in names}) < len(names):
        raise UserError("--model: two models of one name")
    made: list[Method] = []
    for name in names:
        fuse = Modelled(name, device, tuple(sorted((loading or {}).items())), tuple(sorted(sampling.items())))
        loaded(fuse.model, fuse.device, fuse.loading)
        made.append(Method(short(name), fuse, identity=f"{weights_of(name)} {fuse.sampling} {dict(fuse.loading)}"))
    return tuple(made)


def weights_of(name: str) -> str:
    """Which model it is: the hash of its weights in a folder, the name of one on the hub; and what runs it."""
    import torch

    from clearfuse.train.pipeline.fusion import DESIGN, WEIGHTS

    files = [Path(name) / file for file in (DESIGN, WEIGHTS)]
    found = " ".join(digest(file) for file in files if file.is_file()) or name
    return f"{found} torch {torch.__version__}"


def on_gpu(methods: Sequence[Method]) -> bool:
    """Whether some method's network runs on a GPU."""
    devices = [method.fuse.device for method in methods if isinstance(method.fuse, Modelled)]
    learned = any(isinstance(method.fuse, (SwinFused, DeFused)) for method in methods)
    if not devices and not learned:
        return False
    from clearfuse.train.device import find_device

    return any(find_device(device).type == "cuda" for device in (*devices, *([None] if learned else [])))


def _only() -> str:
    from clearfuse.train.runs.folder import the_only_run

    return str(the_only_run())


def short(name: str) -> str:
    """A model's name in a report: its folder's, or its place on the hub."""
    return Path(name).resolve().name if Path(name).exists() else name

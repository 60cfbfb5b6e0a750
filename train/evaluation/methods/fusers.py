"""Fusers on the degraded, the restored and the clean pair, and fitted models, as methods of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from clearfuse.synth.console import plural
from clearfuse.synth.files.checkpoints import digest
from clearfuse.synth.fusers import DeFuseFuser, PyramidFuser, SwinFusionFuser
from clearfuse.synth.fusers.weights import WEIGHTS, find_weights, how_to_get
from clearfuse.synth.shards.receipts import split_of
from clearfuse.synth.shards.sample import Sample
from clearfuse.synth.types import UserError, unknown
from clearfuse.train.data.find import content_differs, shard_content
from clearfuse.train.evaluation.methods.classical import ClassicalThenFused
from clearfuse.train.evaluation.samples import Portion
from clearfuse.train.evaluation.scoring import Method


def pyramid_on_degraded(sample: Sample) -> np.ndarray:
    """The pyramid fuser on the degraded pair."""
    return PyramidFuser()(sample.images["a"], sample.images["b"], sample.meta.task)


def pyramid_on_clean(sample: Sample) -> np.ndarray:
    """The pyramid fuser on the clean pair: the result of perfect restoration before it."""
    return PyramidFuser()(sample.images["clean_a"], sample.images["clean_b"], sample.meta.task)


METHODS: dict[str, Method] = {
    "pyramid on degraded": Method("pyramid on degraded", pyramid_on_degraded),
    "pyramid on clean": Method("pyramid on clean", pyramid_on_clean, upper_bound=True),
}
"""The methods in every report."""

CLASSICAL = Method("classical + pyramid", ClassicalThenFused(PyramidFuser()))


@dataclass(frozen=True)
class SwinFusionMethod:
    """A method: SwinFusion on the degraded or the restored pair, for the tasks that have weights."""

    tasks: tuple[str, ...]
    restore: bool = False

    def __call__(self, sample: Sample) -> np.ndarray | None:
        """The fused image, or None for a task without weights."""
        if sample.meta.task not in self.tasks:
            return None
        return _fuse(SwinFusionFuser(), self.restore, sample)


@dataclass(frozen=True)
class DeFuseMethod:
    """A method: DeFuse on the degraded or the restored pair."""

    restore: bool = False

    def __call__(self, sample: Sample) -> np.ndarray:
        """The fused image."""
        return _fuse(DeFuseFuser(), self.restore, sample)


def _fuse(fuser: SwinFusionFuser | DeFuseFuser, restore: bool, sample: Sample) -> np.ndarray:
    if restore:
        return ClassicalThenFused(fuser)(sample)
    return fuser(sample.images["a"], sample.images["b"], sample.meta.task)


LEARNED = ("swinfusion", "defuse")
"""Fusers that need weights."""


def fuser_methods(names: Sequence[str] | None) -> tuple[Method, ...]:
    """The learned fusers on the degraded pair and after classical restoration. names: None: all with weights on disk;
    ``none``: no fuser. Raises UserError for an unknown fuser, and for a named one without weights.
    """
    wanted = [name for name in names if name != "none"] if names else list(LEARNED)
    for name in wanted:
        if name not in LEARNED:
            raise unknown("learned fuser", name, (*LEARNED, "none"))
    weights = {task: path for task in ("vif", "mef", "mff") if (path := find_weights(f"swinfusion-{task}"))}
    methods: list[Method] = []
    if weights and "swinfusion" in wanted:
        identity = " ".join(map(digest, weights.values()))
        methods += [
            Method("swinfusion on degraded", SwinFusionMethod(tuple(weights)), identity=identity),
            Method("classical + swinfusion", SwinFusionMethod(tuple(weights), restore=True), identity=identity),
        ]
    if "defuse" in wanted and (path := find_weights("defuse")):
        methods += [
            Method("defuse on degraded", DeFuseMethod(), identity=digest(path)),
            Method("classical + defuse", DeFuseMethod(restore=True), identity=digest(path)),
        ]
    for name in names or ():
        if name != "none" and not any(method.name.startswith(name) for method in methods):
            missing = next(key for key in WEIGHTS if key.startswith(name))
            raise UserError(f"--fuser {name}: has no weights here: {how_to_get(missing)}")
    return tuple(methods)


def absent_fusers() -> dict[str, str]:
    """The learned fusers without weights on disk: why they do not run, and what to do."""
    missing = [name for name in WEIGHTS if find_weights(name) is None]
    by_fuser = {fuser: [name for name in missing if name.startswith(fuser)] for fuser in LEARNED}
    return {
        fuser: f"has no weights here ({', '.join(names)}): see synth weights list"
        for fuser, names in by_fuser.items()
        if names
    }


@dataclass(frozen=True)
class ModelMethod:
    """A method: a fitted model on the degraded pair and, if ``prompted``, the prompt, else the task's plain request.

    A pair that comes without a prompt is asked what ``train fuse`` asks it: what was found wrong with it.
    prior: False puts zeros in place of its semantic prior. The model is loaded at the first image.
    """

    model: str
    device: str | None
    loading: tuple[tuple[str, Any], ...]
    sampling: tuple[tuple[str, Any], ...]
    prompted: bool = True
    prior: bool = True

    def __call__(self, sample: Sample) -> np.ndarray:
        """The fused image."""
        images, pipeline = sample.images, load_cached(self.model, self.device, self.loading)
        task, prompt = sample.meta.task, sample.prompt if self.prompted else ""
        if self.prompted and not prompt:
            prompt = pipeline.request(images["a"], images["b"], task=task).prompt
        more = {} if self.prior else {"prior": False}
        return pipeline(images["a"], images["b"], task=task, prompt=prompt, **dict(self.sampling), **more)

    def notes(self) -> Mapping[str, tuple[float, ...]]:
        """What its network noted of the latest sample."""
        return load_cached(self.model, self.device, self.loading).notes

    def preferences(self) -> Mapping[str, Mapping[str, float]]:
        """What its network's weights say of its notes."""
        from clearfuse.train.models import find_model

        assembly = load_cached(self.model, self.device, self.loading).assembly
        found = find_model(assembly.design.model).preferences
        return {} if found is None else found(assembly.network)


@lru_cache(maxsize=8)
def load_cached(model: str, device: str | None, loading: tuple[tuple[str, Any], ...]) -> Any:
    """Load a pipeline, cached in this process. Raises UserError if it can't be loaded."""
    from clearfuse.train.pipeline.files import load_pipeline

    return load_pipeline(model, device, **dict(loading))


def model_methods(
    models: Sequence[str] | None,
    device: str | None,
    loading: Mapping[str, Any] | None,
    sampling: Mapping[str, Any],
    unprompted: bool = False,
    without_prior: bool = False,
) -> tuple[Method, ...]:
    """The models as methods. models: None: the default one; ``none``: none. unprompted: each without prompts too;
    without_prior: each with zeros for its semantic prior too.

    Raises UserError if loading fails, or a model has no semantic prior to leave out.
    """
    names = [name for name in models if name != "none"] if models else [_default()]
    if len({short_name(name) for name in names}) < len(names):
        raise UserError("--model: two models of one name")
    methods: list[Method] = []
    for name in names:
        fuse = ModelMethod(name, device, tuple(sorted((loading or {}).items())), tuple(sorted(sampling.items())))
        pipeline = load_cached(fuse.model, fuse.device, fuse.loading)
        if without_prior and pipeline.assembly.semantics is None:
            raise UserError(f"--without-prior: '{short_name(name)}' has no semantic prior")
        identity = f"{weights_of(name)} {fuse.sampling} {dict(fuse.loading)}"
        more: dict[str, Any] = {"identity": identity, "notes": fuse.notes, "preferences": fuse.preferences}
        methods.append(Method(short_name(name), fuse, **more))
        if unprompted:
            plain = replace(fuse, prompted=False)
            methods.append(Method(f"{short_name(name)}, no prompt", plain, **more))
        if without_prior:
            methods.append(Method(f"{short_name(name)}, no prior", replace(fuse, prior=False), identity=identity))
    return tuple(methods)


def trained_on(methods: Sequence[Method], portions: Sequence[Portion]) -> dict[str, str]:
    """The models that were trained on some of these shards, by the record in their folders: how many, in words."""
    said: dict[str, str] = {}
    for method in methods:
        rows = _shards_of(method.fuse.model) if isinstance(method.fuse, ModelMethod) else []
        named = {(name, size): content for _, name, size, *content in rows if split_of(name) != "val"}
        count = 0
        for path in (portion.path for portion in portions if portion.path.is_file()):
            content = named.get((path.name, path.stat().st_size))
            count += content is not None and not content_differs(content, shard_content(path))
        if count:
            these = f"{count} of {'this' if len(portions) == 1 else 'these'} {plural(len(portions), 'shard')}"
            said[method.name] = f"was trained on {these}: its scores there are not of new images"
    return said


def _shards_of(model: str) -> Sequence[Sequence[Any]]:
    """The shards of a model's run, none where its folder has no record of it."""
    from clearfuse.train.pipeline.shipped import folder_of
    from clearfuse.train.runs.record import read_record

    with suppress(OSError, UserError):
        return read_record(folder_of(model)).shards
    return ()


def weights_of(name: str) -> str:
    """The identity of a model: the hash of its weights, or its name on the hub; and torch's version."""
    import torch

    from clearfuse.train.designs.folder import DESIGN, WEIGHTS
    from clearfuse.train.pipeline.shipped import folder_of

    files = [folder_of(name) / file for file in (DESIGN, WEIGHTS)]
    identity = " ".join(digest(file) for file in files if file.is_file()) or name
    return f"{identity} torch {torch.__version__}"


def on_gpu(methods: Sequence[Method]) -> bool:
    """Whether the network of any method runs on a GPU."""
    devices = [method.fuse.device for method in methods if isinstance(method.fuse, ModelMethod)]
    learned = any(isinstance(method.fuse, (SwinFusionMethod, DeFuseMethod)) for method in methods)
    if not devices and not learned:
        return False
    from clearfuse.train.device import find_device

    return any(find_device(device).type == "cuda" for device in (*devices, *([None] if learned else [])))


def _default() -> str:
    from clearfuse.train.pipeline.shipped import default_model

    return default_model()


def short_name(name: str) -> str:
    """A model's name in a report: that of its folder, or its hub id."""
    return Path(name).resolve().name if Path(name).exists() else name

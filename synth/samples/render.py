"""Rendering of a sample from a prepared pair: crop, draw of the steps, degradation, prompt, metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from clearfuse.synth.depth import metres as depth_maps
from clearfuse.synth.depth.base import DepthSource
from clearfuse.synth.fusers import FUSERS
from clearfuse.synth.fusers.choice import fuser_weights
from clearfuse.synth.operators import operator_class
from clearfuse.synth.prompts.compose import compose
from clearfuse.synth.samples.chain import apply_steps
from clearfuse.synth.samples.draw import CleanFrames, Crop, draw_crop, draw_steps
from clearfuse.synth.samples.instruct import make_instructed
from clearfuse.synth.samples.mixture import Mixture
from clearfuse.synth.samples.prepare import Prepared, Spec
from clearfuse.synth.samples.recipe import Recipe
from clearfuse.synth.samples.structure import keeps_structure
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.shards.records import Origin, PromptRecord, SampleMeta
from clearfuse.synth.shards.sample import Sample
from clearfuse.synth.types import NO_TRUTH, SCHEMA, BadPair, Prompt, Step, Target, Task

VAGUE = 0.1
"""Probability, by step, that a reproduction's prompt does not say what is wrong: that of the authors' pipeline."""

FALLBACK = "pyramid"
"""The fuser under --partial where the ground truth is a data set's own, which has none with the remaining steps."""
ATTEMPTS = 16
"""Plans that are drawn for a sample before its pair is rejected."""


def render(spec: Spec, prepared: Prepared, variant: int, key: str) -> Sample:
    """The sample of a variant of a pair; with ``spec.lean`` only its clean crop.

    Raises BadPair where no crop fits, the crop exceeds the codec's limit, or the ground truth is worse than ``min_gt``.
    """
    ref = prepared.ref
    seed = Seeds(spec.seed, ref.task, ref.dataset, ref.key, variant)
    height, width = prepared.pair.a.shape[:2]
    crop = draw_crop(spec.recipe, width, height, generator(seed("crop")))
    if max(crop.width, crop.height) > spec.largest:
        raise BadPair(f"{width}x{height}: the codec stores at most {spec.largest} pixels a side")
    if ref.real:
        return _render_real(spec, prepared, variant, key, crop, seed)
    if isinstance(spec.recipe, Mixture):
        return _render_instructed(spec, spec.recipe, prepared, variant, key, crop, seed)
    quality = prepared.quality(spec)
    qabf = quality["Qabf"]
    if spec.min_gt > 0 and (qabf is None or qabf < spec.min_gt):
        raise BadPair(f"ground truth of Qabf {'undefined' if qabf is None else qabf}, under --min-gt {spec.min_gt:g}")
    extra: dict[str, Any] = {"gt_quality": quality}
    if prepared.single is not None:
        extra["single"] = prepared.single
    whole = {"clean_a": prepared.pair.a, "clean_b": prepared.pair.b, "gt": prepared.truth}
    clean = {name: crop.of(image) for name, image in whole.items()}
    fuser, source = spec.fusers[ref.dataset], spec.depths[ref.dataset]
    task, recipe = ref.task, spec.recipe

    def stored_depth() -> np.ndarray:
        return crop.of(prepared.depth(spec))

    if spec.lean:  # always with depth, which any recipe may use
        meta = _meta(spec, prepared, variant, crop, NO_STEPS, fuser, source, clean, lean=True, **extra)
        return Sample(key, clean, stored_depth(), "", meta)
    if ref.predegraded:
        provided = {name: crop.of(image) for name, image in prepared.pair.degraded.items()}
        known = prepared.pair.degradation or ref.degradation
        degraded = use_provided(
            *(task, seed, clean, provided, known, fuser, spec.prompts, spec.language),
            instruction=prepared.pair.instruction,
        )
        extra |= {"given": True}
    else:
        degraded = degrade_clean(
            recipe, seed, clean, stored_depth, fuser, partial=spec.partial, prompts=spec.prompts,
            language=spec.language,
        )  # fmt: skip
    depth = None if degraded.depth is None else source
    meta = _meta(spec, prepared, variant, crop, degraded.record(), degraded.fuser, depth, degraded.images, **extra)
    return Sample(key, degraded.images, degraded.depth, degraded.prompt.text, meta)


def _render_real(spec: Spec, prepared: Prepared, variant: int, key: str, crop: Crop, seed: Seeds) -> Sample:
    """The sample of a pair without clean images: its two images, their known degradation, and the prompt."""
    provided = {"a": crop.of(prepared.pair.a), "b": crop.of(prepared.pair.b)}
    degraded = use_provided(
        *(prepared.ref.task, seed, {}, provided, prepared.ref.degradation, NO_TRUTH, spec.prompts, spec.language),
        instruction=prepared.pair.instruction,
    )
    meta = _meta(spec, prepared, variant, crop, degraded.record(), degraded.fuser, None, degraded.images, real=True)
    return Sample(key, degraded.images, None, degraded.prompt.text, meta)


def _render_instructed(
    spec: Spec, mixture: Mixture, prepared: Prepared, variant: int, key: str, crop: Crop, seed: Seeds
) -> Sample:
    """A sample of a category: nothing degrades it as a whole, so it has no steps and no depth."""
    fuser = spec.fusers[prepared.ref.dataset]
    made = make_instructed(mixture, prepared, crop, fuser, seed, prompts=spec.prompts, language=spec.language)
    said = PromptRecord(templates=made.prompt.templates, strength=None, asked=())
    extra: dict[str, Any] = {**made.record, "task": made.task}
    if made.from_pair:
        extra["gt_quality"] = prepared.quality(spec)
    record = {**NO_STEPS, "prompt": said}
    meta = _meta(spec, prepared, variant, crop, record, made.fuser, None, made.images, **extra)
    return Sample(key, made.images, None, made.prompt.text, meta)


@dataclass(frozen=True)
class Seeds:
    """The seeds of one sample, by role and step."""

    seed: int
    task: Task
    dataset: str
    pair: str
    variant: int
    attempt: int = 0
    """Which draw of the plan it is: 0 the first, others after plans that lost the structure."""

    def __call__(self, role: str, step: int = 0) -> int:
        again = (self.attempt,) if self.attempt else ()
        return seed_of(self.seed, self.task, self.dataset, self.pair, self.variant, role, step, *again)


NO_STEPS: Mapping[str, Any] = {"n": 0, "steps": (), "prompt": PromptRecord(templates=(), strength=None, asked=())}
"""The fields on degradation in the ``json`` of a lean sample."""


@dataclass(frozen=True)
class Degraded:
    """A degraded crop: all images of the sample, its depth as stored, and what its ``json`` records.

    fuser: the one that made the ground truth.
    """

    images: Mapping[str, np.ndarray]
    depth: np.ndarray | None
    steps: tuple[Step, ...]
    prompt: Prompt
    fuser: str
    left: float = 0.0
    """Share of the strength of the steps that the prompt asks to remove, which the ground truth keeps."""
    redrawn: int = 0
    """How many plans were drawn before this one, whose structure was lost."""

    def record(self) -> dict[str, Any]:
        """The fields ``n``, ``steps``, ``prompt``, ``left`` and ``redrawn`` of the ``json``."""
        said = self.prompt
        prompt = PromptRecord(templates=said.templates, strength=said.strength, asked=said.asked)
        return {"n": len(self.steps), "steps": self.steps, "prompt": prompt, "left": self.left, "redrawn": self.redrawn}


def degrade_clean(
    recipe: Recipe,
    seed: Seeds,
    clean: Mapping[str, np.ndarray],
    depth: Callable[[], np.ndarray],
    fuser: str,
    *,
    partial: float = 0.0,
    dial: float = 0.0,
    prompts: Path | None = None,
    language: str = "en",
) -> Degraded:
    """Draw the steps for a clean crop and apply them, in a build as well as on the fly.

    clean: ``clean_a``, ``clean_b``, ``gt``, uint8 ``(h, w, c)``. depth: returns the crop's depth, uint16 as stored;
    called once, and only where a step needs it. fuser: the one that made ``gt``. partial, prompts, language: as for a
    build. dial: share of samples whose ground truth keeps a share of the strength of what the prompt asks to remove,
    drawn uniformly. A plan that loses the structure of both images, or turns one white, is drawn again from the next
    seed, with as many steps. Raises BadPair where the recipe has no plan for the pair.
    """
    pair, gt = (clean["clean_a"], clean["clean_b"]), clean["gt"]
    depth = cache(depth)
    measured = cache(lambda: depth_maps.dequantise(depth()))
    frames = CleanFrames(recipe.task, *pair, measured) if recipe.protect else None
    n: int | None = None
    for attempt in range(ATTEMPTS):
        plan = replace(seed, attempt=attempt)
        steps = draw_steps(
            recipe, generator(plan("plan")), lambda i, plan=plan: plan("step", i), seed.variant, pair=frames, n=n
        )
        stored = depth() if any(operator_class(step.op).takes_depth() for step in steps) else None
        metres = None if stored is None else measured()
        a, b = degrade_pair(recipe.task, *pair, steps, metres)
        if not recipe.protect or keeps_structure(pair, (a, b)):
            break
        n = len(steps)
    else:
        raise BadPair(f"none of {ATTEMPTS} plans of recipe '{recipe.name}' keeps its structure")
    asked = draw_asked(len(steps), partial, generator(seed_of(seed("prompt"), "partial")))
    prompt = compose(
        recipe.task,
        steps,
        generator(seed("prompt")),
        asked,
        dataset=seed.dataset,
        folder=prompts,
        language=language,
        vague=VAGUE if recipe.reproduction else 0.0,
    )
    left = draw_left(dial, [steps[i] for i in asked], generator(seed_of(seed("prompt"), "dial")))
    if len(asked) < len(steps) or left:
        kept = [weakened(step, left) if i in asked else step for i, step in enumerate(steps) if left or i not in asked]
        fuser = FALLBACK if fuser == "dataset" else fuser
        gt = FUSERS[fuser]()(*degrade_pair(recipe.task, *pair, kept, metres), recipe.task)
    return Degraded({"a": a, "b": b, **clean, "gt": gt}, stored, tuple(steps), prompt, fuser, left, attempt)


def use_provided(
    task: Task,
    seed: Seeds,
    clean: Mapping[str, np.ndarray],
    degraded: Mapping[str, np.ndarray],
    known: Sequence[tuple[str, Target]],
    fuser: str,
    prompts: Path | None = None,
    language: str = "en",
    instruction: str = "",
) -> Degraded:
    """The crop of a pair whose degraded images the data set provides: no operator is drawn.

    clean: as for ``degrade_clean``; empty for a real pair, for which ``degraded`` has a and b. degraded: a, b or both,
    uint8 ``(h, w, c)``; where one is absent, the clean image is used.
    known: (operator, target) of the known degradation, recorded as steps without parameters and seed. The prompt asks
    to remove all of it, or only for the fusion where nothing is known. instruction: the prompt that came with the pair.
    """
    steps = tuple(Step(op, target, {}, None) for op, target in known)
    asked = tuple(range(len(steps)))
    prompt = Prompt(instruction, (), None, asked)
    if not instruction:
        rng = generator(seed("prompt"))
        prompt = compose(task, steps, rng, dataset=seed.dataset, folder=prompts, language=language)
    pair = {name: degraded[name] if name in degraded else clean[f"clean_{name}"] for name in ("a", "b")}
    return Degraded({**pair, **clean}, None, steps, prompt, fuser)


def degrade_pair(
    task: Task, a: np.ndarray, b: np.ndarray, steps: Sequence[Step], metres: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Both images of a pair after the steps, uint8. metres: (h, w) depth along the ray, or None."""
    return (
        apply_steps(a, steps, task=task, name="a", depth=metres, beside=b),
        apply_steps(b, steps, task=task, name="b", depth=metres, beside=a),
    )


def draw_asked(n: int, partial: float, rng: np.random.Generator) -> tuple[int, ...]:
    """Indices of the steps that the prompt asks to remove: all, or with probability ``partial`` a proper subset."""
    if rng.random() >= partial:
        return tuple(range(n))
    size = int(rng.integers(1, n)) if n > 1 else 0
    return tuple(sorted(int(i) for i in rng.choice(n, size, replace=False)))


def draw_left(dial: float, asked: Sequence[Step], rng: np.random.Generator) -> float:
    """The share of its steps' strength that a ground truth keeps: 0, or with probability ``dial`` any in [0, 1).

    0 where an operator says no identity, so that nobody knows what less of it is.
    """
    drawn, share = rng.random(2).tolist()
    known = asked and all(operator_class(step.op).identity() is not None for step in asked)
    return share if known and drawn < dial else 0.0


def weakened(step: Step, share: float) -> Step:
    """A step with ``share``, in [0, 1], of its strength, and the same random numbers: see ``Range.weakened``."""
    return replace(step, params=operator_class(step.op).weakened(step.params, share))


def channels(images: Mapping[str, np.ndarray]) -> dict[str, int]:
    """The ``channels`` field of the ``json``: those of a, b and gt, as far as present, with clean images in place of
    missing degraded ones.
    """
    source = {name: name if name in images else f"clean_{name}" for name in ("a", "b", "gt")}
    return {name: images[image].shape[2] for name, image in source.items() if image in images}


def _meta(
    spec: Spec,
    prepared: Prepared,
    variant: int,
    crop: Crop,
    record: Mapping[str, Any],
    fuser: str,
    depth: DepthSource | None,
    images: Mapping[str, np.ndarray],
    **more: Any,
) -> SampleMeta:
    ref = prepared.ref
    if prepared.pair.sensor:
        more["sensor"] = dict(prepared.pair.sensor)
    task = more.pop("task", ref.task)
    return SampleMeta(
        schema=SCHEMA,
        task=task,
        dataset=ref.dataset,
        pair=ref.key,
        variant=variant,
        split=ref.split,
        sources=dict(prepared.pair.sha256),
        crop=(crop.x, crop.y, crop.width, crop.height),
        ratio=crop.ratio,
        channels=channels(images),
        **record,
        fuser=Origin(name=fuser, weights=fuser_weights(fuser, task)),
        depth=None if depth is None else Origin(name=depth.name, weights=depth.weights),
        seed=spec.seed,
        recipe=spec.recipe.name,
        **more,
    )

"""*Render*: from a prepared pair to a sample: crop, plan, degrade, describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clearfuse.synth.depth import metres as depth_maps
from clearfuse.synth.depth.source import DepthSource
from clearfuse.synth.fusers import FUSERS
from clearfuse.synth.fusers.choice import fuser_weights
from clearfuse.synth.operators import operator_class
from clearfuse.synth.prompts.compose import compose
from clearfuse.synth.samples.chain import apply_steps
from clearfuse.synth.samples.draw import Crop, draw_crop, draw_steps
from clearfuse.synth.samples.prepare import Prepared, Spec
from clearfuse.synth.samples.recipe import Recipe
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.shards.sample import Sample
from clearfuse.synth.types import NO_TRUTH, SCHEMA, BadPair, Prompt, Step, Target, Task

FALLBACK = "pyramid"
"""Fuses where a data set's own ground truth can't serve: under --partial, where some steps stay."""


def render(spec: Spec, prepared: Prepared, variant: int, key: str) -> Sample:
    """Crop, degrade, describe; with ``spec.lean`` the crop alone. Raises BadPair where no crop fits."""
    ref = prepared.ref
    seed = Seeds(spec.seed, ref.dataset, ref.key, variant)
    height, width = prepared.pair.a.shape[:2]
    crop = draw_crop(spec.recipe, width, height, generator(seed("crop")))
    if max(crop.width, crop.height) > spec.largest:
        raise BadPair(f"{width}x{height}: the codec stores at most {spec.largest} pixels a side")
    if ref.real:
        return _render_real(spec, prepared, variant, key, crop, seed)
    quality = prepared.quality(spec)
    found = quality["Qabf"]
    if spec.min_gt > 0 and (found is None or found < spec.min_gt):
        raise BadPair(f"ground truth of Qabf {'undefined' if found is None else found}, under --min-gt {spec.min_gt:g}")
    rated = {"gt_quality": quality}
    whole = {"clean_a": prepared.pair.a, "clean_b": prepared.pair.b, "gt": prepared.truth}
    clean = {name: crop.of(image) for name, image in whole.items()}
    fuser, source = spec.fusers[ref.dataset], spec.depths[ref.dataset]

    def stored() -> np.ndarray:
        return crop.of(prepared.depth(spec))

    if spec.lean:  # depth of every pair: any recipe may read it
        meta = _meta(spec, prepared, variant, crop, NOTHING, fuser, source, clean) | {"lean": True, **rated}
        return Sample(key, clean, stored(), "", meta)
    if ref.given:
        degraded = {name: crop.of(image) for name, image in prepared.pair.degraded.items()}
        made = take_given(spec.task, seed, clean, degraded, ref.degradation, fuser, spec.prompts)
        rated |= {"given": True}
    else:
        made = degrade_clean(spec.recipe, seed, clean, stored, fuser, partial=spec.partial, prompts=spec.prompts)
    depth = None if made.depth is None else source
    meta = _meta(spec, prepared, variant, crop, made.record(), made.fuser, depth, made.images) | rated
    return Sample(key, made.images, made.depth, made.prompt.text, meta)


def _render_real(spec: Spec, prepared: Prepared, variant: int, key: str, crop: Crop, seed: Seeds) -> Sample:
    """The crop of a pair that has no clean side: its two images, what is known of them, and the prompt."""
    degraded = {"a": crop.of(prepared.pair.a), "b": crop.of(prepared.pair.b)}
    made = take_given(spec.task, seed, {}, degraded, prepared.ref.degradation, NO_TRUTH, spec.prompts)
    meta = _meta(spec, prepared, variant, crop, made.record(), made.fuser, None, made.images) | {"real": True}
    return Sample(key, made.images, None, made.prompt.text, meta)


@dataclass(frozen=True)
class Seeds:
    """The seeds of one sample by role and step."""

    seed: int
    dataset: str
    pair: str
    variant: int

    def __call__(self, role: str, step: int = 0) -> int:
        return seed_of(self.seed, self.dataset, self.pair, self.variant, role, step)


NOTHING: Mapping[str, Any] = {"n": 0, "steps": [], "prompt": Prompt("", (), None, ()).to_json()}
"""What a lean sample's ``json`` says of degradations: it holds none."""


@dataclass(frozen=True)
class Degraded:
    """A clean crop after its plan: all images of a sample, and what its ``json`` says of how they came about."""

    images: Mapping[str, np.ndarray]
    depth: np.ndarray | None
    steps: tuple[Step, ...]
    prompt: Prompt
    fuser: str

    def record(self) -> dict[str, Any]:
        """``n``, ``steps`` and ``prompt`` as the ``json`` has them."""
        return {
            "n": len(self.steps),
            "steps": [step.to_json() for step in self.steps],
            "prompt": self.prompt.to_json(),
        }


def degrade_clean(
    recipe: Recipe,
    seed: Seeds,
    clean: Mapping[str, np.ndarray],
    depth: Callable[[], np.ndarray],
    fuser: str,
    *,
    partial: float = 0.0,
    prompts: Path | None = None,
) -> Degraded:
    """Draw a plan for a clean crop and carry it out: the one way to a degraded sample, in a build and on the fly.

    clean: ``clean_a``, ``clean_b``, ``gt``, uint8 ``(h, w, c)``. depth: gives the crop's, uint16 as stored; called only
    where a step needs it. fuser: what made ``gt``. partial, prompts: as for a build.
    """
    steps = draw_steps(recipe, generator(seed("plan")), lambda i: seed("step", i), seed.variant)
    stored = depth() if any(operator_class(step.op).takes_depth() for step in steps) else None
    metres = None if stored is None else depth_maps.dequantise(stored)
    asked = draw_asked(len(steps), partial, generator(seed_of(seed("prompt"), "partial")))
    prompt = compose(recipe.task, steps, generator(seed("prompt")), asked=asked, folder=prompts)
    pair, gt = (clean["clean_a"], clean["clean_b"]), clean["gt"]
    a, b = degrade_pair(recipe.task, *pair, steps, metres)
    if len(asked) < len(steps):
        kept = [step for i, step in enumerate(steps) if i not in asked]
        fuser = FALLBACK if fuser == "dataset" else fuser
        gt = FUSERS[fuser]()(*degrade_pair(recipe.task, *pair, kept, metres), recipe.task)
    return Degraded({"a": a, "b": b, **clean, "gt": gt}, stored, tuple(steps), prompt, fuser)


def take_given(
    task: Task,
    seed: Seeds,
    clean: Mapping[str, np.ndarray],
    degraded: Mapping[str, np.ndarray],
    named: Sequence[tuple[str, Target]],
    fuser: str,
    prompts: Path | None = None,
) -> Degraded:
    """The crop of a pair that comes degraded, as it is: no operator is drawn.

    clean: as for ``degrade_clean``; empty for a real pair, whose degraded has both. degraded: a, b or both, uint8
    ``(h, w, c)``; one that is absent is the clean one.
    named: (operator, target) of what is known; the steps have no parameters and no seed, since nobody says them. The
    prompt asks for all of it, or is the plain request where nothing is known.
    """
    steps = tuple(Step(op, target, {}, None) for op, target in named)
    prompt = compose(task, steps, generator(seed("prompt")), folder=prompts)
    pair = {name: degraded[name] if name in degraded else clean[f"clean_{name}"] for name in ("a", "b")}
    return Degraded({**pair, **clean}, None, steps, prompt, fuser)


def degrade_pair(
    task: Task, a: np.ndarray, b: np.ndarray, steps: Sequence[Step], metres: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Both images of a pair after the steps: what a build stores, and what replay makes again."""
    return (
        apply_steps(a, steps, task=task, name="a", depth=metres),
        apply_steps(b, steps, task=task, name="b", depth=metres),
    )


def draw_asked(n: int, partial: float, rng: np.random.Generator) -> tuple[int, ...]:
    """The steps that the prompt asks to remove: all, or for a share ``partial`` of samples a proper part."""
    if rng.random() >= partial:
        return tuple(range(n))
    size = int(rng.integers(1, n)) if n > 1 else 0
    return tuple(sorted(int(i) for i in rng.choice(n, size, replace=False)))


def channels(images: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Channels by image, as the ``json`` has them: a clean image has as many as its degraded one. Real: a and b."""
    held = {name: name if name in images else f"clean_{name}" for name in ("a", "b", "gt")}
    return {name: images[image].shape[2] for name, image in held.items() if image in images}


def _meta(
    spec: Spec,
    prepared: Prepared,
    variant: int,
    crop: Crop,
    record: Mapping[str, Any],
    fuser: str,
    depth: DepthSource | None,
    images: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    ref = prepared.ref
    return {
        "schema": SCHEMA,
        "task": spec.task,
        "dataset": ref.dataset,
        "pair": ref.key,
        "variant": variant,
        "split": ref.split,
        "sources": dict(prepared.pair.sha256),
        **({"sensor": dict(prepared.pair.sensor)} if prepared.pair.sensor else {}),
        "crop": [crop.x, crop.y, crop.width, crop.height],
        "ratio": crop.ratio,
        "channels": channels(images),
        **record,
        "fuser": {"name": fuser, "weights": fuser_weights(fuser, spec.task)},
        "depth": None if depth is None else {"name": depth.name, "weights": depth.weights},
        "seed": spec.seed,
        "recipe": spec.recipe.name,
    }

"""From a pair to a sample: *prepare* once a pair (decode, ground truth, depth), *render* once a sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from synth import depth as depth_maps
from synth.chain import apply_steps, operator_class
from synth.depth import DepthSource
from synth.fusers import FUSERS
from synth.pairs import CleanPair, read_pair
from synth.plan import Crop, draw_crop, draw_steps
from synth.prompts import compose
from synth.recipe import Recipe
from synth.seeds import generator, seed_of, unit_hash
from synth.shards import Sample
from synth.types import SCHEMA, BadPair, PairRef, Prompt, Step, Task

FAR = (50.0, 500.0)
"""Metres: where the far end of an estimated depth is put, log-uniform by pair."""

FALLBACK = "pyramid"
"""Fuses where a data set's own ground truth can't serve: under --partial, where some steps stay."""


@dataclass(frozen=True)
class Spec:
    """What decides a sample's pixels beside the pair itself."""

    task: Task
    seed: int
    recipe: Recipe
    fusers: Mapping[str, str]
    depths: Mapping[str, DepthSource]
    partial: float = 0.0
    largest: int = 16383
    prompts: Path | None = None


@dataclass(frozen=True)
class Prepared:
    """A clean pair with its ground truth; depth is estimated on first need, at native resolution."""

    ref: PairRef
    pair: CleanPair
    gt: np.ndarray

    def depth(self, spec: Spec) -> np.ndarray:
        """uint16 as stored: quantised before use, so that replay is exact."""
        name = (self.ref.dataset, self.ref.key)
        far = FAR[0] * (FAR[1] / FAR[0]) ** unit_hash(spec.seed, *name, "far")
        # The visible frame of VIF; of two exposures or two focus distances the fused one, which shows most.
        image = self.pair.a if spec.task == "vif" else self.gt
        metres = spec.depths[self.ref.dataset].estimate(self.ref.key, image, self.pair.depth, far)
        return depth_maps.quantise(metres)


def prepare(spec: Spec, ref: PairRef) -> Prepared:
    """Decode a pair and fuse its ground truth, whole. Raises BadPair with the reason."""
    pair = read_pair(ref)
    name = spec.fusers[ref.dataset]
    if name == "dataset":
        if pair.gt is None:
            raise BadPair("no ground truth beside it, and --fuser dataset asks for the data set's own")
        return Prepared(ref, pair, pair.gt)
    return Prepared(ref, pair, FUSERS[name]()(pair.a, pair.b, spec.task))


def render(spec: Spec, prepared: Prepared, variant: int, key: str) -> Sample:
    """Crop, degrade, describe. Raises BadPair where no crop fits."""
    ref = prepared.ref

    def seed(role: str, step: int = 0) -> int:
        return seed_of(spec.seed, ref.dataset, ref.key, variant, role, step)

    height, width = prepared.gt.shape[:2]
    crop = draw_crop(spec.recipe, width, height, generator(seed("crop")))
    if max(crop.width, crop.height) > spec.largest:
        raise BadPair(f"{width}x{height}: the codec stores at most {spec.largest} pixels a side")
    steps = draw_steps(spec.recipe, generator(seed("plan")), lambda i: seed("step", i))
    clean = {"clean_a": crop.of(prepared.pair.a), "clean_b": crop.of(prepared.pair.b)}
    stored = crop.of(prepared.depth(spec)) if any(operator_class(s.op).needs_depth for s in steps) else None
    metres = None if stored is None else depth_maps.dequantise(stored)
    asked = draw_asked(len(steps), spec.partial, generator(seed_of(seed("prompt"), "partial")))
    prompt = compose(spec.task, steps, generator(seed("prompt")), asked=asked, folder=spec.prompts)
    a, b = degrade_pair(spec.task, clean["clean_a"], clean["clean_b"], steps, metres)
    gt, fuser = crop.of(prepared.gt), spec.fusers[ref.dataset]
    if len(asked) < len(steps):
        kept = [step for i, step in enumerate(steps) if i not in asked]
        fuser = FALLBACK if fuser == "dataset" else fuser
        gt = FUSERS[fuser]()(*degrade_pair(spec.task, clean["clean_a"], clean["clean_b"], kept, metres), spec.task)
    images = {"a": a, "b": b, **clean, "gt": gt}
    depth = None if stored is None else spec.depths[ref.dataset]
    meta = _meta(spec, prepared, variant, crop, steps, prompt, fuser, depth, images)
    return Sample(key, images, stored, prompt.text, meta)


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


def _meta(
    spec: Spec,
    prepared: Prepared,
    variant: int,
    crop: Crop,
    steps: Sequence[Step],
    prompt: Prompt,
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
        "crop": [crop.x, crop.y, crop.width, crop.height],
        "ratio": crop.ratio,
        "channels": {name: images[name].shape[2] for name in ("a", "b", "gt")},
        "n": len(steps),
        "steps": [step.to_json() for step in steps],
        "prompt": prompt.to_json(),
        "fuser": {"name": fuser, "weights": None},
        "depth": None if depth is None else {"name": depth.name, "weights": depth.weights},
        "seed": spec.seed,
        "recipe": spec.recipe.name,
    }

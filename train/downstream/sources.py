"""What fused images are made of here: pairs with boxes or label maps, degraded or not, as samples of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from clearfuse.synth.builder.options import Options
from clearfuse.synth.builder.resolve import resolve
from clearfuse.synth.datasets.labels import Box, Labels
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.datasets.read import read_pair
from clearfuse.synth.fusers.choice import fuser_weights
from clearfuse.synth.samples.prepare import Prepared, Spec, prepare
from clearfuse.synth.samples.recipe import Recipe
from clearfuse.synth.samples.render import NO_STEPS, Degraded, Seeds, channels, degrade_clean, use_provided
from clearfuse.synth.scenes import OBJECTS
from clearfuse.synth.shards.records import Origin, SampleMeta
from clearfuse.synth.shards.sample import Sample
from clearfuse.synth.types import BOXES, LABELS, NO_TRUTH, SCHEMA, BadPair, PairRef, UserError

Kind = Literal["detection", "segmentation"]
SIDECAR: dict[Kind, str] = {"detection": BOXES, "segmentation": LABELS}
"""What a pair must have."""
BACKGROUND = "background"
"""The class of what is of no other, where a set scores it: ``Manifest.background``."""


@dataclass(frozen=True)
class Source:
    """Pairs that have what the kind needs. spec: how they are prepared. degrades: whether by the spec's recipe.

    classes: what there is to find, in the order of their numbers. record: what decides the pictures. skipped: pairs
    that have no boxes or label map. notes: lines for the user.
    """

    kind: Kind
    spec: Spec
    pairs: tuple[PairRef, ...]
    classes: tuple[str, ...]
    degrades: bool
    record: Mapping[str, Any]
    skipped: int
    notes: tuple[str, ...]

    @property
    def real(self) -> bool:
        """Whether they come degraded without a clean side, so that there is no ground truth."""
        return self.pairs[0].real


def find_source(kind: Kind, recipe: str | None = None, n: str | None = None, **options: Any) -> Source:
    """The pairs that the options of a build choose. recipe: what degrades them, with ``n`` degradations; None: nothing.

    Raises UserError where there are none with boxes, or with a label map.
    """
    if n is not None and recipe is None:
        raise UserError(f"--n {n}: goes with --recipe, such as --recipe vif: without it nothing is degraded")
    chosen = Options(recipe=recipe, n=n, codec="png", **options)
    found = resolve(chosen, labels=True)
    pairs = [ref for ref in found.pairs if not ref.sources or SIDECAR[kind] in ref.sources]
    name = found.pairs[0].dataset
    if not pairs:
        manifest = load_manifest(name)
        wanted = {"detection": manifest.boxes, "segmentation": manifest.labels}[kind]
        told = f"expected {' or '.join(wanted)}" if wanted else f"its manifest names no {SIDECAR[kind]}"
        raise UserError(f"--data {name}: no pair of split '{chosen.split}' has {SIDECAR[kind]}: {told}")
    skipped = len(found.pairs) - len(pairs)
    notes = [line for line in found.notes if line.startswith(("pairs:", "warning:", "given:"))]
    notes += [f"{skipped} of {len(found.pairs)} pairs have no {SIDECAR[kind]} and are left out"] if skipped else []
    degrades = recipe is not None and not pairs[0].predegraded
    if recipe is not None and not degrades:
        raise UserError(f"--recipe {recipe}: has no effect: the pairs of {name} come degraded")
    record = {"kind": kind, "degraded": degrades, **_of_pictures(found.settings, degrades)}
    return Source(kind, found.spec, tuple(pairs), _classes(kind, pairs), degrades, record, skipped, tuple(notes))


def _of_pictures(settings: Mapping[str, Any], degrades: bool) -> dict[str, Any]:
    """The settings of a build that decide whole pictures: without those of its shards, or of degradations."""
    shards = ("shard_size", "codec", "min_gt", "partial")
    left_out = shards if degrades else (*shards, "recipe", "prompts", "depth")
    return {name: value for name, value in settings.items() if name not in left_out}


def _classes(kind: Kind, pairs: Sequence[PairRef]) -> tuple[str, ...]:
    manifest = load_manifest(pairs[0].dataset)
    if kind == "detection":
        return OBJECTS if manifest.builtin else tuple(dict.fromkeys(manifest.box_classes.values()))
    for ref in pairs:
        try:
            labels = read_pair(ref).labels
        except BadPair:
            continue
        assert labels is not None
        named = dict.fromkeys(name for _, name in sorted(labels.names.items()))
        return ((BACKGROUND,) if manifest.background else ()) + tuple(named)
    raise UserError(f"--data {manifest.name}: none of its label maps can be read")


@dataclass(frozen=True)
class Example:
    """A pair ready to be fused, and what it shows: boxes, or the number of each pixel's class."""

    sample: Sample
    boxes: tuple[Box, ...]
    classes: np.ndarray | None


def read_example(source: Source, ref: PairRef) -> Example:
    """Decode a pair, degrade it where that is asked for, as a build does but for the crop, and read what it shows.

    Raises BadPair with the reason.
    """
    prepared = prepare(source.spec, ref)
    sample = _sample(source, prepared)
    if source.kind == "detection":
        return Example(sample, prepared.pair.boxes, None)
    assert prepared.pair.labels is not None
    return Example(sample, (), class_map(prepared.pair.labels, source.classes))


def class_map(labels: Labels, classes: Sequence[str]) -> np.ndarray:
    """The number of each pixel's class among ``classes``, uint8; 255 where it is of none and there is no background."""
    out = np.full(labels.ids.shape, 255, np.uint8)
    if BACKGROUND in classes:
        out[labels.ids == 0] = classes.index(BACKGROUND)
    for number, name in labels.names.items():
        out[labels.ids == number] = classes.index(name)
    return out


def _sample(source: Source, prepared: Prepared) -> Sample:
    spec, ref, pair = source.spec, prepared.ref, prepared.pair
    seeds = Seeds(spec.seed, ref.task, ref.dataset, ref.key, 0)
    fuser = spec.fusers[ref.dataset]
    clean = {} if ref.real else {"clean_a": pair.a, "clean_b": pair.b, "gt": prepared.truth}
    images, depth, prompt, record = {"a": pair.a, "b": pair.b} | clean, None, "", NO_STEPS
    made: Degraded | None = None
    if ref.predegraded:
        given = {"a": pair.a, "b": pair.b} if ref.real else pair.degraded
        known = pair.degradation or ref.degradation
        made = use_provided(ref.task, seeds, clean, given, known, fuser, instruction=pair.instruction)
    elif source.degrades:
        assert isinstance(spec.recipe, Recipe)
        made = degrade_clean(spec.recipe, seeds, clean, lambda: prepared.depth(spec), fuser)
    if made is not None:
        images, depth, prompt, record = made.images, made.depth, made.prompt.text, made.record()
    height, width = pair.a.shape[:2]
    source_of_depth = None if depth is None else spec.depths[ref.dataset]
    meta = SampleMeta(
        schema=SCHEMA, task=ref.task, dataset=ref.dataset, pair=ref.key, variant=0, split=ref.split,
        sources=dict(pair.sha256), crop=(0, 0, width, height), ratio=f"{width}:{height}", channels=channels(images),
        **record,
        fuser=Origin(name=fuser, weights=None if fuser == NO_TRUTH else fuser_weights(fuser, ref.task)),
        depth=None if source_of_depth is None else Origin(name=source_of_depth.name, weights=source_of_depth.weights),
        seed=spec.seed, recipe=spec.recipe.name if source.degrades else "", real=ref.real,
    )  # fmt: skip
    return Sample(ref.key, images, depth, prompt, meta)

"""Instructed samples: the category is drawn, then the inputs, and the target that the instruction describes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clearfuse.synth.datasets.labels import Labels, encode_runs
from clearfuse.synth.prompts.compose import compose
from clearfuse.synth.prompts.instructions import instruct, with_tags
from clearfuse.synth.samples.blocks import apply_blocks, draw_blocks
from clearfuse.synth.samples.control import controlled, marked
from clearfuse.synth.samples.draw import Crop, draw_weighted
from clearfuse.synth.samples.mixture import Mixture
from clearfuse.synth.samples.prepare import Prepared
from clearfuse.synth.seeds import generator
from clearfuse.synth.shards.records import Segment
from clearfuse.synth.types import TAGS, BadPair, Category, Prompt, Task

OF_BLOCKS: Task = "mff"
"""The task of two inputs made of one picture: views of one scene and exposure, each whole where the other is not."""
OWN_TRUTH = "dataset"
"""The fuser of a sample whose ground truth is the picture that it was made of."""


@dataclass(frozen=True)
class Instructed:
    """A sample's images, its prompt, and what its ``json`` records beside: ``category``, ``blocks`` and so on.

    from_pair: whether the inputs are the clean pair, else they are made of one picture.
    """

    task: Task
    images: Mapping[str, np.ndarray]
    prompt: Prompt
    fuser: str
    from_pair: bool
    record: Mapping[str, Any]


def make_instructed(
    mixture: Mixture,
    prepared: Prepared,
    crop: Crop,
    fuser: str,
    seed: Callable[[str], int],
    *,
    prompts: Path | None,
    language: str,
) -> Instructed:
    """The sample of a crop. fuser: what made the pair's ground truth; seed: by role; prompts, language: as in a build.

    Raises BadPair where the pair can be of none of the mixture's categories.
    """
    ref, labels = prepared.ref, prepared.pair.labels
    category = draw_category(mixture, seed("category"), pair=not ref.single, labels=labels is not None)
    rng = generator(seed("inputs"))
    from_pair = rng.random() < mixture.pairs and category in ("control", "segment") and not ref.single
    record: dict[str, Any] = {"category": category}
    if from_pair or category == "fusion":
        truth, task = crop.of(prepared.truth), ref.task
        inputs = clean = {"a": crop.of(prepared.pair.a), "b": crop.of(prepared.pair.b)}
    else:
        truth, task, fuser = crop.of(prepared.picture()), OF_BLOCKS, OWN_TRUTH
        how = mixture.blocks
        record["blocks"] = draw_blocks(truth.shape[:2], how.sizes, how.both, how.operators, seed("blocks"))
        clean = {"a": truth, "b": truth}
        a, b = apply_blocks(truth, record["blocks"])
        inputs = {"a": a, "b": b}
    said = {"tagged": mixture.tagged, "folder": prompts, "language": language}
    rng, words = generator(seed("target")), generator(seed("prompt"))
    if category == "fusion":
        prompt = _fusion(ref.task, ref.dataset, words, **said)
    elif category == "m3":
        prompt = instruct("m3", words, **said)
    elif category == "control":
        tag = TAGS[int(rng.integers(len(TAGS)))]
        truth, record["control"] = controlled(truth, tag)
        prompt = instruct("control", words, tag=tag, **said)
    else:
        assert labels is not None, "segment samples are drawn of pairs with labels alone"
        truth, record["segment"] = _segmented(truth, Labels(crop.of(labels.ids), labels.names), rng)
        prompt = instruct("segment", words, name=record["segment"].name, **said)
    images = {**inputs, **{f"clean_{name}": image for name, image in clean.items()}, "gt": truth}
    return Instructed(task, images, prompt, fuser, from_pair or category == "fusion", record)


def draw_category(mixture: Mixture, seed: int, *, pair: bool, labels: bool) -> Category:
    """A category by the mixture's weights, among those that there can be. Raises BadPair where there is none."""
    can = {"fusion": pair, "segment": labels}
    weights: dict[Category, float] = {
        category: weight for category, weight in mixture.categories.items() if can.get(category, True)
    }
    if not weights:
        needs = " or ".join("label maps" if one == "segment" else "two pictures" for one in mixture.categories)
        raise BadPair(f"it has no {needs}, for {', '.join(mixture.categories)}")
    return draw_weighted(generator(seed), weights)


def _segmented(picture: np.ndarray, labels: Labels, rng: np.random.Generator) -> tuple[np.ndarray, Segment]:
    """The picture with one of the classes that it shows marked; where it shows none, with one of all."""
    names = labels.shown() or sorted(set(labels.names.values()))
    name = names[int(rng.integers(len(names)))]
    mask = labels.mask(name)
    return marked(picture, mask), Segment(name=name, counts=tuple(encode_runs(mask)))


def _fusion(
    task: Task, dataset: str, rng: np.random.Generator, *, tagged: float, folder: Path | None, language: str
) -> Prompt:
    in_grammar = rng.random() < tagged
    said = compose(task, (), rng, dataset=dataset, folder=folder, language=language)
    return Prompt(with_tags(said.text, "fusion", task=task), said.templates, None, ()) if in_grammar else said

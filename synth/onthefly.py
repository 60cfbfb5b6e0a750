"""Degradation on the fly: samples are degraded as they are read, by the same code as in a build.

    degrade = OnTheFly(load_recipe("vif"))
    for sample in map(degrade, read_samples(path)):
        sample.images["a"], sample.prompt, sample.meta.steps

    for epoch in range(10):  # or as a data set of torch, with other degradations each time
        loader = DataLoader(degrade.dataset("shards/lean", epoch=epoch), batch_size=None, num_workers=4)

A shard made with ``synth build --lean`` stores no degraded images, only what is needed to make them: the clean crops,
the ground truth and the depth. With the seed and the variant of a full build, the sample is that build's, byte for
byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from clearfuse.synth.samples.recipe import Recipe, read_pools
from clearfuse.synth.samples.render import Seeds, channels, degrade_clean
from clearfuse.synth.shards.records import LEAN_IMAGES, Origin
from clearfuse.synth.shards.sample import Sample
from clearfuse.synth.shards.stream import open_shards
from clearfuse.synth.types import BadPair, UserError

if TYPE_CHECKING:
    from webdataset.compat import WebDataset

EPOCH = 1 << 20
"""Variants of a pair that an epoch sets apart: more than any build has."""


@dataclass(frozen=True)
class OnTheFly:
    """Degrade a sample's clean crop by a recipe: a pure function of (sample, seed, variant).

    recipe: a recipe of the samples' task; its aspect ratios are not used, since the crop is already made. partial:
    share of samples, in [0, 1], whose prompt asks to remove only some of the steps. dial: share whose ground truth
    keeps a drawn share of the strength of what it asks to remove, ``meta.left``. prompts: a folder of prompt pools;
    None: the built-in ones. language: of the prompts: en, zh or mix. The pools are read at construction, so that a
    fault in one is a UserError before work starts.
    """

    recipe: Recipe
    partial: float = 0.0
    dial: float = 0.0
    prompts: Path | None = None
    language: str = "en"

    def __post_init__(self) -> None:
        for name, share in {"partial": self.partial, "dial": self.dial}.items():
            if not 0 <= share <= 1:
                raise UserError(f"--{name} {share:g}: must be a share in [0, 1]")
        read_pools(self.recipe, self.prompts, self.language)

    def __call__(self, sample: Sample, seed: int | None = None, variant: int | None = None) -> Sample:
        """The sample that ``synth build`` makes with that seed and variant; None: those recorded in the sample.

        sample: with or without degraded images; existing ones are discarded. Call it before any random crop: haze and
        rain are fields over the whole frame. Raises ValueError where the sample is a real pair, is of another task,
        or lacks the depth that a step needs, and where the recipe has no plan for it.
        """
        meta = sample.meta
        if meta.real:
            raise ValueError(f"sample {sample.key}: is a real pair, without a clean side to degrade")
        if meta.category != "fusion":
            raise ValueError(f"sample {sample.key}: is of category {meta.category}, whose target is not the fusion")
        if meta.task != self.recipe.task:
            raise ValueError(f"sample {sample.key}: is {meta.task}, recipe '{self.recipe.name}' {self.recipe.task}")
        if meta.partial or meta.left:
            raise ValueError(f"sample {sample.key}: its ground truth keeps steps, so it is none of another plan")
        seed, variant = meta.seed if seed is None else seed, meta.variant if variant is None else variant
        seeds = Seeds(seed, meta.task, meta.dataset, meta.pair, variant)

        def stored_depth() -> np.ndarray:
            if sample.depth is None:
                raise ValueError(f"sample {sample.key}: holds no depth, which the plan needs: build with --lean")
            return sample.depth

        clean = {name: sample.images[name] for name in LEAN_IMAGES}
        try:
            degraded = degrade_clean(
                *(self.recipe, seeds, clean, stored_depth, meta.fuser.name),
                partial=self.partial,
                dial=self.dial,
                prompts=self.prompts,
                language=self.language,
            )
        except BadPair as error:
            raise ValueError(f"sample {sample.key}: {error}") from None
        changes: dict[str, Any] = {
            "variant": variant,
            "channels": channels(degraded.images),
            **degraded.record(),
            "fuser": Origin(name=degraded.fuser, weights=meta.fuser.weights),
            "depth": None if degraded.depth is None else meta.depth,
            "seed": seed,
            "recipe": self.recipe.name,
            "lean": False,
            "given": False,
        }
        # The model has the order of the fields, so that the json is a build's to the byte.
        full = meta.model_copy(update=changes)
        return Sample(sample.key, degraded.images, degraded.depth, degraded.prompt.text, full)

    def dataset(
        self,
        urls: str | Sequence[str],
        *,
        epoch: int = 0,
        tensors: bool = True,
        names: Sequence[str] | None = None,
        shuffle: int = 0,
        seed: int = 0,
    ) -> WebDataset:
        """The samples of shards, degraded as they are read: an iterable data set of torch, see ``open_shards``.

        epoch: each has other degradations; 0 has those of a full build. seed: of the order, which is another each epoch
        too. Make one for each epoch: what it gives depends on these values alone, not on how often it was read.
        """
        if epoch < 0:
            raise UserError(f"epoch = {epoch}: must be 0 or more")
        how = {"tensors": tensors, "names": names, "shuffle": shuffle, "seed": seed + epoch}
        return open_shards(urls, degrade=partial(_of_epoch, self, epoch), **how)


def _of_epoch(degrade: OnTheFly, epoch: int, sample: Sample) -> Sample:
    return degrade(sample, variant=sample.meta.variant + EPOCH * epoch)

"""Degradation on the fly: samples degraded as they are read, by the code that a build runs.

    degrade = OnTheFly(load_recipe("vif"))
    for sample in map(degrade, read_samples(path)):
        sample.images["a"], sample.prompt, sample.steps

A lean shard (``synth build --lean``) holds what a plan needs: the clean crop, its ground truth and its depth. With the
seed and the variant of a full build the sample that comes out is that build's, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clearfuse.synth.samples.recipe import Recipe, read_pools
from clearfuse.synth.samples.render import Seeds, channels, degrade_clean
from clearfuse.synth.shards.sample import LEAN_IMAGES, Sample
from clearfuse.synth.types import UserError


@dataclass(frozen=True)
class OnTheFly:
    """A sample in, the same crop with a plan of this recipe out: a pure function of (sample, seed, variant).

    recipe: of the samples' task; its ratios were drawn with the crop and are not read here. partial: share of samples
    whose prompt asks for a part of the steps only, in [0, 1]. prompts: a folder of one's own pools; None: those that
    ship. The pools are read here, so that a fault in one is a UserError before work begins.
    """

    recipe: Recipe
    partial: float = 0.0
    prompts: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.partial <= 1:
            raise UserError(f"--partial {self.partial:g}: must be a share in [0, 1]")
        read_pools(self.recipe, self.prompts)

    def __call__(self, sample: Sample, seed: int | None = None, variant: int | None = None) -> Sample:
        """The sample of ``synth build`` with that seed and variant; None: the sample's own.

        sample: lean or full; of a full one the clean crop is degraded anew, and what it held is let go. The operators
        act on the whole crop, before anything is cut from it: haze and rain are fields over the frame. Raises
        ValueError where the sample is of another task, or lacks what the plan needs.
        """
        meta, fuser = sample.meta, sample.meta["fuser"]["name"]
        if sample.real:
            raise ValueError(f"sample {sample.key}: is a real pair, without a clean side to degrade")
        if meta["task"] != self.recipe.task:
            raise ValueError(f"sample {sample.key}: is {meta['task']}, recipe '{self.recipe.name}' {self.recipe.task}")
        if len(meta["prompt"]["asked"]) < meta["n"]:
            raise ValueError(f"sample {sample.key}: its ground truth keeps steps, so it is none of another plan")
        seed, variant = meta["seed"] if seed is None else seed, meta["variant"] if variant is None else variant
        seeds = Seeds(seed, meta["dataset"], meta["pair"], variant)

        def stored() -> np.ndarray:
            if sample.depth is None:
                raise ValueError(f"sample {sample.key}: holds no depth, which the plan needs: build with --lean")
            return sample.depth

        clean = {name: sample.images[name] for name in LEAN_IMAGES}
        made = degrade_clean(self.recipe, seeds, clean, stored, fuser, partial=self.partial, prompts=self.prompts)
        said: Mapping[str, Any] = {
            "variant": variant,
            "channels": channels(made.images),
            **made.record(),
            "fuser": {**meta["fuser"], "name": made.fuser},
            "depth": None if made.depth is None else meta["depth"],
            "seed": seed,
            "recipe": self.recipe.name,
        }
        # The fields keep their places, so that the json is that of a build to the byte.
        full = {name: value for name, value in meta.items() if name not in ("lean", "given")} | said
        return Sample(sample.key, made.images, made.depth, made.prompt.text, full)

"""A design small enough to fit in a second, for the tests of the trainer and the pipeline."""

from __future__ import annotations

from dataclasses import replace

import torch

from clearfuse.train.designs.design import Assembly, Design
from clearfuse.train.designs.presets import Preset
from clearfuse.train.designs.schedule import Schedule
from clearfuse.train.models import MdaIFConfig, MMAIFConfig, RestorerConfig
from clearfuse.train.objectives.flow import FlowMatching
from clearfuse.train.objectives.regression import Regression
from clearfuse.train.objectives.schrodinger import SchrodingerBridge
from clearfuse.train.pipeline.fusion import FusionPipeline


def small(flow: bool = False, guess: bool = False) -> Design:
    """A design with all parts of the network at a small size."""
    config = MMAIFConfig(
        flow=flow, guess=guess, head="blend", latent_channels=192, text_width=128, depth=2, width=32, heads=2,
        expert_width=16, shared_width=16, lora=8,
    )  # fmt: skip
    objective = FlowMatching(predicts="clean", steps=2) if flow else Regression()
    return Design("mmaif", config, "dct", "bytes", objective, "pyramid" if guess else "none")


def untrained(flow: bool = False, guess: bool = False, seed: int = 0) -> FusionPipeline:
    """A small network that has learned nothing, its weights moved away from their start, where no prompt tells."""
    return untrained_of(small(flow, guess), seed)


def untrained_of(design: Design, seed: int = 0) -> FusionPipeline:
    """The same of a design."""
    assembly = Assembly(design, torch.Generator().manual_seed(seed))
    rng = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in assembly.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=rng))
    return FusionPipeline(assembly)


def small_restorer(dial: bool = True) -> Design:
    """A restorer as the shipped one, its size apart."""
    config = RestorerConfig(
        text_width=128, width=8, blocks=(1, 1, 1), depth=1, heads=2, expert_width=16, shared_width=16, lora=4, dial=dial
    )
    return Design("restorer", config, "pixels", "bytes", Regression(), "pyramid")


def small_mdaif(guess: bool = False) -> Design:
    """MdaIF with all of its parts, its prior learned."""
    config = MdaIFConfig(
        semantics_width=128, guess=guess, widths=(8, 8, 16, 16), depths=(1, 1, 1, 1), heads=(1, 1, 2, 2),
        prior_width=16, width=8, blocks=1,
    )  # fmt: skip
    return Design("mdaif", config, "pixels", "none", Regression(), "pyramid" if guess else "none", "learned")


SMALL = {
    "small": Preset(
        "for tests",
        small(),
        Schedule(crop=32, batch=2, accumulate=2, steps=6, warmup=1, lr=1e-3, ema=0.9, recompute=False),
    ),
    "small-guess": Preset(
        "for tests", small(guess=True), Schedule(crop=32, batch=2, accumulate=1, steps=6, lr=1e-3, recompute=False)
    ),
    "small-fm": Preset(
        "for tests", small(flow=True), Schedule(crop=32, batch=2, accumulate=1, steps=6, lr=1e-3, recompute=False)
    ),
    "small-dial": Preset(
        "for tests", small_restorer(), Schedule(crop=32, batch=2, accumulate=1, steps=6, lr=1e-3, recompute=False)
    ),
    "small-mdaif": Preset(
        "for tests", small_mdaif(), Schedule(crop=32, batch=2, accumulate=1, steps=6, lr=1e-3, recompute=False)
    ),
    "small-i2sb": Preset(
        "for tests",
        replace(small(flow=True), objective=SchrodingerBridge(predicts="clean", steps=2, pixel=0.1, drop=0.5)),
        Schedule(crop=32, batch=2, accumulate=1, steps=6, lr=1e-3, recompute=False),
    ),
}

"""Presets: what ``--preset`` names. One row holds all that a run is: model, tokenizer, prompts, objective, schedule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from clearfuse.synth.tables import Table
from clearfuse.synth.types import UserError, look_up
from clearfuse.train import semantics, tokenizers
from clearfuse.train import text as texts
from clearfuse.train.designs.ablations import ablations
from clearfuse.train.designs.design import Design, adapted_config, based_config
from clearfuse.train.designs.schedule import Schedule
from clearfuse.train.models import find_model
from clearfuse.train.models.joint import JointConfig
from clearfuse.train.models.mdaif import MdaIFConfig
from clearfuse.train.models.mmaif import MMAIFConfig
from clearfuse.train.models.nafnet import NAFNetConfig
from clearfuse.train.models.omnigen.config import OmniGenConfig
from clearfuse.train.models.restorer import RestorerConfig
from clearfuse.train.objectives.flow import FlowMatching
from clearfuse.train.objectives.regression import Regression
from clearfuse.train.objectives.schrodinger import SchrodingerBridge
from clearfuse.train.weights.base import LoadedBase


@dataclass(frozen=True)
class Preset:
    """A row of the table. every: steps between validations and between checkpoints, unless told; paper: whether its
    figures are compared with the paper's, so that it wants the paper's ground truth.
    """

    about: str
    design: Design
    schedule: Schedule
    every: int = 250
    paper: bool = False


def _tiny(flow: bool, guess: bool = False) -> MMAIFConfig:
    """All of the network's parts at a size for a CPU, on the 192 channels of the DCT tokenizer.

    A token of these latents has 768 numbers, more than the width: only a blend of the inputs can carry them through.
    """
    return MMAIFConfig(
        flow=flow,
        guess=guess,
        compress=True,
        head="blend",
        context=True,
        latent_channels=192,
        text_width=128,
        depth=2,
        width=256,
        heads=8,
        expert_width=256,
        shared_width=256,
        lora=64,
    )


_TINY = Schedule(
    crop=128, ratios="1:1", batch=8, accumulate=1, steps=1900, warmup=50, lr=1e-3, ema=0.99, rephrase=0.9,
    recompute=False,
)  # fmt: skip

# Of eight tones and of classes each is in few samples: a prompt that is read from the first is not taken for another.
_DITFUSE_TINY_FIT = _TINY.model_copy(update={"crop": 160, "batch": 6, "steps": 3000, "reading": 600})

_TINY_REG = Design("mmaif", _tiny(flow=False, guess=True), "dct", "bytes", Regression(measure="log"), guess="pyramid")
_TINY_FLOW = FlowMatching(predicts="clean", error="clean", drop=0.1)
_TINY_FM = Design("mmaif", _tiny(flow=True, guess=True), "dct", "bytes", _TINY_FLOW, guess="pyramid")
_TINY_I2SB = replace(_TINY_FM, objective=SchrodingerBridge(predicts="clean", steps=20, drop=0.1))


_DITFUSE_FLOW = FlowMatching(
    times="logit-normal", drop=0.05, drop_images=0.05, drop_both=0.05, guidance=2.0, guidance_images=1.6
)
_DITFUSE_TINY = Design(
    "joint",
    JointConfig(
        compress=True, head="blend", guess=True, latent_channels=192, text_width=128, depth=3, width=256, heads=8,
        hidden=512, lora=64,
    ),
    *("dct", "bytes", replace(_DITFUSE_FLOW, predicts="clean", error="clean", measure="log", guidance_images=1.0)),
    guess="pyramid",
)  # fmt: skip
_DITFUSE_SMALL = Design("joint", JointConfig(), "taesd3", "t5-small", _DITFUSE_FLOW)
_DITFUSE = Design(
    "omnigen", OmniGenConfig(), "omnigen", "omnigen", replace(_DITFUSE_FLOW, sampler="euler", steps=50), base="omnigen"
)
# OmniGen's script for LoRA: AdamW without decay, 1e-4; its batches and steps are not published.
_DITFUSE_FIT = Schedule(batch=1, accumulate=16, steps=10_000, warmup=500, lr=1e-4, decay=0.0, ema=0.999, cautious=False)


def _mmaif(config: MMAIFConfig, tokenizer: str = "cosmos", text: str = "t5-xl") -> Design:
    objective = FlowMatching(drop=0.1) if config.flow else Regression()
    return Design("mmaif", config, tokenizer, text, objective)


_SMALL = Design(
    "restorer",
    # Convolutions of 48 to 128 channels: in bf16 a CPU's matrix units run them six times as fast as float32.
    RestorerConfig(
        width=24,
        channels=(48, 96, 128),
        blocks=(2, 2, 2),
        heads=6,
        depth=2,
        expert_width=176,
        shared_width=176,
        output_scale=0.1,
        dial=True,
    ),
    *("pixels", "bytes", Regression(measure="log")),
    guess="pyramid",
)
_NAFNET = Design("nafnet", NAFNetConfig(), "pixels", "bytes", Regression(measure="log"), guess="pyramid")
_SMALL_FIT = Schedule(
    crop=128, ratios="1:1", batch=16, accumulate=1, repeats=4, steps=30_000, warmup=100, lr=2.5e-4, ema=0.998,
    optimizer="muon", reading=600, rephrase=0.9, recompute=False, undegraded=0.06,
)  # fmt: skip
_SMALL_TUNE = _SMALL_FIT.model_copy(
    update={"batch": 8, "repeats": 2, "steps": 400, "warmup": 20, "lr": 2e-4, "ema": 0.98}
)
_REG, _FM = _mmaif(MMAIFConfig()), _mmaif(MMAIFConfig(flow=True))
# What the authors' published code has and their paper does not say: decision 0029.
_AUTHORS = MMAIFConfig(
    flow=True, shared_width=1752, router="grouped", renormalise=False, gate="gelu", value_source="first", naf_kernel=3
)
_B = MMAIFConfig(text_width=768, depth=12, width=384, heads=8, expert_width=1024, shared_width=384, lora=96)
_S = MMAIFConfig(text_width=512, depth=8, width=256, heads=8, expert_width=640, shared_width=256, lora=64)
# For one GPU of 8 to 12 GB: batches without accumulation, a tenth of the paper's samples.
_B_FIT = Schedule(crop=384, batch=8, accumulate=1, steps=100_000, ema=0.999)
_S_FIT = Schedule(crop=256, batch=16, accumulate=1, steps=50_000, lr=4e-4, ema=0.999, recompute=False)

# MdaIF's losses and sizes are not published: decision 0034.
_WEATHER = Regression(pixel=1.0, pixels={"truth": 1.0, "intensity": 0.1, "gradient": 0.5, "ssim": 0.5})
_MDAIF_S = MdaIFConfig(
    semantics_width=384, widths=(32, 64, 160, 256), depths=(2, 2, 2, 2), prior_width=128, width=32, prototypes=4
)
_MDAIF_TINY = MdaIFConfig(
    semantics_width=128, guess=True, widths=(24, 48, 64, 96), depths=(1, 1, 1, 1), heads=(1, 2, 2, 3), prior_width=64,
    width=16, blocks=1, output_scale=0.1,
)  # fmt: skip
_MDAIF_TINY_LOSS = Regression(measure="log", pixel=1.0, pixels={"ssim": 1.0, "similarity": 3.0})


def _mdaif(config: MdaIFConfig, semantics: str, objective: Regression, guess: str = "none") -> Design:
    return Design("mdaif", config, "pixels", "none", objective, guess, semantics)


_MDAIF_FIT = Schedule(
    crop=256, ratios="1:1", batch=16, accumulate=1, steps=100_000, lr=1e-4, ema=0.999, recompute=False
)
_MDAIF_TINY_FIT = Schedule(
    crop=96, ratios="1:1", batch=8, accumulate=1, repeats=4, steps=3500, warmup=50, lr=5e-4, ema=0.99,
    optimizer="muon", recompute=False,
)  # fmt: skip

# The paper's 24 samples a step, divided by what a GPU holds: train info counts it, docs/training.md has the table.
_TWO_24GB = Schedule(batch=24, accumulate=1)
_80GB = Schedule(batch=24, accumulate=1, recompute=False)


def _paper(about: str, design: Design, schedule: Schedule | None = None) -> Preset:
    """A preset of the paper: 4.5 GB a checkpoint, so that one every 250 steps would write 3.6 TB a run."""
    return Preset(about, design, schedule or Schedule(), every=2000, paper=True)


PRESETS: Table[Preset] = Table(
    "preset",
    {
        "tiny-reg": Preset("regression for a CPU, no download", _TINY_REG, _TINY),
        "tiny-fm": Preset("flow matching for a CPU, no download", _TINY_FM, _TINY),
        "tiny-i2sb": Preset("a bridge from the mean of both images for a CPU, no download", _TINY_I2SB, _TINY),
        "small-tune": Preset("clearfuse-small on own pairs, for a CPU in minutes: --init small", _SMALL, _SMALL_TUNE),
        "small": Preset(
            "the shipped models: on pixels, restored beside the tokens, for a CPU in hours", _SMALL, _SMALL_FIT
        ),
        "nafnet": Preset("a U-Net of NAF blocks on pixels, to compare with, for a CPU in hours", _NAFNET, _SMALL_FIT),
        "ditfuse-tiny": Preset(
            "text, both images and the target in one sequence, for a CPU, no download", _DITFUSE_TINY, _DITFUSE_TINY_FIT
        ),
        "ditfuse-small": Preset("the same for one small GPU, trained from nothing", _DITFUSE_SMALL, _S_FIT),
        "ditfuse": Preset(
            "DiTFuse itself: LoRA on OmniGen's 3.8 billion weights, for one GPU", _DITFUSE, _DITFUSE_FIT, 500
        ),
        "mmaif-s": Preset("small regression, for one small GPU", _mmaif(_S, "taesd3", "t5-small"), _S_FIT),
        "mmaif-s-fm": Preset(
            "small flow matching, for one small GPU", _mmaif(replace(_S, flow=True), "taesd3", "t5-small"), _S_FIT
        ),
        "mmaif-b": Preset("middling regression, for one small GPU", _mmaif(_B, "cosmos", "t5-base"), _B_FIT),
        "mmaif-b-fm": Preset(
            "middling flow matching, for one small GPU", _mmaif(replace(_B, flow=True), "cosmos", "t5-base"), _B_FIT
        ),
        "mmaif-reg": _paper("the paper's regression model, for one GPU of 24 GB", _REG),
        "mmaif-fm": _paper("the paper's flow matching model, for one GPU of 24 GB", _FM),
        "mmaif-reg-2x24gb": _paper("the same regression model for two GPUs of 24 GB, or more", _REG, _TWO_24GB),
        "mmaif-fm-2x24gb": _paper("the same flow matching model for two GPUs of 24 GB, or more", _FM, _TWO_24GB),
        "mmaif-reg-80gb": _paper("the same regression model for one GPU of 80 to 141 GB, or more", _REG, _80GB),
        "mmaif-fm-80gb": _paper("the same flow matching model for one GPU of 80 to 141 GB, or more", _FM, _80GB),
        "mdaif": Preset(
            "MdaIF, its prior from BLIP-2, for one GPU of 24 GB",
            _mdaif(MdaIFConfig(), "blip2", _WEATHER),
            _MDAIF_FIT,
            2000,
        ),
        "mdaif-s": Preset(
            "small MdaIF, its prior from DINOv2, for one small GPU",
            _mdaif(_MDAIF_S, "dinov2", _WEATHER),
            _MDAIF_FIT,
            1000,
        ),
        "mdaif-tiny": Preset(
            "MdaIF for a CPU, its prior learned, no download",
            _mdaif(_MDAIF_TINY, "learned", _MDAIF_TINY_LOSS, "pyramid"),
            _MDAIF_TINY_FIT,
        ),
        "mmaif-authors": _paper("flow matching, with the layers of the authors' code", _mmaif(_AUTHORS)),
        **{name: _paper(about, design) for name, (about, design) in ablations(_FM).items()},
    },
)

TEXT_TOKENS = 64


def find_preset(name: str) -> Preset:
    """The preset of a name."""
    return look_up("preset", name, PRESETS)


def parse_size(text: str) -> tuple[int, int]:
    """``1024x768`` as (width, height)."""
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise UserError(f"--size {text}: must be WIDTHxHEIGHT in pixels, such as 1024x1024")
    return int(width), int(height)


def fitted_config(design: Design, z: int, adapt: bool) -> Any:
    """The network's config, which fits the design's other parts: see ``adapted_config``."""
    based = replace(design, config=based_config(design, LoadedBase(design.base)))
    return adapted_config(based, z, texts.width_of(design.text), semantics.width_of(design.semantics), adapt)


def _count(network: Callable[[Any], nn.Module], config: Any) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in network(config).parameters())


def describe(
    name: str, size: tuple[int, int] = (1024, 1024), design: Design | None = None, adapt: bool = False
) -> dict[str, Any]:
    """What a preset's network is and costs, without making its weights; ``train info --json`` prints it.

    design: the preset's after changes; adapt: its network takes the sizes of its tokenizer and prompts. Raises
    UserError where they do not fit each other.

    parameters_*: counted from the module. latents: channels, rows and columns of a picture of ``size`` (width, height).
    flops: 2 × MAC of one call of the network on them with 64 prompt tokens, by formula, the tokenizer and the text
    encoder not included; calls: calls an image.
    memory_inference: weights and the largest live activations of one image in bf16, bytes, by formula. That of training
    is counted: ``training.memory``.
    """
    design = design or find_preset(name).design
    grid = tokenizers.grid_of(design.tokenizer)
    family, config = find_model(design.model), fitted_config(design, grid.z, adapt)
    total = family.parameters(config) if family.parameters is not None else _count(family.network, config)
    width, height = grid.cells(*size)
    values = family.activations(config, height, width, TEXT_TOKENS)
    return {
        "preset": name,
        "about": find_preset(name).about,
        "model": design.model,
        "tokenizer": design.tokenizer,
        "f": grid.f,
        "latents": [grid.z, height, width],
        "text": design.text,
        "semantics": design.semantics,
        "base": design.base,
        "size": f"{size[0]}x{size[1]}",
        "parameters_total": total,
        "parameters_active": total - family.inactive(config),
        "flops": family.flops(config, height, width, TEXT_TOKENS),
        "calls": design.objective.calls,
        "memory_inference": 2 * (total + values),
    }

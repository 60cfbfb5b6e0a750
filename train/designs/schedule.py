"""How a preset is fitted, as data: ``presets`` has a row of it each, and the command line its options."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from pydantic import AfterValidator, Field, model_validator

from clearfuse.synth.files.schema import StrictModel
from clearfuse.train.data.buckets import parse_ratios

Count = Annotated[int, Field(ge=1, le=65536)]
Share = Annotated[float, Field(ge=0, le=1, title="a share")]


def _share_or_number(value: float | None) -> float | None:
    if value is not None and value >= 1 and value != int(value):
        raise ValueError("must be a share of the pairs below 1, or a whole number of them")
    return value


HoldOut = Annotated[float | None, Field(ge=0, lt=1e9), AfterValidator(_share_or_number)]
"""Pairs held out for validation."""


class Schedule(StrictModel):
    """How a preset is fitted, unless the command line says otherwise; the defaults are the paper's, section 4.2."""

    crop: Count = 512
    """Side of the training crops, or of a square as large, pixels."""
    ratios: Annotated[str, typer.Option(metavar="W:H,...")] = "16:9,4:3,1:1"
    """Shapes of the crops, such as 16:9,4:3,1:1."""
    batch: Count = 8
    """Samples a batch."""
    accumulate: Count = 3
    """Batches a step."""
    repeats: Count = 1
    """Crops of each sample for one decoding, 16 batches apart."""
    steps: Annotated[int, Field(ge=1, le=10**9)] = 200_000
    """Steps of the optimizer."""
    warmup: Annotated[int, Field(ge=0, le=10**9)] = 1000
    """Steps in which the learning rate rises to its peak."""
    lr: Annotated[float, Field(gt=0)] = 2e-4
    """Peak learning rate."""
    decay: Annotated[float, Field(ge=0)] = 0.01
    """Of the weights, AdamW's."""
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.9999
    """Decay of the weights' moving average."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: matrices move along their orthogonalised momentum, the rest by AdamW."""
    cautious: bool = True
    """AdamW moves only where its momentum and gradient agree."""
    precision: Annotated[Literal["auto", "bf16", "fp32"], typer.Option(metavar="auto|bf16|fp32")] = "auto"
    """Of the network; bf16 on CUDA."""
    recompute: bool = True
    """Gradient checkpointing: blocks run again backward, in place of keeping all they made."""
    clip: Annotated[float, Field(gt=0)] = 1.0
    """Largest norm of the gradients."""
    plain: Share = 0.1
    """Share of prompts that the task's plain request stands in for."""
    reading: Annotated[int, Field(ge=0, le=10**6)] = 0
    """Steps of 64 prompts, before any picture, in which a prompt encoder that learns is taught what they ask for."""
    rephrase: Share = 0.0
    """Share of the others that are put in other words, from the sample's recorded steps."""
    undegraded: Share = 0.0
    """Lean shards: share of samples that are left as they are, so that clean pairs are."""
    scale: Annotated[float, Field(ge=0.1, le=1)] = 1.0
    """Lean shards: pairs are made smaller before they are degraded, by a random factor between this and 1."""

    @model_validator(mode="after")
    def _checked(self) -> Schedule:
        parse_ratios(self.ratios)
        return self

"""What scores of image files are computed from and how: what ``train metrics`` and ``train metrics agree`` share."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import Field

from clearfuse.synth.builder.options import Match, Texts
from clearfuse.synth.files.schema import StrictModel
from clearfuse.synth.types import Scale


class ScoringOptions(StrictModel):
    """Fused images, their pairs, and what to measure on them."""

    a: Annotated[str, typer.Argument(metavar="A")]
    """Visible, under-exposed or near-focused: image or folder."""
    b: Annotated[str, typer.Argument(metavar="B")]
    """Infrared, over-exposed or far-focused: image or folder."""
    fused: Annotated[Texts, typer.Argument(metavar="[NAME=]FUSED...")]
    """Fused images, for each method a file, a folder or 'DIR/{key}_NAME'; files in folders pair by name."""
    match: Match = None
    """Names in the folders A and B, where they differ: '{key}-A' '{key}-B'."""
    gt: Annotated[str | None, typer.Option(metavar="FILE|DIR")] = None
    """The ground truth, for PSNR, SSIM and others that compare with it."""
    metrics: Annotated[str | None, typer.Option(metavar="NAME,...|all")] = None
    """What to measure; the profile's usual ones."""
    profile: Annotated[str, typer.Option(metavar="NAME")] = "strict"
    """What the names mean: strict, or a toolbox as it is: see docs."""
    task: str = "vif"
    """vif, mef or mff; it decides how B is read: for vif, a 16-bit B holds infrared counts."""
    scale: Scale | None = None
    """Count of white in visible pictures of 16 bits; the metadata's, or 65535."""
    workers: Annotated[int | None, Field(ge=1)] = None
    """Threads; all cores."""

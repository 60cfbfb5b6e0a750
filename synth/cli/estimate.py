"""``synth estimate``: what is wrong with pictures."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from clearfuse.synth import console
from clearfuse.synth.builder.options import Options
from clearfuse.synth.cli.options import JsonOption, option
from clearfuse.synth.types import UserError, WorkIncomplete


def estimate_command(
    images: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="Image files.")],
    modality: Annotated[
        str, typer.Option("--modality", help="visible, infrared, or auto: a grey picture is an infrared one.")
    ] = "auto",
    sure: Annotated[float, typer.Option("--sure", help="Certainty from which a degradation is named, 0 to 1.")] = 0.5,
    seed: Annotated[int, option(Options, "seed")] = 0,
    language: Annotated[str, option(Options, "language")] = "en",
    scale: Annotated[int | None, option(Options, "scale")] = None,
    json_: JsonOption = False,
) -> None:
    """Say what is wrong with pictures, how strong, how sure, and the prompt that asks to remove it.

    A strength has the ends between which it is in 8 of 10 cases. train fuse without a prompt does the same for a pair.
    """
    from clearfuse.synth.estimation.files import describe, estimate_files
    from clearfuse.synth.files.pictures import FULL_SCALE
    from clearfuse.synth.prompts.pools import languages_of

    if not 0 <= sure <= 1:
        raise UserError(f"--sure {sure:g}: must be in [0, 1]")
    if not 0 <= seed < 2**53:
        raise UserError(f"--seed {seed}: must be in [0, 2^53)")
    if scale is not None and not 256 <= scale <= FULL_SCALE:
        raise UserError(f"--scale {scale}: must be in [256, {FULL_SCALE}]")
    languages_of(language)
    with console.progress("estimate", "images") as progress:
        done, refused = estimate_files(
            images, modality=modality, sure=sure, seed=seed, language=language, scale=scale, progress=progress
        )
    if not done:
        raise UserError("; ".join(refused[:5]))
    if json_:
        typer.echo(json.dumps({"images": [one.to_json() for one in done], "refused": refused}, ensure_ascii=False))
    else:
        typer.echo(describe(done))
    if refused:
        raise WorkIncomplete(f"{len(refused)} of {len(images)} images could not be used: {'; '.join(refused[:5])}")

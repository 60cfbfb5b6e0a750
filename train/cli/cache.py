"""``train cache``."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated

import typer

from clearfuse.synth import console
from clearfuse.train.cli.options import (
    CropOption,
    DeviceOption,
    JsonOption,
    PartialOption,
    RatiosOption,
    RecipeOption,
    SetOption,
    TextCacheOption,
    TextOption,
    TokenizerOption,
    parts_of,
)


def cache_command(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SHARDS...", help=console.SHARDS),
    ],
    out: Annotated[str, typer.Option("--out", metavar="DIR|URL", help="The folder of the shards of latents.")],
    preset: Annotated[
        str | None, typer.Option("--preset", help="What they are for; tiny-reg without CUDA, else mmaif-reg.")
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", help="Drawn crops of each sample, which a run takes in turn.")] = 1,
    crop: CropOption = None,
    ratios: RatiosOption = None,
    set_: SetOption = None,
    recipe: RecipeOption = None,
    partial: PartialOption = 0.0,
    tokenizer: TokenizerOption = None,
    text: TextOption = None,
    text_cache: TextCacheOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of crops and words: the run's.")] = 0,
    executor: Annotated[
        str | None,
        typer.Option("--executor", metavar="processes|ray|serial", help="Who does it; serial on CUDA, else processes."),
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", help="Workers; all cores.")] = None,
    device: DeviceOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew where shards of latents are.")] = False,
    json_: JsonOption = False,
) -> None:
    """Keep latents and prompt embeddings of shards in shards that train fit reads alike, without their encoders."""
    from clearfuse.train.cli.defaults import default_preset, part_sets
    from clearfuse.train.runs.settings import Settings
    from clearfuse.train.training.cache import cache

    sets = [*(set_ or ()), *part_sets(tokenizer, text)]
    settings = Settings.of(preset or default_preset(), seed, sets, crop=crop, ratios=ratios)
    with console.progress("cache", "samples") as progress:
        done = cache(
            sources,
            out,
            settings,
            epochs=epochs,
            recipes=recipe or (),
            partial=partial,
            **parts_of(None, None, text_cache),
            executor=executor,
            workers=workers,
            device=device,
            overwrite=overwrite,
            progress=progress,
        )
    typer.echo(json.dumps(dataclasses.asdict(done)) if json_ else done.line())

"""``train cache``."""

from __future__ import annotations

import json
from typing import Any

import typer

from clearfuse.synth import console
from clearfuse.synth.cli.options import JsonOption, takes
from clearfuse.synth.files.schema import check_options
from clearfuse.train.cli.options import CacheOptions


@takes(CacheOptions)
def cache_command(json_: JsonOption = False, **options: Any) -> None:
    """Keep latents and prompt embeddings of shards in shards that train fit reads alike, without their encoders."""
    import dataclasses

    from clearfuse.train.cli.defaults import default_preset
    from clearfuse.train.runs.settings import Settings
    from clearfuse.train.training.cache import cache

    chosen = check_options(CacheOptions, options)
    sets = [*chosen.sets, *chosen.changes]
    settings = Settings.of(chosen.preset or default_preset(), chosen.seed, sets, crop=chosen.crop, ratios=chosen.ratios)
    with console.progress("cache", "samples") as progress:
        done = cache(
            chosen.shards,
            chosen.out,
            settings,
            epochs=chosen.epochs,
            hold_out=chosen.hold_out,
            recipes=chosen.recipe,
            partial=chosen.partial,
            language=chosen.language,
            parts=chosen.parts,
            executor=chosen.executor,
            workers=chosen.workers,
            device=chosen.device,
            overwrite=chosen.overwrite,
            progress=progress,
        )
    typer.echo(json.dumps(dataclasses.asdict(done)) if json_ else done.line())

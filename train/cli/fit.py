"""``train fit``."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from clearfuse.synth import console
from clearfuse.synth.cli.options import JsonOption, takes
from clearfuse.synth.files.schema import check_options
from clearfuse.train.cli.options import FitOptions


@takes(FitOptions)
def fit_command(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Take a few steps, say how long all would take; write nothing.")
    ] = False,
    json_: JsonOption = False,
    **options: Any,
) -> None:
    """Fit a model on shards. The same command goes on where it was stopped, to the same numbers."""
    import dataclasses

    from clearfuse.train.cli.defaults import run_fit
    from clearfuse.train.training.progress import show_progress

    chosen = check_options(FitOptions, options)
    if dry_run:
        from clearfuse.train.cli.estimate import estimate_fit

        found = estimate_fit(chosen)
        typer.echo(json.dumps(found.to_json()) if json_ else found.line())
        return
    with show_progress() as progress:
        done = run_fit(chosen, progress, console.note)
    if done.rank == 0:
        typer.echo(json.dumps(dataclasses.asdict(done)) if json_ else done.line())

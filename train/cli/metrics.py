"""``train metrics``."""

from __future__ import annotations

import json
import math
from typing import Any

import typer

from clearfuse.synth import console
from clearfuse.synth.cli.options import JsonOption, takes
from clearfuse.synth.files.schema import check_options
from clearfuse.train.cli.options import MetricsOptions


@takes(MetricsOptions)
def metrics_command(json_: JsonOption = False, **options: Any) -> None:
    """Score fused images beside their pair, files or folders: a table of means; --json has every image."""
    from clearfuse.train.evaluation.files import score_files, to_text

    chosen = check_options(MetricsOptions, options)
    with console.progress("metrics", "images") as progress:
        scores = score_files(
            *(chosen.a, chosen.b, chosen.fused, chosen.gt),
            match=chosen.match, metrics=chosen.metrics, profile=chosen.profile, task=chosen.task, scale=chosen.scale,
            workers=chosen.workers, progress=progress,
        )  # fmt: skip
    if json_:
        means = {name: _finite(values) for name, values in scores.means().items()}
        images = {m: {n: _finite(values) for n, values in found.items()} for m, found in scores.values.items()}
        typer.echo(json.dumps({"means": means, "images": images, "missing": dict(scores.missing)}))
    else:
        typer.echo(to_text(scores))


def _finite(values: dict[str, float]) -> dict[str, float | str]:
    """Infinite and undefined values as texts, which JSON has no numbers for."""
    return {name: value if math.isfinite(value) else str(value) for name, value in values.items()}

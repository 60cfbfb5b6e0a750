"""``train metrics``."""

from __future__ import annotations

import json
import math
from typing import Any

import typer
from typer.core import TyperGroup

from clearfuse.synth import console
from clearfuse.synth.cli.options import JsonOption, takes
from clearfuse.synth.files.schema import check_options
from clearfuse.train.cli.options import AgreeOptions, MetricsOptions, StressOptions


class FilesByDefault(TyperGroup):
    """A group whose command is ``files`` where none is named: ``train metrics A B FUSED`` needs no more words."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """See ``click.Group``."""
        known = [*self.commands, "--help"]
        return super().parse_args(ctx, args if args and args[0] in known else ["files", *args])


app = typer.Typer(
    cls=FilesByDefault,
    help="Score fused images (train metrics A B FUSED... is train metrics files), or test the metrics themselves.",
    rich_markup_mode=None,
)


@app.command("files")
@takes(MetricsOptions)
def metrics_command(json_: JsonOption = False, **options: Any) -> None:
    """Score fused images beside their pair, files or folders: a table of means; --json has every image."""
    from clearfuse.train.evaluation.files import score_files, to_text
    from clearfuse.train.metrics.faithfulness import ORIGINS

    chosen = check_options(MetricsOptions, options)
    with console.progress("metrics", "images") as progress:
        scores = score_files(
            *(chosen.a, chosen.b, chosen.fused, chosen.gt),
            match=chosen.match, metrics=chosen.metrics, profile=chosen.profile, task=chosen.task, scale=chosen.scale,
            faithfulness=chosen.faithfulness, workers=chosen.workers, progress=progress,
        )  # fmt: skip
    if json_:
        means = {name: _finite(values) for name, values in scores.means().items()}
        images = {m: {n: _finite(values) for n, values in found.items()} for m, found in scores.values.items()}
        told = {"means": means, "images": images, "missing": dict(scores.missing)}
        if scores.origins:
            named = {
                m: {n: dict(zip(ORIGINS, one, strict=True)) for n, one in of.items()}
                for m, of in scores.origins.items()
            }
            told["faithfulness"] = named
        typer.echo(json.dumps(told))
    else:
        typer.echo(to_text(scores))


@app.command("stress")
@takes(StressOptions)
def stress_command(json_: JsonOption = False, **options: Any) -> None:
    """Test the metrics: what noise, haze, blur, over-sharpening, halos and misregistration do to each, and who agrees.

    They are added to a good fusion at four strengths; a metric that calls the worse image better is marked.
    """
    from clearfuse.synth.files.folders import check_folder
    from clearfuse.train.evaluation.stress.report import FILES, to_json, to_text, write
    from clearfuse.train.evaluation.stress.run import stress

    chosen = check_options(StressOptions, options)
    if chosen.out is not None:
        check_folder(chosen.out)
    with console.progress("stress", "pairs") as progress:
        found = stress(
            data=chosen.data, match=chosen.match, task=chosen.task, limit=chosen.limit, crop=chosen.crop or None,
            metrics=chosen.metrics, profile=chosen.profile, workers=chosen.workers, progress=progress,
        )  # fmt: skip
    if chosen.out is not None:
        write(found, chosen.out)
        console.note(f"wrote {', '.join(FILES)} in {chosen.out}")
    typer.echo(json.dumps(to_json(found), ensure_ascii=False) if json_ else to_text(found))


@app.command("agree")
@takes(AgreeOptions)
def agree_command(json_: JsonOption = False, **options: Any) -> None:
    """Compare ranks: of fused images by each metric, and by the scores of others, of people or as published.

    Scores that are called as a metric of the profile are its published values and compared with it alone.
    """
    from clearfuse.train.evaluation.stress.agree import agree, to_json, to_text

    chosen = check_options(AgreeOptions, options)
    with console.progress("metrics", "images") as progress:
        found = agree(
            *(chosen.a, chosen.b, chosen.fused, chosen.scores),
            lower=chosen.lower, gt=chosen.gt, match=chosen.match, metrics=chosen.metrics, profile=chosen.profile,
            task=chosen.task, scale=chosen.scale, workers=chosen.workers, progress=progress,
        )  # fmt: skip
    typer.echo(json.dumps(to_json(found, chosen.profile), ensure_ascii=False) if json_ else to_text(found))


def _finite(values: dict[str, float]) -> dict[str, float | str]:
    """Infinite and undefined values as texts, which JSON has no numbers for."""
    return {name: value if math.isfinite(value) else str(value) for name, value in values.items()}

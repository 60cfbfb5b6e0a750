"""``train metrics``."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, Literal

import typer
from pydantic import Field
from typer.core import TyperGroup

from clearfuse.synth import console
from clearfuse.synth.builder.options import Match
from clearfuse.synth.cli.options import JsonOption, takes
from clearfuse.synth.files.schema import StrictModel, check_options
from clearfuse.train.cli.options import Count, LocalOut, Repeated
from clearfuse.train.evaluation.options import ScoringOptions


class MetricsOptions(ScoringOptions):
    """``train metrics files``."""

    faithfulness: Annotated[str | None, typer.Option(metavar="DIR")] = None
    """Also say for each pixel whether it comes from A, B, both or neither (invented): shares, and maps in this folder,
    METHOD/NAME.png."""


class AgreeOptions(ScoringOptions):
    """``train metrics agree``."""

    scores: Annotated[str, typer.Option(metavar="FILE")]
    """Table of the scores, CSV or .jsonl: columns image and method, and one for each score."""
    lower: Annotated[str | None, typer.Option(metavar="NAME,...")] = None
    """Columns in which lower is better."""
    metrics: Annotated[str | None, typer.Option(metavar="NAME,...|all")] = None
    """What to measure; all, or those whose published values the table has."""


class StressOptions(StrictModel):
    """``train metrics stress``."""

    data: Repeated = ()
    """A data set whose pairs are fused and degraded, repeatable; without one, the built-in scenes."""
    match: Match = None
    """Names of --data folder=A,B, where they differ: '{key}-A' '{key}-B'."""
    task: Annotated[Literal["vif", "mef", "mff"] | None, typer.Option(metavar="vif|mef|mff")] = None
    """Scenes of this task alone, or what the pairs of --data folder=A,B are."""
    metrics: Annotated[str | None, typer.Option(metavar="NAME,...|all")] = None
    """What to test; all of the profile that can run here."""
    profile: Annotated[str, typer.Option(metavar="NAME")] = "strict"
    """What the names mean: strict, or a toolbox as it is: see docs."""
    limit: Count = None
    """Pairs of each set, or scenes of each task; all, or 4."""
    crop: Annotated[int, Field(ge=0)] = 320
    """Side of the centre crop that is tested, pixels; 0: whole pictures."""
    out: Annotated[str | None, typer.Option(metavar="DIR"), LocalOut] = None
    """Also write the tables: stress.md, .json, .csv, agreement.csv, and stress.toml, the marks of reports."""
    workers: Count = None
    """Processes; all cores."""


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
        scores = score_files(chosen, faithfulness=chosen.faithfulness, progress=progress)
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
    """Test the metrics: how each responds to noise, haze, blur, over-sharpening, halos and misregistration.

    Each fault is added to a good fusion at four strengths; a metric that scores the worse image higher is marked.
    The tables also show which metrics agree with each other.
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
    """Compare how each metric ranks fused images with how other scores do: people's, or a metric's published values.

    FUSED may be 'DIR/{key}_{method}', for all methods of the table. A column with the name of one of the profile's
    metrics holds published values of that metric and is compared with it alone.
    """
    from clearfuse.train.evaluation.stress.agree import agree, to_json, to_text

    chosen = check_options(AgreeOptions, options)
    with console.progress("metrics", "images") as progress:
        found = agree(chosen, chosen.scores, lower=chosen.lower, progress=progress)
    typer.echo(json.dumps(to_json(found, chosen.profile), ensure_ascii=False) if json_ else to_text(found))


def _finite(values: dict[str, float]) -> dict[str, float | str]:
    """Infinite and undefined values as texts, which JSON has no numbers for."""
    return {name: value if math.isfinite(value) else str(value) for name, value in values.items()}

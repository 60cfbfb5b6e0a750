"""The command line ``train``. Heavy imports happen inside the commands: ``--help`` answers at once."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from synth import __version__, console

app = typer.Typer(
    name="train",
    help="Fit fusion models on shards that synth builds, fuse images with them, score the result.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


@app.callback(invoke_without_command=True)
def callback(
    version: bool = typer.Option(False, "--version", help="Print the version."),
) -> None:
    """Fit fusion models on shards that synth builds, fuse images with them, score the result."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command("eval")
def eval_command(
    shards: Annotated[list[str], typer.Argument(metavar="DIR|SHARD...", help="Folders of shards, or shards.")],
    out: Annotated[str, typer.Option("--out", help="Folder of the report.")] = "report",
    metrics: Annotated[
        str, typer.Option("--metrics", metavar="NAME,...", help="What to measure.")
    ] = "PSNR,SSIM,VIF,Qabf",
    limit: Annotated[int | None, typer.Option("--limit", help="Use this many samples at most, of all shards.")] = None,
    examples: Annotated[int, typer.Option("--examples", help="Samples to show as pictures.")] = 6,
    json_: JsonOption = False,
) -> None:
    """Score fused images on shards: report.md, report.csv, report.html with pictures, report.json."""
    from train.report import evaluate_shards, to_json, to_text

    with console.progress("eval", "samples") as progress:
        done = evaluate_shards(shards, out, metrics=metrics, limit=limit, examples=examples, progress=progress)
    console.note(f"wrote {out}/report.md, report.csv, report.html and report.json")
    typer.echo(json.dumps(to_json(done) | {"out": out}, ensure_ascii=False) if json_ else to_text(done))


@app.command("info")
def info_command(
    preset: Annotated[str, typer.Argument(metavar="PRESET", help="The preset's name.")],
    size: Annotated[str, typer.Option("--size", metavar="WxH", help="Image size of the costs.")] = "1024x1024",
    json_: JsonOption = False,
) -> None:
    """Say what a preset is and costs: parameters in total and active, FLOPs, memory."""
    from train.presets import describe, parse_size, to_text

    info = describe(preset, parse_size(size))
    typer.echo(json.dumps(info, ensure_ascii=False) if json_ else to_text(info))


def main() -> None:
    """The console script."""
    console.run_app(app, "train")


if __name__ == "__main__":
    main()

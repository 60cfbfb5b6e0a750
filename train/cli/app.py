"""The command line ``train``. Heavy imports happen inside the commands: ``--help`` answers at once."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from clearfuse.synth import console
from clearfuse.synth.version import __version__
from clearfuse.train.cli.cache import cache_command
from clearfuse.train.cli.compare import compare_command
from clearfuse.train.cli.fit import fit_command
from clearfuse.train.cli.options import (
    CompileOption,
    DeviceOption,
    GuidanceOption,
    JsonOption,
    ModelOption,
    SamplerOption,
    SamplerStepsOption,
    SetOption,
    TextOption,
    TokenizerOption,
    parts_of,
)

app = typer.Typer(
    name="train",
    help="Fit fusion models on shards that synth builds, fuse images with them, score the result.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

USUAL = "PSNR,SSIM,VIF,Qabf"
"""What ``train eval`` measures where no metric and no other profile is named."""


@app.callback(invoke_without_command=True)
def callback(
    version: bool = typer.Option(False, "--version", help="Print the version."),
) -> None:
    """Fit fusion models on shards that synth builds, fuse images with them, score the result."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


app.command("fit")(fit_command)


@app.command("fuse")
def fuse_command(
    a: Annotated[str, typer.Argument(metavar="A", help="Visible, under-exposed or near-focused: image or folder.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Infrared, over-exposed or far-focused: image or folder.")],
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE|DIR", help="The fused image, or a folder of them.")],
    task: Annotated[str, typer.Option("--task", metavar="vif|mef|mff", help="What the pair is.")],
    prompt: Annotated[str | None, typer.Option("--prompt", help="What to do; without it, to fuse the pair.")] = None,
    model: ModelOption = None,
    steps: SamplerStepsOption = None,
    sampler: SamplerOption = None,
    guidance: GuidanceOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of a flow model's noise.")] = 0,
    tokenizer: TokenizerOption = None,
    text: TextOption = None,
    compile_: CompileOption = False,
    device: DeviceOption = None,
    json_: JsonOption = False,
) -> None:
    """Fuse two images, or two folders of images paired by file name, of any size."""
    from clearfuse.train.pipeline.files import fuse_files

    with console.progress("fuse", "pairs") as progress:
        done = fuse_files(
            *(a, b, out, task),
            prompt=prompt, model=model, steps=steps, sampler=sampler, guidance=guidance, seed=seed, device=device,
            progress=progress, compiled=compile_, **parts_of(tokenizer, text),
        )  # fmt: skip
    typer.echo(json.dumps({"fused": done}) if json_ else f"fused {console.counted(len(done), 'pair')} into {out}")


@app.command("eval")
def eval_command(
    shards: Annotated[list[str], typer.Argument(metavar="SHARDS...", help=console.SHARDS)],
    out: Annotated[str, typer.Option("--out", help="Folder of the report.")] = "report",
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="NAME,...|all",
            help=f"What to measure; {USUAL}, or the profile's.",
        ),
    ] = None,
    profile: Annotated[
        str,
        typer.Option("--profile", metavar="NAME", help="What the names mean: strict, or a toolbox as it is: see docs."),
    ] = "strict",
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="DIR|HUB_ID|none",
            help="A model to score, repeatable; the only run in runs/. none: the fusers alone.",
        ),
    ] = None,
    results: Annotated[
        list[str] | None,
        typer.Option("--results", metavar="NAME=DIR", help="Anybody's fused images, by key or pair name; repeatable."),
    ] = None,
    restorer: Annotated[
        list[str] | None,
        typer.Option(
            "--restorer",
            metavar="OP,...=FILE",
            help="A restoration network of these degradations, which spandrel loads; repeatable.",
        ),
    ] = None,
    fuser: Annotated[
        list[str] | None,
        typer.Option(
            "--fuser", metavar="swinfusion|defuse|none", help="Learned fusers beside pyramid; all with weights here."
        ),
    ] = None,
    papers: Annotated[
        bool, typer.Option("--papers", help="Set the papers' tables beside ours; measures what they need.")
    ] = False,
    steps: SamplerStepsOption = None,
    sampler: SamplerOption = None,
    guidance: GuidanceOption = None,
    tokenizer: TokenizerOption = None,
    text: TextOption = None,
    device: DeviceOption = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Use this many samples at most, of all shards.")] = None,
    examples: Annotated[int, typer.Option("--examples", help="Samples to show as pictures.")] = 6,
    workers: Annotated[int | None, typer.Option("--workers", help="Processes; all cores.")] = None,
    json_: JsonOption = False,
) -> None:
    """Score fused images on shards: report.md, .tex, .html with pictures, .json, report.csv by sample, summary.csv.

    The same command goes on where it was stopped, to the same bytes.
    """
    from clearfuse.train.evaluation.evaluate import FILES, evaluate_shards
    from clearfuse.train.evaluation.methods.choose import methods_of
    from clearfuse.train.evaluation.writers.data import to_json
    from clearfuse.train.evaluation.writers.markdown import to_text
    from clearfuse.train.evaluation.writers.papers import compare_with_papers

    loading = parts_of(tokenizer, text) if tokenizer or text else None
    methods, left_out = methods_of(
        model, results=results or (), restorers=restorer or (), fusers=fuser, device=device, loading=loading,
        steps=steps, sampler=sampler, guidance=guidance,
    )  # fmt: skip
    with console.progress("eval", "samples") as progress:
        done = evaluate_shards(
            *(shards, out),
            metrics=USUAL if metrics is None and profile == "strict" else metrics,
            profile=profile, limit=limit, examples=examples, methods=methods, left_out=left_out, papers=papers,
            workers=workers, progress=progress, note=console.note,
        )  # fmt: skip
    console.note(f"wrote {', '.join(FILES)} in {out}")
    told = to_json(done, compare_with_papers(done) if papers else ()) | {"out": out}
    typer.echo(json.dumps(told, ensure_ascii=False) if json_ else to_text(done))


@app.command("info")
def info_command(
    preset: Annotated[str, typer.Argument(metavar="PRESET", help="The preset's name.")],
    size: Annotated[str, typer.Option("--size", metavar="WxH", help="Image size of the costs.")] = "1024x1024",
    set_: SetOption = None,
    tokenizer: TokenizerOption = None,
    text: TextOption = None,
    json_: JsonOption = False,
) -> None:
    """Say what a preset is and costs: parameters in total and active, latents, FLOPs, memory."""
    from clearfuse.train.designs.presets import describe, parse_size, to_text
    from clearfuse.train.runs.settings import Settings

    chosen = {"tokenizer": tokenizer, "text": text}
    parts = (f"{name}={json.dumps(value)}" for name, value in chosen.items() if value is not None)
    settings = Settings.of(preset, sets=[*(set_ or ()), *parts])
    info = describe(preset, parse_size(size), settings.design(), settings.adapts)
    typer.echo(json.dumps(info, ensure_ascii=False) if json_ else to_text(info))


@app.command("tokenizers")
def tokenizers_command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME|ID|DIR...]", help="Tokenizers, NAME=DIR too; dct.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", metavar="NAME=DIR", help="A data set, repeatable; all its splits.")
    ] = None,
    shards: Annotated[
        list[str] | None,
        typer.Option("--shards", metavar="SHARDS", help=f"The clean pairs of these, repeatable. {console.SHARDS}"),
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Use this many pairs at most, of all.")] = None,
    crop: Annotated[int | None, typer.Option("--crop", help="Take the middle of this side, pixels.")] = None,
    device: DeviceOption = None,
    json_: JsonOption = False,
) -> None:
    """Say what tokenizers lose and cost: PSNR, SSIM and time over pictures, the built-in scenes where none is named."""
    from clearfuse.train.evaluation.reconstruction import others, reconstruct, to_json, to_text

    with console.progress("tokenizers", "pictures") as progress:
        table = reconstruct(
            names or (),
            data=data or (), shards=shards or (), limit=limit, crop=crop, device=device,
            progress=progress,
        )  # fmt: skip
    if not names:
        console.note(f"others by name: {', '.join(others(('dct',)))}")
    typer.echo(json.dumps(to_json(table), ensure_ascii=False) if json_ else to_text(table))


app.command("compare")(compare_command)
app.command("cache")(cache_command)


def main() -> None:
    """The console script."""
    console.run_app(app, "train")


if __name__ == "__main__":
    main()

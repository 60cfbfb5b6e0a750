"""The command line ``train``. Heavy imports happen inside the commands: ``--help`` answers at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from clearfuse.synth import console
from clearfuse.synth.cli.options import JsonOption, takes
from clearfuse.synth.files.schema import check_options
from clearfuse.synth.version import __version__
from clearfuse.train.cli import downstream, metrics
from clearfuse.train.cli.cache import cache_command
from clearfuse.train.cli.compare import compare_command
from clearfuse.train.cli.demo import demo_command
from clearfuse.train.cli.fit import fit_command
from clearfuse.train.cli.info import info_command
from clearfuse.train.cli.listing import list_command
from clearfuse.train.cli.options import (
    USUAL,
    EvalOptions,
    ExportOptions,
    FuseOptions,
    TokenizerOptions,
)

app = typer.Typer(
    name="train",
    help="Fit fusion models on shards that synth builds, fuse images with them, score the result.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


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
@takes(FuseOptions)
def fuse_command(json_: JsonOption = False, **options: Any) -> None:
    """Fuse images, of any size, depth and number: pairs, stacks, frames, files, folders, data sets or shards.

    Grey stays grey, 16 bits stay 16, alpha is kept; folders pair by file name.
    """
    from clearfuse.train.pipeline.files import fuse_files
    from clearfuse.train.pipeline.fuse import Plan

    chosen = check_options(FuseOptions, options)
    named = ("steps", "sampler", "guidance", "guidance_images", "strength", "seed", "tile")
    plan = Plan(
        chosen.prompt, tuple((name, getattr(chosen, name)) for name in named), chosen.scale, chosen.registered,
        chosen.frames, chosen.steady, chosen.compare, chosen.mask,
    )  # fmt: skip
    with console.progress("fuse", "images") as progress:
        done = fuse_files(
            *(chosen.inputs, chosen.out, chosen.task),
            data=chosen.data, match=chosen.match, split=chosen.split, limit=chosen.limit,
            stacks=chosen.stacks, plan=plan,
            model=chosen.model, device=chosen.device, parts=chosen.parts, compiled=chosen.compiled,
            attention=chosen.attention, progress=progress,
        )  # fmt: skip
    count = len(done) // (1 + len(plan.beside(Path("x.png"))))
    what = console.plural(count, "pair" if len(chosen.inputs) == 2 or chosen.data else "image")
    typer.echo(json.dumps({"fused": done}) if json_ else f"fused {what} into {chosen.out}")


@app.command("export")
@takes(ExportOptions)
def export_command(json_: JsonOption = False, **options: Any) -> None:
    """Write a regression model as one ONNX graph, for onnxruntime: docs/export.md says what goes in and comes out.

    --merge writes a folder instead: a model of ditfuse whose base has the adapters in it.
    """
    from clearfuse.train.pipeline.export import export_merged, export_onnx
    from clearfuse.train.pipeline.files import load_pipeline

    chosen = check_options(ExportOptions, options)
    pipeline = load_pipeline(chosen.model, "cpu", chosen.parts)
    if chosen.merge:
        export_merged(pipeline, chosen.out)
        typer.echo(json.dumps({"out": chosen.out}) if json_ else f"wrote {chosen.out}")
        return
    taken = export_onnx(pipeline, chosen.out)
    told = ", ".join(f"{name} ({', '.join(map(str, shape))})" for name, shape in taken.items())
    typer.echo(json.dumps({"out": chosen.out, "inputs": taken}) if json_ else f"wrote {chosen.out}, which takes {told}")


@app.command("eval")
@takes(EvalOptions)
def eval_command(json_: JsonOption = False, **options: Any) -> None:
    """Score fused images on shards or pairs: report.md, .tex, .html with pictures, .json, report.csv, summary.csv.

    The same command goes on where it was stopped, to the same bytes.
    """
    from clearfuse.train.evaluation.evaluate import FILES, evaluate_portions
    from clearfuse.train.evaluation.methods.choose import methods_of
    from clearfuse.train.evaluation.pairs import pair_portions
    from clearfuse.train.evaluation.samples import plan_portions
    from clearfuse.train.evaluation.writers.data import to_json
    from clearfuse.train.evaluation.writers.markdown import to_text
    from clearfuse.train.evaluation.writers.papers import compare_with_papers

    chosen = check_options(EvalOptions, options)
    chosen.check_inputs()
    device = chosen.metrics_device
    if chosen.pairs is None:
        portions = plan_portions(chosen.shards, chosen.limit)
    else:
        how = {"match": chosen.match, "scale": chosen.scale, "limit": chosen.limit}
        portions = pair_portions(chosen.pairs, chosen.task, **how)
    loading = {"parts": chosen.parts} if chosen.references else None
    methods, left_out = methods_of(
        chosen.model or None, results=chosen.results, scale=chosen.scale, restorers=chosen.restorer,
        fusers=chosen.fuser or None, device=chosen.device, loading=loading, unprompted=chosen.unprompted,
        without_prior=chosen.without_prior,
        steps=chosen.steps, sampler=chosen.sampler, guidance=chosen.guidance,
        guidance_images=chosen.guidance_images, strength=chosen.strength,
    )  # fmt: skip
    metrics, papers = chosen.metrics, chosen.papers
    with console.progress("eval", "samples") as progress:
        done = evaluate_portions(
            *(portions, chosen.out),
            metrics=USUAL if metrics is None and chosen.profile == "strict" else metrics,
            profile=chosen.profile, examples=chosen.examples, methods=methods, left_out=left_out,
            papers=papers, workers=chosen.workers, device=device, progress=progress, note=console.note,
        )  # fmt: skip
    console.note(f"wrote {', '.join(FILES)} in {chosen.out}")
    told = to_json(done, compare_with_papers(done) if papers else ()) | {"out": chosen.out}
    typer.echo(json.dumps(told, ensure_ascii=False) if json_ else to_text(done))


app.add_typer(metrics.app, name="metrics")
app.add_typer(downstream.app, name="downstream")
app.command("info")(info_command)


@app.command("tokenizers")
@takes(TokenizerOptions)
def tokenizers_command(json_: JsonOption = False, **options: Any) -> None:
    """Say what tokenizers lose and cost: PSNR, SSIM and time over pictures, the built-in scenes where none is named."""
    from clearfuse.train.evaluation.reconstruction import others, reconstruct, to_json, to_text

    chosen = check_options(TokenizerOptions, options)
    with console.progress("tokenizers", "pictures") as progress:
        table = reconstruct(
            chosen.names,
            data=chosen.data, match=chosen.match, shards=chosen.shards, limit=chosen.limit, crop=chosen.crop,
            device=chosen.device, progress=progress,
        )  # fmt: skip
    if not chosen.names:
        console.note(f"others by name: {', '.join(others(('dct',)))}")
    typer.echo(json.dumps(to_json(table), ensure_ascii=False) if json_ else to_text(table))


app.command("list")(list_command)
app.command("compare")(compare_command)
app.command("demo")(demo_command)
app.command("cache")(cache_command)


def main() -> None:
    """The console script."""
    console.run_app(app, "train")


if __name__ == "__main__":
    main()

"""``train fit``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from clearfuse.synth import console
from clearfuse.train.cli.options import (
    CompileOption,
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

TrackerOption = Annotated[
    list[str] | None,
    typer.Option(
        "--tracker", metavar="tensorboard|wandb|trackio|none", help="Where the curves go, repeatable; tensorboard."
    ),
]


def fit_command(
    shards: Annotated[
        list[str],
        typer.Argument(metavar="SHARDS...", help=console.SHARDS),
    ],
    out: Annotated[str | None, typer.Option("--out", metavar="DIR", help="The run's folder; runs/PRESET.")] = None,
    preset: Annotated[
        str | None, typer.Option("--preset", help="What to fit; tiny-reg without CUDA, else mmaif-reg.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Steps of the optimizer; the preset's.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Samples a batch.")] = None,
    accumulate: Annotated[int | None, typer.Option("--accumulate", help="Batches a step.")] = None,
    crop: CropOption = None,
    ratios: RatiosOption = None,
    lr: Annotated[float | None, typer.Option("--lr", help="Peak learning rate.")] = None,
    mix: Annotated[
        str | None,
        typer.Option("--mix", metavar="W,W...", help="Weights of the arguments, in their order; their samples."),
    ] = None,
    set_: SetOption = None,
    recipe: RecipeOption = None,
    partial: PartialOption = 0.0,
    tokenizer: TokenizerOption = None,
    text: TextOption = None,
    text_cache: TextCacheOption = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of weights, order, crops and noise.")] = 0,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes that decode; all cores but one, at most 8.")
    ] = None,
    validate_every: Annotated[int, typer.Option("--validate-every", metavar="STEPS", help="Validate so often.")] = 250,
    checkpoint_every: Annotated[
        int, typer.Option("--checkpoint-every", metavar="STEPS", help="Save this often.")
    ] = 250,
    keep: Annotated[int, typer.Option("--keep", help="Latest checkpoints that stay, beside the best.")] = 2,
    on_nan: Annotated[
        str, typer.Option("--on-nan", metavar="stop|skip", help="What a loss or gradient that is not finite does.")
    ] = "stop",
    sharded: Annotated[
        bool, typer.Option("--sharded", help="Several processes share the weights out (FSDP2), without copies (DDP).")
    ] = False,
    precision: Annotated[
        str | None, typer.Option("--precision", metavar="auto|bf16|fp32", help="Of the network; bf16 on CUDA.")
    ] = None,
    tracker: TrackerOption = None,
    device: DeviceOption = None,
    compile_: CompileOption = False,
    graphs: Annotated[
        bool, typer.Option("--cuda-graphs", help="Compile, and replay as CUDA graphs: for small networks.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start anew where a run is.")] = False,
    json_: JsonOption = False,
) -> None:
    """Fit a model on shards. The same command goes on where it was stopped, to the same numbers."""
    import dataclasses

    from clearfuse.train.cli.defaults import run_fit
    from clearfuse.train.training.progress import show_progress

    changed = {"steps": steps, "batch": batch, "accumulate": accumulate, "crop": crop, "ratios": ratios, "lr": lr}
    changed["precision"] = precision
    run_options = {
        "validate_every": validate_every,
        "checkpoint_every": checkpoint_every,
        "keep": keep,
        "on_nan": on_nan,
    }
    run_options |= {
        "sharded": sharded,
        "compiled": compile_,
        "graphs": graphs,
        "trackers": tuple(tracker or ("tensorboard",)),
    }
    with show_progress() as progress:
        done = run_fit(
            *(shards, out, preset, seed, changed),
            sets=set_ or (),
            mix=mix,
            tokenizer=tokenizer,
            text=text,
            **parts_of(None, None, text_cache),
            recipes=recipe or (),
            partial=partial,
            workers=workers,
            run_options=run_options,
            device=device,
            overwrite=overwrite,
            progress=progress,
            note=console.note,
        )
    if done.rank == 0:
        typer.echo(json.dumps(dataclasses.asdict(done)) if json_ else done.line())

"""Options that several commands of ``train`` share, and what they come to."""

from __future__ import annotations

from typing import Annotated, Any

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", metavar="DIR|HUB_ID", help="A run's folder or a model on the hub; the only one in runs/."),
]
SamplerOption = Annotated[str | None, typer.Option("--sampler", help="A flow model's sampler, instead of its own.")]
SamplerStepsOption = Annotated[int | None, typer.Option("--steps", help="Steps of a flow model's sampler.")]
GuidanceOption = Annotated[
    float | None, typer.Option("--guidance", help="How strongly a flow model follows the prompt; 1: as it learned to.")
]
DeviceOption = Annotated[str | None, typer.Option("--device", help="cpu or cuda; CUDA where there is one.")]

TokenizerOption = Annotated[
    str | None,
    typer.Option(
        "--tokenizer", metavar="NAME|ID|DIR", help="Images to latents and back; the preset's, the model's own."
    ),
]
TextOption = Annotated[
    str | None,
    typer.Option("--text", metavar="NAME|ID|DIR", help="What reads the prompts; the preset's, the model's own."),
]
TextCacheOption = Annotated[
    str | None, typer.Option("--text-cache", metavar="DIR", help="Keep the prompts' embeddings in this folder.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="A.B=C",
        help="Change one value of the preset, such as objective.pixel=0.1 or schedule.ema=0.999; repeatable.",
    ),
]
RecipeOption = Annotated[
    list[str] | None,
    typer.Option(
        "--recipe", metavar="NAME|FILE", help="What degrades lean shards; repeatable by task; the task's own."
    ),
]
CropOption = Annotated[
    int | None, typer.Option("--crop", help="Side of the training crops, or of a square as large, pixels.")
]
RatiosOption = Annotated[
    str | None, typer.Option("--ratios", metavar="W:H,...", help="Shapes of the crops, such as 16:9,4:3,1:1.")
]
PartialOption = Annotated[
    float, typer.Option("--partial", help="Lean shards: share of prompts that ask for a part of the steps only.")
]
CompileOption = Annotated[bool, typer.Option("--compile", help="Compile the network; its first call takes longer.")]


def parts_of(tokenizer: str | None, text: str | None, text_cache: str | None = None) -> dict[str, Any]:
    """The options that say where a model's parts are, as functions take them."""
    from pathlib import Path

    from clearfuse.train.designs.design import Parts

    return {"parts": Parts(tokenizer, text, Path(text_cache) if text_cache else None)}

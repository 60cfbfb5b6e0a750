"""How a run is carried out: options that do not change what it computes."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from pydantic import Field, model_validator

from clearfuse.synth.builder.options import Texts
from clearfuse.synth.files.schema import StrictModel
from clearfuse.synth.types import UserError

Every = Annotated[int, Field(ge=1), typer.Option(metavar="STEPS")]


class RunOptions(StrictModel):
    """How a run is carried out, which does not change what it computes."""

    workers: Annotated[int | None, Field(ge=0)] = 0
    """Processes that decode, of each process that trains; 0: none."""
    validate_every: Every = 250
    """Validate so often."""
    checkpoint_every: Every = 250
    """Save this often."""
    keep: Annotated[int, Field(ge=1)] = 2
    """Latest checkpoints that stay, beside the best."""
    on_nan: Annotated[Literal["stop", "skip"], typer.Option(metavar="stop|skip")] = "stop"
    """What a loss or gradient that is not finite does."""
    sharded: bool = False
    """Several processes share the weights out (FSDP2), without copies (DDP)."""
    compiled: Annotated[bool, typer.Option("--compile")] = False
    """Compile the network; its first call takes longer."""
    graphs: Annotated[bool, typer.Option("--cuda-graphs")] = False
    """Compile, and replay as CUDA graphs: for small networks."""
    attention: Annotated[str, typer.Option(metavar="auto|xformers|sdpa")] = "auto"
    """Kernel of attention on CUDA; auto: torch's, or xformers' for masks."""
    trackers: Annotated[
        Texts, typer.Option("--tracker", metavar="tensorboard|wandb|trackio|none", show_default=False)
    ] = ("tensorboard",)
    """Where the curves go, repeatable; tensorboard."""

    @model_validator(mode="after")
    def _together(self) -> RunOptions:
        from clearfuse.train.runs.trackers import choose_trackers

        if self.graphs and self.sharded:
            raise UserError("--cuda-graphs: not with --sharded, whose weights come and go")
        choose_trackers(self.trackers)
        return self

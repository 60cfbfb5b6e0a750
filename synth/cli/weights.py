"""``synth weights``: checkpoints of the learned fusers."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from clearfuse.synth import console
from clearfuse.synth.cli.options import JsonOption

app = typer.Typer(
    help="Checkpoints of the learned fusers.", no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


@app.command("list")
def list_command(json_: JsonOption = False) -> None:
    """List the checkpoints: which there are, where they lie, where they come from."""
    from clearfuse.synth.files.checkpoints import digest
    from clearfuse.synth.fusers.weights import WEIGHTS, find_weights, how_to_get

    paths = {name: find_weights(name) for name in WEIGHTS}
    if json_:
        entries = {
            name: {
                "about": one.about,
                "licence": one.licence,
                "page": one.page,
                "path": None if path is None else str(path),
                "weights": None if path is None else digest(path),
            }
            for (name, one), path in zip(WEIGHTS.items(), paths.values(), strict=True)
        }
        typer.echo(json.dumps(entries))
        return
    for name, path in paths.items():
        one = WEIGHTS[name]
        state = f"missing: {how_to_get(name)}" if path is None else str(path)
        typer.echo(f"{name:<14}  {one.about} (licence: {one.licence}); {state}")


@app.command("get")
def get_command(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Checkpoints: see synth weights list.")],
    json_: JsonOption = False,
) -> None:
    """Download checkpoints from their pinned addresses and check their hashes."""
    from clearfuse.synth.fusers.weights import get_weights

    paths: dict[str, str] = {}
    for name in names:
        with console.progress(f"get {name}", "bytes") as progress:
            paths[name] = str(get_weights(name, progress))
    _say(paths, json_)


@app.command("add")
def add_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A checkpoint: see synth weights list.")],
    file: Annotated[str, typer.Argument(metavar="FILE", help="Its file, .pth or .safetensors.")],
    json_: JsonOption = False,
) -> None:
    """Take a checkpoint from a local file, once it fits its network."""
    from clearfuse.synth.fusers.weights import add_weights

    _say({name: str(add_weights(name, file))}, json_)


def _say(paths: dict[str, str], as_json: bool) -> None:
    typer.echo(json.dumps(paths) if as_json else "\n".join(f"{name}: {path}" for name, path in paths.items()))

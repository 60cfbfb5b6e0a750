"""``synth cache``: what builds keep for later builds."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from clearfuse.synth.cli.options import JsonOption

app = typer.Typer(help="What builds keep for later ones: ground truth and depth of clean pairs.", no_args_is_help=True)


@app.command("info")
def info_command(json_: JsonOption = False) -> None:
    """Show the folder, and what lies in it."""
    from clearfuse.synth.files.cache import KINDS, cache_folder, usage

    found = usage()
    if json_:
        kinds = {each.kind: {"entries": each.entries, "bytes": each.size} for each in found}
        typer.echo(json.dumps({"folder": str(cache_folder()), "kinds": kinds}))
        return
    typer.echo(f"{cache_folder()} (CLEARFUSE_CACHE names another)")
    for each in found:
        typer.echo(f"{each.kind:<11}{each.entries:>8} {each.size / 1e6:>10.1f} MB  {KINDS[each.kind]}")


@app.command("clear")
def clear_command(
    kind: Annotated[list[str] | None, typer.Option("--kind", help="This kind alone; repeatable.")] = None,
    json_: JsonOption = False,
) -> None:
    """Remove what is kept; builds make it anew. Weights stay."""
    from clearfuse.synth.files.cache import KINDS, clear
    from clearfuse.synth.types import unknown

    for name in kind or ():
        if name not in KINDS:
            raise unknown("kind", name, KINDS)
    taken = clear(tuple(kind or KINDS))
    entries, size = sum(each.entries for each in taken), sum(each.size for each in taken)
    typer.echo(json.dumps({"entries": entries, "bytes": size}) if json_ else f"removed {entries}, {size / 1e6:.1f} MB")

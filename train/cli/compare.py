"""``train compare``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from clearfuse.synth import console
from clearfuse.synth.cli.options import JsonOption


def compare_command(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN...]", help="Runs' folders, or folders of them; runs.")
    ] = None,
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="The page of curves.")] = "compare.html",
    json_: JsonOption = False,
) -> None:
    """Compare runs: a table of where they stand, and a page of their curves, which needs nothing but a browser."""
    from clearfuse.synth.files.folders import check_html
    from clearfuse.train.runs.compare import read_runs, to_json, to_text
    from clearfuse.train.runs.page import write_page

    check_html(out)
    read = read_runs(runs or ["runs"])
    write_page(out, read)
    console.note(f"wrote {out}")
    typer.echo(json.dumps(to_json(read) | {"out": out}, ensure_ascii=False) if json_ else to_text(read))

"""``synth push``: what is done with a finished build."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from synth import console


def push_command(
    out: Annotated[str, typer.Argument(metavar="DIR", help="A finished build: a folder or a URL.")],
    repo: Annotated[str, typer.Argument(metavar="NAME/BUILD", help="The data-set repository; made where missing.")],
    private: Annotated[
        bool, typer.Option("--private/--public", help="Of a repository that is made here; one that is there stays.")
    ] = True,
    revision: Annotated[
        str | None, typer.Option("--revision", help="A branch, made where missing. [default: main]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace another build that is there.")] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Push a finished build to the Hugging Face hub; what is there already is not sent again."""
    from synth.push import push

    with console.progress("push", "files") as progress:
        done = push(out, repo, private=private, revision=revision, overwrite=overwrite, progress=progress)
    removed = f", {done.removed} of an earlier build removed" if done.removed else ""
    text = f"pushed {console.counted(done.sent, 'file')} ({done.held} were there{removed}) to {done.url}"
    typer.echo(json.dumps(asdict(done)) if json_ else text)

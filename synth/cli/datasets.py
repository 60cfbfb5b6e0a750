"""``synth datasets``: commands about folders of data sets."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from clearfuse.synth import console
from clearfuse.synth.builder.options import Options
from clearfuse.synth.cli.options import JsonOption, option
from clearfuse.synth.types import TASKS, Task, unknown

app = typer.Typer(help="Folders of data sets.", no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def _group() -> None:
    """Folders of data sets."""


@app.command("check")
def check_command(
    data: Annotated[list[str], typer.Argument(metavar="NAME=DIR...", help="Data sets and their folders.")],
    task: Annotated[str, typer.Option("--task", help="For folder=DIR_A,DIR_B: vif, mef or mff.")] = "vif",
    match: Annotated[tuple[str, str] | None, option(Options, "match")] = None,
    degradations: Annotated[
        bool, typer.Option("--degradations", help="Also estimate what is wrong with the pictures as they are.")
    ] = False,
    json_: JsonOption = False,
) -> None:
    """Check every pair: readable, of one size, right modality, registered, in one split. Exit code 1: problems."""
    from clearfuse.synth.datasets.check import check_sets, describe
    from clearfuse.synth.datasets.select import folders, with_match

    named = folders(with_match(data, match))
    with console.progress("check", "pairs") as progress:
        report = check_sets(named, _task(task), progress)
    facts, text = report.to_json(), describe(report)
    if degradations:
        from clearfuse.synth.estimation import audit

        with console.progress("estimate", "pairs") as progress:
            audited = audit.audit(named, _task(task), progress)
        facts["degradations"] = audited
        text += "\n" + audit.describe(audited)
    typer.echo(json.dumps(facts, ensure_ascii=False) if json_ else text)
    raise typer.Exit(1 if report.problems else 0)


@app.command("fingerprints")
def fingerprints_command(
    data: Annotated[str, typer.Argument(metavar="NAME=DIR", help="A data set and its folder.")],
) -> None:
    """Print a set's lines for manifests/fingerprints.toml, by which other sets know its scenes."""
    from clearfuse.synth.datasets.check import fingerprint_lines
    from clearfuse.synth.datasets.select import folders

    ((name, location),) = folders([data]).items()
    typer.echo("\n".join(fingerprint_lines(name, location)))


def _task(text: str) -> Task:
    task: Task
    for task in TASKS:
        if task == text:
            return task
    raise unknown("task", text, TASKS)

"""The command line ``train``."""

from __future__ import annotations

import typer

from synth import __version__, console

app = typer.Typer(
    name="train",
    help="Fit fusion models on shards that synth builds, fuse images with them, score the result.",
    no_args_is_help=True,
    add_completion=False,
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


def main() -> None:
    """The console script."""
    console.run_app(app, "train")


if __name__ == "__main__":
    main()

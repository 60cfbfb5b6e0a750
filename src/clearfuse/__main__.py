"""The command ``clearfuse``, and ``python -m clearfuse``: ``synth …``, ``train …``, ``bench …`` and ``doctor``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import clearfuse

if TYPE_CHECKING:
    import typer

USAGE = """Usage: clearfuse synth|train|bench COMMAND [ARGS]...
       clearfuse doctor [--json] [--offline]
       clearfuse --version | --install-completion | --show-completion

  synth   make degraded data from clean pairs, look at it, check it
  train   fit models on it, fuse images, score the result
  bench   build a benchmark from its TOML file, score methods on it, submit scores
  doctor  say what this machine has, what it lacks, and what to do about it

--install-completion teaches the shell that runs this to complete commands and options by the tab key, --show-completion
prints what it would add; synth and train have both as well.

clearfuse synth --help, clearfuse train --help and clearfuse bench --help list the commands of each."""


def main() -> None:
    """Hand the arguments to ``synth``, ``train``, ``bench`` or ``doctor``."""
    clearfuse.leave_users_folder()
    name, arguments = (sys.argv[1] if len(sys.argv) > 1 else "--help"), sys.argv[2:]
    if "_CLEARFUSE_COMPLETE" in os.environ or name in ("--install-completion", "--show-completion"):
        from clearfuse.synth.console import run_app

        run_app(all_commands(), "clearfuse")
    if name in ("-h", "--help"):
        print(USAGE)
        return
    if name == "--version":
        from clearfuse.synth.version import __version__

        print(f"clearfuse {__version__}")
        return
    if name == "doctor":
        from clearfuse import doctor

        raise SystemExit(doctor.main(arguments))
    sys.argv = [f"clearfuse {name}", *arguments]
    if name == "synth":
        from clearfuse.synth.cli import main as run
    elif name == "train":
        from clearfuse.train.cli import main as run
    elif name == "bench":
        from clearfuse.bench.cli import main as run
    else:
        print(f"clearfuse: error: {_unknown(name)}", file=sys.stderr)
        raise SystemExit(2)
    run()


def _unknown(name: str) -> str:
    """What is wrong with a command's name, and where it is one."""
    from typer.main import get_command

    from clearfuse.synth.types import unknown

    whole = get_command(all_commands())
    parts = {part: getattr(found, "commands", {}) for part, found in getattr(whole, "commands", {}).items()}
    places = [f"clearfuse {part} {name}" for part, commands in parts.items() if name in commands]
    return (
        f"'{name}' is a part of another command: {' or '.join(places)}"
        if places
        else str(unknown("command", name, parts))
    )


def all_commands() -> typer.Typer:
    """All commands as one command line, which a shell that completes them asks."""
    import typer

    from clearfuse.bench.cli import app as bench
    from clearfuse.synth.cli.app import app as synth
    from clearfuse.train.cli.app import app as train

    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)
    for name, part in (("synth", synth), ("train", train), ("bench", bench)):
        app.add_typer(part, name=name)

    @app.command("doctor")
    def doctor(  # pyright: ignore[reportUnusedFunction]  # of the table
        as_json: bool = typer.Option(False, "--json", help="Print JSON."),
        offline: bool = typer.Option(False, "--offline", help="Ask no server."),
    ) -> None:
        """Say what this machine has, what it lacks, and what to do about it."""
        from clearfuse.doctor import main as examine

        raise typer.Exit(examine(["--json"] * as_json + ["--offline"] * offline))

    return app


if __name__ == "__main__":
    main()

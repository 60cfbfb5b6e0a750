"""The command line ``synth``: a module a group of commands. Nothing is imported before a command runs."""

from __future__ import annotations


def main() -> None:
    """The command ``synth``."""
    from clearfuse.synth.cli.app import main as run

    run()

"""The command line ``train``: a module a group of commands. Nothing is imported before a command runs."""

from __future__ import annotations


def main() -> None:
    """The command ``train``."""
    from clearfuse.train.cli.app import main as run

    run()

"""The models that ship with the package: ``models/NAME/`` of the repository, each with its card.

A shipped model is a pipeline's folder (see ``pipeline.fusion``) with weights in fp16, which load as fp32.
"""

from __future__ import annotations

from pathlib import Path

from clearfuse.synth import console
from clearfuse.synth.files.resources import resource_dir
from clearfuse.synth.types import UserError
from clearfuse.train.runs.folder import the_only_run

DEFAULT = "clearfuse-small"
SHIPPED: dict[str, str] = {
    "clearfuse-small": "trained on real pairs and built-in scenes; terms: research, see its card",
}
"""The models by name, and what decides who may use them."""


def shipped_folder(name: str) -> Path | None:
    """The folder of a shipped model, also by the end of its name (``small``); None for a name that is none.

    Raises UserError where it is not installed.
    """
    name = name if name in SHIPPED else f"clearfuse-{name}"
    if name not in SHIPPED:
        return None
    folder = resource_dir("models") / name
    if not folder.is_dir():
        raise UserError(f"--model {name}: is missing from this installation of clearfuse; reinstall it")
    return folder


def folder_of(name: str) -> Path:
    """The folder that a model's name means on this machine, a shipped one's too; of the hub, one that is not there."""
    return Path(name) if Path(name).exists() else shipped_folder(name) or Path(name)


def default_model() -> str:
    """The model where none is named: the only run under ``runs/``, else the shipped one; said in one line.

    Raises UserError with the list where there are several runs.
    """
    run = the_only_run()
    if run is not None:
        console.note(f"model: {run}, the only run here; --model {DEFAULT} is the one that ships")
        return str(run)
    console.note(f"model: {DEFAULT}, {SHIPPED[DEFAULT]}; another by --model DIR or HUB_ID")
    return DEFAULT

"""``train fit`` as a function: what the command line leaves open, decided."""

from __future__ import annotations

import os

from clearfuse.synth.types import UserError
from clearfuse.train.cli.options import FitOptions
from clearfuse.train.designs.presets import PRESETS, Preset, find_preset
from clearfuse.train.device import find_device
from clearfuse.train.pipeline.initial import design_of
from clearfuse.train.runs.options import RunOptions
from clearfuse.train.runs.settings import Settings
from clearfuse.train.training.progress import Progress
from clearfuse.train.training.ranks import local_world_size
from clearfuse.train.training.trainer import Fitted, Note, fit


def default_preset(init: str | None = None) -> str:
    """What suits the machine, or the model that a run starts from: the first preset of that model's design.

    Raises UserError where there is no such model, or no preset is of its design.
    """
    if init is None:
        return "mmaif-reg" if find_device().type == "cuda" else "tiny-reg"
    design = design_of(init)
    for name, preset in PRESETS.items():
        if (preset.design.model, preset.design.config) == (design.model, design.config):
            return name
    raise UserError(f"--init {init}: no preset has the design of this model: say which to fit by --preset")


MOST_WORKERS = 32
"""Processes that decode, of each process that trains: more wait for each other's memory and the disk."""


def usual_workers() -> int:
    """All cores but one, shared by this machine's training processes."""
    return min(max((os.cpu_count() or 1) // local_world_size() - 1, 1), MOST_WORKERS)


def run_options(chosen: FitOptions, preset: Preset) -> RunOptions:
    """How the run is carried out: the preset's intervals and the machine's cores where not told."""
    usual = {"workers": usual_workers(), "validate_every": preset.every, "checkpoint_every": preset.every}
    return chosen.model_copy(update={name: one for name, one in usual.items() if getattr(chosen, name) is None})


def run_fit(chosen: FitOptions, progress: Progress, note: Note) -> Fitted:
    """Fit, with the preset that suits the machine and a folder under ``runs/`` where not told."""
    name = chosen.preset or default_preset(chosen.init)
    return fit(
        list(chosen.shards),
        chosen.out or f"runs/{name}",
        Settings.of(name, chosen.seed, [*chosen.sets, *chosen.changes], **chosen.changed),
        recipes=chosen.recipe,
        partial=chosen.partial,
        language=chosen.language,
        dial=chosen.dial,
        run_options=run_options(chosen, find_preset(name)),
        device=chosen.device,
        overwrite=chosen.overwrite,
        parts=chosen.parts,
        progress=progress,
        note=note,
    )

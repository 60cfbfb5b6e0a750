"""``train fit`` as a function: what the command line leaves open, decided."""

from __future__ import annotations

import os

from clearfuse.train.cli.options import FitOptions
from clearfuse.train.device import find_device
from clearfuse.train.runs.settings import Settings
from clearfuse.train.training.progress import Progress
from clearfuse.train.training.ranks import local_world_size
from clearfuse.train.training.trainer import Fitted, Note, fit


def default_preset() -> str:
    """What suits the machine."""
    return "mmaif-reg" if find_device().type == "cuda" else "tiny-reg"


def run_fit(chosen: FitOptions, progress: Progress, note: Note) -> Fitted:
    """Fit, with the preset that suits the machine, a folder under ``runs/``, and a process a core where not told."""
    name = chosen.preset or default_preset()
    workers = min(max((os.cpu_count() or 1) // local_world_size() - 1, 1), 8)
    return fit(
        list(chosen.shards),
        chosen.out or f"runs/{name}",
        Settings.of(name, chosen.seed, [*chosen.sets, *chosen.changes], **chosen.changed),
        recipes=chosen.recipe,
        partial=chosen.partial,
        language=chosen.language,
        run_options=chosen if chosen.workers is not None else chosen.model_copy(update={"workers": workers}),
        device=chosen.device,
        overwrite=chosen.overwrite,
        parts=chosen.parts,
        progress=progress,
        note=note,
    )

"""``train fit`` as a function: what the command line leaves open, decided."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from clearfuse.synth.types import UserError
from clearfuse.train.device import find_device
from clearfuse.train.runs.settings import Settings
from clearfuse.train.training.ranks import local_world_size
from clearfuse.train.training.trainer import Fitted, RunOptions, fit


def default_preset() -> str:
    """What suits the machine."""
    return "mmaif-reg" if find_device().type == "cuda" else "tiny-reg"


def parse_mix(text: str) -> list[float]:
    """``2,1,1`` as numbers. Raises UserError where it is not like that."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"--mix {text}: must be a weight for each argument, such as 2,1,1") from None


def part_sets(tokenizer: str | None, text: str | None) -> list[str]:
    """References in place of a preset's, as changes of its design."""
    chosen = {"tokenizer": tokenizer, "text": text}
    return [f"{name}={json.dumps(value)}" for name, value in chosen.items() if value is not None]


def run_fit(
    shards: list[str],
    out: str | None,
    preset: str | None,
    seed: int,
    changed: Mapping[str, Any],
    *,
    sets: Sequence[str] = (),
    mix: str | None = None,
    tokenizer: str | None = None,
    text: str | None = None,
    workers: int | None = None,
    run_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> Fitted:
    """Fit, with the preset that suits the machine, a folder under ``runs/``, and a process a core where not told.

    run_options: how it is carried out, as ``RunOptions`` names it. mix: weights of the sources, as ``2,1,1``.
    tokenizer, text: references in place of the preset's; the network is fitted to their sizes.
    """
    sets = [*sets, *part_sets(tokenizer, text)]
    name = preset or default_preset()
    if mix is not None:
        changed = {**changed, "mix": parse_mix(mix)}
    if workers is None:
        workers = min(max((os.cpu_count() or 1) // local_world_size() - 1, 1), 8)
    carried_out = RunOptions(workers=workers, **(run_options or {}))
    return fit(
        shards, out or f"runs/{name}", Settings.of(name, seed, sets, **changed), run_options=carried_out, **options
    )

"""What a user can say about a build, and the checks that need no data."""

from __future__ import annotations

import os
from dataclasses import dataclass

from clearfuse.synth.datasets.select import check_pairing, split_names
from clearfuse.synth.files import storage
from clearfuse.synth.files.cache import cache_folder
from clearfuse.synth.fusers import FUSER_HELP
from clearfuse.synth.types import TASKS, Task, UserError, unknown


@dataclass(frozen=True)
class Options:
    """What a user can say about a build; the names and defaults are the command line's."""

    task: str
    data: tuple[str, ...] = ()
    out: str | None = None
    n: str | None = None
    recipe: str | None = None
    prompts: str | None = None
    sets: tuple[str, ...] = ()
    seed: int = 0
    workers: int | None = None
    split: str = "train"
    pairs: str = "extreme"
    licence: str | None = None
    limit: int | None = None
    variants: int = 1
    shard_size: int = 256
    fuser: str = "auto"
    depth: str = "auto"
    codec: str = "webp"
    executor: str = "processes"
    timeout: float = 1800.0
    partial: float = 0.0
    max_rejects: float = 0.01
    min_gt: float = 0.0
    overwrite: bool = False
    extend: bool = False
    lean: bool = False


def check_options(options: Options) -> Task:
    task: Task
    for task in TASKS:
        if task == options.task:
            break
    else:
        raise unknown("task", options.task, TASKS)
    split_names(options.split)
    check_pairing(options.pairs)
    if options.fuser not in FUSER_HELP:
        raise unknown("fuser", options.fuser, FUSER_HELP)
    least = {"variants": 1, "shard_size": 1, "limit": 1, "workers": 1}
    for name, low in least.items():
        value = getattr(options, name)
        if value is not None and value < low:
            raise UserError(f"--{name.replace('_', '-')} {value}: must be at least {low}")
    if not 0 <= options.seed < 2**53:
        raise UserError(f"--seed {options.seed}: must be in [0, 2^53)")
    for name in ("partial", "max_rejects", "min_gt"):
        value = getattr(options, name)
        if not 0 <= value <= 1:
            raise UserError(f"--{name.replace('_', '-')} {value:g}: must be a share in [0, 1]")
    if not 0 <= options.timeout < float("inf"):
        raise UserError(f"--timeout {options.timeout:g}: must be seconds, or 0 for no limit")
    if options.executor == "serial" and options.timeout not in (0, Options.timeout):
        raise UserError(
            f"--timeout {options.timeout:g}: decides nothing with --executor serial, where nobody watches: "
            "take processes with --workers 1"
        )
    if options.out is not None and not options.out.strip():
        raise UserError("--out is empty: name a folder")
    _check_one_process(options)
    if options.overwrite and options.extend:
        raise UserError("--overwrite and --extend exclude each other: replace a build, or add variants to it")
    if options.lean:
        _check_lean(options)
    return task


def _check_one_process(options: Options) -> None:
    """Refuse a store that lives in one process where the work is in others."""
    workers = 1 if options.executor == "serial" else options.workers or os.cpu_count()
    if workers == 1 and options.executor != "ray":
        return
    places = [f"--out {options.out}", f"--depth {options.depth}", f"CLEARFUSE_CACHE {cache_folder()}"]
    for place in (*places, *(f"--data {item}" for item in options.data)):
        if storage.IN_PROCESS in place:
            raise UserError(f"{place}: {storage.IN_PROCESS} is one process's own: add --executor serial")


def _check_lean(options: Options) -> None:
    """Refuse what would decide nothing: a lean build degrades nothing, and has no prompt."""
    idle = {"--n": options.n, "--partial": options.partial or None, "--prompts": options.prompts}
    idle |= {"--set": beyond_ratios(options)}
    for name, value in idle.items():
        if value is not None:
            raise UserError(
                f"{name} {value}: decides nothing with --lean, which degrades nothing; "
                "give train fit a recipe with --recipe"
            )


def beyond_ratios(options: Options) -> str | None:
    """The first change of the recipe that is not to the ratios of the crops."""
    return next((item for item in options.sets if not item.strip().startswith("ratios")), None)

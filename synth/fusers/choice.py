"""Which fuser a build uses, and which weights that one has: resolved before work begins."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from clearfuse.synth.files.checkpoints import digest
from clearfuse.synth.fusers.weights import find_weights, how_to_get, need_weights
from clearfuse.synth.types import Task, UserError

PAPER: dict[Task, str] = {"vif": "swinfusion", "mef": "defuse", "mff": "defuse"}
"""What the paper made its ground truth with."""


def checkpoint_of(fuser: str, task: Task) -> str | None:
    """The name of a fuser's checkpoint in ``WEIGHTS``; None for one without weights."""
    return {"swinfusion": f"swinfusion-{task}", "defuse": "defuse"}.get(fuser)


def choose_fuser(asked: str, task: Task, name: str, own: bool) -> str:
    """``auto`` and ``paper`` resolved for one data set. own: it has ground truth for every pair.

    Raises UserError for ``dataset`` where there is none, and for a network whose weights are not there.
    """
    if asked == "dataset" and not own:
        raise UserError(f"--fuser dataset: '{name}' has no ground truth of its own for every pair: use --fuser pyramid")
    if asked == "auto":
        if own:
            return "dataset"
        paper = checkpoint_of(PAPER[task], task)
        return PAPER[task] if paper is not None and find_weights(paper) is not None else "pyramid"
    fuser = PAPER[task] if asked == "paper" else asked
    checkpoint = checkpoint_of(fuser, task)
    if checkpoint is not None:
        need_weights(checkpoint)
    return fuser


def better_fuser(chosen: str, task: Task) -> str | None:
    """What ``auto`` would take instead, and the command that would bring it; None where there is none."""
    paper = checkpoint_of(PAPER[task], task)
    if chosen != "pyramid" or paper is None:
        return None
    return f"{PAPER[task]} ({how_to_get(paper)})"


def fuser_weights(fuser: str, task: Task) -> str | None:
    """Which weights a fuser has: 16 hex digits of the checkpoint's sha256; None for one without."""
    checkpoint = checkpoint_of(fuser, task)
    if checkpoint is None:
        return None
    path = need_weights(checkpoint)
    return _digest(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _digest(path: Path, changed: int) -> str:
    del changed  # a file put in its place is another one
    return digest(path)

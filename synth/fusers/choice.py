"""Selection of a build's fuser and its weights, before work starts."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from clearfuse.synth.files.checkpoints import digest
from clearfuse.synth.fusers.weights import find_weights, how_to_get, need_weights
from clearfuse.synth.types import Task, UserError

PAPER: dict[Task, str] = {"vif": "swinfusion", "mef": "defuse", "mff": "defuse"}
"""The fusers that made the paper's ground truth."""


def checkpoint_of(fuser: str, task: Task) -> str | None:
    """The name of a fuser's checkpoint in ``WEIGHTS``; None for one without weights."""
    return {"swinfusion": f"swinfusion-{task}", "defuse": "defuse"}.get(fuser)


def is_network(fuser: str) -> bool:
    """Whether a fuser is a network."""
    return checkpoint_of(fuser, "vif") is not None


def choose_fuser(asked: str, task: Task, name: str, has_gt: bool) -> str:
    """The fuser of a data set, with ``auto`` and ``paper`` resolved. has_gt: every pair has ground truth of its own.

    Raises UserError for ``dataset`` where it has none, and for a network whose weights are missing.
    """
    if asked == "dataset" and not has_gt:
        raise UserError(f"--fuser dataset: '{name}' has no ground truth of its own for every pair: use --fuser pyramid")
    if asked == "auto":
        if has_gt:
            return "dataset"
        paper = checkpoint_of(PAPER[task], task)
        return PAPER[task] if paper is not None and find_weights(paper) is not None else "pyramid"
    fuser = PAPER[task] if asked == "paper" else asked
    checkpoint = checkpoint_of(fuser, task)
    if checkpoint is not None:
        need_weights(checkpoint)
    return fuser


def better_fuser(chosen: str, task: Task) -> str | None:
    """The network that ``auto`` would use if its weights were on disk, and the command to get them; None otherwise."""
    paper = checkpoint_of(PAPER[task], task)
    if chosen != "pyramid" or paper is None:
        return None
    return f"{PAPER[task]} ({how_to_get(paper)})"


def fuser_weights(fuser: str, task: Task) -> str | None:
    """The digest of a fuser's weights: 16 hex digits of the checkpoint's sha256; None for a fuser without weights."""
    checkpoint = checkpoint_of(fuser, task)
    if checkpoint is None:
        return None
    path = need_weights(checkpoint)
    return _digest(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _digest(path: Path, changed: int) -> str:
    del changed  # part of the cache key: a replaced file is read again
    return digest(path)

"""Where to compute: one answer for fitting, fusing and scoring."""

from __future__ import annotations

import torch

from clearfuse.synth.types import UserError


def find_device(name: str | None = None) -> torch.device:
    """The device of a name (``cpu``, ``cuda``, ``cuda:1``); the first GPU where there is one, else the CPU, for None.

    Raises UserError where there is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    # torch says a wrong name and a missing or full GPU by the first, a build without CUDA by the second, a kind of
    # device that this build knows but has no code for by the third.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        said = str(error).strip().splitlines()[0]
        raise UserError(f"--device {name}: {said}") from None
    return device

"""The device to compute on, for fitting, fusing and scoring."""

from __future__ import annotations

import torch

from clearfuse.synth.types import UserError


def find_device(name: str | None = None) -> torch.device:
    """The device with this name (``cpu``, ``cuda``, ``cuda:1``); None: the first GPU, or the CPU where there is none.

    Raises UserError if there is no such device.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    # torch raises the first for a wrong name or a missing or full GPU, the second if it was built without CUDA, and the
    # third for a kind of device that it knows but was built without.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"--device {name}: {reason}") from None
    return device

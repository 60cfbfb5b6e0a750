"""The device to compute on, for fitting, fusing and scoring."""

from __future__ import annotations

import ctypes

import torch

from clearfuse.synth.types import UserError, reason_of

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""mallopt's parameters: malloc.h of glibc."""

KEPT = 1 << 30
"""Bytes that are kept at most: an autoencoder's at 1024 × 1024."""


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
        raise UserError(f"--device {name}: {reason_of(error)}") from None
    return device


def keep_freed_memory(device: torch.device) -> None:
    """Keep freed memory in this process for the next tensor, where networks run on a CPU and the C library is glibc.

    By default glibc gives every block of more than 32 MiB back to the kernel, and asks for each of its pages anew: a
    fifth of the time of a tiny autoencoder at 512 × 512.
    """
    if device.type != "cpu":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return
    mallopt(M_TRIM_THRESHOLD, KEPT)
    mallopt(M_MMAP_MAX, 0)  # no block is mapped by itself

"""A GPU that is not there, on which torch makes fake tensors. For processes of their own: torch is patched for good."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def pretend_cuda() -> None:
    """Let a torch without CUDA make fake tensors on ``cuda``: its own device guard that does nothing stands in."""
    if not torch.backends.cuda.is_built():
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib/libc10.so"))
        registry = (ctypes.c_void_p * 24).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
        registry[1] = registry[17]  # CUDA's takes that of meta
    torch._C._ensureCUDADeviceGuardSet()
    answers: dict[str, Any] = {
        "is_available": True, "is_bf16_supported": True, "current_device": 0, "get_device_capability": (9, 0),
    }  # fmt: skip
    for name, answer in answers.items():
        setattr(torch.cuda, name, lambda *_, answer=answer, **__: answer)
    real = torch.tensor  # which would copy Python's numbers to the device itself

    def tensor(data: Any, *, device: Any = None, **options: Any) -> Tensor:
        return real(data, **options).to(device or "cpu")

    torch.tensor = tensor

"""The metrics of the profile strict on torch tensors: batches, any device, gradients to the fused image.

A module here mirrors the one of the same name beside this folder, which has the formulas, ranges and sources. A metric
is a function of ``Images``, a batch of n, and gives n values. All is in float64 (float32 where the device has none), by
sums over shifted arrays and FFTs: no convolution and no matrix product that a device would round to TF32 or bf16.
Modules are imported on first use, since torch takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clearfuse.train.metrics.tensors import evaluate as evaluate
    from clearfuse.train.metrics.tensors import fidelity as fidelity
    from clearfuse.train.metrics.tensors import fusion as fusion
    from clearfuse.train.metrics.tensors import information as information
    from clearfuse.train.metrics.tensors import niqe as niqe
    from clearfuse.train.metrics.tensors import noreference as noreference
    from clearfuse.train.metrics.tensors import perception as perception
    from clearfuse.train.metrics.tensors import statistics as statistics
    from clearfuse.train.metrics.tensors import windows as windows

_MODULES = (
    "evaluate", "fidelity", "fusion", "information", "niqe", "noreference", "perception", "statistics", "windows",
)  # fmt: skip


def __getattr__(name: str) -> ModuleType:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(f"{__name__}.{name}")

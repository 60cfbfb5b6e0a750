"""Synthesis of degraded image-fusion data: operators, plans, shards.

Everything is imported on first use, so that ``import clearfuse.synth`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

_HOMES = {
    "build": "clearfuse.synth.builder.run",
    "degrade": "clearfuse.synth.samples.chain",
    "estimate": "clearfuse.synth.estimation.estimate",
    "load_recipe": "clearfuse.synth.samples.recipe",
    "OPERATORS": "clearfuse.synth.operators",
    "__version__": "clearfuse.synth.version",
}

if TYPE_CHECKING:
    from clearfuse.synth.builder.run import build as build
    from clearfuse.synth.estimation.estimate import estimate as estimate
    from clearfuse.synth.operators import OPERATORS as OPERATORS
    from clearfuse.synth.samples.chain import degrade as degrade
    from clearfuse.synth.samples.recipe import load_recipe as load_recipe
    from clearfuse.synth.version import __version__ as __version__


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'clearfuse.synth' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]

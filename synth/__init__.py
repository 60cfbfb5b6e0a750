"""Synthesis of degraded image-fusion data: operators, plans, shards.

Everything is imported on first use, so that ``import synth`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "build": "synth.builder",
    "degrade": "synth.chain",
    "load_recipe": "synth.recipe",
    "OPERATORS": "synth.operators",
}

if TYPE_CHECKING:
    from synth.builder import build as build
    from synth.chain import degrade as degrade
    from synth.operators import OPERATORS as OPERATORS
    from synth.recipe import load_recipe as load_recipe


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'synth' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]

"""Training of fusion models on the shards that synth builds.

Everything is imported on first use, so that ``import train`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.pipeline import FusionPipeline as FusionPipeline


def __getattr__(name: str) -> Any:
    if name != "FusionPipeline":
        raise AttributeError(f"module 'train' has no attribute '{name}'")
    from train.pipeline import FusionPipeline

    return FusionPipeline


def __dir__() -> list[str]:
    return [*globals(), "FusionPipeline"]

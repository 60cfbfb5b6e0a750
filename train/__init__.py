"""Training of fusion models on the shards that synth builds.

Everything is imported on first use, so that ``import clearfuse.train`` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clearfuse.train.pipeline.fusion import FusionPipeline as FusionPipeline


def __getattr__(name: str) -> Any:
    if name != "FusionPipeline":
        raise AttributeError(f"module 'clearfuse.train' has no attribute '{name}'")
    from clearfuse.train.pipeline.fusion import FusionPipeline

    return FusionPipeline


def __dir__() -> list[str]:
    return [*globals(), "FusionPipeline"]

"""The table of depth sources. The order is that in which ``auto`` asks them."""

from __future__ import annotations

from clearfuse.synth.depth.anything import DepthAnything
from clearfuse.synth.depth.base import DepthInput, DepthNetwork, DepthSource
from clearfuse.synth.depth.maps import InverseMaps, Maps
from clearfuse.synth.depth.prior import Prior
from clearfuse.synth.depth.small import SmallDepth
from clearfuse.synth.depth.true import TrueDepth
from clearfuse.synth.tables import Table

DEPTHS: Table[type[DepthSource]] = Table(
    "depth",
    {
        "true": TrueDepth,
        "maps": Maps,
        "inverse": InverseMaps,
        "depth-anything": DepthAnything,
        "small": SmallDepth,
        "prior": Prior,
    },
    own="name",
)


def depth_help() -> dict[str, str]:
    """What ``--depth`` takes, a line each."""
    auto = "the scene's own where it has one, else depth-anything where it is on disk, else small"
    return {"auto": auto} | {name: cls.help for name, cls in DEPTHS.items()}


__all__ = ["DEPTHS", "DepthInput", "DepthNetwork", "DepthSource", "depth_help"]

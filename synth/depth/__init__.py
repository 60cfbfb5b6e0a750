"""The table of depth sources. The order is that in which ``auto`` asks them."""

from __future__ import annotations

from clearfuse.synth.depth.anything import DepthAnything
from clearfuse.synth.depth.base import DepthInput, DepthNetwork, DepthSource
from clearfuse.synth.depth.maps import InverseMaps, Maps
from clearfuse.synth.depth.prior import Prior
from clearfuse.synth.depth.small import SmallDepth
from clearfuse.synth.depth.true import TrueDepth

DEPTHS: dict[str, type[DepthSource]] = {
    "true": TrueDepth,
    "maps": Maps,
    "inverse": InverseMaps,
    "depth-anything": DepthAnything,
    "small": SmallDepth,
    "prior": Prior,
}

DEPTH_HELP: dict[str, str] = {
    "auto": "the scene's own where it has one, else depth-anything where it is on disk, else small",
    **{name: cls.help for name, cls in DEPTHS.items()},
}

__all__ = ["DEPTHS", "DEPTH_HELP", "DepthInput", "DepthNetwork", "DepthSource"]

"""The table of fusers, which make the ground truth from a clean pair. Networks are loaded on use."""

from __future__ import annotations

from collections.abc import Callable

from clearfuse.synth.fusers.base import Fuser
from clearfuse.synth.fusers.learned import DeFuseFuser, SwinFusionFuser
from clearfuse.synth.fusers.pyramid.fuser import PyramidFuser
from clearfuse.synth.tables import Table

FUSERS: Table[Callable[[], Fuser]] = Table(
    "fuser",
    {
        "pyramid": PyramidFuser,
        "swinfusion": SwinFusionFuser,
        "defuse": DeFuseFuser,
    },
)

_HELP = {
    "auto": "the data set's own ground truth, else the paper's fuser where its weights are on disk, else pyramid",
    "paper": "swinfusion for VIF, defuse for MEF and MFF, even where a data set has its own ground truth",
    "dataset": "the data set's own ground truth",
    "pyramid": "no weights: Laplacian pyramid with saliency (VIF), exposure fusion (MEF), focus selection (MFF)",
    "swinfusion": "SwinFusion on luma, colour restored; weights: synth weights get swinfusion-vif (-mef, -mff)",
    "defuse": "DeFuse; weights: synth weights add defuse FILE",
}


def fuser_help() -> dict[str, str]:
    """What ``--fuser`` takes, a line each; of a plugin's fuser the first line of its docstring."""
    return _HELP | {name: (FUSERS[name].__doc__ or "").strip().partition("\n")[0] for name in FUSERS.added}


__all__ = ["FUSERS", "DeFuseFuser", "Fuser", "PyramidFuser", "SwinFusionFuser", "fuser_help"]

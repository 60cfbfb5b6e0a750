"""The table of fusers, which make the ground truth from a clean pair. Networks are loaded on use."""

from __future__ import annotations

from collections.abc import Callable

from clearfuse.synth.fusers.base import Fuser
from clearfuse.synth.fusers.learned import DeFuseFuser, SwinFusionFuser
from clearfuse.synth.fusers.pyramid.fuser import PyramidFuser

FUSERS: dict[str, Callable[[], Fuser]] = {
    "pyramid": PyramidFuser,
    "swinfusion": SwinFusionFuser,
    "defuse": DeFuseFuser,
}

FUSER_HELP: dict[str, str] = {
    "auto": "the data set's own ground truth, else the paper's fuser where its weights are on disk, else pyramid",
    "paper": "swinfusion for VIF, defuse for MEF and MFF, even where a data set has its own ground truth",
    "dataset": "the data set's own ground truth",
    "pyramid": "no weights: Laplacian pyramid with saliency (VIF), exposure fusion (MEF), focus selection (MFF)",
    "swinfusion": "SwinFusion on luma, colour restored; weights: synth weights get swinfusion-vif (-mef, -mff)",
    "defuse": "DeFuse; weights: synth weights add defuse FILE",
}

__all__ = ["FUSERS", "FUSER_HELP", "DeFuseFuser", "Fuser", "PyramidFuser", "SwinFusionFuser"]

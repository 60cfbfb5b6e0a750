"""The table of fusers: what makes a ground truth from a clean pair."""

from __future__ import annotations

from collections.abc import Callable

from synth.fusers.base import Fuser
from synth.fusers.pyramid import PyramidFuser

FUSERS: dict[str, Callable[[], Fuser]] = {
    "pyramid": PyramidFuser,
}

FUSER_HELP: dict[str, str] = {
    "auto": "the data set's own ground truth where it has one, else pyramid",
    "dataset": "the data set's own ground truth",
    "pyramid": "no weights: Laplacian pyramid with saliency (VIF), exposure fusion (MEF), focus selection (MFF)",
}

__all__ = ["FUSERS", "FUSER_HELP", "Fuser", "PyramidFuser"]

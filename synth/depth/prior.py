"""A guess from the picture alone, as a source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clearfuse.synth.depth.base import DepthInput, DepthSource
from clearfuse.synth.depth.focus import split_by_focus
from clearfuse.synth.depth.metres import FAR, Metres, prior


@dataclass(frozen=True)
class Prior(DepthSource):
    """``metres.prior``; of two focus distances with their near and far side told apart."""

    name: ClassVar[str] = "prior"
    help: ClassVar[str] = "no weights: position over a ground plane, and haze and contrast cues of the image; coarse"
    better: ClassVar[str | None] = "--depth depth-anything (fetched once, 99 MB)"

    @classmethod
    def automatic(cls, has_true: bool) -> DepthSource | None:
        """Always: it is the last in the table."""
        return cls()

    def estimate(self, pair: DepthInput) -> Metres:
        """The guess, its far end within ``FAR``."""
        metres = prior(pair.image, min(max(pair.far, FAR[0]), FAR[1]))
        return metres if pair.focused is None else split_by_focus(metres, *pair.focused)

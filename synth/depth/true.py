"""The data set's own depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from clearfuse.synth.depth.base import DepthInput, DepthSource
from clearfuse.synth.depth.metres import Metres
from clearfuse.synth.types import BadPair


@dataclass(frozen=True)
class TrueDepth(DepthSource):
    """Of the built-in scenes, which are rendered from it."""

    name: ClassVar[str] = "true"
    help: ClassVar[str] = "the built-in scenes' own depth, exact"
    cached: ClassVar[bool] = False
    own: ClassVar[bool] = True

    @classmethod
    def automatic(cls, has_true: bool) -> DepthSource | None:
        """Wherever there is one."""
        return cls() if has_true else None

    def estimate(self, pair: DepthInput) -> Metres:
        """As it is."""
        if pair.true is None:
            raise BadPair("no depth of its own, and --depth true asks for it")
        return pair.true

"""What a depth source is: a picture of a pair in, metres along the ray out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from clearfuse.synth.depth.metres import Metres, Picture


@dataclass(frozen=True)
class DepthInput:
    """What is known of a pair whose depth is wanted.

    key: the pair's; true: the scene's own depth; far: metres of the far end of an estimate; focused: the pictures of
    two focus distances that ``image`` was fused from; predicted: what ``DepthNetwork.predict`` said of ``image``.
    """

    key: str
    image: Picture
    true: Metres | None
    far: float
    focused: tuple[Picture, Picture] | None = None
    predicted: np.ndarray | None = None


@dataclass(frozen=True)
class DepthSource(ABC):
    """A resolved ``--depth``: a class of the table ``DEPTHS``, with its folder where it has one.

    folder: of maps or of a network, empty for none. weights: which files these are, 16 hex digits, for the digest of
    a build; None without files.
    """

    name: ClassVar[str]
    help: ClassVar[str]
    """A line for ``synth list depths``."""
    takes: ClassVar[Literal["nothing", "a folder", "an optional folder"]] = "nothing"
    """What may stand behind ``NAME=``."""
    cached: ClassVar[bool] = True
    """Whether what is estimated is worth keeping: it is made, not read."""
    own: ClassVar[bool] = False
    """Whether it gives the data set's own depth, which only the built-in scenes have."""
    torch: ClassVar[bool] = False
    """Whether torch computes it, whose version decides its bytes then."""
    better: ClassVar[str | None] = None
    """What a user of ``auto`` is told of a better source."""

    folder: str = ""
    weights: str | None = None

    @classmethod
    def usage(cls) -> str:
        """How it is written behind ``--depth``."""
        return f"{cls.name}=DIR" if cls.takes == "a folder" else cls.name

    @classmethod
    def open(cls, folder: str) -> DepthSource:
        """The source with this folder, empty for none. Raises UserError where it is missing or holds nothing of use."""
        return cls(folder)

    def recorded(self) -> dict[str, str | None]:
        """What a build's settings say of it."""
        return {"name": self.name, "weights": self.weights}

    @classmethod
    def automatic(cls, has_true: bool) -> DepthSource | None:
        """The source that ``auto`` takes unless one before it in the table can; None where this one can't."""
        del has_true
        return None

    @abstractmethod
    def estimate(self, pair: DepthInput) -> Metres:
        """Metres along the ray, at the picture's size: infinite for the sky, nan where not known.

        Raises BadPair where the source has no depth for this pair.
        """


class DepthNetwork(DepthSource):
    """A source that runs a large network, whose answers are made in batches and kept in the cache."""

    torch: ClassVar[bool] = True

    @abstractmethod
    def predict(self, pictures: Sequence[Picture]) -> list[np.ndarray]:
        """What the network says of each picture, float32, in whatever unit and resolution; whatever else is in it."""

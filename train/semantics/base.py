"""The interface of encoders of whole pictures. Shapes: b pairs, n pictures, s tokens, k width."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor, nn

from clearfuse.synth.types import MODALITIES, look_up

Picture = UInt8[np.ndarray, "h w c"]


@dataclass(frozen=True)
class View:
    """What an encoder sees of a picture: all of it, brought to ``side`` × ``side`` pixels, and ``patches`` squares of
    that size at full resolution, evenly apart along the diagonals; one below the other.
    """

    side: int
    patches: int = 0

    @property
    def rows(self) -> int:
        """Its height, pixels."""
        return (1 + self.patches) * self.side

    def __call__(self, picture: Picture) -> UInt8[np.ndarray, "rows side 3"]:
        """The view of a picture of any size; a grey one has three equal channels."""
        colour = cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB) if picture.shape[2] == 1 else picture
        size = (self.side, self.side)
        whole = np.asarray(Image.fromarray(colour).resize(size, Image.Resampling.BICUBIC))
        return np.concatenate([whole, *(self._patch(colour, i) for i in range(self.patches))])

    def _patch(self, picture: Picture, number: int) -> UInt8[np.ndarray, "side side 3"]:
        """A square: along the falling diagonal for even numbers, the rising one for odd ones."""
        along = (number // 2 + 1) / (self.patches // 2 + 1)
        at = (along, along if number % 2 == 0 else 1 - along)  # of height and width
        spans: list[np.ndarray] = []
        for fraction, length in zip(at, picture.shape[:2], strict=True):
            first = int(fraction * max(length - self.side, 0))
            spans.append(np.minimum(np.arange(first, first + self.side), length - 1))
        return picture[np.ix_(*spans)]


class SemanticEncoder(nn.Module):
    """Base class: maps whole degraded pictures to tokens.

    width: of the tokens; view: what it sees of a picture; trainable: whether its parameters are trained with the model.
    """

    width: int
    view: View
    trainable: bool

    @abstractmethod
    def encode(self, views: UInt8[Tensor, "n 3 rows side"]) -> Float[Tensor, "n s k"]:
        """The tokens of pictures, of which the views are given."""

    def forward(
        self, views: UInt8[Tensor, "b 3 twice side"], tasks: Sequence[str]
    ) -> tuple[Float[Tensor, "b s k"], Bool[Tensor, "b s"] | None]:
        """The tokens of a, then those of b, whose views are below a's; the mask is None where no token is padding.

        A visible and an infrared image are told by the visible one alone.
        """
        first, second = rearrange(views, "b c (two h) w -> two b c h w", two=2)
        two = [look_up("task", task, MODALITIES)["b"] != "infrared" for task in tasks]
        tokens = self.encode(first)
        if not any(two):
            return tokens, None
        both = torch.tensor(two, device=tokens.device)
        more = tokens.new_zeros(tokens.shape).index_put((both,), self.encode(second[both]))
        own = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        return torch.cat([tokens, more], 1), torch.cat([own, own & both[:, None]], 1)


class Absent(SemanticEncoder):
    """Stands for a frozen encoder where its tokens come from a cache."""

    trainable = False
    view = View(1)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def encode(self, views: UInt8[Tensor, "n 3 rows side"]) -> Float[Tensor, "n s k"]:
        """There are none."""
        raise ValueError("the encoder is not there, only its width")

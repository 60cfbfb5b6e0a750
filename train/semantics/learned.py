"""A small encoder of pictures that is trained with the model, without a download."""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from clearfuse.train.models.layers import initialise
from clearfuse.train.semantics.base import SemanticEncoder, View

SIDE, PATCHES = 64, 4
"""Pixels of a view's squares, and how many show the picture at full resolution, where rain and noise are seen."""
CHANNELS = (16, 32, 64, 128)
GAIN = 3.0
"""Keeps the scale from layer to layer: without it what tells pictures apart would be 50 times smaller at the last."""


class LearnedSemantics(SemanticEncoder):
    """Four strided convolutions on each square of the view; 2 × 2 tokens a square, with a learned one for its place."""

    trainable = True
    width = CHANNELS[-1]
    view = View(SIDE, PATCHES)

    def __init__(self) -> None:
        super().__init__()
        widths = zip((3, *CHANNELS[:-1]), CHANNELS, strict=True)
        self.features = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in widths)
        self.place = nn.Embedding(1 + PATCHES, self.width)

    def encode(self, views: UInt8[Tensor, "n 3 rows side"]) -> Float[Tensor, "n s k"]:
        """Tokens of the squares, in order."""
        maps = rearrange(views.float() / 127.5 - 1, "n c (p h) w -> (n p) c h w", h=SIDE)
        for layer in self.features:
            maps = F.silu(GAIN * layer(maps))
        maps = F.adaptive_avg_pool2d(maps, 2)
        tokens = rearrange(maps, "(n p) k h w -> n p (h w) k", n=len(views))
        return rearrange(tokens + self.place.weight[:, None], "n p s k -> n (p s) k")


def build(rng: torch.Generator) -> LearnedSemantics:
    """The encoder, its weights drawn from the generator."""
    with torch.device("meta"):  # else torch would draw them from its own generator first
        made = LearnedSemantics()
    made = made.to_empty(device="cpu")
    initialise(made, rng)
    return made

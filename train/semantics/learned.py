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


LEAST, USUAL = 1e-3, 0.2
"""Standard deviation of features below which contrast counts as none, and about that of photographs at the start."""
DARKEST = 4.0
"""Added to codes before their logarithm, so that the noise of the dark does not count as contrast."""


class LearnedSemantics(SemanticEncoder):
    """Four strided convolutions on each square of the view, in logarithms less their mean; 2 × 2 tokens a square, with
    a learned one for its place.

    A token is the mean of the last features, and a linear map of the contrast of the first layers' before their
    nonlinearity: ln of their standard deviation in its quarter over the usual one. Weather changes contrast by scale
    and direction (haze lowers it, rain raises it across its streaks); the mean of features says more of the scene.
    """

    trainable = True
    width = CHANNELS[-1]
    view = View(SIDE, PATCHES)

    def __init__(self) -> None:
        super().__init__()
        widths = zip((3, *CHANNELS[:-1]), CHANNELS, strict=True)
        self.features = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in widths)
        self.contrast = nn.Linear(sum(CHANNELS[:-1]), self.width)
        self.place = nn.Embedding(1 + PATCHES, self.width)

    def encode(self, views: UInt8[Tensor, "n 3 rows side"]) -> Float[Tensor, "n s k"]:
        """Tokens of the squares, in order."""
        maps = rearrange(log_relative(views), "n c (p h) w -> (n p) c h w", h=SIDE)
        contrasts: list[Tensor] = []
        for layer in self.features:
            maps = GAIN * layer(maps)
            contrasts.append(log_contrast(maps))
            maps = F.silu(maps)
        contrast = rearrange(torch.cat(contrasts[:-1], 1), "n k h w -> n h w k")
        maps = rearrange(F.adaptive_avg_pool2d(maps, 2), "n k h w -> n h w k") + self.contrast(contrast)
        tokens = rearrange(maps, "(n p) h w k -> n p (h w) k", n=len(views))
        return rearrange(tokens + self.place.weight[:, None], "n p s k -> n (p s) k")


def log_relative(views: UInt8[Tensor, "n 3 rows side"]) -> Float[Tensor, "n 3 rows side"]:
    """ln of the codes, less its mean over the view: the same for a picture at another exposure (decision 0057)."""
    logs = (views.float() + DARKEST).log()
    return logs - logs.mean((1, 2, 3), keepdim=True)


def log_contrast(maps: Float[Tensor, "n k h w"]) -> Float[Tensor, "n k 2 2"]:
    """ln of the standard deviation of features in each quarter of their maps over ``USUAL``, in fp32."""
    quarters = rearrange(maps.float(), "n k (y h) (x w) -> n k y x (h w)", y=2, x=2)
    return ((quarters.var(-1, correction=0) + LEAST**2) / USUAL**2).log() / 2


def build(rng: torch.Generator) -> LearnedSemantics:
    """The encoder, its weights drawn from the generator."""
    with torch.device("meta"):  # else torch would draw them from its own generator first
        made = LearnedSemantics()
    made = made.to_empty(device="cpu")
    initialise(made, rng)
    return made

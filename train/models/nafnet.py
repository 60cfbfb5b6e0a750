"""NAFNet on pixels, a baseline without a transformer: a U-Net of nonlinear-activation-free blocks.

Source: Chen et al., arXiv 2204.04676, figure 2: convolutions of 2 × 2 go down a level, a pixel shuffle goes up, skip
connections are added. Ours besides: both degraded images and the first guess are the input, the result is added to the
guess, and the prompt's mean to the channels of each level. Shapes: b batch, c channels, h, w pixels, m prompt tokens, e
width of an embedding.
"""

from __future__ import annotations

import itertools
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from clearfuse.synth.files.schema import STRICT
from clearfuse.train.models.base import Inputs, Optional, Prediction, Size
from clearfuse.train.models.layers import NAFBlock, ZeroConv2d, ZeroLinear, initialise

LEVELS = 3
"""Levels above the middle, each of half the resolution of the one before."""


@dataclass(frozen=True, config=STRICT)
class NAFNetConfig:
    """Hyperparameters; 1.6 M parameters."""

    patch: ClassVar[int] = 2**LEVELS
    """Pixels at whose multiples tiles start: the side of a cell of the middle."""
    tile: ClassVar[int] = 1024
    """Side of the tiles of larger images, pixels."""

    latent_channels: Size = 3
    """3: the network works on pixels."""
    text_width: Optional = 128
    """Width of the prompt's embedding; 0: a model without prompts."""
    guess: bool = True
    """An initial estimate of the fused image is given; the network starts as its copy, else as the mean of the pair."""
    width: Size = 24
    """Channels at full resolution; each level below has twice as many."""
    blocks: tuple[Size, Size, Size] = (1, 1, 2)
    """NAF blocks of the levels, in the encoder and again in the decoder."""
    middle: Size = 4
    """NAF blocks below them."""


class Stage(nn.Module):
    """The blocks of a level, after the prompt's mean, whose layer starts at 0, is added to their channels."""

    def __init__(self, width: int, blocks: int, text_width: int) -> None:
        super().__init__()
        self.prompt = ZeroLinear(text_width, width) if text_width else None
        self.blocks = nn.Sequential(*(NAFBlock(width) for _ in range(blocks)))

    def forward(self, x: Float[Tensor, "b c h w"], text: Float[Tensor, "b e"]) -> Float[Tensor, "b c h w"]:
        """Keeps the shape."""
        x = rearrange(x, "b c h w -> b h w c")
        if self.prompt is not None:
            x = x + self.prompt(text)[:, None, None]
        return rearrange(self.blocks(x), "b h w c -> b c h w")


class NAFNet(nn.Module):
    """The network: ``NAFNet(config)(inputs)``."""

    def __init__(self, config: NAFNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.width * 2**level for level in range(LEVELS + 1)]
        self.stem = nn.Conv2d(streams(config) * config.latent_channels, widths[0], 3, padding=1)
        self.text = nn.LayerNorm(config.text_width) if config.text_width else nn.Identity()
        stages = list(zip(widths, config.blocks, strict=False))
        self.encoder = nn.ModuleList(Stage(*stage, config.text_width) for stage in stages)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in itertools.pairwise(widths))
        self.middle = Stage(widths[-1], config.middle, config.text_width)
        self.up = nn.ModuleList(nn.Conv2d(b, 4 * a, 1, bias=False) for a, b in itertools.pairwise(widths))
        self.decoder = nn.ModuleList(Stage(*stage, config.text_width) for stage in stages)
        self.head = ZeroConv2d(widths[0], config.latent_channels, 3, padding=1)

    def initialise(self, rng: torch.Generator) -> None:
        """Initialise all parameters from the generator, by the rules of ``layers.initialise``."""
        initialise(self, rng)

    def forward(self, inputs: Inputs) -> Prediction:
        """The fused image in [−1, 1] of two degraded ones of any size."""
        if inputs.z_t is not None or inputs.t is not None:
            raise ValueError("NAFNet is a regression: it takes neither z_t nor t")
        if self.config.guess != (inputs.guess is not None):
            raise ValueError("a guess must be given if and only if the config has one")
        inputs.refuse("NAFNet", "strength", "semantics", "present")
        height, width = inputs.pair[0].shape[2:]
        x = torch.cat([z for z in (*inputs.pair, inputs.guess) if z is not None], 1)
        x = self.stem(F.pad(x, (0, -width % 2**LEVELS, 0, -height % 2**LEVELS), mode="replicate"))
        text = self._pooled(inputs)
        skips: list[Tensor] = []
        for stage, down in zip(self.encoder, self.down, strict=True):
            x = stage(x, text)
            skips.append(x)
            x = down(x)
        x = self.middle(x, text)
        for stage, up in reversed(list(zip(self.decoder, self.up, strict=True))):
            x = stage(F.pixel_shuffle(up(x), 2) + skips.pop(), text)
        base = sum(inputs.pair) / 2 if inputs.guess is None else inputs.guess
        fused = base + self.head(x)[..., :height, :width]
        return Prediction(fused, fused.new_zeros(()), fused.new_zeros(2 * LEVELS + 1, 0))

    def _pooled(self, inputs: Inputs) -> Float[Tensor, "b e"]:
        """The mean of the prompt's tokens that are no padding, normalised; 0 where it has none."""
        text, mask = inputs.text
        valid = text.new_ones(text.shape[:2]) if mask is None else mask.to(text.dtype)
        mean = (text * valid[..., None]).sum(1) / valid.sum(1, keepdim=True).clamp(min=1)
        return self.text(mean)


def streams(config: NAFNetConfig) -> int:
    """The number of input images: both degraded ones, and the guess."""
    return 2 + config.guess


def inactive(config: NAFNetConfig) -> int:
    """0: the network is dense."""
    return 0


def activations(config: NAFNetConfig, height: int, width: int, text_tokens: int) -> int:
    """Peak number of values, roughly: at full resolution a block's input, thrice its doubled channels, the skip."""
    return height * width * config.width * 8


def flops(config: NAFNetConfig, height: int, width: int, text_tokens: int) -> int:
    """2 × MAC of one forward pass on images of height × width: convolutions and linear layers.

    A NAF block of c channels: 6 c² + 18 c a pixel, and c².
    """
    side = 2**LEVELS
    grid = -(-height // side) * -(-width // side) * side**2
    total = grid * 9 * config.width * (streams(config) + 1) * config.latent_channels
    stages = [(level, count) for level, count in enumerate(config.blocks) for _ in "ed"] + [(LEVELS, config.middle)]
    for level, count in stages:
        cells, c = grid // 4**level, config.width * 2**level
        total += count * (cells * (6 * c * c + 18 * c) + c * c) + config.text_width * c
    for level in range(LEVELS):  # down: 4 c × 2 c a cell below; up: 2 c × 4 c
        total += 2 * grid // 4 ** (level + 1) * 8 * (config.width * 2**level) ** 2
    return 2 * total

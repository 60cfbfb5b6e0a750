"""A model and a preset of it: three convolutions on the degraded pair, a baseline to begin with.

train fit shards/vif --plugin examples/three_layers.py --preset three-layers
train fuse vis.png ir.png -o out.png --model runs/three-layers --plugin examples/three_layers.py
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass
from torch import nn

from clearfuse.synth.files.schema import STRICT
from clearfuse.train.designs.design import Design
from clearfuse.train.designs.presets import PRESETS, Preset
from clearfuse.train.designs.schedule import Schedule
from clearfuse.train.models import MODELS, Family, Inputs, Prediction
from clearfuse.train.models.base import Optional, Size
from clearfuse.train.objectives.regression import Regression

__version__ = "1.0"


@dataclass(frozen=True, config=STRICT)
class ThreeLayersConfig:
    """Bounds and help stand beside each field; ``--set config.width=64`` changes one."""

    patch: ClassVar[int] = 1
    tile: ClassVar[int] = 512
    latent_channels: Size = 3
    """3: the network works on pixels."""
    text_width: Optional = 0
    """0: it reads no prompt."""
    width: Size = 32
    """Channels between the convolutions."""


class ThreeLayers(nn.Module):
    """The mean of the pair, and what three convolutions of 3 × 3 add to it."""

    def __init__(self, config: ThreeLayersConfig) -> None:
        super().__init__()
        z, width = config.latent_channels, config.width
        self.layers = nn.Sequential(
            nn.Conv2d(2 * z, width, 3, padding=1), nn.GELU(),
            nn.Conv2d(width, width, 3, padding=1), nn.GELU(),
            nn.Conv2d(width, z, 3, padding=1),
        )  # fmt: skip

    def initialise(self, rng: torch.Generator) -> None:
        """All weights from the generator: the same seed gives the same network."""
        for parameter in self.parameters():
            spread = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.0
            parameter.data.copy_(torch.randn(parameter.shape, generator=rng) * spread)

    def forward(self, inputs: Inputs) -> Prediction:
        """The clean latent (b, z, h, w) of both degraded ones."""
        inputs.refuse("three-layers", "z_t", "t", "guess", "semantics", "present")
        a, b = inputs.pair
        fused = (a + b) / 2 + self.layers(torch.cat([a, b], 1))
        return Prediction(fused, fused.new_zeros(()), fused.new_zeros(0, 0))


def macs(config: ThreeLayersConfig) -> int:
    """Multiplications a latent cell."""
    return 9 * config.width * (2 * config.latent_channels + config.width + config.latent_channels)


MODELS["three-layers"] = Family(
    ThreeLayersConfig,
    ThreeLayers,
    inactive=lambda config: 0,
    flops=lambda config, height, width, text_tokens: 2 * height * width * macs(config),
    activations=lambda config, height, width, text_tokens: 2 * height * width * config.width,
)
PRESETS["three-layers"] = Preset(
    "three convolutions on pixels, for a CPU in minutes",
    Design("three-layers", ThreeLayersConfig(), "pixels", "none", Regression()),
    Schedule(steps=2000, batch=16, crop=128, lr=1e-3),
)

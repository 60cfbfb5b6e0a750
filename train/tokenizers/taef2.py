"""TAEF2, the tiny autoencoder for FLUX.2's latents, which diffusers does not have; modules have the published names.

Source: github.com/madebyollin/taesd (MIT). It differs from the other tiny autoencoders, f = 8, by an additional branch
with a group norm in the blocks of the lowest resolution, which sees the statistics of the whole image.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, CHANNELS = 64, 32


class Clamp(nn.Module):
    """3 tanh(x / 3)."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Limit latents to ±3, the range that the decoder was trained on."""
        return 3 * torch.tanh(x / 3)


class Block(nn.Module):
    """y = relu(x' + conv3(relu(conv3(relu(conv3(x')))))), x' = x or, at the lowest resolution, x + pool(x).

    pool: 1 × 1 convolution to four times the width, group norm of four groups, relu, 1 × 1 convolution back.
    """

    def __init__(self, pooled: bool) -> None:
        super().__init__()
        first, second, third = (nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(3))
        self.conv = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), third)
        self.pool = None
        if pooled:
            hidden = 4 * WIDTH
            self.pool = nn.Sequential(
                nn.Conv2d(WIDTH, hidden, 1, bias=False),
                nn.GroupNorm(4, hidden),
                nn.ReLU(),
                nn.Conv2d(hidden, WIDTH, 1, bias=False),
            )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Keeps the shape."""
        if self.pool is not None:
            x = x + self.pool(x)
        return F.relu(x + self.conv(x))


def _stage(pooled: bool = False) -> list[nn.Module]:
    return [Block(pooled) for _ in range(3)]


class Taef2(nn.Module):
    """The autoencoder. ``encoder``: images in [0, 1] to raw latents; ``decoder``: back."""

    def __init__(self) -> None:
        super().__init__()

        def down() -> nn.Module:
            return nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1, bias=False)

        def up() -> list[nn.Module]:
            return [nn.Upsample(scale_factor=2), nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)]

        self.encoder = nn.Sequential(
            nn.Conv2d(3, WIDTH, 3, padding=1), Block(False),
            down(), *_stage(), down(), *_stage(), down(), *_stage(pooled=True),
            nn.Conv2d(WIDTH, CHANNELS, 3, padding=1),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            Clamp(), nn.Conv2d(CHANNELS, WIDTH, 3, padding=1), nn.ReLU(),
            *_stage(pooled=True), *up(), *_stage(), *up(), *_stage(), *up(),
            Block(False), nn.Conv2d(WIDTH, 3, 3, padding=1),
        )  # fmt: skip

    def encode(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b z h w"]:
        """Raw latents of images in [−1, 1], H and W multiples of 8."""
        return self.encoder((images + 1) / 2)

    def decode(self, latents: Float[Tensor, "b z h w"]) -> Float[Tensor, "b 3 H W"]:
        """Images, in about [−1, 1], of raw latents."""
        return 2 * self.decoder(latents) - 1

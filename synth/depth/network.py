"""The small depth network of the package: layers and weights. ``models/depth`` trains it.

A U-Net (Ronneberger et al., MICCAI 2015) of residual blocks (He et al., CVPR 2016) with a global context at its bottom.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

SIDE = 128
"""The shorter side in pixels of the pictures that the network was trained on."""

MULTIPLE = 32
"""Sides of the input must be multiples of this."""

WIDTHS = (16, 32, 64, 128, 160)
"""Channels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the resolution."""


def convolution(taken: int, given: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """A convolution without bias, normalised over the batch."""
    return nn.Sequential(
        nn.Conv2d(taken, given, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(given),
    )


class Residual(nn.Module):
    """x + f(x), two 3×3 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = convolution(width, width), convolution(width, width)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The same shape."""
        return functional.relu(x + self.second(functional.relu(self.first(x))))


class Down(nn.Module):
    """Half the resolution, then a residual block where there is one."""

    def __init__(self, taken: int, given: int, *, block: bool) -> None:
        super().__init__()
        self.reduce = convolution(taken, given, stride=2)
        self.block = Residual(given) if block else nn.Identity()

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d h2 w2"]:
        """Half of each side."""
        return self.block(functional.relu(self.reduce(x)))


class Up(nn.Module):
    """Twice the resolution; the features of the way down are added."""

    def __init__(self, taken: int, given: int) -> None:
        super().__init__()
        self.project, self.merge = convolution(taken, given, kernel=1), convolution(given, given)

    def forward(self, x: Float[Tensor, "n c h w"], beside: Float[Tensor, "n d h2 w2"]) -> Float[Tensor, "n d h2 w2"]:
        """The shape of ``beside``."""
        grown = functional.interpolate(self.project(x), scale_factor=2, mode="nearest")
        return functional.relu(self.merge(functional.relu(grown + beside)))


class SmallDepthNet(nn.Module):
    """A picture and a guess in, how near each place is out, from about 0 (the far end) to about 1 (the near end).

    The output t is affine in the logarithm of stretched inverse depth q: t = log(1 + q/ε)/log(1 + 1/ε), with the ε of
    ``clearfuse.synth.depth.metres.metric_from_inverse``. The network adds to the guess, which is of the same kind, so
    that it starts from what is known of pictures at large.
    """

    def __init__(self) -> None:
        super().__init__()
        # Beside the colours, the guess and the row.
        levels = enumerate(zip((5, *WIDTHS), WIDTHS, strict=False))
        self.down = nn.ModuleList([Down(taken, given, block=i > 0) for i, (taken, given) in levels])
        self.context = nn.Sequential(nn.Linear(WIDTHS[-1], WIDTHS[-1]), nn.ReLU(), nn.Linear(WIDTHS[-1], WIDTHS[-1]))
        self.up = nn.ModuleList([Up(WIDTHS[i], WIDTHS[i - 1]) for i in range(len(WIDTHS) - 1, 0, -1)])
        self.head = nn.Conv2d(WIDTHS[0], 1, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, picture: Float[Tensor, "n 3 h w"], guess: Float[Tensor, "n h w"]) -> Float[Tensor, "n h2 w2"]:
        """t at half the resolution. picture: code values from 0 to 1, sides multiples of ``MULTIPLE``; guess: t."""
        n, _, h, w = picture.shape
        rows = torch.linspace(-2, 2, h, dtype=picture.dtype, device=picture.device)[None, None, :, None]
        planes = [4 * picture - 2, 4 * guess[:, None] - 2, rows.expand(n, 1, h, w)]
        x = torch.cat(planes, dim=1).contiguous(memory_format=torch.channels_last)
        levels: list[Tensor] = []
        for down in self.down:
            x = down(x)
            levels.append(x)
        x = levels.pop()
        x = functional.relu(x + self.context(x.mean(dim=(2, 3)))[:, :, None, None])
        for up, beside in zip(self.up, reversed(levels), strict=True):
            x = up(x, beside)
        return functional.avg_pool2d(guess[:, None], 2)[:, 0] + self.head(x)[:, 0]

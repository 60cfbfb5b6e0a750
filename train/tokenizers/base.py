"""The interface of tokenizers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class Grid:
    """The geometry of a tokenizer's latents. f: pixels along a side of a latent cell; z: channels."""

    f: int
    z: int

    def __post_init__(self) -> None:
        if self.f < 1 or self.z < 1:
            raise ValueError(f"a tokenizer's cell is of at least 1 pixel and 1 channel, not {self.f} and {self.z}")

    def cells(self, width: int, height: int) -> tuple[int, int]:
        """(columns, rows) of the latents of an image, whose sides are padded to multiples of f."""
        return -(-width // self.f), -(-height // self.f)


class Tokenizer(nn.Module):
    """Base class: images in [−1, 1] of any height and width to latents and back.

    f: pixels along a side of a latent cell; z: latent channels; scale: the magnitude of the raw latents of natural
    images, by which ``encode`` divides and ``decode`` multiplies, so that models see latents of about unit scale.
    weight: of each channel's squared error in a loss, mean 1. identity: latents are the images, so that caches keep
    code values. Infrared images have three equal channels.
    """

    identity: ClassVar[bool] = False
    f: int
    z: int
    scale: Float[Tensor, "z 1 1"]
    weight: Float[Tensor, "z 1 1"]

    def recompute(self) -> None:
        """Gradient checkpointing of ``decode``, where there is something to keep."""

    def encode(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b z h w"]:
        """Latents of ceil(H / f) × ceil(W / f); images are padded by reflection to multiples of f."""
        raise TypeError(f"{type(self).__name__} defines no encode")

    def decode(self, latents: Float[Tensor, "b z h w"], size: tuple[int, int]) -> Float[Tensor, "b 3 H W"]:
        """Images of ``size``, (height, width), with the padding cut off; values may lie outside [−1, 1]."""
        raise TypeError(f"{type(self).__name__} defines no decode")


def pad_to(images: Float[Tensor, "b c H W"], f: int) -> Float[Tensor, "b c H2 W2"]:
    """Pad at the bottom and right to multiples of f, by (repeated) reflection about the last pixel."""
    for axis in (2, 3):
        side = images.shape[axis]
        if side % f:
            period = torch.full((1,), max(2 * (side - 1), 1), device=images.device)  # no number: ONNX has no such %
            index = torch.arange(side + -side % f, device=images.device) % period
            images = images.index_select(axis, torch.minimum(index, period - index).clamp(max=side - 1))
    return images

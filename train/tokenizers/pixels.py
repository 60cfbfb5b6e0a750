"""Pixels as latents: the tokenizer of networks that work on images themselves."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from clearfuse.train.tokenizers.base import Tokenizer


class Pixels(Tokenizer):
    """The identity: f = 1, z = 3; latents are the images in [−1, 1]."""

    identity = True
    f = 1
    z = 3

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(3, 1, 1), persistent=False)
        self.register_buffer("weight", torch.ones(3, 1, 1), persistent=False)

    def encode(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b z h w"]:
        """The images."""
        return images

    def decode(self, latents: Float[Tensor, "b z h w"], size: tuple[int, int]) -> Float[Tensor, "b 3 H W"]:
        """The latents, cut to (height, width)."""
        return latents[..., : size[0], : size[1]]

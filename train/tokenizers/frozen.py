"""Pretrained autoencoders as tokenizers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from clearfuse.train.tokenizers.base import Tokenizer, pad_to
from clearfuse.train.weights.frozen import Frozen

Code = Callable[[Tensor], Tensor]


class FrozenTokenizer(Frozen, Tokenizer):
    """z = (raw − shift) / scale of a frozen autoencoder; the mode of its posterior, without sampling.

    It computes in bf16 on CUDA and in float32 elsewhere, independent of autocast; latents and images are float32. It
    does no tiling: the pipeline fuses large images in tiles, and the tiling of diffusers is off by default and, in
    ``AutoencoderTiny``, assumes four channels.
    """

    shift: Float[Tensor, "z 1 1"]

    def __init__(
        self,
        networks: Sequence[nn.Module],
        encoder: Code,
        decoder: Code,
        *,
        f: int,
        shift: Sequence[float],
        scale: Sequence[float],
        layout: torch.memory_format = torch.contiguous_format,
        blocks: tuple[type[nn.Module], ...] = (),
    ) -> None:
        """layout: the memory format in which the networks are fastest: channels last for convolutions of images.
        blocks: the classes of their blocks, see ``recompute``."""
        super().__init__(*networks)
        for network in networks:
            network.to(memory_format=layout)  # type: ignore[call-overload]
        self._layout, self._blocks = layout, blocks
        self.f, self.z = f, len(scale)
        self._code = encoder, decoder  # a tuple: they may be networks, and torch registers none in it
        self.register_buffer("shift", torch.tensor(shift)[:, None, None], persistent=False)
        self.register_buffer("scale", torch.tensor(scale)[:, None, None], persistent=False)
        self.register_buffer("weight", torch.ones(self.z, 1, 1), persistent=False)

    def recompute(self) -> None:
        """Gradient checkpointing: under a loss on images, blocks run again backward, in place of keeping all they made.

        Most networks of diffusers have it as an option; of others, and of diffusers' ``AutoencoderTiny``, whose option
        runs the decoder as a whole again, each block of ``blocks`` does so. A network with neither keeps all.
        """
        for network in self.networks:
            inner = [module for module in network.modules() if isinstance(module, self._blocks)]
            for block in inner:
                block.forward = partial(_checkpointed, block.forward)
            if not inner and getattr(network, "_supports_gradient_checkpointing", False):
                network.enable_gradient_checkpointing()  # type: ignore[operator]

    def encode(self, images: Float[Tensor, "b 3 H W"]) -> Float[Tensor, "b z h w"]:
        """Latents of the images in [−1, 1]."""
        with torch.autocast(images.device.type, enabled=False):
            raw = self._code[0](pad_to(images, self.f).to(self.dtype, memory_format=self._layout))
        return (raw.float() - self.shift) / self.scale

    def decode(self, latents: Float[Tensor, "b z h w"], size: tuple[int, int]) -> Float[Tensor, "b 3 H W"]:
        """Images of (height, width); differentiable with respect to the latents."""
        with torch.autocast(latents.device.type, enabled=False):
            images = self._code[1](
                (latents.float() * self.scale + self.shift).to(self.dtype, memory_format=self._layout)
            )
        return images.float()[..., : size[0], : size[1]]


def _checkpointed(forward: Any, *args: Any, **kwargs: Any) -> Any:
    if torch.is_grad_enabled() and any(isinstance(arg, Tensor) and arg.requires_grad for arg in args):
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    return forward(*args, **kwargs)

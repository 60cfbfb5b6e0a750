"""Folders with small random autoencoders, for the tests of tokenizers and pipelines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

DOWN, UP = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4


def tiny(z: int = 16) -> Any:
    """The class of TAESD, with few channels."""
    from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny

    width = (8,) * 4
    return AutoencoderTiny(encoder_block_out_channels=width, decoder_block_out_channels=width, latent_channels=z)


def kl(shift: float = 0.1159, factor: float = 0.3611) -> Any:
    """The structure of Flux's VAE, with few channels."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    return AutoencoderKL(
        down_block_types=DOWN, up_block_types=UP, block_out_channels=(4, 4, 8, 8), layers_per_block=1,
        norm_num_groups=2, latent_channels=16, use_quant_conv=False, use_post_quant_conv=False, shift_factor=shift,
        scaling_factor=factor,
    )  # fmt: skip


def flux2() -> Any:
    """The structure of FLUX.2's VAE, with few channels."""
    from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2

    return AutoencoderKLFlux2(
        down_block_types=DOWN, up_block_types=UP, block_out_channels=(4, 4, 4, 4), layers_per_block=1,
        norm_num_groups=2, latent_channels=4,
    )  # fmt: skip


def asymmetric() -> Any:
    """The structure of the asymmetric KL-VAE, with few channels."""
    from diffusers.models.autoencoders.autoencoder_asym_kl import AsymmetricAutoencoderKL

    return AsymmetricAutoencoderKL(
        down_block_types=DOWN, down_block_out_channels=(4, 4, 4, 4), layers_per_down_block=1, up_block_types=UP,
        up_block_out_channels=(4, 4, 4, 4), layers_per_up_block=1, norm_num_groups=2,
    )  # fmt: skip


def cosmos() -> Any:
    """The video class of Cosmos, with few channels."""
    from diffusers.models.autoencoders.autoencoder_kl_cosmos import AutoencoderKLCosmos

    return AutoencoderKLCosmos(
        encoder_block_out_channels=(4, 4, 4, 4), decode_block_out_channels=(4, 4, 4, 4), num_layers=1, resolution=32,
        attention_resolutions=(1,),
    )  # fmt: skip


def dc() -> Any:
    """A deep-compression autoencoder with f = 32."""
    from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC

    two = {"block_out_channels": (4,) * 6, "layers_per_block": (1,) * 6, "qkv_multiscales": ((),) * 6}
    sides = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in two.items()}
    return AutoencoderDC(latent_channels=4, attention_head_dim=4, scaling_factor=0.5, **sides)


MADE: dict[str, tuple[Callable[[], Any], int, int]] = {
    "tiny": (tiny, 8, 16), "kl": (kl, 8, 16), "flux2": (flux2, 8, 4), "asymmetric": (asymmetric, 8, 4),
    "cosmos": (cosmos, 8, 16), "dc": (dc, 32, 4),
}  # fmt: skip
"""Name -> how it is made, f, z."""


def saved(folder: Path, make: Callable[[], Any], seed: int = 0) -> Path:
    """A folder with a network whose weights are drawn from the seed."""
    network = make()
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=rng))
    network.save_pretrained(folder)
    return folder

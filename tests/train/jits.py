"""TorchScript archives of small Cosmos tokenizers of random weights, laid out as the published ones."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn

from clearfuse.train.tokenizers.cosmos import Widths, build_decoder, build_encoder

SMALL = Widths(channels=32, multipliers=(2, 2, 2), blocks=1)


class Identity(nn.Module):
    """The published encoder's last module: what it is given, and the moments that a plain autoencoder lacks."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        return x, (torch.zeros(1), torch.zeros(1))


def cosmos(folder: Path, f: int = 8, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> tuple[nn.Module, nn.Module]:
    """Write ``encoder.jit`` and ``decoder.jit`` into a folder; the modules that were traced."""
    folder.mkdir(parents=True, exist_ok=True)
    encoder, decoder = build_encoder(f, SMALL), build_decoder(f, SMALL)
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (*encoder.parameters(), *decoder.parameters()):
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=rng))
    encoder.add_module("distribution", Identity())
    for owner in (encoder.get_submodule("encoder.patcher"), decoder.get_submodule("decoder.unpatcher")):
        owner.register_buffer("wavelets", torch.full((2,), 0.5**0.5))
        owner.register_buffer("_arange", torch.arange(2))
    pair = (encoder.to(dtype).eval(), decoder.to(dtype).eval())
    examples = (torch.zeros(1, 3, 2 * f, 3 * f, dtype=dtype), torch.zeros(1, SMALL.z, 2, 3, dtype=dtype))
    for name, module, example in zip(("encoder", "decoder"), pair, examples, strict=True):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TorchScript is deprecated, and that shapes are constants
            torch.jit.trace(module, example, check_trace=False).save(str(folder / f"{name}.jit"))
    return pair

"""Cosmos' continuous image tokenizers, CI8x8 and CI16x16: an autoencoder on Haar patches of 4 × 4 pixels.

Source: NVIDIA, arXiv 2501.03575, and for details github.com/NVIDIA/Cosmos-Tokenizer at 3584ae7,
``networks/{configs,continuous_image}.py`` and ``modules/{layers2d,patching,utils}.py``. It is trained as a plain
autoencoder, without a posterior, and its latents are published unscaled.

The weights are published as TorchScript (nvidia/Cosmos-0.1-Tokenizer-CI8x8 and -CI16x16 on the Hugging Face hub):
``encoder.jit`` of a sequence of ``encoder``, ``quant_conv`` and a ``distribution`` without weights, ``decoder.jit`` of
``post_quant_conv`` and ``decoder``, in bf16. Only their tensors are read, and the modules here have their names::

    encoder.conv_in  encoder.down.LEVEL.block.N  encoder.down.LEVEL.downsample.conv
    encoder.mid.{block_1,attn_1,block_2}  encoder.norm_out  encoder.conv_out  quant_conv
    post_quant_conv  decoder.conv_in  decoder.mid.{block_1,attn_1,block_2}
    decoder.up.LEVEL.block.N  decoder.up.LEVEL.upsample.conv  decoder.norm_out  decoder.conv_out
    of a block: norm1  conv1  norm2  conv2, nin_shortcut where the width changes; of attention: norm  q  k  v  proj_out
    encoder.patcher.{wavelets,_arange}  decoder.unpatcher.{wavelets,_arange}: the Haar filter, which is not trained

Attention is only used in the bottleneck. The published config also has it at levels of side 32, but there are none at
its resolution of 1024: after patches of 4 the sides are 256 and 128, and 64 for CI16x16. The sizes of the files agree:
31.2 and 45.6 million values of two bytes.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearfuse.synth.files.checkpoints import check_weights, fill, read_state
from clearfuse.synth.types import UserError
from clearfuse.train.tokenizers.frozen import FrozenTokenizer
from clearfuse.train.weights.torchscript import read_archive

PARTS = ("encoder", "decoder")
FILES = tuple(f"{part}.jit" for part in PARTS)
PATCH = 4
SPLITS = int(math.log2(PATCH))


@dataclass(frozen=True)
class Widths:
    """Sizes of the network; the defaults are those of both published ones. blocks: residual blocks per
    encoder level.
    """

    channels: int = 128
    multipliers: tuple[int, ...] = (2, 4, 4)
    blocks: int = 2
    z: int = 16


PUBLISHED = Widths()


def haar(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c4 h2 w2"]:
    """One level of the Haar transform: (a+b+c+d, a+b−c−d, a−b+c−d, a−b−c+d) / 4 of each 2 × 2 pixels (a b; c d).

    Channels: mean, vertical, horizontal and diagonal difference of all input channels. h and w must be even; the
    reflected border of the published transform then has no effect.
    """
    a, b, c, d = rearrange(x, "b c (h y) (w x) -> (y x) b c h w", y=2, x=2)
    return torch.cat([a + b + c + d, a + b - c - d, a - b + c - d, a - b - c + d], 1) / 4


def unhaar(x: Float[Tensor, "b c4 h2 w2"]) -> Float[Tensor, "b c h w"]:
    """The inverse of ``haar``."""
    mean, vertical, horizontal, diagonal = x.chunk(4, 1)
    a, b = mean + vertical + horizontal + diagonal, mean + vertical - horizontal - diagonal
    c, d = mean - vertical + horizontal - diagonal, mean - vertical - horizontal + diagonal
    return rearrange(torch.stack([a, b, c, d]), "(y x) b c h w -> b c (h y) (w x)", y=2, x=2)


class Patches(nn.Module):
    """Pixels to patches of 4 × 4: two levels of the Haar transform, the second on all channels of the first."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c16 h4 w4"]:
        """Transform; the sides must be multiples of 4."""
        for _ in range(SPLITS):
            x = haar(x)
        return x


class Pixels(nn.Module):
    """The inverse of ``Patches``."""

    def forward(self, x: Float[Tensor, "b c16 h4 w4"]) -> Float[Tensor, "b c h w"]:
        """Transform back to four times the sides."""
        for _ in range(SPLITS):
            x = unhaar(x)
        return x


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, width, eps=1e-6)


class Residual(nn.Module):
    """y = shortcut(x) + conv3(silu(norm(conv3(silu(norm(x)))))); the shortcut is 1 × 1 where the width changes."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = _norm(width), nn.Conv2d(width, out, 3, padding=1)
        self.norm2, self.conv2 = _norm(out), nn.Conv2d(out, out, 3, padding=1)
        self.nin_shortcut = nn.Identity() if width == out else nn.Conv2d(width, out, 1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """The size stays."""
        y = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class Attention(nn.Module):
    """y = x + out(softmax(q kᵀ / √c) v) over all cells, with a single head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(width, width, 1) for _ in range(4))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The size stays."""
        y = self.norm(x)
        q, k, v = (rearrange(each(y), "b c h w -> b 1 (h w) c") for each in (self.q, self.k, self.v))
        y = rearrange(F.scaled_dot_product_attention(q, k, v), "b 1 (h w) c -> b c h w", h=x.shape[2])
        return x + self.proj_out(y)


class Downsample(nn.Module):
    """A convolution of stride 2, padded only at the right and the bottom."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Halve the sides."""
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """Nearest-neighbour upsampling by 2, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        """Double the sides."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _named(**modules: nn.Module) -> nn.Sequential:
    """A sequential module with named children."""
    return nn.Sequential(OrderedDict(modules))


def _middle(width: int) -> nn.Sequential:
    return _named(block_1=Residual(width, width), attn_1=Attention(width), block_2=Residual(width, width))


def _blocks(width: int, out: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(Residual(width if n == 0 else out, out) for n in range(count)))


def build_encoder(f: int, sizes: Widths = PUBLISHED) -> nn.Sequential:
    """Images (b, 3, H, W) in [−1, 1], sides multiples of f, to latents (b, z, H / f, W / f)."""
    widths = [sizes.channels, *(sizes.channels * each for each in sizes.multipliers)]
    halvings = int(math.log2(f)) - SPLITS
    levels = [
        _named(block=_blocks(width, out, sizes.blocks), **({"downsample": Downsample(out)} if level < halvings else {}))
        for level, (width, out) in enumerate(pairwise(widths))
    ]
    encoder = _named(
        patcher=Patches(), conv_in=nn.Conv2d(3 * PATCH**2, widths[0], 3, padding=1), down=nn.Sequential(*levels),
        mid=_middle(widths[-1]), norm_out=_norm(widths[-1]), silu=nn.SiLU(),
        conv_out=nn.Conv2d(widths[-1], sizes.z, 3, padding=1),
    )  # fmt: skip
    return _named(encoder=encoder, quant_conv=nn.Conv2d(sizes.z, sizes.z, 1))


def build_decoder(f: int, sizes: Widths = PUBLISHED) -> nn.Sequential:
    """Latents (b, z, h, w) to images (b, 3, f h, f w), about [−1, 1]. Levels are numbered as the encoder's."""
    outs = [sizes.channels * each for each in sizes.multipliers]
    coarse = len(outs) - (int(math.log2(f)) - SPLITS)
    levels: dict[str, nn.Module] = {}
    width = outs[-1]
    for level, out in reversed(list(enumerate(outs))):
        doubled = {"upsample": Upsample(out)} if level >= coarse else {}
        levels[str(level)] = _named(block=_blocks(width, out, sizes.blocks + 1), **doubled)
        width = out
    decoder = _named(
        conv_in=nn.Conv2d(sizes.z, outs[-1], 3, padding=1), mid=_middle(outs[-1]), up=_named(**levels),
        norm_out=_norm(width), silu=nn.SiLU(), conv_out=nn.Conv2d(width, 3 * PATCH**2, 3, padding=1),
        unpatcher=Pixels(),
    )  # fmt: skip
    return _named(post_quant_conv=nn.Conv2d(sizes.z, sizes.z, 1), decoder=decoder)


def blank_cosmos(f: int) -> FrozenTokenizer:
    """The published tokenizer of f pixels a side of a latent cell, 8 or 16, with its weights as they are made."""
    return _wrap([build_encoder(f, PUBLISHED), build_decoder(f, PUBLISHED)], f)


def _wrap(networks: list[nn.Sequential], f: int) -> FrozenTokenizer:
    z = PUBLISHED.z
    return FrozenTokenizer(
        networks, *networks, f=f, shift=[0.0] * z, scale=[1.0] * z, layout=torch.channels_last,
        blocks=(Residual, Attention, Upsample),
    )  # fmt: skip


def load_cosmos(folder: Path, f: int, where: str) -> FrozenTokenizer:
    """Load the tokenizer of a folder with ``FILES``, or with the same tensors as ``encoder.safetensors`` and
    ``decoder.safetensors``.

    f: pixels along a side of a latent cell, 8 or 16. where: prefix of the UserError for a missing file; that for a file
    that does not fit begins with its path.
    """
    with torch.device("meta"):  # the weights are assigned below
        networks = [build_encoder(f, PUBLISHED), build_decoder(f, PUBLISHED)]
    for part, network in zip(PARTS, networks, strict=True):
        path = _path(folder, part)
        if path is None:
            raise UserError(f"{where}: {part}.jit is missing in {folder}")
        state = read_archive(path) if path.suffix == ".jit" else read_state(path)
        fill(network, _weights(state, path), path, f"Cosmos' {part} of f = {f}", assign=True)
    return _wrap(networks, f)


def files_of(folder: Path) -> list[Path]:
    """The tokenizer's files in a folder."""
    return [path for part in PARTS if (path := _path(folder, part)) is not None]


def _path(folder: Path, part: str) -> Path | None:
    paths = (folder / f"{part}{suffix}" for suffix in (".safetensors", ".jit"))
    return next((path for path in paths if path.is_file()), None)


def _weights(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The trained tensors in float32. Raises UserError if the stored filter is not Haar's."""
    filters = {"wavelets": [0.5**0.5, 0.5**0.5], "_arange": [0.0, 1.0]}
    weights: dict[str, Tensor] = {}
    for name, tensor in state.items():
        owner, _, last = name.rpartition(".")
        if not owner.endswith("patcher"):
            check_weights({name: tensor}, path)
            weights[name] = tensor.float().contiguous()
        elif last not in filters or not torch.allclose(tensor.float(), torch.tensor(filters[last]), atol=5e-3):
            raise UserError(f"{path}: {name} is not that of the Haar transform")
    return weights

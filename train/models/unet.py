"""A dense U-Net on latents, the baseline of the diffusion transformers (MMAIF, table 6, row a).

The paper only says that it is dense and has a similar number of parameters: this is the standard U-Net of latent
diffusion (arXiv 2112.10752; residual blocks of arXiv 2105.05233), with the prompt's tokens among the keys and values of
each self-attention, as in the transformers. Shapes: b batch, z latent channels, h, w latent grid, c channels, l image
tokens, m prompt tokens, e width of an embedding, n heads, k width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import pydantic
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from clearfuse.synth.files.schema import STRICT
from clearfuse.train.models.base import Inputs, Layers, Optional, Prediction, Size
from clearfuse.train.models.layers import TimeEmbedding, ZeroConv2d, ZeroLinear, attention, initialise

GROUPS = 32


@pydantic.dataclasses.dataclass(frozen=True, config=STRICT)
class UNetConfig:
    """Hyperparameters; with the defaults it has as many parameters as the dense transformer, within 2 %."""

    patch: ClassVar[int] = 1
    """Cells of a token's side."""

    flow: bool = False
    """A noisy latent and its time join both degraded latents; else without a time."""
    latent_channels: Size = 16
    text_width: Optional = 2048
    """Width of the prompt's embedding; 0: a model without prompts."""
    width: Annotated[Size, Field(multiple_of=GROUPS)] = 224
    """Channels of the first level, a multiple of heads; each level below has twice as many."""
    levels: Annotated[int, Field(ge=1, le=8)] = 3
    blocks: Layers = 3
    """Residual blocks of a level, in the encoder and again in the decoder."""
    attend: Optional = 2
    """Number of the coarsest levels with self-attention after each block."""
    heads: Size = 8

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads ({self.heads})")
        if self.attend > self.levels:
            raise ValueError(f"attend {self.attend} must be 0 to {self.levels}, the number of levels")


@dataclass(frozen=True)
class LayerSpec:
    """A layer of the U-Net. kind: res, attention, down or up; level: 0 is the finest.

    saves_skip: its output is kept as a skip connection; takes_skip: its input is concatenated with the last one kept.
    """

    kind: str
    level: int
    in_channels: int
    out_channels: int
    saves_skip: bool = False
    takes_skip: bool = False


def layer_specs(config: UNetConfig) -> Iterator[LayerSpec]:
    """The layers in order: encoder, bottleneck, decoder."""
    widths = [config.width * 2**level for level in range(config.levels)]
    channels, skips = config.width, []
    for level, width in enumerate(widths):
        attends = level >= config.levels - config.attend
        for _ in range(config.blocks):
            yield LayerSpec("res", level, channels, width, saves_skip=not attends)
            if attends:
                yield LayerSpec("attention", level, width, width, saves_skip=True)
            skips.append(width)
            channels = width
        if level + 1 < config.levels:
            yield LayerSpec("down", level, channels, channels)
    yield LayerSpec("res", config.levels - 1, channels, channels)
    yield LayerSpec("attention", config.levels - 1, channels, channels)
    yield LayerSpec("res", config.levels - 1, channels, channels)
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(config.blocks):
            yield LayerSpec("res", level, channels + skips.pop(), width, takes_skip=True)
            if level >= config.levels - config.attend:
                yield LayerSpec("attention", level, width, width)
            channels = width
        if level:
            yield LayerSpec("up", level, channels, channels)


class ResBlock(nn.Module):
    """x + Conv(silu((1 + scale) GN(Conv(silu(GN x))) + shift)), scale and shift from the time; the outer convolution
    starts at 0.
    """

    def __init__(self, in_channels: int, out_channels: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time = nn.Linear(embedding, 2 * out_channels) if embedding else None
        self.norm2 = nn.GroupNorm(GROUPS, out_channels)
        self.conv2 = ZeroConv2d(out_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()

    def forward(self, x: Float[Tensor, "b c h w"], time: Float[Tensor, "b e"] | None) -> Tensor:
        """Keeps the grid; the number of channels may change."""
        u = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.time is not None and time is not None:
            scale, shift = self.time(F.silu(time))[..., None, None].chunk(2, 1)
            u = torch.addcmul(u + shift, u, scale)
        return self.skip(x) + self.conv2(F.silu(u))


class AttentionBlock(nn.Module):
    """Residual self-attention over the grid, with the prompt's tokens among keys and values; adds 0 at first."""

    def __init__(self, width: int, heads: int, text_width: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(GROUPS, width)
        self.qkv = nn.Linear(width, 3 * width)
        self.text = nn.Linear(text_width, 2 * width) if text_width else None
        self.out = ZeroLinear(width, width)

    def forward(
        self, x: Float[Tensor, "b c h w"], text: Float[Tensor, "b m e"], text_mask: Bool[Tensor, "b m"] | None
    ) -> Float[Tensor, "b c h w"]:
        """Attend; prompt tokens where the mask is False are ignored."""
        tokens = rearrange(self.norm(x), "b c h w -> b (h w) c")
        q, k, v = self._heads(self.qkv(tokens), 3)
        mask = None
        if self.text is not None and text.shape[1]:
            k_text, v_text = self._heads(self.text(text), 2)
            k, v = torch.cat([k, k_text], 2), torch.cat([v, v_text], 2)
            mask = None if text_mask is None else F.pad(text_mask, (tokens.shape[1], 0), value=True)
        attended = rearrange(attention(q, k, v, mask), "b n l k -> b l (n k)")
        return x + rearrange(self.out(attended), "b (h w) c -> b c h w", h=x.shape[2])

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        return rearrange(x, "b l (parts n k) -> parts b n l k", parts=parts, n=self.heads).unbind()


class UNet(nn.Module):
    """The network: ``UNet(config)(inputs)``."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config, embedding = config, 4 * config.width if config.flow else 0
        self.time = TimeEmbedding(embedding) if embedding else None
        self.text = nn.LayerNorm(config.text_width) if config.text_width else nn.Identity()
        self.stem = nn.Conv2d(streams(config) * config.latent_channels, config.width, 3, padding=1)
        self.specs = tuple(layer_specs(config))
        self.parts = nn.ModuleList(_module(spec, config, embedding) for spec in self.specs)
        self.norm = nn.GroupNorm(GROUPS, config.width)
        self.head = ZeroConv2d(config.width, config.latent_channels, 3, padding=1)

    def initialise(self, rng: torch.Generator) -> None:
        """Initialise all parameters from the generator, by the rules of ``layers.initialise``."""
        initialise(self, rng)

    def forward(self, inputs: Inputs) -> Prediction:
        """Predict a latent from two degraded ones of any size. z_t, t: of a flow model alone."""
        z_t, t, (text, text_mask) = inputs.z_t, inputs.t, inputs.text
        if self.config.flow != (z_t is not None) or self.config.flow != (t is not None):
            raise ValueError("a flow model takes z_t and t, a regression neither")
        inputs.refuse("U-Net", "strength", "guess", "semantics", "present")
        height, width = inputs.pair[0].shape[2:]
        x = torch.cat([z for z in (z_t, *inputs.pair) if z is not None], 1)
        side = 2 ** (self.config.levels - 1)
        x = self.stem(F.pad(x, (0, -width % side, 0, -height % side), mode="replicate"))
        time = None if self.time is None or t is None else self.time(t)
        text = self.text(text.to(x.dtype)) if self.config.text_width else text
        skips: list[Tensor] = []
        for spec, module in zip(self.specs, self.parts, strict=True):
            if spec.kind == "res":
                x = module(torch.cat([x, skips.pop()], 1) if spec.takes_skip else x, time)
            elif spec.kind == "attention":
                x = module(x, text, text_mask)
            else:
                x = module(x)
            if spec.saves_skip:
                skips.append(x)
        latent = self.head(F.silu(self.norm(x)))[..., :height, :width]
        return Prediction(latent, latent.new_zeros(()), latent.new_zeros(len(self.parts), 0))


def _module(spec: LayerSpec, config: UNetConfig, embedding: int) -> nn.Module:
    match spec.kind:
        case "res":
            return ResBlock(spec.in_channels, spec.out_channels, embedding)
        case "attention":
            return AttentionBlock(spec.in_channels, config.heads, config.text_width)
        case "down":
            return nn.Conv2d(spec.in_channels, spec.out_channels, 3, stride=2, padding=1)
        case _:
            assert spec.kind == "up"
            conv = nn.Conv2d(spec.in_channels, spec.out_channels, 3, padding=1)
            return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), conv)


def streams(config: UNetConfig) -> int:
    """The number of input latents: both degraded ones, and the noisy one of a flow."""
    return 2 + config.flow


def inactive(config: UNetConfig) -> int:
    """0: the network is dense."""
    return 0


def activations(config: UNetConfig, height: int, width: int, text_tokens: int) -> int:
    """Peak number of values, roughly: at the finest level a block's input, three intermediates, and the skips."""
    return height * width * config.width * (5 + config.blocks)


def flops(config: UNetConfig, height: int, width: int, text_tokens: int) -> int:
    """2 × MAC of one forward pass on latents of height × width: convolutions, linear layers, attention's products."""
    side = 2 ** (config.levels - 1)
    grid = -(-height // side) * -(-width // side) * side**2
    m = text_tokens if config.text_width else 0
    total = grid * 9 * (streams(config) + 1) * config.latent_channels * config.width
    embedding = 4 * config.width if config.flow else 0
    total += 2 * TimeEmbedding.FREQUENCIES * embedding + embedding**2
    for spec in layer_specs(config):
        cells, c = grid // 4**spec.level, spec.out_channels
        if spec.kind == "res":
            total += cells * 9 * (spec.in_channels * c + c * c) + 2 * embedding * c
            total += cells * spec.in_channels * c if spec.in_channels != c else 0
        elif spec.kind == "attention":
            total += cells * 4 * c * c + 2 * cells * (cells + m) * c + 2 * m * config.text_width * c
        else:
            total += (cells // 4 if spec.kind == "down" else 4 * cells) * 9 * c * c
    return 2 * total

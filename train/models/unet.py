"""A dense U-Net on latents: what the diffusion transformers are measured against (MMAIF, table 6, row a).

The paper says no more of it than that it is dense and of a similar number of parameters: this is the usual one of
latent diffusion (arXiv 2112.10752; residual blocks of arXiv 2105.05233), with the prompt's tokens among the keys and
values of each self-attention, as they are in the transformers. Letters of the shapes: b batch, z latent channels, h, w
latent grid, c channels, l tokens, n heads, k width of a head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearfuse.train.models.base import Prediction
from clearfuse.train.models.layers import TimeEmbedding, ZeroConv2d, ZeroLinear, attention, initialise

GROUPS = 32


@dataclass(frozen=True)
class UNetConfig:
    """Sizes of the U-Net; the defaults have as many parameters as the dense transformer beside it, within 2 %."""

    flow: bool = False  # a noisy latent and its time join both degraded latents; else there is no time at all
    latent_channels: int = 16
    text_width: int = 2048  # width of the prompt's embedding; 0: a model without prompts
    width: int = 224  # channels of the first level; each level below has twice as many
    levels: int = 3
    blocks: int = 3  # residual blocks of a level, down and up each
    attend: int = 2  # so many of the lowest levels have self-attention after each block
    heads: int = 8

    def __post_init__(self) -> None:
        for name in ("latent_channels", "width", "levels", "blocks", "heads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.width % GROUPS or self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of {GROUPS} and of heads ({self.heads})")
        if not 0 <= self.attend <= self.levels:
            raise ValueError(f"attend {self.attend} must be 0 to {self.levels}, the number of levels")


@dataclass(frozen=True)
class Part:
    """A step of the plan. level: that it works at; kind: res, attention, down, up; skip: of the way down joins it."""

    kind: str
    level: int
    inward: int
    outward: int
    keeps: bool = False
    skip: bool = False


def plan(config: UNetConfig) -> Iterator[Part]:
    """The parts in order: down, the middle, up."""
    widths = [config.width * 2**level for level in range(config.levels)]
    here, skips = config.width, []
    for level, width in enumerate(widths):
        attends = level >= config.levels - config.attend
        for _ in range(config.blocks):
            yield Part("res", level, here, width, keeps=not attends)
            if attends:
                yield Part("attention", level, width, width, keeps=True)
            skips.append(width)
            here = width
        if level + 1 < config.levels:
            yield Part("down", level, here, here)
    yield Part("res", config.levels - 1, here, here)
    yield Part("attention", config.levels - 1, here, here)
    yield Part("res", config.levels - 1, here, here)
    for level, width in reversed(list(enumerate(widths))):
        for _ in range(config.blocks):
            yield Part("res", level, here + skips.pop(), width, skip=True)
            if level >= config.levels - config.attend:
                yield Part("attention", level, width, width)
            here = width
        if level:
            yield Part("up", level, here, here)


class ResBlock(nn.Module):
    """x + Conv(silu((1 + scale) GN(Conv(silu(GN x))) + shift)), scale and shift by time; the last starts at 0."""

    def __init__(self, inward: int, outward: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(GROUPS, inward)
        self.conv1 = nn.Conv2d(inward, outward, 3, padding=1)
        self.time = nn.Linear(embedding, 2 * outward) if embedding else None
        self.norm2 = nn.GroupNorm(GROUPS, outward)
        self.conv2 = ZeroConv2d(outward, outward, 3, padding=1)
        self.skip = nn.Conv2d(inward, outward, 1) if inward != outward else nn.Identity()

    def forward(self, x: Float[Tensor, "b c h w"], time: Float[Tensor, "b e"] | None) -> Tensor:
        """The same grid, perhaps other channels."""
        u = self.norm2(self.conv1(F.silu(self.norm1(x))))
        if self.time is not None and time is not None:
            scale, shift = self.time(F.silu(time))[..., None, None].chunk(2, 1)
            u = torch.addcmul(u + shift, u, scale)
        return self.skip(x) + self.conv2(F.silu(u))


class Attend(nn.Module):
    """Self-attention over the grid, the prompt's tokens among keys and values; what it adds starts at 0."""

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
        """Keys of the prompt where the mask is False take no part."""
        tokens = rearrange(self.norm(x), "b c h w -> b (h w) c")
        q, k, v = self._heads(self.qkv(tokens), 3)
        mask = None
        if self.text is not None and text.shape[1]:
            said = self._heads(self.text(text), 2)
            k, v = (torch.cat([own, other], 2) for own, other in zip((k, v), said, strict=True))
            mask = None if text_mask is None else F.pad(text_mask, (tokens.shape[1], 0), value=True)
        attended = rearrange(attention(q, k, v, mask), "b n l k -> b l (n k)")
        return x + rearrange(self.out(attended), "b (h w) c -> b c h w", h=x.shape[2])

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        return rearrange(x, "b l (parts n k) -> parts b n l k", parts=parts, n=self.heads).unbind()


class UNet(nn.Module):
    """The network: ``UNet(config)(z_a, z_b, z_t, t, text, text_mask)``."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config, embedding = config, 4 * config.width if config.flow else 0
        self.time = TimeEmbedding(embedding) if embedding else None
        self.text = nn.LayerNorm(config.text_width) if config.text_width else nn.Identity()
        self.stem = nn.Conv2d(streams(config) * config.latent_channels, config.width, 3, padding=1)
        self.plan = tuple(plan(config))
        self.parts = nn.ModuleList(_module(part, config, embedding) for part in self.plan)
        self.norm = nn.GroupNorm(GROUPS, config.width)
        self.head = ZeroConv2d(config.width, config.latent_channels, 3, padding=1)

    def initialise(self, rng: torch.Generator) -> None:
        """Set all parameters from the generator, as ``layers.initialise`` lists them."""
        initialise(self, rng)

    def forward(
        self,
        z_a: Float[Tensor, "b z h w"],
        z_b: Float[Tensor, "b z h w"],
        z_t: Float[Tensor, "b z h w"] | None,
        t: Float[Tensor, " b"] | None,
        text: Float[Tensor, "b m e"],
        text_mask: Bool[Tensor, "b m"] | None,
        prior: Float[Tensor, "b z h w"] | None = None,
    ) -> Prediction:
        """The latent predicted from two degraded ones of any size; z_t and t for a flow model, None for a regression.

        text: the prompts' embedding, of any length, 0 too; text_mask: False where a token is padding.
        """
        if self.config.flow != (z_t is not None) or self.config.flow != (t is not None):
            raise ValueError("a flow model takes z_t and t, a regression neither")
        if prior is not None:
            raise ValueError("the U-Net takes no prior")
        height, width = z_a.shape[2:]
        x = torch.cat([z for z in (z_t, z_a, z_b) if z is not None], 1)
        side = 2 ** (self.config.levels - 1)
        x = self.stem(F.pad(x, (0, -width % side, 0, -height % side), mode="replicate"))
        time = None if self.time is None or t is None else self.time(t)
        text = self.text(text.to(x.dtype)) if self.config.text_width else text
        skips: list[Tensor] = []
        for part, module in zip(self.plan, self.parts, strict=True):
            if part.kind == "res":
                x = module(torch.cat([x, skips.pop()], 1) if part.skip else x, time)
            elif part.kind == "attention":
                x = module(x, text, text_mask)
            else:
                x = module(x)
            if part.keeps:
                skips.append(x)
        latent = self.head(F.silu(self.norm(x)))[..., :height, :width]
        return Prediction(latent, latent.new_zeros(()), latent.new_zeros(len(self.parts), 0))


def _module(part: Part, config: UNetConfig, embedding: int) -> nn.Module:
    match part.kind:
        case "res":
            return ResBlock(part.inward, part.outward, embedding)
        case "attention":
            return Attend(part.inward, config.heads, config.text_width)
        case "down":
            return nn.Conv2d(part.inward, part.outward, 3, stride=2, padding=1)
        case _:
            assert part.kind == "up"
            conv = nn.Conv2d(part.inward, part.outward, 3, padding=1)
            return nn.Sequential(nn.Upsample(scale_factor=2, mode="nearest"), conv)


def streams(config: UNetConfig) -> int:
    """Latents that go in: both degraded ones, and the noisy one of a flow."""
    return 2 + config.flow


def inactive(config: UNetConfig) -> int:
    """None: it is dense."""
    return 0


def activations(config: UNetConfig, height: int, width: int, text_tokens: int) -> int:
    """Values live at once at most, about: at the first level a block's input, its skip, and three of its own."""
    return height * width * config.width * (5 + config.blocks)


def flops(config: UNetConfig, height: int, width: int, text_tokens: int) -> int:
    """2 × MAC of one call on latents of height × width: convolutions, linear layers, attention's two products."""
    side = 2 ** (config.levels - 1)
    grid = -(-height // side) * -(-width // side) * side**2
    m = text_tokens if config.text_width else 0
    total = grid * 9 * (streams(config) + 1) * config.latent_channels * config.width
    embedding = 4 * config.width if config.flow else 0
    total += 2 * TimeEmbedding.FREQUENCIES * embedding + embedding**2
    for part in plan(config):
        here, c = grid // 4**part.level, part.outward
        if part.kind == "res":
            total += here * 9 * (part.inward * c + c * c) + 2 * embedding * c
            total += here * part.inward * c if part.inward != c else 0
        elif part.kind == "attention":
            total += here * 4 * c * c + 2 * here * (here + m) * c + 2 * m * config.text_width * c
        else:
            total += (here // 4 if part.kind == "down" else 4 * here) * 9 * c * c
    return 2 * total

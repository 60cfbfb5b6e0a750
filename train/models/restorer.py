"""A transformer of MMAIF between a convolutional encoder and a decoder with skip connections, on pixels.

MMAIF (table 1) decodes latents with a decoder that is not the encoder's mirror. Here the decoder also sees the degraded
pair: skip connections take fine texture past the tokens, so that the transformer decides what is done, and where, on
tokens of 16 × 16 pixels, and the convolutions do it. Dense 3 × 3 convolutions: on a CPU they run at three quarters of
its peak, where depthwise ones and norms wait for memory. Shapes: b batch, c channels, h, w pixels, m prompt tokens, e
width of an embedding, d width of the tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from clearfuse.synth.files.schema import STRICT
from clearfuse.train.models import mmaif
from clearfuse.train.models.base import Inputs, Optional, Prediction, Size
from clearfuse.train.models.layers import (
    AdaLN,
    Context,
    Positions,
    TokenLayout,
    ZeroConv2d,
    ZeroLinear,
    initialise,
    modulate,
    rope_angles,
)
from clearfuse.train.models.mmaif import Block, MMAIFConfig, routed

MULTIPLE = 16
"""Pixels of a token's side; images are padded to multiples."""


@dataclass(frozen=True, config=STRICT)
class RestorerConfig:
    """Hyperparameters."""

    patch: ClassVar[int] = MULTIPLE
    """Pixels of a token's side, at whose multiples tiles start."""
    tile: ClassVar[int] = 1024
    """Side of the tiles of larger images, pixels: attention costs the square of a tile's tokens."""

    latent_channels: Size = 3
    """3: the network works on pixels."""
    text_width: Optional = 128
    """Width of the prompt's embedding; 0: a model without prompts."""
    guess: bool = True
    """An initial estimate of the fused image is given; the network starts as its copy."""
    width: Annotated[Size, Field(multiple_of=4)] = 32
    """The tokens have 8 times as many channels."""
    channels: tuple[Size, Size, Size] | None = None
    """Of the convolutions at 1/2, 1/4 and 1/8 of the resolution; none: once, twice and four times the width."""
    blocks: tuple[Size, Size, Size] = (1, 2, 2)
    """Residual blocks at 1/2, 1/4 and 1/8 of the resolution, in the encoder and again in the decoder."""
    output_scale: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Factor of the three output layers, which start at 0: their steps are as large as those of any layer, but of each
    hundreds of inputs go to one pixel."""
    depth: Size = 4
    """Transformer blocks."""
    heads: Size = 8
    experts: Optional = 4
    active: Size = 2
    expert_width: Size = 256
    shared_width: Optional = 256
    lora: Optional = 64
    dial: bool = False
    """The strength is an input: how much of what the prompt asks to remove is to be removed."""

    def transformer(self) -> MMAIFConfig:
        """The transformer's sizes."""
        return MMAIFConfig(
            latent_channels=self.latent_channels, text_width=self.text_width, depth=self.depth, width=8 * self.width,
            heads=self.heads, experts=self.experts, active=self.active, expert_width=self.expert_width,
            shared_width=self.shared_width, lora=self.lora, context=True,
        )  # fmt: skip


class ConvBlock(nn.Module):
    """x + W2 silu((1 + scale) W1 x + shift), 3 × 3, scale and shift from a context; W2 starts at 0.

    context: its width; 0: none, and neither scale nor shift.
    """

    def __init__(self, width: int, context: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.modulation = ZeroLinear(context, 2 * width) if context else None
        self.conv2 = ZeroConv2d(width, width, 3, padding=1)

    def forward(self, x: Float[Tensor, "b c h w"], context: Float[Tensor, "b d"] | None) -> Float[Tensor, "b c h w"]:
        """Keeps the shape."""
        inner = self.conv1(x)
        if self.modulation is not None:
            scale, shift = self.modulation(context)[..., None, None].chunk(2, 1)
            inner = torch.addcmul(shift, inner, 1 + scale)
        return x + self.conv2(F.silu(inner))


class Level(nn.ModuleList):
    """The residual blocks of a level, in order."""

    def forward(self, x: Float[Tensor, "b c h w"], context: Float[Tensor, "b d"] | None) -> Float[Tensor, "b c h w"]:
        """Keeps the shape."""
        for block in self:
            x = block(x, context)
        return x


class Dial(nn.Module):
    """What a strength below 1 adds to the context: nothing at 1, and nothing at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Linear(1, width, bias=False)
        self.outer = ZeroLinear(width, width, bias=False)

    def forward(self, strength: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """strength: in [0, 1]."""
        return self.outer(F.silu(self.inner(1 - strength[:, None])))


class Restorer(nn.Module):
    """The network: ``Restorer(config)(inputs)``.

    With a dial the result is guess + strength × (restored − guess), which is exact where a degradation adds in code
    values, such as noise; for the rest, such as haze, the network learns what to add.
    """

    def __init__(self, config: RestorerConfig) -> None:
        super().__init__()
        self.config = config
        inner = config.transformer()
        widths = [*level_channels(config), 8 * config.width]
        tokens = widths[3]
        images = streams(config)
        self.stem = nn.Conv2d(4 * images * config.latent_channels, widths[0], 3, padding=1)
        self.text = None
        if config.text_width:
            self.text = nn.Sequential(nn.LayerNorm(config.text_width), nn.Linear(config.text_width, tokens))
        self.encoder = nn.ModuleList(
            Level(ConvBlock(width, tokens if config.text_width else 0) for _ in range(count))
            for width, count in zip(widths[:3], config.blocks, strict=True)
        )
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in itertools.pairwise(widths))
        self.condition = nn.Sequential(nn.Linear(tokens, tokens), nn.SiLU(), nn.Linear(tokens, tokens))
        self.context = Context(tokens, config.text_width)
        self.prompt = Context(tokens, config.text_width) if config.text_width else None
        self.dial = Dial(tokens) if config.dial else None
        self.positions = Positions(tokens)
        self.blocks = nn.ModuleList(Block(inner, first=i == 0) for i in range(config.depth))
        self.adaln = AdaLN(tokens, 0, outputs=2)
        self.norm = nn.LayerNorm(tokens, eps=1e-6, elementwise_affine=False)
        self.up = nn.ModuleList(nn.Conv2d(b, 4 * a, 1) for a, b in itertools.pairwise(widths))
        self.decoder = nn.ModuleList(
            Level(ConvBlock(width, tokens) for _ in range(count))
            for width, count in zip(widths[:3], config.blocks, strict=True)
        )
        self.gain = ZeroConv2d(widths[2], images * config.latent_channels, 3, padding=1)
        self.tone = ZeroLinear(tokens, 2 * images * config.latent_channels)
        self.head = ZeroConv2d(widths[0], 4 * (images + config.latent_channels), 3, padding=1)

    def initialise(self, rng: torch.Generator) -> None:
        """Initialise all parameters from the generator, by the rules of ``layers.initialise``."""
        initialise(self, rng)

    def forward(self, inputs: Inputs) -> Prediction:
        """The fused image in [−1, 1] of two degraded ones of any size."""
        guess, (text, text_mask) = inputs.guess, inputs.text
        if inputs.z_t is not None or inputs.t is not None:
            raise ValueError("a restorer is a regression: it takes neither z_t nor t")
        if self.config.guess != (guess is not None):
            raise ValueError("a guess must be given if and only if the config has one")
        inputs.refuse("restorer", "semantics", "present", *(() if self.config.dial else ("strength",)))
        height, width = inputs.pair[0].shape[2:]
        pad = (0, -width % MULTIPLE, 0, -height % MULTIPLE)
        images = [F.pad(z, pad, mode="replicate") for z in (*inputs.pair, guess) if z is not None]
        x = F.pixel_unshuffle(torch.cat(images, 1), 2).contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        hint = None
        if self.prompt is not None:
            hint = self.prompt(x.new_zeros(len(x), 1, 8 * self.config.width), text, text_mask)
        dialled = None
        if self.dial is not None and inputs.strength is not None:
            dialled = self.dial(inputs.strength)
            hint = None if hint is None else hint + dialled
        skips: list[Tensor] = []
        for blocks, down in zip(self.encoder, self.down, strict=True):
            x = blocks(x, hint)
            skips.append(x)
            x = down(x)

        rows, columns = x.shape[2:]
        tokens = rearrange(x, "b d h w -> b (h w) d")
        c = self.condition(tokens)
        context = self.context(c + tokens, text, text_mask)
        context = context if dialled is None else context + dialled
        c = c + context[:, None]
        layout, c_all = self._layout(rows, columns, text, text_mask), c
        x = tokens
        if self.text is not None and text.shape[1]:
            prompt = self.text(text.to(x.dtype))
            x, c_all = torch.cat([x, prompt], 1), F.pad(c, (0, 0, 0, prompt.shape[1]))
        v, statistics = None, []
        for block in self.blocks:
            x, v, routing = block(x, c_all, layout, v)
            statistics.append(routing)
        x = modulate(self.norm(x[:, : rows * columns]), *self.adaln(c))
        x = rearrange(x, "b (h w) d -> b d h w", h=rows).contiguous(memory_format=torch.channels_last)

        gain = None
        levels = list(zip(self.decoder, self.up, skips, strict=True))
        for level, (blocks, up, skip) in reversed(list(enumerate(levels))):
            x = F.pixel_shuffle(up(x), 2) + skip
            x = blocks(x, context)
            if level == 2:
                gain = self.gain(x)
        assert gain is not None
        scale = self.config.output_scale
        fused = blended(scale * self.head(x), scale * gain, scale * self.tone(F.silu(context)), images)
        if inputs.strength is not None:
            fused = images[-1] + inputs.strength.view(-1, 1, 1, 1) * (fused - images[-1])
        return Prediction(fused[..., :height, :width], *routed(statistics, fused))

    def _layout(self, rows: int, columns: int, text: Tensor, text_mask: Tensor | None) -> TokenLayout:
        prompt = text.shape[1] if self.text is not None else 0
        angles = rope_angles(rows, columns, 8 * self.config.width // self.config.heads, 2000.0, text.device)
        mask = None
        if prompt and text_mask is not None:
            mask = F.pad(text_mask, (rows * columns, 0), value=True)
        return TokenLayout(rows, columns, F.pad(angles, (0, 0, 0, prompt)), self.positions(rows, columns), mask)


def blended(
    fine: Float[Tensor, "b f h w"],
    gain: Float[Tensor, "b g h8 w8"],
    tone: Float[Tensor, "b t"],
    images: Sequence[Float[Tensor, "b z H W"]],
) -> Float[Tensor, "b z H W"]:
    """Σ w_i ⊙ ((1 + g_i) ⊙ x_i + s_i) + r over the images x in [0, 1], mapped back to [−1, 1]; 0 gives the last image.

    fine: w, one a pixel and image, and r, at half resolution; gain: g by channel at an eighth, enlarged bilinearly;
    tone: a global gain and shift by image and channel.
    """
    count = len(images)
    weights, residual = F.pixel_shuffle(fine, 2).split([count, images[0].shape[1]], 1)
    scale, shift = tone[..., None, None].chunk(2, 1)
    gain = F.interpolate(gain + scale, scale_factor=8, mode="bilinear", align_corners=False)
    result = residual
    for i, (image, g, s) in enumerate(zip(images, gain.chunk(count, 1), shift.chunk(count, 1), strict=True)):
        share = weights[:, i : i + 1] + (1 if i == count - 1 else 0)
        unit = (image + 1) / 2
        result = result + share * (unit + g * unit + s)
    return 2 * result - 1


def level_channels(config: RestorerConfig) -> tuple[int, int, int]:
    """Channels of the convolutions at 1/2, 1/4 and 1/8 of the resolution."""
    return config.channels or (config.width, 2 * config.width, 4 * config.width)


def streams(config: RestorerConfig) -> int:
    """The number of input images: both degraded ones, and the guess."""
    return 2 + config.guess


def inactive(config: RestorerConfig) -> int:
    """Parameters that a token does not use: the experts it is not sent to."""
    return mmaif.inactive(config.transformer())


def activations(config: RestorerConfig, height: int, width: int, text_tokens: int) -> int:
    """Peak number of values, roughly: at half resolution a block's input, two intermediates and the skip."""
    return (height // 2) * (width // 2) * 4 * level_channels(config)[0]


def flops(config: RestorerConfig, height: int, width: int, text_tokens: int) -> int:
    """2 × MAC of one forward pass on images of height × width: convolutions, linear layers, attention's products."""
    d, z = 8 * config.width, streams(config) * config.latent_channels
    widths = [*level_channels(config), d]
    image = -(-height // MULTIPLE) * -(-width // MULTIPLE)
    half = image * (MULTIPLE // 2) ** 2  # cells at half resolution

    total = half * 9 * widths[0] * (4 * z + 4 * (streams(config) + config.latent_channels))  # stem and head
    for level, blocks in enumerate(config.blocks):
        c, below, cells = widths[level], widths[level + 1], half // 4**level
        total += cells * 4 * blocks * 9 * c * c  # of both sides, two a block
        total += cells // 4 * 2 * 4 * c * below  # down and up
    total += half // 16 * 9 * widths[2] * z  # the gains
    tokens = image + (text_tokens if config.text_width else 0)
    total += config.depth * mmaif.block_macs(config.transformer(), image, tokens)
    total += image * 4 * d * d  # condition and the last AdaLN
    total += (tokens - image) * config.text_width * d
    total += 4 * d * d + 2 * config.text_width * d  # both contexts
    total += 4 * sum(n * c for n, c in zip(config.blocks, widths, strict=False)) * d + 2 * z * d  # modulations, tone
    total += (height // MULTIPLE + width // MULTIPLE) * (d + d * d)  # positions
    return 2 * total

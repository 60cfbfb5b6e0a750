"""One transformer over one sequence: the prompt's tokens, both images' and the noisy target's, as in DiTFuse.

Source: DiTFuse (Li et al., TPAMI 2025) joins text, images and target in OmniGen's sequence; here the same sequence is
made of this package's layers, at sizes that train from nothing. Shapes: b batch, z latent channels, h, w latent grid,
l tokens of the sequence, m of the prompt, g of an image, d width, e width of the prompt's embedding.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from clearfuse.synth.files.schema import STRICT
from clearfuse.train.models.base import Inputs, Layers, Optional, Prediction, Size
from clearfuse.train.models.experts import SwiGLU
from clearfuse.train.models.layers import (
    AdaLN,
    Attention,
    TimeEmbedding,
    TokenLayout,
    ZeroLinear,
    cells_along,
    initialise,
    modulate,
    rope_angles,
)
from clearfuse.train.models.mmaif import blend

TEXT, A, B, TARGET = range(4)
"""The parts of the sequence, in order."""


@dataclass(frozen=True, config=STRICT)
class JointConfig:
    """Hyperparameters; the defaults are those of ``ditfuse-small``."""

    flow: ClassVar[bool] = True
    """It is of a flow alone."""

    compress: bool = False
    """Embed asinh(z) rather than z: for latents with heavy tails."""
    head: Literal["plain", "blend"] = "plain"
    """blend: g (w Z_a + (1 − w) Z_b) + r, for latents with more numbers than a token."""
    guess: bool = False
    """An initial estimate of the fused image is given beside the noisy target; under ``head="blend"`` the network
    starts as its copy."""
    latent_channels: Size = 16
    text_width: Optional = 512
    """Width of the prompt's embedding; 0: a model without prompts."""
    depth: Layers = 12
    width: Size = 384
    """A multiple of 4 × heads, for 2-D RoPE."""
    heads: Size = 8
    patch: Size = 2
    hidden: Size = 1024
    """Hidden width of the SwiGLU."""
    lora: Optional = 96
    """Rank of AdaLN; 0: full matrices."""
    rope_base: Annotated[float, Field(gt=1)] = 2000.0

    def __post_init__(self) -> None:
        if self.width % (4 * self.heads):
            raise ValueError(f"width {self.width} must be a multiple of 4 × heads ({4 * self.heads}), for 2-D RoPE")


class JointBlock(nn.Module):
    """Modulated attention over the whole sequence, then a modulated SwiGLU; adds nothing at first.

    The modulations are of the time and of the part: one vector for each of the four parts, not for each token.
    """

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        width = config.width
        self.adaln = AdaLN(width, config.lora, outputs=6)
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(width, config.heads, residual=None)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.mlp = SwiGLU(width, config.hidden)

    def forward(
        self, x: Float[Tensor, "b l d"], c: Float[Tensor, "b 4 d"], lengths: list[int], layout: TokenLayout
    ) -> Float[Tensor, "b l d"]:
        """The tokens. c: the condition of each part; lengths: the tokens of each."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (spread(each, lengths) for each in self.adaln(c))
        attended, _ = self.attention(modulate(self.norm1(x), shift1, scale1), layout, None)
        x = x + gate1 * attended
        return x + gate2 * self.mlp(modulate(self.norm2(x), shift2, scale2))


def spread(parts: Float[Tensor, "b 4 d"], lengths: list[int]) -> Float[Tensor, "b l d"]:
    """A vector for each token of the sequence: that of its part."""
    return torch.cat([parts[:, i : i + 1].expand(-1, length, -1) for i, length in enumerate(lengths)], 1)


class Joint(nn.Module):
    """The network: ``Joint(config)(inputs)``, of a flow alone."""

    def __init__(self, config: JointConfig) -> None:
        super().__init__()
        self.config = config
        width, patch = config.width, config.latent_channels * config.patch**2
        self.image = nn.Linear(patch, width)
        self.target = nn.Linear(patch, width)
        self.guess = nn.Linear(patch, width, bias=False) if config.guess else None
        self.text = None
        if config.text_width:
            self.text = nn.Sequential(nn.LayerNorm(config.text_width), nn.Linear(config.text_width, width))
        self.roles = nn.Embedding(4, width)
        self.time = TimeEmbedding(width)
        self.blocks = nn.ModuleList(JointBlock(config) for _ in range(config.depth))
        self.adaln = AdaLN(width, 0, outputs=2)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.head = ZeroLinear(width, patch)
        self.blend = ZeroLinear(width, (3 if config.guess else 2) * patch) if config.head == "blend" else None

    def initialise(self, rng: torch.Generator) -> None:
        """Initialise all parameters from the generator, by the rules of ``layers.initialise``."""
        initialise(self, rng)

    def forward(self, inputs: Inputs) -> Prediction:
        """Predict a latent from a noisy one, its time, two images of its size and a prompt, each of which may lack.

        An image that is not ``present`` is attended to by nothing, like a prompt's padding; a guess, which is made of
        both, is 0 then.
        """
        inputs.refuse("joint transformer", "strength", "semantics")
        (z_a, z_b), z_t, t = inputs.pair, inputs.z_t, inputs.t
        if z_t is None or t is None:
            raise ValueError("the joint transformer is of a flow: it takes z_t and t")
        if self.config.guess != (inputs.guess is not None):
            raise ValueError("a guess must be given if and only if the config has one")
        guess = None if inputs.guess is None else _shown(inputs.guess, inputs.present)
        height, width = z_t.shape[2:]
        rows, columns = (cells_along(side, self.config.patch) for side in (height, width))
        x, lengths = self._sequence(inputs, z_t, guess)
        layout = self._layout(inputs, rows, columns, lengths)
        c = self.time(t)[:, None] + self.roles.weight
        for block in self.blocks:
            x = block(x, c, lengths, layout)
        shift, scale = (each[:, TARGET : TARGET + 1] for each in self.adaln(c))
        x = self.norm(x[:, -rows * columns :])
        x = x + x * scale + shift
        latent = self._unpatchify(self.head(x), rows)[..., :height, :width]
        if self.blend is not None:
            outputs = self.blend(x).chunk(2 if guess is None else 3, -1)
            share, gain, *step = (self._unpatchify(part, rows)[..., :height, :width] for part in outputs)
            base = blend(share, *(_shown(z, inputs.present, i) for i, z in enumerate((z_a, z_b))))
            if guess is not None:
                base = guess + step[0].tanh() * (base - guess)
            latent = latent + F.softplus(gain + math.log(math.e - 1)) * base
        return Prediction(latent, latent.new_zeros(()), latent.new_zeros(self.config.depth, 0))

    def _sequence(self, inputs: Inputs, z_t: Tensor, guess: Tensor | None) -> tuple[Float[Tensor, "b l d"], list[int]]:
        """The tokens of the four parts, each with its role's embedding, and how many of each there are."""
        images = [self.image(self._patchify(z)) for z in inputs.pair]
        target = self.target(self._patchify(z_t))
        if self.guess is not None and guess is not None:
            target = target + self.guess(self._patchify(guess))
        text = inputs.text[0]
        prompt = target[:, :0] if self.text is None else self.text(text.to(target.dtype))
        parts = [prompt, *images, target]
        lengths = [part.shape[1] for part in parts]
        return torch.cat([part + role for part, role in zip(parts, self.roles.weight, strict=True)], 1), lengths

    def _layout(self, inputs: Inputs, rows: int, columns: int, lengths: list[int]) -> TokenLayout:
        """RoPE by the position in the picture, the same in all three; angle 0 for the prompt. What is padding."""
        head = self.config.width // self.config.heads
        angles = rope_angles(rows, columns, head, self.config.rope_base, inputs.pair[0].device)
        angles = F.pad(angles.repeat(3, 1), (0, 0, lengths[TEXT], 0))
        text, mask = inputs.text
        if mask is None and inputs.present is None:
            return TokenLayout(rows, columns, angles, None, None)
        batch = len(text)
        valid = text.new_ones(batch, 4, dtype=torch.bool)
        if inputs.present is not None:
            valid[:, A : B + 1] = inputs.present
        real = torch.cat([valid[:, i : i + 1].expand(-1, length) for i, length in enumerate(lengths)], 1)
        if mask is not None and lengths[TEXT]:
            real = torch.cat([mask, real[:, lengths[TEXT] :]], 1)
        return TokenLayout(rows, columns, angles, None, real)

    def _patchify(self, z: Tensor) -> Tensor:
        """Tokens of patch × patch cells; where the grid is no multiple, the last row and column are repeated."""
        p = self.config.patch
        z = z.asinh() if self.config.compress else z
        z = F.pad(z, (0, -z.shape[3] % p, 0, -z.shape[2] % p), mode="replicate")
        return rearrange(z, "b z (h p) (w q) -> b (h w) (z p q)", p=p, q=p)

    def _unpatchify(self, tokens: Tensor, rows: int) -> Tensor:
        p = self.config.patch
        return rearrange(tokens, "b (h w) (z p q) -> b z (h p) (w q)", h=rows, p=p, q=p)


def _shown(z: Float[Tensor, "b z h w"], present: Tensor | None, which: int | None = None) -> Float[Tensor, "b z h w"]:
    """A latent; 0 where its image, or one of both, is not there."""
    if present is None:
        return z
    there = present.all(1) if which is None else present[:, which]
    return z * there[:, None, None, None].to(z.dtype)


def inactive(config: JointConfig) -> int:
    """Parameters that a token does not use: none."""
    return 0


def _tokens(config: JointConfig, height: int, width: int, text_tokens: int) -> tuple[int, int]:
    """Tokens of an image, and of the sequence."""
    image = -(-height // config.patch) * -(-width // config.patch)
    return image, 3 * image + (text_tokens if config.text_width else 0)


def activations(config: JointConfig, height: int, width: int, text_tokens: int) -> int:
    """Peak number of values in a block: tokens, six modulations, q, k, v, two branches, the SwiGLU's two halves."""
    tokens = _tokens(config, height, width, text_tokens)[1]
    return tokens * (12 * config.width + 2 * config.hidden)


def flops(config: JointConfig, height: int, width: int, text_tokens: int) -> int:
    """2 × MAC of one forward pass on latents of height × width: matrices, and attention's two products, 2 l² d."""
    d, r, patch = config.width, config.lora, config.latent_channels * config.patch**2
    image, tokens = _tokens(config, height, width, text_tokens)
    block = tokens * (4 * d * d + 3 * d * config.hidden) + 2 * tokens * tokens * d
    block += 4 * (7 * d * r if r else 6 * d * d)
    ends = image * patch * d * ((4 if config.head == "plain" else 6) + config.guess * (1 + (config.head == "blend")))
    ends += 4 * 2 * d * d
    ends += (tokens - 3 * image) * config.text_width * d + 2 * TimeEmbedding.FREQUENCIES * d + d * d
    return 2 * (config.depth * block + ends)

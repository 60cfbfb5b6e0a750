"""MMAIF: a diffusion transformer that restores and fuses the latents of two degraded images, conditioned on a prompt.

Source: MMAIF, section 3.3 and figure 3c. Shapes: b batch, z latent channels, h, w latent grid, l image and prompt
tokens, m prompt tokens, d width, e width of the prompt's embedding, n heads, k width of a head. The network maps
latents to a latent and is independent of tokenizer, text encoder and objective.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from einops import rearrange
from jaxtyping import Float
from pydantic import Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from clearfuse.synth.files.schema import STRICT
from clearfuse.train.models.base import Inputs, Layers, Optional, Prediction, Size
from clearfuse.train.models.experts import GROUPS, MoE, Router, Routing, SwiGLU
from clearfuse.train.models.layers import (
    AdaLN,
    Attention,
    Context,
    NAFBlock,
    Positions,
    TimeEmbedding,
    TokenLayout,
    ZeroLinear,
    cells_along,
    initialise,
    modulate,
    rope_angles,
    sine_positions,
)


@dataclass(frozen=True, config=STRICT)
class MMAIFConfig:
    """Hyperparameters; the defaults are the paper's, for a regression on latents of 16 channels."""

    flow: bool = False
    """Main stream: a noisy latent and its time; else both degraded latents, without a time."""
    guess: bool = False
    """An initial estimate of the latent is given: an input of the main stream and of a blend head."""
    compress: bool = False
    """Embed asinh(z) rather than z: for latents with heavy tails."""
    head: Literal["plain", "blend"] = "plain"
    """blend: g (w Z_a + (1 − w) Z_b) + r, for latents with more numbers than a token."""
    context: bool = False
    """Add a global context to each condition; with a blend head, a global scale and shift too."""
    latent_channels: Size = 16
    text_width: Optional = 2048
    """Width of the prompt's embedding; 0: a model without prompts."""
    depth: Layers = 16
    width: Size = 576
    """A multiple of 4 × heads, for 2-D RoPE."""
    heads: Size = 12
    patch: Size = 2
    experts: Optional = 4
    """Routed experts of a layer; 0: one dense SwiGLU in their place."""
    active: Size = 2
    """Experts per token, at most all."""
    expert_width: Size = 1752
    """Hidden width of an expert, or of the dense SwiGLU."""
    shared_width: Optional = 640
    """Hidden width of the shared expert; 0: none."""
    router: Literal["greedy", "grouped"] = "greedy"
    """greedy: the experts of largest score; grouped: only those of one of two groups, that of the largest score."""
    renormalise: bool = True
    """Weights of a token's experts sum to 1; else they are the router's scores."""
    gate: Literal["silu", "gelu"] = "silu"
    """Of the experts, or of the dense SwiGLU."""
    lora: Optional = 128
    """Rank of AdaLN; 0: full matrices."""
    rope: bool = True
    rope_base: Annotated[float, Field(gt=1)] = 2000.0
    pe: bool | Literal["sine"] = True
    """Add learned absolute positions before each block; sine: DiT's sinusoids before the first."""
    value_residual: bool = True
    value_source: Literal["previous", "first"] = "previous"
    """Of the value residual: (1 − η) V + η of the previous layer, or λ V + λ' of the first."""
    naf: bool = True
    """NAFNet block before attention."""
    naf_kernel: Literal[1, 3] = 1
    """Side of its last convolution, 1 in NAFNet."""

    def __post_init__(self) -> None:
        if self.width % (4 * self.heads):
            raise ValueError(f"width {self.width} must be a multiple of 4 × heads ({4 * self.heads}), for 2-D RoPE")
        if self.experts and self.expert_width % 8:
            raise ValueError(f"expert_width {self.expert_width} must be a multiple of 8, for grouped products in bf16")
        if self.experts and self.active > self.experts:
            raise ValueError(f"active {self.active} must be 1 to {self.experts}, the number of experts")
        if (
            self.experts
            and self.router == "grouped"
            and (self.experts % GROUPS or self.active > self.experts // GROUPS)
        ):
            raise ValueError(f"router 'grouped' needs {GROUPS} equal groups of at least active ({self.active}) experts")


class Block(nn.Module):
    """A block of figure 3c: positions, NAF block, modulated attention, modulated experts.

    Prompt tokens skip the first two. All four are initialised to add 0: the block starts as the identity.
    """

    def __init__(self, config: MMAIFConfig, first: bool) -> None:
        super().__init__()
        width = config.width
        self.naf = NAFBlock(width, config.naf_kernel) if config.naf else nn.Identity()
        self.adaln = AdaLN(width, config.lora, outputs=6)
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        residual = config.value_source if config.value_residual and not first else None
        self.attention = Attention(width, config.heads, residual)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        if config.experts:
            grouped = config.router == "grouped"
            router = Router(width, config.experts, config.active, grouped=grouped, renormalise=config.renormalise)
            self.mlp = MoE(router, config.expert_width, config.shared_width, config.gate)
        else:
            self.mlp = SwiGLU(width, config.expert_width, config.gate)

    def forward(
        self,
        x: Float[Tensor, "b l d"],
        c: Float[Tensor, "b l d"],
        layout: TokenLayout,
        v: Float[Tensor, "b n l k"] | None,
    ) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b n l k"], Routing | None]:
        """The tokens, the attention's values for the next block, and the router's statistics."""
        image, text = x.tensor_split([layout.height * layout.width], 1)
        if layout.positions is not None:
            image = image + layout.positions
        image = self.naf(rearrange(image, "b (h w) d -> b h w d", h=layout.height))
        x = torch.cat([rearrange(image, "b h w d -> b (h w) d"), text], 1)

        shift1, scale1, gate1, shift2, scale2, gate2 = self.adaln(c)
        attended, values = self.attention(modulate(self.norm1(x), shift1, scale1), layout, v)
        x = x + gate1 * attended
        hidden = modulate(self.norm2(x), shift2, scale2)
        mixed, routing = self.mlp(hidden, layout.mask) if isinstance(self.mlp, MoE) else (self.mlp(hidden), None)
        return x + gate2 * mixed, values, routing


class MMAIF(nn.Module):
    """The network: ``MMAIF(config)(inputs)``."""

    def __init__(self, config: MMAIFConfig) -> None:
        super().__init__()
        self.config = config
        width, patch = config.width, config.latent_channels * config.patch**2
        self.embed = nn.Linear(streams(config) * patch, width)
        self.condition = nn.Sequential(nn.Linear(2 * patch, width), nn.SiLU(), nn.Linear(width, width))
        self.time = TimeEmbedding(width) if config.flow else None
        self.text = None
        if config.text_width:
            self.text = nn.Sequential(nn.LayerNorm(config.text_width), nn.Linear(config.text_width, width))
        self.context = Context(width, config.text_width) if config.context else None
        self.positions = Positions(width) if config.pe is True else None
        self.blocks = nn.ModuleList(Block(config, first=i == 0) for i in range(config.depth))
        self.adaln = AdaLN(width, 0, outputs=2)
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.head = ZeroLinear(width, patch)
        self.blend = ZeroLinear(width, (3 if config.guess else 2) * patch) if config.head == "blend" else None
        tone = config.context and config.head == "blend"
        self.tone = ZeroLinear(width, 2 * config.latent_channels) if tone else None

    def initialise(self, rng: torch.Generator) -> None:
        """Initialise all parameters from the generator, by the rules of ``layers.initialise``."""
        initialise(self, rng)

    def forward(self, inputs: Inputs) -> Prediction:
        """Predict a latent from two degraded ones of any size. z_t, t: of a flow model alone."""
        (z_a, z_b), z_t, t, guess = inputs.pair, inputs.z_t, inputs.t, inputs.guess
        text, text_mask = inputs.text
        if self.config.flow != (z_t is not None) or self.config.flow != (t is not None):
            raise ValueError("a flow model takes z_t and t, a regression neither")
        if self.config.guess != (guess is not None):
            raise ValueError("a guess must be given if and only if the config has one")
        inputs.refuse("MMAIF", "strength", "semantics", "present")
        height, width = z_a.shape[2:]
        pair = torch.cat([self._embedded(z_a), self._embedded(z_b)], -1)
        c = self.condition(pair)
        c_text = c.new_zeros(len(c), 1, c.shape[2])
        if self.time is not None and t is not None:
            c_text = self.time(t)[:, None]
            c = c + c_text
        stream = [pair if z_t is None else self._embedded(z_t), *(() if guess is None else (self._embedded(guess),))]
        x = self.embed(torch.cat(stream, -1))
        if self.config.pe == "sine":
            patch = self.config.patch
            x = x + sine_positions(cells_along(height, patch), cells_along(width, patch), x.shape[2], x.device).to(
                x.dtype
            )
        context = None
        if self.context is not None:
            context = self.context(c + x, text, text_mask)
            c = c + context[:, None]
        layout = self._layout(height, width, text, text_mask)

        x, c_all = self._with_prompt(x, c, c_text, text)
        v, statistics = None, []
        for block in self.blocks:
            x, v, routing = block(x, c_all, layout, v)
            statistics.append(routing)
        x = modulate(self.norm(x[:, : c.shape[1]]), *self.adaln(c))

        latent = self._unpatchify(self.head(x), layout)[..., :height, :width]
        if self.blend is not None:
            parts = [self._unpatchify(part, layout)[..., :height, :width] for part in self._blend_outputs(x)]
            base = blend(parts[0], z_a, z_b)
            if guess is not None:
                base = guess + parts[2].tanh() * (base - guess)
            gain = parts[1]
            if self.tone is not None and context is not None:
                scale, shift = self.tone(F.silu(context))[..., None, None].chunk(2, 1)
                gain, latent = gain + scale, latent + shift
            # As in a Wiener filter, the gain shrinks coefficients that are noise and amplifies those weakened by blur.
            latent = latent + F.softplus(gain + math.log(math.e - 1)) * base
        return Prediction(latent, *routed(statistics, latent))

    def _blend_outputs(self, x: Tensor) -> tuple[Tensor, ...]:
        """The outputs of a blend head: w, gain and, with a guess, the step from the guess towards the blend."""
        assert self.blend is not None
        return self.blend(x).chunk(3 if self.config.guess else 2, -1)

    def _with_prompt(self, x: Tensor, c: Tensor, c_text: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        """Concatenate image and prompt tokens, and their conditions; a prompt token's condition is only the time."""
        if self.text is None or text.shape[1] == 0:
            return x, c
        tokens = self.text(text.to(x.dtype))
        return torch.cat([x, tokens], 1), torch.cat([c, c_text.expand_as(tokens)], 1)

    def _layout(self, height: int, width: int, text: Tensor, text_mask: Tensor | None) -> TokenLayout:
        """The layout of image and prompt tokens; prompt tokens have RoPE angle 0."""
        config = self.config
        rows, columns = (cells_along(side, config.patch) for side in (height, width))
        prompt = text.shape[1] if self.text is not None else 0
        angles = mask = None
        if config.rope:
            angles = rope_angles(rows, columns, config.width // config.heads, config.rope_base, text.device)
            angles = F.pad(angles, (0, 0, 0, prompt))
        if prompt and text_mask is not None:
            mask = F.pad(text_mask, (rows * columns, 0), value=True)
        return TokenLayout(
            rows, columns, angles, None if self.positions is None else self.positions(rows, columns), mask
        )

    def _embedded(self, z: Tensor) -> Tensor:
        """The patches of a latent, compressed by asinh where the config says so."""
        return self._patchify(z.asinh() if self.config.compress else z)

    def _patchify(self, z: Tensor) -> Tensor:
        """Cut into tokens of patch × patch; where the grid is no multiple, the last row and column are repeated."""
        p = self.config.patch
        z = F.pad(z, (0, -z.shape[3] % p, 0, -z.shape[2] % p), mode="replicate")
        return rearrange(z, "b z (h p) (w q) -> b (h w) (z p q)", p=p, q=p)

    def _unpatchify(self, tokens: Tensor, layout: TokenLayout) -> Tensor:
        p = self.config.patch
        return rearrange(tokens, "b (h w) (z p q) -> b z (h p) (w q)", h=layout.height, p=p, q=p)


def streams(config: MMAIFConfig) -> int:
    """The number of latents in the main stream: the noisy one or both degraded ones, and the guess."""
    return (1 if config.flow else 2) + config.guess


def blend(
    w: Float[Tensor, "b z h w"], z_a: Float[Tensor, "b z h w"], z_b: Float[Tensor, "b z h w"]
) -> Float[Tensor, "b z h w"]:
    """σ(w) ⊙ Z_a + (1 − σ(w)) ⊙ Z_b: the mean of both where w = 0."""
    share = w.sigmoid()
    return share * z_a + (1 - share) * z_b


def routed(statistics: list[Routing | None], latent: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """The mean load-balancing loss, the load by layer and expert, and by sample the mean over the layers.

    Without experts: 0, no columns, and no notes.
    """
    layers = [routing for routing in statistics if routing is not None]
    if not layers:
        return latent.new_zeros(()), latent.new_zeros(len(statistics), 0), {}
    notes = {"expert": torch.stack([r.shares for r in layers]).mean(0).detach()}
    return torch.stack([r.balance for r in layers]).mean(), torch.stack([r.load for r in layers]).detach(), notes


def inactive(config: MMAIFConfig) -> int:
    """Parameters that a token does not use: the experts it is not sent to."""
    unused = max(config.experts - config.active, 0)
    return config.depth * unused * 3 * config.width * config.expert_width


def activations(config: MMAIFConfig, height: int, width: int, text_tokens: int) -> int:
    """Peak number of values in a block: tokens, condition, six modulations, q, k, v, the previous v, two branches."""
    tokens = -(-height // config.patch) * -(-width // config.patch) + (text_tokens if config.text_width else 0)
    return 14 * tokens * config.width


def block_macs(config: MMAIFConfig, image: int, tokens: int) -> int:
    """Multiplications of a block on a sequence of ``tokens``, the first ``image`` of them of the image.

    6 d² + 18 d per image token for the NAF block, 14 d² with a last convolution of 3 × 3; per token AdaLN (7 d r), q,
    k, v and out (4 d²), router and experts (d e + 3 d (active f + shared)); attention 2 l² d.
    """
    d, r = config.width, config.lora
    token = (7 * d * r if r else 6 * d * d) + 4 * d * d
    if config.experts:
        token += d * config.experts + 3 * d * (config.active * config.expert_width + config.shared_width)
    else:
        token += 3 * d * config.expert_width
    block = tokens * token + 2 * tokens * tokens * d
    if config.naf:
        block += image * ((5 + config.naf_kernel**2) * d * d + 18 * d) + d * d
    return block


def flops(config: MMAIFConfig, height: int, width: int, text_tokens: int) -> int:
    """2 × MAC of one forward pass on latents of height × width: matrices, convolutions, attention's two products."""
    d, p = config.width, config.patch
    image = -(-height // p) * -(-width // p)
    tokens = image + (text_tokens if config.text_width else 0)
    patch = config.latent_channels * p * p

    ends = image * (2 * patch * d + d * d)  # condition
    ends += image * streams(config) * patch * d  # patch embedding
    outputs = 1 if config.head == "plain" else 4 if config.guess else 3
    ends += image * (2 * d * d + patch * d * outputs)  # last AdaLN, head
    ends += (tokens - image) * config.text_width * d
    if config.context:
        ends += 2 * d * d + config.text_width * d + (2 * config.latent_channels * d if config.head == "blend" else 0)
    if config.flow:
        ends += 2 * TimeEmbedding.FREQUENCIES * d + d * d
    if config.pe is True:
        ends += (-(-height // p) + -(-width // p)) * (d + d * d)
    return 2 * (config.depth * block_macs(config, image, tokens) + ends)

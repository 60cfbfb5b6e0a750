"""The layers of a diffusion transformer.

Shapes: b batch, l tokens (the image's first, then the prompt's), d width, n heads, k width of a head, e width of the
prompt's embedding; h, w the grid of image tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from clearfuse.train.models.attention import attention
from clearfuse.train.models.experts import MoE


class ZeroLinear(nn.Linear):
    """A linear layer initialised to zero, so that the branch it ends adds nothing at first."""


class ZeroConv2d(nn.Conv2d):
    """A convolution initialised to zero, so that the branch it ends adds nothing at first."""


class RMSNorm(nn.RMSNorm):
    """x / rms(x) ⊙ weight in the dtype of x, whatever that of the weight."""

    def forward(self, x: Float[Tensor, "*b k"]) -> Float[Tensor, "*b k"]:
        """Normalise over the last axis."""
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps).to(x.dtype)


class Eta(nn.Module):
    """The weight η of the value residual: one learned number, initialised to 0."""

    DECAYED = ()

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(1))  # a vector, since FSDP can't shard scalars


class FirstValue(nn.Module):
    """The weights of a layer's own values and of the first layer's: two learned numbers, initialised to ½."""

    DECAYED = ()

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.full((2,), 0.5))


def initialise(root: nn.Module, rng: torch.Generator) -> None:
    """Initialise every parameter of ``root`` from the generator.

    Linear: Xavier uniform, bias 0. ZeroLinear, ZeroConv2d, η, and the NAF block's residual scales: 0. Convolution:
    uniform within ±1/√fan-in, bias 0. Experts: Xavier uniform, expert by expert. Norms: weight 1, bias 0. Embedding:
    N(0, 0.02²).
    """
    for module in root.modules():
        match module:
            case ZeroLinear() | ZeroConv2d() | Eta():
                for parameter in module.parameters():
                    nn.init.zeros_(parameter)
            case FirstValue():
                nn.init.constant_(module.value, 0.5)
            case nn.Linear():
                nn.init.xavier_uniform_(module.weight, generator=rng)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            case nn.Conv1d() | nn.Conv2d():
                bound = 1 / math.sqrt(module.weight[0].numel())
                nn.init.uniform_(module.weight, -bound, bound, generator=rng)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            case nn.LayerNorm() | nn.RMSNorm() | nn.GroupNorm():
                for name, parameter in module.named_parameters(recurse=False):
                    nn.init.constant_(parameter, float(name == "weight"))
            case nn.Embedding():
                nn.init.normal_(module.weight, std=0.02, generator=rng)
            case MoE():
                for stack in (module.w_in, module.w_out):
                    bound = math.sqrt(6 / (stack.shape[1] + stack.shape[2]))
                    nn.init.uniform_(stack, -bound, bound, generator=rng)
            case NAFBlock():
                nn.init.zeros_(module.beta)
                nn.init.zeros_(module.gamma)


DECAYED: dict[type[nn.Module], tuple[str, ...]] = {
    nn.Linear: ("weight",),
    nn.Conv1d: ("weight",),
    nn.Conv2d: ("weight",),
    nn.LayerNorm: (),
    nn.RMSNorm: (),
    nn.GroupNorm: (),
    nn.Embedding: (),
}
"""The parameters of torch's layers that get weight decay: matrices and kernels. A layer of this package with parameters
of its own lists them in its attribute ``DECAYED``."""


def decayed_parameters(module: nn.Module) -> tuple[str, ...]:
    """The names of a layer's direct parameters that get weight decay. Raises TypeError for a layer without a rule."""
    names = getattr(module, "DECAYED", None)
    if names is None:
        names = next((DECAYED[cls] for cls in type(module).__mro__ if cls in DECAYED), None)
    if names is None:
        raise TypeError(f"{type(module).__name__} has parameters, and does not say by DECAYED which of them decay")
    return names


def cells_along(length: int, side: int) -> int:
    """⌈length / side⌉, also where a traced graph leaves the length open: ONNX rounds −length / side towards 0."""
    return (length + side - 1) // side


# Attention.


def rope_angles(
    height: int, width: int, head_width: int, base: float, device: torch.device | None = None
) -> Float[Tensor, "l half"]:
    """RoPE angles (y ω_0 … y ω_F−1, x ω_0 … x ω_F−1) of the image tokens in raster order.

    ω_i = base^(−i / F), F = k / 4. Source: Su et al., arXiv 2104.09864, for two axes; base 2000 in MMAIF.
    """
    count = head_width // 4
    omega = base ** (-torch.arange(count, dtype=torch.float32, device=device) / count)
    y = (torch.arange(height, device=device)[:, None] * omega)[:, None].expand(height, width, count)
    x = (torch.arange(width, device=device)[:, None] * omega)[None].expand(height, width, count)
    return rearrange(torch.cat([y, x], -1), "h w half -> (h w) half")


def rotate(x: Float[Tensor, "b n l k"], angles: Float[Tensor, "l half"]) -> Float[Tensor, "b n l k"]:
    """Rotate each pair (x_i, x_i+k/2) by its token's angle: scores then depend only on the offset of two tokens."""
    cos, sin = angles.cos(), angles.sin()
    first, second = x.float().chunk(2, -1)
    return torch.cat([first * cos - second * sin, first * sin + second * cos], -1).to(x.dtype)


@dataclass(frozen=True)
class TokenLayout:
    """The layout of a token sequence, shared by all layers.

    height, width: the grid of image tokens; angles: of RoPE; positions: absolute position embeddings; mask: False where
    a token is padding. None where a layer has no use for it.
    """

    height: int
    width: int
    angles: Float[Tensor, "l half"] | None
    positions: Float[Tensor, "hw d"] | None
    mask: Bool[Tensor, "b l"] | None


class Attention(nn.Module):
    """Multi-head self-attention with RMS-normalised q and k, 2-D RoPE and the value residual.

    residual: "previous": V_l = (1 − η) W_V X + η V_l−1 (MMAIF eq. 6), "first": V_l = λ W_V X + λ' V_1 (Zhou et al.,
    arXiv 2410.17897, as MMAIF's authors' later code has it); None in the first layer, or without.
    """

    def __init__(self, width: int, heads: int, residual: Literal["previous", "first"] | None) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = RMSNorm(width // heads, eps=1e-6)
        self.k_norm = RMSNorm(width // heads, eps=1e-6)
        self.eta = Eta() if residual == "previous" else None
        self.first = FirstValue() if residual == "first" else None
        self.out = nn.Linear(width, width)

    def forward(
        self, x: Float[Tensor, "b l d"], layout: TokenLayout, previous_v: Float[Tensor, "b n l k"] | None
    ) -> tuple[Float[Tensor, "b l d"], Float[Tensor, "b n l k"]]:
        """The attended tokens, and the values for the next layer: this one's or, as they were given, the first's."""
        q, k, v = rearrange(self.qkv(x), "b l (three n k) -> three b n l k", three=3, n=self.heads).unbind()
        q, k = self.q_norm(q), self.k_norm(k)
        if self.eta is not None and previous_v is not None:
            eta = self.eta.value.to(v.dtype)  # else v would leave autocast's precision, and q's and k's
            v = (1 - eta) * v + eta * previous_v
        passed_on = v
        if self.first is not None and previous_v is not None:
            own, first = self.first.value.to(v.dtype)
            v, passed_on = own * v + first * previous_v, previous_v
        if layout.angles is not None:
            q, k = rotate(q, layout.angles), rotate(k, layout.angles)
        attended = attention(q, k, v, layout.mask)
        return self.out(rearrange(attended, "b n l k -> b l (n k)")), passed_on


# Restoration.


class NAFBlock(nn.Module):
    """The NAFNet block on a grid of tokens. Source: Chen et al., arXiv 2204.04676, figure 3.

    y = x + β ⊙ W3 SCA(SG(DW3×3(W1 LN(x)))); z = y + γ ⊙ W5 SG(W4 LN(y)); SG splits the channels in two and
    multiplies the halves; SCA(u) = u ⊙ (W mean(u)); β and γ start at 0. kernel: the side of W5, 1 in NAFNet.
    """

    DECAYED = ()

    def __init__(self, width: int, kernel: int = 1) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.conv1 = nn.Linear(width, 2 * width)
        self.conv2 = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.sca = nn.Linear(width, width)
        self.conv3 = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.conv4 = nn.Linear(width, 2 * width)
        self.conv5 = nn.Linear(width, width) if kernel == 1 else nn.Conv2d(width, width, kernel, padding=kernel // 2)
        self.beta = nn.Parameter(torch.zeros(width))
        self.gamma = nn.Parameter(torch.zeros(width))

    def forward(self, x: Float[Tensor, "b h w d"]) -> Float[Tensor, "b h w d"]:
        """Apply the block; its 1 × 1 convolutions are linear layers."""
        u = self.conv2(rearrange(self.conv1(self.norm1(x)), "b h w d -> b d h w"))
        u = simple_gate(rearrange(u, "b d h w -> b h w d"))
        y = x + self.beta * self.conv3(u * self.sca(u.mean((1, 2), keepdim=True)))
        u = simple_gate(self.conv4(self.norm2(y)))
        if isinstance(self.conv5, nn.Linear):
            return y + self.gamma * self.conv5(u)
        return y + self.gamma * rearrange(self.conv5(rearrange(u, "b h w d -> b d h w")), "b d h w -> b h w d")


def simple_gate(x: Float[Tensor, "*b twice"]) -> Float[Tensor, "*b d"]:
    """SG(x) = x1 ⊙ x2, the halves of the channels."""
    first, second = x.chunk(2, -1)
    return first * second


# Conditioning.


def modulate(x: Float[Tensor, "b l d"], shift: Float[Tensor, "b l d"], scale: Float[Tensor, "b l d"]) -> Tensor:
    """(1 + scale) ⊙ x + shift."""
    return torch.addcmul(x + shift, x, scale)


class AdaLN(nn.Module):
    """Adaptive layer norm's modulations from a condition per token: W2 W1 silu(c), of low rank; W2 starts at 0.

    lora: the rank; 0: one full matrix in place of the two. outputs: how many vectors of ``width`` to return.
    """

    def __init__(self, width: int, lora: int, outputs: int) -> None:
        super().__init__()
        self.outputs = outputs
        self.down = nn.Linear(width, lora) if lora else nn.Identity()
        self.up = ZeroLinear(lora or width, outputs * width)

    def forward(self, c: Float[Tensor, "b l d"]) -> tuple[Tensor, ...]:
        """The outputs, each (b, l, d)."""
        return self.up(self.down(F.silu(c))).chunk(self.outputs, -1)


class Context(nn.Module):
    """Global context: W2 silu(W1 silu(mean silu(x) + W LN(mean text))), one vector per sample.

    Exposure, haze and low contrast affect the whole image, and so does a prompt: without this, attention would first
    have to learn to average.
    """

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.text = nn.Sequential(nn.LayerNorm(text_width), nn.Linear(text_width, width)) if text_width else None
        self.mlp = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(
        self, x: Float[Tensor, "b l d"], text: Float[Tensor, "b m e"], mask: Bool[Tensor, "b m"] | None
    ) -> Float[Tensor, "b d"]:
        """Pool the image tokens x and the prompt's tokens. mask: False where a prompt token is padding."""
        mean = F.silu(x).mean(1)
        if self.text is not None and text.shape[1]:
            valid = text.new_ones(text.shape[:2])[..., None] if mask is None else mask[..., None].to(text.dtype)
            mean = mean + self.text(((text * valid).sum(1) / valid.sum(1).clamp(min=1)).to(x.dtype))
        return self.mlp(mean)


class Positions(nn.Module):
    """Learned absolute positions for grids of any size: pe[y, x] = MLP_h(y) + MLP_w(x) (MMAIF eq. 5), 0 at first."""

    UNIT = 64
    """Number of tokens that the coordinate 1 stands for: the side of a 1024 × 1024 image at f = 8 and patch 2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rows = nn.Sequential(nn.Linear(1, width), nn.SiLU(), ZeroLinear(width, width))
        self.columns = nn.Sequential(nn.Linear(1, width), nn.SiLU(), ZeroLinear(width, width))

    def forward(self, height: int, width: int) -> Float[Tensor, "hw d"]:
        """Embeddings of all tokens of a grid in raster order."""
        weight = self.rows[0].weight
        rows, columns = (torch.arange(n, device=weight.device, dtype=weight.dtype) / self.UNIT for n in (height, width))
        pe = self.rows(rows[:, None])[:, None] + self.columns(columns[:, None])[None]
        return rearrange(pe, "h w d -> (h w) d")


def sine_positions(height: int, width: int, channels: int, device: torch.device | None = None) -> Float[Tensor, "hw d"]:
    """DiT's positions of a grid in raster order: sin x ω_i, cos x ω_i, sin y ω_i, cos y ω_i, a quarter of d each.

    ω_i = 10000^(−i / F), F = d / 4. Source: ``get_2d_sincos_pos_embed`` of DiT (arXiv 2212.09748).
    """
    count = channels // 4
    omega = 10000 ** (-torch.arange(count, dtype=torch.float32, device=device) / count)
    rows, columns = (torch.arange(n, device=device)[:, None] * omega for n in (height, width))
    x = torch.cat([columns.sin(), columns.cos()], -1)[None].expand(height, -1, -1)
    y = torch.cat([rows.sin(), rows.cos()], -1)[:, None].expand(-1, width, -1)
    return rearrange(torch.cat([x, y], -1), "h w d -> (h w) d")


class TimeEmbedding(nn.Module):
    """MLP of the sinusoids of 20 t: cos(20 t ω_i), sin(20 t ω_i), ω_i = 10000^(−i / 128).

    With the usual 1000 t, whose fastest sinusoid has 160 periods over t in [0, 1], a network trained for few steps is
    not smooth in t, and no sampler reaches its order: see docs/log.md.
    """

    FREQUENCIES = 128
    SCALE = 20

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(2 * self.FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t: Float[Tensor, " b"]) -> Float[Tensor, "b d"]:
        """Embed times in [0, 1]."""
        count = self.FREQUENCIES
        omega = torch.exp(-math.log(10000) * torch.arange(count, device=t.device, dtype=torch.float32) / count)
        angles = self.SCALE * t.float()[:, None] * omega
        return self.mlp(torch.cat([angles.cos(), angles.sin()], -1).to(self.mlp[0].weight.dtype))

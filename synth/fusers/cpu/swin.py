"""Blocks of shifted-window attention, of one image and across two, as SwinFusion has them.

On a processor a block is one compiled loop over windows (``windows``); elsewhere, and where gradients are kept, it runs
on strips of windows, so that no attention map is larger than a strip's.

Shapes: B batch, H W height and width, C width of the features, T = 64 tokens of a window, h heads.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from clearfuse.synth.fusers.cpu import windows

LOG2E = 1.4426950408889634

Biases = tuple[list[Tensor], list[Tensor]]

BLOCKED = -100.0
"""Added to the attention of two tokens that only the cyclic shift brought together."""

STRIP = {"cpu": 64, "cuda": 1024}
"""Windows that go through a block at a time, at least, where it runs on strips; 64 on any other device."""


def through(block: SwinBlock | CrossBlock, *images: Float[Tensor, "B H W C"]) -> tuple[Tensor, ...]:
    """A block over images, in place where no gradients are kept."""
    first = images[0]
    plain = first.device.type == "cpu" and first.dtype == torch.float32 and not torch.is_grad_enabled()
    if not (plain and windows.fits(first.shape[3], *block.sizes())):
        return in_strips(block, *images)
    images = tuple(x.contiguous() for x in images)
    branches = block.branches()
    windows.run_block(
        [x.numpy() for x in images],
        [windows.pack([(w.numpy(), b.numpy()) for w, b in branch.layers()]) for branch in branches],
        [branch.attn.kinds(block.shifted).mT.mul(LOG2E).contiguous().numpy() for branch in branches],
        shift=block.window_size // 2 if block.shifted else 0,
        threads=torch.get_num_threads(),
    )
    return images


def in_strips(block: SwinBlock | CrossBlock, *images: Float[Tensor, "B H W C"]) -> tuple[Tensor, ...]:
    """A block over images, some rows of windows at a time.

    A shifted block's windows begin half a window further down and to the right, and wrap: the last row of windows, the
    foot, has the bottom and the top of the image.
    """
    batch, height, width, _ = images[0].shape
    size, biases = block.window_size, block.biases()
    half = size // 2 if block.shifted else 0
    out = tuple(torch.empty_like(x) if torch.is_grad_enabled() else x for x in images)
    if half:
        foot = [torch.cat((x[:, -half:], x[:, :half]), dim=1) for x in images]
        for result, x in zip(out, block(foot, biases[1]), strict=True):
            result[:, -half:], result[:, :half] = x[:, :half], x[:, half:]
    rows = max(1, STRIP.get(images[0].device.type, 64) * size // (batch * width)) * size
    for top in range(half, height - half, rows):
        bottom = min(top + rows, height - half)
        for result, x in zip(out, block([x[:, top:bottom] for x in images], biases[0]), strict=True):
            result[:, top:bottom] = x
    return out


class Branch(NamedTuple):
    """The parts of a block that one image goes through; keys and values are of the image that ``other`` normalises."""

    own: nn.LayerNorm
    other: nn.LayerNorm
    attn: SelfAttention | CrossAttention
    norm: nn.LayerNorm
    mlp: Mlp

    def layers(self) -> list[tuple[Tensor, Tensor]]:
        """The linear layers in their order, with the norms' weights and, in the first, log2 e/√d within them."""
        (q, k, v), proj, mlp = self.attn.shares(), self.attn.proj, self.mlp
        scale = LOG2E / math.sqrt(q[0].shape[0] / self.attn.heads)
        return [
            folded(self.own, q[0] * scale, q[1] * scale),
            folded(self.other, *k),
            folded(self.other, *v),
            (proj.weight, proj.bias),
            folded(self.norm, mlp.fc1.weight, mlp.fc1.bias),
            (mlp.fc2.weight, mlp.fc2.bias),
        ]


def folded(norm: nn.LayerNorm, w: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """W (γ ⊙ x + β) + b as one matrix and bias."""
    return w * norm.weight, b + w @ norm.bias


class SwinBlock(nn.Module):
    """x + attention(norm x), then x + mlp(norm x), within each window."""

    def __init__(self, dim: int, heads: int, window: int, ratio: float, mask: Tensor | None) -> None:
        super().__init__()
        self.window_size, self.shifted = window, mask is not None
        self.register_buffer("attn_mask", mask)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = SelfAttention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * ratio))

    def sizes(self) -> tuple[int, int, int]:
        """Heads, width of the MLP, side of a window."""
        return self.attn.heads, self.mlp.fc1.out_features, self.window_size

    def branches(self) -> list[Branch]:
        """Of the one image."""
        return [Branch(self.norm1, self.norm1, self.attn, self.norm2, self.mlp)]

    def biases(self) -> Biases:
        """For the rows of windows, and for the foot."""
        biases = self.attn.biases(self.shifted)
        return biases[:1], biases[1:]

    def forward(self, images: list[Tensor], bias: list[Tensor]) -> tuple[Float[Tensor, "B H W C"]]:
        """Some rows of windows of the image."""
        (x,) = images
        normed = self.norm1(x)
        x = x + self.attn(normed, normed, bias[0])
        return (x + self.mlp(self.norm2(x)),)


class CrossBlock(nn.Module):
    """A block for each of two images; the queries are the image's own, keys and values are the other's."""

    def __init__(self, dim: int, heads: int, window: int, ratio: float, mask: Tensor | None) -> None:
        super().__init__()
        self.window_size, self.shifted = window, mask is not None
        self.register_buffer("attn_mask", mask)
        self.norm1_A, self.norm1_B = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn_A = CrossAttention(dim, heads, window)
        self.attn_B = CrossAttention(dim, heads, window)
        self.norm2_A, self.norm2_B = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.mlp_A, self.mlp_B = Mlp(dim, int(dim * ratio)), Mlp(dim, int(dim * ratio))

    def sizes(self) -> tuple[int, int, int]:
        """Heads, width of the MLP, side of a window."""
        return self.attn_A.heads, self.mlp_A.fc1.out_features, self.window_size

    def branches(self) -> list[Branch]:
        """Of each image."""
        return [
            Branch(self.norm1_A, self.norm1_B, self.attn_A, self.norm2_A, self.mlp_A),
            Branch(self.norm1_B, self.norm1_A, self.attn_B, self.norm2_B, self.mlp_B),
        ]

    def biases(self) -> Biases:
        """For the rows of windows, and for the foot: each of both images."""
        a, b = self.attn_A.biases(self.shifted), self.attn_B.biases(self.shifted)
        return [a[0], b[0]], [a[-1], b[-1]]

    def forward(
        self, images: list[Tensor], bias: list[Tensor]
    ) -> tuple[Float[Tensor, "B H W C"], Float[Tensor, "B H W C"]]:
        """Some rows of windows of both images."""
        x, y = images
        u, v = self.norm1_A(x), self.norm1_B(y)
        x = x + self.attn_A(u, v, bias[0])
        y = y + self.attn_B(v, u, bias[1])
        return x + self.mlp_A(self.norm2_A(x)), y + self.mlp_B(self.norm2_B(y))


class Mlp(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Float[Tensor, "*n C"]) -> Float[Tensor, "*n C"]:
        return self.fc2(F.gelu(self.fc1(x)))


class WindowAttention(nn.Module):
    """softmax(q kᵀ/√d + bias + mask) v in each window, with a learnt bias for each offset of two tokens."""

    relative_position_index: Tensor

    def __init__(self, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_index(window))

    def biases(self, shifted: bool) -> list[Float[Tensor, "kinds h T T"]]:
        """The bias by kind of window: of an unshifted block one; of a shifted one's rows and of its foot two each.

        Of two, the first is for all windows of a row but the last.
        """
        every = self.kinds(shifted)
        return [every[:2], every[2:]] if shifted else [every]

    def kinds(self, shifted: bool) -> Float[Tensor, "kinds h T T"]:
        """The bias of an unshifted block, or with each of the masks."""
        table = self.relative_position_bias_table
        bias = table[self.relative_position_index].permute(2, 0, 1)[None]
        return bias + masks(self.window, table.device)[:, None] if shifted else bias

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Float[Tensor, "kinds h T T"]) -> Float[Tensor, "B H W C"]:
        """Attention of rows of windows, which lie half a window to the right where there are two kinds."""
        half = self.window // 2 if len(bias) > 1 else 0
        q, k, v = (
            rearrange(
                x.roll(-half, 2) if half else x,
                "b (i p) (j q) (h d) -> b i j h (p q) d",
                p=self.window,
                q=self.window,
                h=self.heads,
            )
            for x in (q, k, v)
        )
        last = q.shape[2] - 1 if half else q.shape[2]
        parts = [(slice(0, last), bias[0]), (slice(last, None), bias[-1])]
        done = [self._dot(*(x[:, :, part] for x in (q, k, v)), one) for part, one in parts if q[:, :, part].shape[2]]
        x = rearrange(torch.cat(done, dim=2), "b i j h (p q) d -> b (i p) (j q) (h d)", p=self.window)
        return x.roll(half, 2) if half else x

    @staticmethod
    def _dot(q: Tensor, k: Tensor, v: Tensor, bias: Float[Tensor, "h T T"]) -> Float[Tensor, "B i j h T d"]:
        flat = (x.flatten(0, 2) for x in (q, k, v))
        x = F.scaled_dot_product_attention(*flat, attn_mask=bias[None].to(q.dtype))
        return x.unflatten(0, q.shape[:3])


class SelfAttention(WindowAttention):
    """An image attends to itself."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__(heads, window)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def shares(self) -> list[tuple[Tensor, Tensor]]:
        """Matrix and bias of queries, keys, values."""
        return list(zip(self.qkv.weight.chunk(3), self.qkv.bias.chunk(3), strict=True))

    def forward(self, x: Tensor, y: Tensor, bias: Tensor) -> Float[Tensor, "B H W C"]:
        del y  # itself
        return self.proj(self.attend(*self.qkv(x).chunk(3, dim=-1), bias))


class CrossAttention(WindowAttention):
    """An image asks, the other answers."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__(heads, window)
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def shares(self) -> list[tuple[Tensor, Tensor]]:
        """Matrix and bias of queries, keys, values."""
        kv = zip(self.kv.weight.chunk(2), self.kv.bias.chunk(2), strict=True)
        return [(self.q.weight, self.q.bias), *kv]

    def forward(self, x: Tensor, y: Tensor, bias: Tensor) -> Float[Tensor, "B H W C"]:
        return self.proj(self.attend(self.q(x), *self.kv(y).chunk(2, dim=-1), bias))


def relative_index(window: int) -> Int[Tensor, "T T"]:
    """Row of the bias table for two tokens of a window: (Δy + w − 1)(2w − 1) + Δx + w − 1, Δ = first − second."""
    at = torch.arange(window)
    y, x = (grid.flatten() for grid in torch.meshgrid(at, at, indexing="ij"))
    dy, dx = y[:, None] - y[None, :], x[:, None] - x[None, :]
    return (dy + window - 1) * (2 * window - 1) + dx + window - 1


@lru_cache(maxsize=8)
def masks(window: int, device: torch.device) -> Float[Tensor, "4 T T"]:
    """The masks of a shifted block's windows: inner, last column, last row, last of both.

    A window of the last column holds in its right half what the shift wrapped around from the left side of the image,
    and in one of the last row the lower half is from the top: tokens of different halves are ``BLOCKED``. Nothing of
    it depends on the image's size.
    """
    half = torch.arange(window, device=device) >= window - window // 2
    rows, columns = half[:, None].expand(window, window).flatten(), half[None, :].expand(window, window).flatten()
    across, down = (part[:, None] != part[None, :] for part in (columns, rows))
    blocked = torch.stack((torch.zeros_like(across), across, down, across | down))
    return torch.where(blocked, BLOCKED, 0.0)

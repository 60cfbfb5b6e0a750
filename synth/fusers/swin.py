"""Blocks of shifted-window attention (Liu et al., ICCV 2021), of one image and across two, as SwinFusion has them.

A window reads no token of another one, so a block goes over an image some windows at a time, and no attention map is
larger than theirs. Where the tokens of each window are, and which mask it takes, is found once for a size of image.

Shapes: B batch, H W height and width, C width of the features, N windows, T = 64 tokens of a window, h heads.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

BLOCKED = -100.0
"""Added to the attention of two tokens that only the cyclic shift brought together."""

AT_ONCE = {"cpu": 64, "cuda": 1024}
"""Windows that go through a block at a time: on a CPU what its caches hold; 64 on any other device."""


def through(block: SwinBlock | CrossBlock, *images: Float[Tensor, "B H W C"]) -> tuple[Tensor, ...]:
    """A block over images, in place where no gradients are kept."""
    shape, device = images[0].shape, images[0].device
    tokens = [x.flatten(1, 2) for x in images]
    out = [torch.empty_like(x) if torch.is_grad_enabled() else x for x in tokens]
    biases = block.biases()
    count = max(1, AT_ONCE.get(device.type, 64) // shape[0])
    for kind, at in groups(shape[1], shape[2], block.window_size, block.shifted, count, device):
        windows = [rearrange(x.index_select(1, at.flatten()), "b (n t) c -> (b n) t c", n=len(at)) for x in tokens]
        for whole, done in zip(out, block(windows, [bias[kind] for bias in biases]), strict=True):
            whole.index_copy_(1, at.flatten(), rearrange(done, "(b n) t c -> b (n t) c", n=len(at)))
    return tuple(x.view(shape) for x in out)


@lru_cache(maxsize=8)
def groups(
    height: int, width: int, window: int, shifted: bool, count: int, device: torch.device
) -> list[tuple[int, Int[Tensor, "n T"]]]:
    """All windows of an image, up to ``count`` of one kind at a time: (row of ``masks``, its windows' tokens).

    A token is numbered row by row. A shifted block's windows begin half a window further down and to the right, and
    those of the last row and column wrap around to the top and the left.
    """
    half = window // 2 if shifted else 0
    numbers = torch.arange(height * width).view(height, width).roll((-half, -half), (0, 1))
    windows = rearrange(numbers, "(i p) (j q) -> i j (p q)", p=window, q=window)
    rows, columns = windows.shape[0] - (half > 0), windows.shape[1] - (half > 0)
    kinds = [windows[:rows, :columns], windows[:rows, columns:], windows[rows:, :columns], windows[rows:, columns:]]
    return [
        (kind, group.to(device))
        for kind, those in enumerate(kinds)
        for group in those.flatten(0, 1).split(count)
        if len(group)
    ]


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

    def biases(self) -> list[Float[Tensor, "kinds h T T"]]:
        """Of the attention."""
        return [self.attn.bias(self.shifted)]

    def forward(self, images: list[Tensor], biases: list[Tensor]) -> tuple[Float[Tensor, "N T C"]]:
        """Some windows of the image, of one kind."""
        (x,) = images
        normed = self.norm1(x)
        x = x + self.attn(normed, normed, biases[0])
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

    def biases(self) -> list[Float[Tensor, "kinds h T T"]]:
        """Of each image's attention."""
        return [self.attn_A.bias(self.shifted), self.attn_B.bias(self.shifted)]

    def forward(
        self, images: list[Tensor], biases: list[Tensor]
    ) -> tuple[Float[Tensor, "N T C"], Float[Tensor, "N T C"]]:
        """Some windows of both images, of one kind."""
        x, y = images
        u, v = self.norm1_A(x), self.norm1_B(y)
        x = x + self.attn_A(u, v, biases[0])
        y = y + self.attn_B(v, u, biases[1])
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

    def bias(self, shifted: bool) -> Float[Tensor, "kinds h T T"]:
        """What is added to the scores: of an unshifted block one for all windows, of a shifted one with each mask."""
        table = self.relative_position_bias_table
        bias = table[self.relative_position_index].permute(2, 0, 1)[None]
        return bias + masks(self.window, table.device)[:, None] if shifted else bias

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Float[Tensor, "h T T"]) -> Float[Tensor, "N T C"]:
        """Attention of windows of one kind."""
        heads = (rearrange(x, "n t (h d) -> n h t d", h=self.heads) for x in (q, k, v))
        x = F.scaled_dot_product_attention(*heads, attn_mask=bias[None].to(q.dtype))
        return rearrange(x, "n h t d -> n t (h d)")


class SelfAttention(WindowAttention):
    """An image attends to itself."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__(heads, window)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, y: Tensor, bias: Tensor) -> Float[Tensor, "N T C"]:
        del y  # itself
        return self.proj(self.attend(*self.qkv(x).chunk(3, dim=-1), bias))


class CrossAttention(WindowAttention):
    """An image asks, the other answers."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__(heads, window)
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, y: Tensor, bias: Tensor) -> Float[Tensor, "N T C"]:
        return self.proj(self.attend(self.q(x), *self.kv(y).chunk(2, dim=-1), bias))


def relative_index(window: int) -> Int[Tensor, "T T"]:
    """Row of the bias table for two tokens of a window: (Δy + w − 1)(2w − 1) + Δx + w − 1, Δ = first − second."""
    at = torch.arange(window)
    y, x = (grid.flatten() for grid in torch.meshgrid(at, at, indexing="ij"))
    dy, dx = y[:, None] - y[None, :], x[:, None] - x[None, :]
    return (dy + window - 1) * (2 * window - 1) + dx + window - 1

"""SwinFusion (Ma et al., IEEE/CAA JAS 2022): cross-domain fusion of two luma images by windowed attention.

The network takes official checkpoints strictly and gives the official numbers. What differs is how it is carried out:
blocks run in place on strips of windows, so that no attention map is larger than a strip's, and the masks of shifted
windows, of which any size of image needs the same four, are made once.

Shapes: B batch, H W height and width, C width of the features, N windows, T = 64 tokens of a window, h heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

BLOCKED = -100.0
"""Added to the attention of two tokens that only the cyclic shift brought together."""

STRIP = 64
"""Windows that go through a block at a time, at least: their features stay in the processor's cache."""


class SwinFusion(nn.Module):
    """Two one-channel images to a fused one; ``forward(a, b)`` with code values in [0, 1].

    In training and in the authors' test a is the infrared and b the visible luma (VIF), a the under- and b the
    over-exposed one (MEF), or two focus distances in either order (MFF). For inference: without drop path.
    """

    def __init__(
        self,
        img_size: int = 128,
        in_chans: int = 1,
        embed_dim: int = 60,
        extract_depths: tuple[int, ...] = (4,),
        fusion_depths: tuple[int, ...] = (2, 2),
        reconstruct_depths: tuple[int, ...] = (4,),
        num_heads: int = 6,
        window_size: int = 8,
        mlp_ratio: float = 2.0,
    ) -> None:
        super().__init__()
        self.window_size = window_size
        half = embed_dim // 2
        # Every shifted block of a checkpoint has its mask for the training size: held once, for its name and shape.
        mask = training_mask(img_size, window_size)

        def stack(depth: int) -> RSTB:
            return RSTB(embed_dim, depth, num_heads, window_size, mlp_ratio, mask)

        def cross(depth: int) -> CRSTB:
            return CRSTB(embed_dim, depth, num_heads, window_size, mlp_ratio, mask)

        self.conv_first1_A = nn.Conv2d(in_chans, half, 3, padding=1)
        self.conv_first1_B = nn.Conv2d(in_chans, half, 3, padding=1)  # in every checkpoint, used by none
        self.conv_first2_A = nn.Conv2d(half, embed_dim, 3, padding=1)
        self.conv_first2_B = nn.Conv2d(half, half, 3, padding=1)  # as above
        self.patch_embed = PatchEmbed(embed_dim)
        self.layers_Ex_A = nn.ModuleList(stack(depth) for depth in extract_depths)
        self.norm_Ex_A = nn.LayerNorm(embed_dim)
        self.layers_Ex_B = nn.ModuleList(stack(depth) for depth in extract_depths)
        self.norm_Ex_B = nn.LayerNorm(embed_dim)
        self.layers_Fusion = nn.ModuleList(cross(depth) for depth in fusion_depths)
        self.norm_Fusion_A = nn.LayerNorm(embed_dim)
        self.norm_Fusion_B = nn.LayerNorm(embed_dim)
        self.layers_Re = nn.ModuleList(stack(depth) for depth in reconstruct_depths)
        self.norm_Re = nn.LayerNorm(embed_dim)
        self.conv_after_body_Fusion = nn.Conv2d(2 * embed_dim, embed_dim, 3, padding=1)
        self.conv_last1 = nn.Conv2d(embed_dim, half, 3, padding=1)
        self.conv_last2 = nn.Conv2d(half, half // 2, 3, padding=1)
        self.conv_last3 = nn.Conv2d(half // 2, in_chans, 3, padding=1)

    def forward(self, a: Float[Tensor, "B c H W"], b: Float[Tensor, "B c H W"]) -> Float[Tensor, "B c H W"]:
        """The fused image, not clipped. Sides are padded by reflection to multiples of the window and cropped."""
        height, width = a.shape[2:]
        x, y = (self.extract(self.padded(image), branch) for image, branch in ((a, "A"), (b, "B")))
        fused = self.reconstruct(self.fuse(x, y))
        return fused[:, :, :height, :width]

    def padded(self, image: Float[Tensor, "B c H W"]) -> Float[Tensor, "B c H2 W2"]:
        """The image with right and bottom reflected up to a multiple of the window size."""
        height, width = image.shape[2:]
        return F.pad(image, (0, -width % self.window_size, 0, -height % self.window_size), "reflect")

    def extract(self, image: Float[Tensor, "B c H W"], branch: str) -> Float[Tensor, "B H W C"]:
        """Shallow and deep features of one image. Both branches share the convolutions: the official network's own."""
        layers, norm = (self.layers_Ex_A, self.norm_Ex_A) if branch == "A" else (self.layers_Ex_B, self.norm_Ex_B)
        x = self.patch_embed(leaky(self.conv_first2_A(leaky(self.conv_first1_A(image)))))
        for layer in layers:
            x = layer(x)
        return norm(x)

    def fuse(self, x: Float[Tensor, "B H W C"], y: Float[Tensor, "B H W C"]) -> Float[Tensor, "B C H W"]:
        """Attention within and across the two images, then one map of both."""
        x, y = self.patch_embed.norm(x), self.patch_embed.norm(y)
        for layer in self.layers_Fusion:
            x, y = layer(x, y)
        both = torch.cat((self.norm_Fusion_A(x), self.norm_Fusion_B(y)), dim=3)
        return leaky(self.conv_after_body_Fusion(channels_first(both)))

    def reconstruct(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B c H W"]:
        """The image of the fused features."""
        x = self.patch_embed(x)
        for layer in self.layers_Re:
            x = layer(x)
        x = channels_first(self.norm_Re(x))
        return self.conv_last3(leaky(self.conv_last2(leaky(self.conv_last1(x)))))


def leaky(x: Tensor) -> Tensor:
    """max(x, 0.2 x)."""
    return F.leaky_relu(x, 0.2)


def channels_first(x: Float[Tensor, "B H W C"]) -> Float[Tensor, "B C H W"]:
    """Features as a convolution takes them."""
    return rearrange(x, "b h w c -> b c h w")


class PatchEmbed(nn.Module):
    """Channels last, normalised: a patch is one pixel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B H W C"]:
        return self.norm(rearrange(x, "b c h w -> b h w c"))


class RSTB(nn.Module):
    """A stack of blocks, every second one shifted."""

    def __init__(self, dim: int, depth: int, heads: int, window: int, ratio: float, mask: Tensor) -> None:
        super().__init__()
        self.residual_group = Blocks(
            [SwinBlock(dim, heads, window, ratio, mask if i % 2 else None) for i in range(depth)]
        )

    def forward(self, x: Float[Tensor, "B H W C"]) -> Float[Tensor, "B H W C"]:
        return self.residual_group.along(x)


class CRSTB(nn.Module):
    """A stack for each image, then one in which each image asks the other."""

    def __init__(self, dim: int, depth: int, heads: int, window: int, ratio: float, mask: Tensor) -> None:
        super().__init__()
        masks = [mask if i % 2 else None for i in range(depth)]
        self.residual_group = Blocks([CrossBlock(dim, heads, window, ratio, m) for m in masks])
        self.residual_group_A = Blocks([SwinBlock(dim, heads, window, ratio, m) for m in masks])
        self.residual_group_B = Blocks([SwinBlock(dim, heads, window, ratio, m) for m in masks])

    def forward(
        self, x: Float[Tensor, "B H W C"], y: Float[Tensor, "B H W C"]
    ) -> tuple[Float[Tensor, "B H W C"], Float[Tensor, "B H W C"]]:
        return self.residual_group.across(self.residual_group_A.along(x), self.residual_group_B.along(y))


class Blocks(nn.Module):
    """The blocks of a stack, run strip by strip: a window of a block reads no token of another window."""

    def __init__(self, blocks: Sequence[SwinBlock | CrossBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def along(self, x: Float[Tensor, "B H W C"]) -> Float[Tensor, "B H W C"]:
        """One image through all blocks."""
        for block in self.blocks:
            assert isinstance(block, SwinBlock)
            (x,) = in_strips(block, x)
        return x

    def across(
        self, x: Float[Tensor, "B H W C"], y: Float[Tensor, "B H W C"]
    ) -> tuple[Float[Tensor, "B H W C"], Float[Tensor, "B H W C"]]:
        """Two images through all blocks, side by side."""
        for block in self.blocks:
            assert isinstance(block, CrossBlock)
            x, y = in_strips(block, x, y)
        return x, y


def in_strips(block: SwinBlock | CrossBlock, *images: Float[Tensor, "B H W C"]) -> tuple[Tensor, ...]:
    """A block over images, some rows of windows at a time.

    A shifted block's windows begin half a window further, and wrap at the right and at the bottom: the images are
    rolled back by half a window, and the last row and column of windows are ``masked``.
    """
    batch, height, width, _ = images[0].shape
    size = block.window_size
    half = size // 2 if block.shifted else 0
    rolled = [x.roll((-half, -half), (1, 2)) if half else x for x in images]
    out = [torch.empty_like(x) for x in rolled]
    # Rows of windows at a time, but for the last: its windows have a mask of their own.
    rows = max(1, STRIP * size // (batch * width)) * size
    last = height - size if half else height
    strips = [(top, min(top + rows, last)) for top in range(0, last, rows)]
    for top, bottom in [*strips, (last, height)] if half else strips:
        windows = [rearrange(x[:, top:bottom], "b (i p) (j q) c -> b i j (p q) c", p=size, q=size) for x in rolled]
        for result, x in zip(out, block(*windows, foot=half > 0 and top == last), strict=True):
            result[:, top:bottom] = rearrange(x, "b i j (p q) c -> b (i p) (j q) c", p=size, q=size)
    return tuple(x.roll((half, half), (1, 2)) if half else x for x in out)


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

    def forward(self, x: Float[Tensor, "B i j T C"], foot: bool) -> tuple[Float[Tensor, "B i j T C"]]:
        """Windows of some rows. foot: the last row of a shifted block."""
        normed = self.norm1(x)
        x = x + self.attn(normed, normed, self.shifted, foot)
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

    def forward(
        self, x: Float[Tensor, "B i j T C"], y: Float[Tensor, "B i j T C"], foot: bool
    ) -> tuple[Float[Tensor, "B i j T C"], Float[Tensor, "B i j T C"]]:
        """Windows of some rows of both images. foot: the last row of a shifted block."""
        u, v = self.norm1_A(x), self.norm1_B(y)
        x = x + self.attn_A(u, v, self.shifted, foot)
        y = y + self.attn_B(v, u, self.shifted, foot)
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

    def attend(self, q: Tensor, k: Tensor, v: Tensor, shifted: bool, foot: bool) -> Float[Tensor, "B i j T C"]:
        """Attention of windows in rows (B, i, j, T, C). Of a shifted block's, the last of each row is ``masked``."""
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)
        if not shifted:
            return self._dot(q, k, v, bias)
        inner, edge = (bias + mask for mask in masks(self.window, q.device)[2 * foot : 2 * foot + 2])
        parts = [
            self._dot(q[:, :, part], k[:, :, part], v[:, :, part], one)
            for part, one in ((slice(None, -1), inner), (slice(-1, None), edge))
            if part.stop is None or q.shape[2] > 1
        ]
        return torch.cat(parts, dim=2)

    def _dot(self, q: Tensor, k: Tensor, v: Tensor, bias: Float[Tensor, "h T T"]) -> Tensor:
        b, i, j = q.shape[:3]
        q, k, v = (rearrange(x, "b i j t (h d) -> (b i j) h t d", h=self.heads) for x in (q, k, v))
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias[None].to(q.dtype))
        return rearrange(x, "(b i j) h t d -> b i j t (h d)", b=b, i=i, j=j)


class SelfAttention(WindowAttention):
    """An image attends to itself."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__(heads, window)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, y: Tensor, shifted: bool, foot: bool) -> Float[Tensor, "B i j T C"]:
        del y  # itself
        return self.proj(self.attend(*self.qkv(x).chunk(3, dim=-1), shifted, foot))


class CrossAttention(WindowAttention):
    """An image asks, the other answers."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__(heads, window)
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, y: Tensor, shifted: bool, foot: bool) -> Float[Tensor, "B i j T C"]:
        return self.proj(self.attend(self.q(x), *self.kv(y).chunk(2, dim=-1), shifted, foot))


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


def training_mask(size: int, window: int) -> Float[Tensor, "N T T"]:
    """``masks`` for every window of a square image, in the order of a checkpoint's ``attn_mask``."""
    n = size // window
    last = torch.arange(n) == n - 1
    kind = 2 * last[:, None].long() + last[None, :].long()
    return masks(window, torch.device("cpu"))[kind.flatten()]

"""SwinFusion (Ma et al., IEEE/CAA JAS 2022): cross-domain fusion of two luma images by windowed attention.

The network takes official checkpoints strictly and gives the official numbers. What differs is how it is carried out:
blocks run on strips of windows, so that no attention map is larger than a strip's, and the masks of shifted windows, of
which any size of image needs the same four, are made once; on a processor, attention is one compiled loop.

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

from synth.fusers.attention import LOG2E, TOKENS, window_attention

Biases = tuple[list[Tensor], list[Tensor]]

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
    """A block over images, some rows of windows at a time; in place where no gradients are kept.

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
    rows = max(1, STRIP * size // (batch * width)) * size
    for top in range(half, height - half, rows):
        bottom = min(top + rows, height - half)
        for result, x in zip(out, block([x[:, top:bottom] for x in images], biases[0]), strict=True):
            result[:, top:bottom] = x
    return out


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

        Of two, the first is for all windows of a row but the last. Transposed and scaled where a compiled loop runs.
        """
        table = self.relative_position_bias_table
        bias = table[self.relative_position_index].permute(2, 0, 1)
        every = [bias[None]]
        if shifted:
            four = bias[None] + masks(self.window, table.device)[:, None]
            every = [four[:2], four[2:]]
        return [one.mT.mul(LOG2E).contiguous() for one in every] if self._compiled() else every

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Float[Tensor, "kinds h T T"]) -> Float[Tensor, "B H W C"]:
        """Attention of rows of windows, which lie half a window to the right where there are two kinds."""
        half = self.window // 2 if len(bias) > 1 else 0
        if self._compiled():
            arrays = (x.numpy() for x in (q, k, v, bias))
            return torch.from_numpy(window_attention(*arrays, shift=half, threads=torch.get_num_threads()))
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

    def _compiled(self) -> bool:
        table = self.relative_position_bias_table
        plain = table.device.type == "cpu" and table.dtype == torch.float32
        return plain and self.window**2 == TOKENS and not torch.is_grad_enabled()


class SelfAttention(WindowAttention):
    """An image attends to itself."""

    def __init__(self, dim: int, heads: int, window: int) -> None:
        super().__init__(heads, window)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

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


def training_mask(size: int, window: int) -> Float[Tensor, "N T T"]:
    """``masks`` for every window of a square image, in the order of a checkpoint's ``attn_mask``."""
    n = size // window
    last = torch.arange(n) == n - 1
    kind = 2 * last[:, None].long() + last[None, :].long()
    return masks(window, torch.device("cpu"))[kind.flatten()]

"""SwinFusion (Ma et al., IEEE/CAA JAS 2022): cross-domain fusion of two luma images by windowed attention.

The network takes official checkpoints strictly and gives the official numbers. What differs is how it is computed:
the masks of shifted windows, of which any size of image needs the same four, are made once, and a block takes some
windows at a time (``swin``).

Shapes: B batch, H W height and width, C width of the features, N windows, T = 64 tokens of a window.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from clearfuse.synth.fusers.swin import CrossBlock, SwinBlock, masks, through


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
    """The blocks of a stack, one after the other."""

    def __init__(self, blocks: Sequence[SwinBlock | CrossBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def along(self, x: Float[Tensor, "B H W C"]) -> Float[Tensor, "B H W C"]:
        """One image through all blocks."""
        for block in self.blocks:
            assert isinstance(block, SwinBlock)
            (x,) = through(block, x)
        return x

    def across(
        self, x: Float[Tensor, "B H W C"], y: Float[Tensor, "B H W C"]
    ) -> tuple[Float[Tensor, "B H W C"], Float[Tensor, "B H W C"]]:
        """Two images through all blocks, side by side."""
        for block in self.blocks:
            assert isinstance(block, CrossBlock)
            x, y = through(block, x, y)
        return x, y


def training_mask(size: int, window: int) -> Float[Tensor, "N T T"]:
    """``masks`` for every window of a square image, in the order of a checkpoint's ``attn_mask``."""
    n = size // window
    last = torch.arange(n) == n - 1
    kind = 2 * last[:, None].long() + last[None, :].long()
    return masks(window, torch.device("cpu"))[kind.flatten()]

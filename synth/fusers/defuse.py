"""DeFuse (Liang et al., ECCV 2022): fusion by decomposition into the common and the individual parts of two images.

The network loads the official checkpoints strictly and reproduces the official outputs.

Shapes: B batch, C channels, H W height and width of the image; features at 1, 1/2, 1/4 and 1/8 of its resolution.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Pool = Callable[[Tensor], Tensor]


class DeFuse(nn.Module):
    """Two RGB images to their common part, their individual parts and the fused image; in [0, 1], not clipped.

    In the authors' test the first image is the over-exposed one (MEF), the infrared (VIF, both grey) or either focus
    distance. Both images share one encoder and one decoder, which checkpoints store under two names each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder_upper = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), Stage(16, 8, 6, smooth=True))
        self.upper_encoder_layer1 = Stage(32, 16, 6)
        self.upper_encoder_layer2 = Stage(64, 32, 4, stride=2, smooth=True)
        self.upper_encoder_layer3 = Stage(128, 64, 4, stride=2, smooth=True)
        self.encoder_lower = self.encoder_upper
        self.lower_encoder_layer1 = self.upper_encoder_layer1
        self.lower_encoder_layer2 = self.upper_encoder_layer2
        self.lower_encoder_layer3 = self.upper_encoder_layer3
        self.common_encoder = nn.Sequential(Stage(512, 256, 4))
        self.decoder_common_layer1 = Stage(1536, 64, 2, pooled=False)
        self.decoder_common_layer2 = Stage(512, 16, 2, pooled=False)
        self.decoder_common_layer3 = Stage(192, 4, 2, pooled=False)
        self.decoder_common_layer4 = nn.Sequential(Stage(16, 4, 2, pooled=False))
        self.decoder_common_projection_layer = projection()  # unused, but in every checkpoint
        self.decoder_upper_layer1 = Stage(1280, 96, 4, pooled=False)
        self.decoder_upper_layer2 = Stage(512, 32, 4, pooled=False)
        self.decoder_upper_layer3 = Stage(192, 16, 6, pooled=False)
        self.decoder_upper_layer4 = nn.Sequential(Stage(64, 4, 6, pooled=False))
        self.decoder_upper_projection_layer = projection()
        self.decoder_lower_layer1 = self.decoder_upper_layer1
        self.decoder_lower_layer2 = self.decoder_upper_layer2
        self.decoder_lower_layer3 = self.decoder_upper_layer3
        self.decoder_lower_layer4 = self.decoder_upper_layer4
        self.decoder_lower_projection_layer = self.decoder_upper_projection_layer
        self.fusion_rule = projection()

    def forward(
        self, a: Float[Tensor, "B 3 H W"], b: Float[Tensor, "B 3 H W"]
    ) -> tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B 3 H W"], Float[Tensor, "B 3 H W"], Float[Tensor, "B 3 H W"]]:
        """common, upper (of a), lower (of b), fused. The authors pad by 16 px of reflection and crop afterwards."""
        features_a, features_b = self.encode(a), self.encode(b)
        shared = self.common_encoder(torch.cat((features_a[-1], features_b[-1]), dim=1))
        common = self.decode_common(shared, features_a, features_b)
        upper, lower = self.decode(shared, features_a), self.decode(shared, features_b)
        project = self.decoder_upper_projection_layer
        return project(common), project(upper), project(lower), self.fusion_rule(upper + lower + common)

    def encode(self, image: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """Features at 1, 1/2, 1/4 and 1/8 of the resolution."""
        whole = self.encoder_upper(image)
        half = self.upper_encoder_layer1(F.max_pool2d(whole, 3, 2, padding=1))
        quarter = self.upper_encoder_layer2(half)
        return [whole, half, quarter, self.upper_encoder_layer3(quarter)]

    def decode_common(
        self, shared: Tensor, features_a: list[Tensor], features_b: list[Tensor]
    ) -> Float[Tensor, "B 16 H W"]:
        """Features of the common part, from all levels of both images but the finest."""
        x = self.decoder_common_layer1(torch.cat((shared, features_a[3], features_b[3]), dim=1))
        x = self.decoder_common_layer2(torch.cat((upsample(x, features_a[2]), features_a[2], features_b[2]), dim=1))
        x = self.decoder_common_layer3(torch.cat((upsample(x, features_a[1]), features_a[1], features_b[1]), dim=1))
        return self.decoder_common_layer4(upsample(x, features_a[0]))

    def decode(self, shared: Tensor, features: list[Tensor]) -> Float[Tensor, "B 16 H W"]:
        """Features of an individual part, from all levels of its image but the finest."""
        x = self.decoder_upper_layer1(torch.cat((shared, features[3]), dim=1))
        x = self.decoder_upper_layer2(torch.cat((upsample(x, features[2]), features[2]), dim=1))
        x = self.decoder_upper_layer3(torch.cat((upsample(x, features[1]), features[1]), dim=1))
        return self.decoder_upper_layer4(upsample(x, features[0]))


def projection() -> nn.Sequential:
    """From features to an image: 3×3 convolution, ReLU."""
    return nn.Sequential(nn.Conv2d(16, 3, 3, padding=1), nn.ReLU())


def upsample(x: Tensor, like: Tensor) -> Tensor:
    """Bilinear upsampling by two, cropped to the size of ``like`` where that is odd."""
    height, width = like.shape[2:]
    return F.interpolate(x, scale_factor=2, mode="bilinear")[:, :, :height, :width]


class Stage(nn.Module):
    """Bottlenecks of 4 · ``planes`` channels.

    pooled: the first one's shortcut averages over its stride (ResNet-D); smooth: its main path averages over 3×3.
    """

    def __init__(
        self, channels: int, planes: int, blocks: int, *, stride: int = 1, pooled: bool = True, smooth: bool = False
    ) -> None:
        super().__init__()
        first = Bottleneck(channels, planes, stride if pooled else None, smooth)
        self.layer = nn.Sequential(first, *(Bottleneck(4 * planes, planes) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Bottleneck(nn.Module):
    """ReLU(shortcut + 1×1 ∘ split attention ∘ ReLU ∘ 1×1), without normalisation (ResNeSt: Zhang et al. 2020).

    stride: of the average pooling before the shortcut's 1×1 convolution; None: no pooling. smooth: average the main
    path over 3×3.
    """

    def __init__(self, channels: int, planes: int, stride: int | None = None, smooth: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, planes, 1, bias=False)
        self.conv2 = SplitAttention(planes)
        self.conv3 = nn.Conv2d(planes, 4 * planes, 1, bias=False)
        self.average = nn.AvgPool2d(3, stride, padding=1) if smooth else nn.Identity()
        # The shortcut needs no convolution where the shape stays.
        self.downsample = nn.Identity()
        if channels != 4 * planes:
            shortcut = nn.Conv2d(channels, 4 * planes, 1, bias=False)
            pool = [] if stride is None else [nn.AvgPool2d(stride, ceil_mode=True, count_include_pad=False)]
            self.downsample = nn.Sequential(*pool, shortcut)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(self.average(self.conv2(F.relu(self.conv1(x)))))
        return F.relu_(y.add_(self.downsample(x)) if not torch.is_grad_enabled() else y + self.downsample(x))


class SplitAttention(nn.Module):
    """Two 3×3 convolutions, u and v, weighted per channel: p u + (1 − p) v, p the softmax of a small network's outputs.

    That network reads the mean of u + v over the whole image, the only operation that is not local. ``pool`` computes
    it, and can be replaced, so that the tiles of an image use the mean of the whole image.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(channels // 2, 32)
        self.conv = nn.Conv2d(channels, 2 * channels, 3, padding=1, groups=2, bias=False)
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.fc2 = nn.Conv2d(hidden, 2 * channels, 1)
        self.pool: Pool = mean

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        u, v = F.relu_(self.conv(x)).chunk(2, dim=1)
        scores = self.fc2(F.relu(self.fc1(self.pool(u + v))))
        p = torch.sigmoid(torch.sub(*scores.chunk(2, dim=1)))  # softmax over two
        return torch.lerp(v, u, p)


def mean(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C 1 1"]:
    """Mean over the image."""
    return x.mean((2, 3), keepdim=True)

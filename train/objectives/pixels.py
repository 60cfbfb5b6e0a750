"""Auxiliary losses on the fused image; ``PIXEL_LOSSES`` is the table.

Images are in [−1, 1]: X̃ fused, X the ground truth, X_a and X_b the clean pair. Shapes: b 3 h w. Of each metric that is
differentiable there is ``metric-NAME``, on its own scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from clearfuse.synth.color import LUMA
from clearfuse.synth.tables import Table
from clearfuse.train.metrics import METRICS, tensors
from clearfuse.train.metrics.base import Metric

Image = Float[Tensor, "b c h w"]


@dataclass(frozen=True)
class CleanImages:
    """What a fused image is compared with."""

    gt: Image
    a: Image
    b: Image


def ground_truth(fused: Image, clean: CleanImages) -> Float[Tensor, ""]:
    """L1(X̃, X)."""
    return (fused - clean.gt).abs().mean()


def charbonnier(fused: Image, clean: CleanImages) -> Float[Tensor, ""]:
    """The mean of √((X̃ − X)² + 10⁻⁶) − 10⁻³: L1, square near 0 (Lai et al., arXiv 1710.01992)."""
    return ((fused - clean.gt).square() + 1e-6).sqrt().mean() - 1e-3


def frequency(fused: Image, clean: CleanImages) -> Float[Tensor, ""]:
    """L1 of the spectra: the mean of |F (X̃ − X)|, F the orthonormal 2-D Fourier transform (arXiv 2108.05054, eq. 4)."""
    return torch.fft.rfft2((fused - clean.gt).float(), norm="ortho").abs().mean()


def intensity(fused: Image, clean: CleanImages) -> Float[Tensor, ""]:
    """L1(X̃, max(X_a, X_b)): the brighter of the sources at each pixel (SeAFusion, Information Fusion 82, 2022)."""
    return (fused - torch.maximum(clean.a, clean.b)).abs().mean()


def gradient(fused: Image, clean: CleanImages) -> Float[Tensor, ""]:
    """L1(|∇X̃|, max(|∇X_a|, |∇X_b|)), ∇ Sobel's and |∇| the sum over both axes (SeAFusion, eq. 6)."""
    return (sobel(fused) - torch.maximum(sobel(clean.a), sobel(clean.b))).abs().mean()


def structure(fused: Image, clean: CleanImages) -> Float[Tensor, ""]:
    """1 − SSIM(X̃, X)."""
    return 1 - ssim(fused, clean.gt).mean()


def similarity(fused: Image, clean: CleanImages) -> Float[Tensor, ""]:
    """½ Σ over the clean sources of 1 − SSIM(X̃, X_i), of BT.601 luma (SwinFusion, IEEE/CAA JAS 9(7), 2022)."""
    red, green, blue = map(float, LUMA)
    made, *both = (
        red * image[:, :1] + green * image[:, 1:2] + blue * image[:, 2:] for image in (fused, clean.a, clean.b)
    )
    return 1 - (ssim(made, both[0]) + ssim(made, both[1])).mean() / 2


def sources(fused: Image, clean: CleanImages) -> Float[Tensor, ""]:
    """Σ over the clean sources of L1(X̃, X_i) + L1(∇X̃, ∇X_i), ∇ forward differences along both axes (MMAIF eq. 9)."""
    total = fused.new_zeros(())
    for source in (clean.a, clean.b):
        difference = fused - source
        total = total + difference.abs().mean()
        total = total + difference.diff(dim=2).abs().mean() + difference.diff(dim=3).abs().mean()
    return total


def of_metric(metric: Metric) -> Callable[[Tensor, CleanImages], Tensor]:
    """A metric of the fused image beside the clean pair, or the ground truth, as a loss."""

    def loss(fused: Image, clean: CleanImages) -> Float[Tensor, ""]:
        """See ``metric_loss``."""
        return tensors.evaluate.metric_loss(metric, *((image + 1) / 2 for image in (fused, clean.a, clean.b, clean.gt)))

    sign = "−" if metric.direction == "higher" else ""
    loss.__doc__ = f"{sign}{metric.name}, the metric: {metric.doc}."
    return loss


PIXEL_LOSSES: Table[Callable[[Tensor, CleanImages], Tensor]] = Table(
    "pixel loss",
    {
        "truth": ground_truth,
        "charbonnier": charbonnier,
        "frequency": frequency,
        "intensity": intensity,
        "gradient": gradient,
        "ssim": structure,
        "similarity": similarity,
        "sources": sources,
    }
    | {f"metric-{name}": of_metric(metric) for name, metric in METRICS.items() if metric.differentiable},
)


def sobel(x: Image) -> Image:
    """|∂_x X| + |∂_y X| by Sobel's kernels, divided by 8, so that a ramp has its slope; edges are repeated."""
    smooth, difference = torch.tensor([[1.0, 2.0, 1.0], [-2.0, 0.0, 2.0]], device=x.device, dtype=x.dtype) / 4
    kernels = torch.stack([torch.outer(smooth, difference), torch.outer(difference, smooth)])[:, None]
    channels = F.pad(x, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None]
    return F.conv2d(channels, kernels).abs().sum(1).view_as(x)


def ssim(x: Image, y: Image, window: int = 11, deviation: float = 1.5) -> Float[Tensor, " b"]:
    """The mean structural similarity of images in [−1, 1], over windows that lie inside (Wang et al. 2004).

    Of (X + 1) / 2, as luminance counts from black. Gaussian windows of 11 × 11, smaller where the image is; C1 = 0.01²,
    C2 = 0.03².
    """
    x, y = (x + 1) / 2, (y + 1) / 2
    side = min(window, x.shape[2], x.shape[3])
    place = torch.arange(side, device=x.device, dtype=x.dtype) - (side - 1) / 2
    weights = torch.exp(-place.square() / (2 * deviation**2))
    weights = weights / weights.sum()

    def blurred(image: Tensor) -> Tensor:
        channels = image.flatten(0, 1)[:, None]
        return F.conv2d(F.conv2d(channels, weights.view(1, 1, 1, -1)), weights.view(1, 1, -1, 1))

    mean_x, mean_y = blurred(x), blurred(y)
    variance_x, variance_y = blurred(x * x) - mean_x.square(), blurred(y * y) - mean_y.square()
    covariance = blurred(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    index = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    index = index / ((mean_x.square() + mean_y.square() + c1) * (variance_x + variance_y + c2))
    return index.view(len(x), -1).mean(1)

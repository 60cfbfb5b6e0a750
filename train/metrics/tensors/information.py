"""Metrics from histograms on tensors: ``clearfuse.train.metrics.information``. They have no gradients."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from clearfuse.train.metrics.planes import LEVELS
from clearfuse.train.metrics.tensors.images import Images, Values
from clearfuse.train.metrics.tensors.windows import gradient, mean_information


def entropy(images: Images) -> Values:
    """−Σ q log2 q of the fused images' grey levels."""
    return entropy_bits(images.once(_histograms)[0])


def cross_entropy(images: Images) -> Values:
    """Σ p log2(p / q), averaged over both sources."""
    pixels = images.lumas[0][0].numel()
    q, *sources = ((part * pixels + 0.5) / (pixels + 0.5 * LEVELS) for part in images.once(_histograms))
    total = sum(((p * torch.log2(p / q)).sum(-1) for p in sources), torch.zeros_like(q[:, 0]))
    return (total / 2).clamp(min=0)


def mutual_information(images: Images) -> Values:
    """I(A; F) + I(B; F)."""
    (shared_a, _), (shared_b, _) = images.once(_shared)
    return shared_a + shared_b


def normalised_mutual_information(images: Images) -> Values:
    """2 [I(A; F) / (H(A) + H(F)) + I(B; F) / (H(B) + H(F))]: 0 / 0, NaN, where all of a pair are constant."""
    (shared_a, total_a), (shared_b, total_b) = images.once(_shared)
    return 2 * (shared_a / total_a + shared_b / total_b)


def feature_mutual_information(images: Images) -> Values:
    """The mean over 3×3 windows of the mutual information of gradients."""
    return mean_information(*(gradient(plane) for plane in images.lumas))


def entropy_bits(p: Float[Tensor, "n *dims"]) -> Values:
    """−Σ p log2 p, with 0 log 0 = 0."""
    return -torch.xlogy(p, p).flatten(1).sum(1) / math.log(2) + 0.0


def _joint_histograms(images: Images) -> tuple[Float[Tensor, "n 256 256"], ...]:
    """Relative frequencies of the pairs (grey level of the source, grey level of the fused image), for a and for b."""
    fused, *sources = ((plane + 0.5).long().flatten(1) for plane in images.lumas)
    ones = torch.ones_like(images.lumas[0]).flatten(1)
    empty = ones.new_zeros(len(ones), LEVELS**2)
    counts = (empty.scatter_add(1, source * LEVELS + fused, ones) for source in sources)
    return tuple(count.unflatten(1, (LEVELS, LEVELS)) / ones.shape[1] for count in counts)


def _histograms(images: Images) -> tuple[Float[Tensor, "n 256"], ...]:
    """Relative frequencies of the grey levels of fused, a and b."""
    joint_a, joint_b = images.once(_joint_histograms)
    return joint_a.sum(1), joint_a.sum(2), joint_b.sum(2)


def _shared(images: Images) -> list[tuple[Values, Values]]:
    """I(S; F) and H(S) + H(F), for both sources."""
    fused, *sources = (entropy_bits(histogram) for histogram in images.once(_histograms))
    totals, joints = [source + fused for source in sources], images.once(_joint_histograms)
    return [((total - entropy_bits(joint)).clamp(min=0), total) for total, joint in zip(totals, joints, strict=True)]

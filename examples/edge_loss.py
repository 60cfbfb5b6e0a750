"""A loss: the fused image's Laplacian beside the ground truth's.

    train fit shards/vif --plugin examples/edge_loss.py --preset nafnet \
        --set objective.pixel=0.1 --set 'objective.pixels={edges = 1.0}'
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from clearfuse.train.objectives.pixels import PIXEL_LOSSES, CleanImages

__version__ = "1.0"


def edges(fused: Tensor, clean: CleanImages) -> Tensor:
    """L1(ΔX̃, ΔX), Δ the Laplacian of five points over four; images (b, 3, h, w) in [−1, 1]."""
    kernel = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]], device=fused.device) / 4
    channels = (fused - clean.gt).float().flatten(0, 1)[:, None]
    return F.conv2d(F.pad(channels, (1, 1, 1, 1), mode="replicate"), kernel[None, None]).abs().mean()


PIXEL_LOSSES["edges"] = edges

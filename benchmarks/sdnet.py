"""SDNet (Zhang, Ma, IJCV 2021) as a fuser, to compare with: 67,091 parameters a task, on luma.

Weights: the authors' TensorFlow checkpoints as ``sdnet_TASK.safetensors``, entries ``layerN_{ir,vi}`` of 1 to 4 and
``layer5_fuse``, (out, in, rows, columns). Of the network only what fuses is run, not what takes the image apart again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from clearfuse.synth import color
from clearfuse.synth.files.checkpoints import read_state
from clearfuse.synth.fusers.learned import with_chroma
from clearfuse.synth.shards.sample import Sample
from clearfuse.synth.types import Task

load = lru_cache(maxsize=3)(read_state)


def features(weights: dict[str, Tensor], luma: Tensor, side: str) -> list[Tensor]:
    """The outputs of a side's four layers, each of which sees all before it."""
    found: list[Tensor] = []
    x = luma
    for layer in range(1, 5):
        weight, bias = weights[f"layer{layer}_{side}.weight"], weights[f"layer{layer}_{side}.bias"]
        found.append(F.leaky_relu(F.conv2d(x, weight, bias, padding="same"), 0.2))
        x = torch.cat(found, 1)
    return found


@torch.inference_mode()
def fuse_luma(weights: dict[str, Tensor], first: Tensor, second: Tensor) -> Tensor:
    """The fused luma of two, (1, 1, h, w) in [−1, 1]."""
    both = zip(features(weights, first, "ir"), features(weights, second, "vi"), strict=True)
    stacked = torch.cat([x for pair in both for x in pair], 1)
    return F.conv2d(stacked, weights["layer5_fuse.weight"], weights["layer5_fuse.bias"]).tanh()


@dataclass(frozen=True)
class SDNet:
    """The fuser: uint8 (h, w, c) images to one. folder: of the weights."""

    folder: Path

    def __call__(self, a: np.ndarray, b: np.ndarray, task: Task) -> np.ndarray:
        """The authors' first image is the infrared, and the under-exposed one; the sources' colour is restored."""
        x, y = color.code_to_float(a), color.code_to_float(b)
        order = (y, x) if task == "vif" else (x, y)
        lumas = [torch.from_numpy(2 * color.luma(image) - 1)[None, None] for image in order]
        luma = fuse_luma(load(self.folder / f"sdnet_{task}.safetensors"), *lumas)[0, 0].numpy()
        sources = (x,) if task == "vif" else (x, y)
        return color.to_uint8(with_chroma((luma + 1) / 2, sources, max(a.shape[2], b.shape[2])))


@dataclass(frozen=True)
class OnDegraded:
    """The fuser as a method of an evaluation, on the degraded pair."""

    fuser: SDNet

    def __call__(self, sample: Sample) -> np.ndarray:
        """The fused image."""
        return self.fuser(sample.images["a"], sample.images["b"], sample.meta.task)

"""A loader: shards in a training loop of one's own, with batches of crops as torch tensors.

python examples/own_loader.py shards/vif
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.utils.data import DataLoader

from clearfuse import open_shards

SIDE = 64
NAMES = ("a", "b", "gt")


def crop(sample: dict[str, Any]) -> dict[str, Any]:
    """The middle of each image, the same of all, and what the operators of its steps are."""
    height, width = sample["gt"].shape[1:]
    top, left = (height - SIDE) // 2, (width - SIDE) // 2
    images = {name: sample[name][:, top : top + SIDE, left : left + SIDE] for name in NAMES}
    return {**images, "prompt": sample["prompt"], "operators": "+".join(step.op for step in sample["meta"].steps)}


def mean_error(urls: list[str], workers: int = 0) -> float:
    """The mean absolute difference of the pair's mean to the ground truth: what any network should beat."""
    shards = open_shards(urls, tensors=True, names=NAMES, shuffle=64).map(crop)
    errors: list[torch.Tensor] = []
    for batch in DataLoader(shards, batch_size=4, num_workers=workers):
        errors.append(((batch["a"] + batch["b"]) / 2 - batch["gt"]).abs().mean((1, 2, 3)))
    return float(torch.cat(errors).mean())


if __name__ == "__main__":
    print(f"mean error of the mean: {mean_error(sys.argv[1:]):.4f}")

"""From a batch to a loss."""

from __future__ import annotations

import torch
from torch import Tensor

from train.batch import Batch
from train.design import Assembly
from train.draws import Rng
from train.losses import source_loss
from train.objectives import Loss, PixelLoss


def batch_loss(assembly: Assembly, batch: Batch, rng: Rng, device: torch.device) -> Loss:
    """The objective on a batch, in bf16 on CUDA."""
    z_a, z_b, target = (assembly.encode(x.to(device)) for x in (batch.a, batch.b, batch.gt))
    z_prior = None if batch.prior is None else assembly.encode(batch.prior.to(device))
    pixels = _pixels(assembly, batch, device) if assembly.objective.pixel else None
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        predict = assembly.bind(z_a, z_b, batch.prompts, z_prior)
        weight = assembly.tokenizer.weight
        return assembly.objective.loss(predict, target, (z_a, z_b), rng, pixels, weight)


def _pixels(assembly: Assembly, batch: Batch, device: torch.device) -> PixelLoss:
    """The auxiliary loss of a clean latent: its picture against the clean pair."""
    assert batch.clean_a is not None and batch.clean_b is not None
    a, b = batch.clean_a.to(device), batch.clean_b.to(device)

    def pixels(latent: Tensor) -> Tensor:
        return source_loss(assembly.tokenizer.decode(latent.float(), (a.shape[2], a.shape[3])), a, b)

    return pixels

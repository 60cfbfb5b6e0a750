"""The loss of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from clearfuse.train.data.batch import Batch
from clearfuse.train.designs.design import Assembly
from clearfuse.train.objectives.base import Loss, PixelLoss
from clearfuse.train.objectives.losses import source_loss
from clearfuse.train.objectives.noise import Rng


def batch_loss(assembly: Assembly, batch: Batch, rng: Rng, device: torch.device, bf16: bool = False) -> Loss:
    """The loss of the model's objective on a batch. bf16: run the network under bf16 autocast; the loss is in fp32."""
    batch = batch.to(device)
    z_a, z_b, target, z_prior = _latents(assembly, batch)
    pixels = _pixels(assembly, batch) if assembly.objective.pixel else None
    embeddings = None if assembly.text.trainable else batch.embeddings
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        predict = assembly.bind(z_a, z_b, batch.prompts, z_prior, embeddings)
        weight = assembly.tokenizer.weight
        return assembly.objective.loss(predict, target, (z_a, z_b), rng, pixels, weight)


def _latents(assembly: Assembly, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The latents of a, b, the ground truth and the prior: from a cache, or encoded here."""
    if batch.latents:
        a, b, gt = (batch.latents[name].float() for name in ("a", "b", "gt"))
        return a, b, gt, batch.latents["prior"].float() if "prior" in batch.latents else None
    z_a, z_b, target = (assembly.encode(image) for image in (batch.a, batch.b, batch.gt))
    return z_a, z_b, target, None if batch.prior is None else assembly.encode(batch.prior)


def _pixels(assembly: Assembly, batch: Batch) -> PixelLoss:
    """The auxiliary pixel loss: decodes a clean latent and compares the image with the clean pair."""
    assert batch.clean_a is not None and batch.clean_b is not None
    a, b = batch.clean_a, batch.clean_b

    def pixels(latent: Tensor) -> Tensor:
        return source_loss(assembly.tokenizer.decode(latent.float(), (a.shape[2], a.shape[3])), a, b)

    return pixels

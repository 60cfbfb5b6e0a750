"""The loss of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from clearfuse.train.data.batch import Batch
from clearfuse.train.designs.design import Assembly
from clearfuse.train.models.base import Semantics
from clearfuse.train.objectives.base import Loss, PixelLoss, draw_present
from clearfuse.train.objectives.noise import Rng
from clearfuse.train.objectives.pixels import PIXEL_LOSSES, CleanImages


def batch_loss(assembly: Assembly, batch: Batch, rng: Rng, device: torch.device, bf16: bool = False) -> Loss:
    """The loss of the model's objective on a batch. bf16: run the network under bf16 autocast; the loss is in fp32."""
    batch = batch.to(device)
    z_a, z_b, target, guess = _latents(assembly, batch)
    pixels = _pixels(assembly, batch, target) if assembly.objective.pixel else None
    embeddings = None if assembly.text.trainable else batch.embeddings
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        unprompted = [not prompt for prompt in batch.prompts]
        present = draw_present(assembly.objective, unprompted, rng, device)
        predict = assembly.bind(
            (z_a, z_b), batch.prompts,
            embeddings=embeddings, guess=guess, semantics=semantics_of(assembly, batch), present=present,
            strength=batch.strength,
        )  # fmt: skip
        weight = assembly.tokenizer.weight
        return assembly.objective.loss(predict, target, (z_a, z_b), rng, pixels, weight)


def semantics_of(assembly: Assembly, batch: Batch) -> Semantics | None:
    """What is said of the whole pictures: from a cache, or by an encoder that learns."""
    if assembly.semantics is None:
        return None
    if assembly.semantics.trainable:
        return assembly.semantics(batch.images["views"], batch.tasks)
    assert batch.semantics is not None
    tokens, mask = batch.semantics
    return tokens.float(), mask


def _latents(assembly: Assembly, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """The latents of a, b, the ground truth and the guess: from a cache, or encoded here."""
    if batch.latents:
        a, b, gt = (batch.latents[name].float() for name in ("a", "b", "gt"))
        return a, b, gt, batch.latents["guess"].float() if "guess" in batch.latents else None
    z_a, z_b, target = (assembly.encode(image) for image in (batch.a, batch.b, batch.gt))
    return z_a, z_b, target, None if batch.guess is None else assembly.encode(batch.guess)


def _pixels(assembly: Assembly, batch: Batch, target: Tensor) -> PixelLoss:
    """The auxiliary pixel losses: they decode a clean latent and compare the image with the clean ones.

    A cache has no image of the ground truth: what its latent decodes to stands for it.
    """
    a, b = batch.clean_a, batch.clean_b
    assert a is not None and b is not None
    size = a.shape[2], a.shape[3]
    with torch.no_grad():
        gt = batch.gt if "gt" in batch.images else assembly.tokenizer.decode(target, size)
    clean = CleanImages(gt, a, b)

    def pixels(latent: Tensor) -> dict[str, Tensor]:
        fused = assembly.tokenizer.decode(latent.float(), size)
        # Autocast would run the windows of SSIM in bf16, where a variance E x² − (E x)² comes out negative.
        with torch.autocast(fused.device.type, enabled=False):
            return {name: PIXEL_LOSSES[name](fused.float(), clean) for name in assembly.objective.pixels}

    return pixels

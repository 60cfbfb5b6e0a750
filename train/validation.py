"""How good the averaged weights are: the loss and the fused crops of held-out samples, the same ones each time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from synth.seeds import seed_of
from synth.types import WorkIncomplete
from train.batch import Batch, Broken
from train.data import Samples, batches
from train.design import Assembly
from train.forward import batch_loss
from train.ranks import Ranks

VALIDATED = 48
"""Held-out samples that a validation looks at, spread over all of them."""


@dataclass(frozen=True)
class Scores:
    """Means over the held-out samples. psnr: of the fused crops, dB."""

    loss: float
    psnr: float


class Validator:
    """Scores an assembly on held-out samples; each process takes its share of the batches."""

    def __init__(self, samples: Samples, size: int, ranks: Ranks) -> None:
        self.samples, self.ranks = samples, ranks
        count = min(len(samples), VALIDATED)
        self.places = [i * len(samples) // count for i in range(count)]
        self.groups = samples.groups(self.places, size)

    @torch.inference_mode()
    def score(self, assembly: Assembly) -> Scores | None:
        """The scores, None where nothing is held out. All processes call it, and get the same."""
        if not self.places:
            return None
        sums = torch.zeros(2, dtype=torch.float64, device=self.ranks.device)
        groups = self.groups
        rounds = -(-len(groups) // self.ranks.world)
        for turn in range(rounds):
            number = turn * self.ranks.world + self.ranks.rank
            # Where weights are shared out, each call needs all processes: one without a batch repeats the last.
            counted = number < len(groups)
            number = min(number, len(groups) - 1)
            batch = whole(next(batches(self.samples, [groups[number]])))
            loss, decibels = self._batch(assembly, batch, number)
            if counted:
                sums += torch.tensor([loss * len(batch.names), decibels], dtype=torch.float64, device=sums.device)
        mean = self.ranks.total(sums) / len(self.places)
        return Scores(float(mean[0]), float(mean[1]))

    def _batch(self, assembly: Assembly, batch: Batch, number: int) -> tuple[float, float]:
        """The mean loss and the sum of the PSNR, the same noise each time."""
        device = self.ranks.device
        rng = torch.Generator().manual_seed(seed_of("validation", number))
        loss = float(batch_loss(assembly, batch, rng, device).total)
        a, b = batch.a.to(device), batch.b.to(device)
        prior = None if batch.prior is None else batch.prior.to(device)
        fused = assembly.fuse(a, b, batch.prompts, rng, prior=prior).clamp(-1, 1)
        return loss, float(psnr_of(fused, batch.gt.to(device)).sum())


def psnr_of(images: Tensor, truth: Tensor) -> Tensor:
    """10 log10(4 / MSE) of each image: the range [−1, 1] has length 2."""
    return 10 * torch.log10(4 / (images - truth).square().mean((1, 2, 3)).clamp(min=1e-10))


def whole(batch: Batch | Broken) -> Batch:
    """The batch. Raises WorkIncomplete where a sample of it could not be read."""
    if isinstance(batch, Broken):
        raise WorkIncomplete(f"{batch.reason}; see synth verify")
    return batch

"""How good the averaged weights are: losses, metrics and pictures of held-out samples, the same ones each time.

All is worked out sample by sample and summed in their order, so that any number of processes finds the same numbers.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from clearfuse.synth.review import gallery
from clearfuse.synth.types import ROLES, TASKS, WorkIncomplete
from clearfuse.train.data.batch import Batch, UnreadableSample
from clearfuse.train.data.loader import batches
from clearfuse.train.data.samples import Samples
from clearfuse.train.designs.design import Assembly
from clearfuse.train.metrics.fidelity import WINDOW, psnr, ssim
from clearfuse.train.objectives.noise import Draws
from clearfuse.train.training.loss import batch_loss
from clearfuse.train.training.ranks import Ranks

VALIDATED = 48
"""Held-out samples that a validation looks at, spread over all of them."""
SHOWN = 6
"""Of them, as pictures."""
CELL, CAPTION = 256, 140
"""Width of a picture at most, and of a column at least, in pixels."""
MOST_DB = 100.0
"""What an image without any error counts as, so that means stay finite."""
EARLY, SELDOM = 20, 10
"""Pictures are drawn at that many validations at first, and at every tenth of the rest."""


@dataclass(frozen=True)
class Scores:
    """Means over the held-out samples. psnr: of the fused crops, dB.

    values: these and all others by name, for the log: ``error``, ``PSNR`` and ``SSIM`` of each task and of the samples
    with each degradation (``error/haze``, of so many as ``samples/haze`` says), and how each layer's experts are
    loaded. picture: some samples, in the first process, where it was asked for.
    """

    loss: float
    psnr: float
    values: dict[str, float]
    picture: UInt8[np.ndarray, "h w 3"] | None = None


class Validator:
    """Scores an assembly on held-out samples; each process takes its share of the batches."""

    def __init__(self, samples: Samples, size: int, ranks: Ranks, bf16: bool = False) -> None:
        self.samples, self.ranks, self.bf16 = samples, ranks, bf16
        count = min(len(samples), VALIDATED)
        self.places = [i * len(samples) // count for i in range(count)]
        self.groups = samples.groups(self.places, size)
        few = min(count, SHOWN)
        self.shown = [self.places[i * count // few] for i in range(few)]

    @torch.inference_mode()
    def score(self, assembly: Assembly, draw: bool = False) -> Scores | None:
        """The scores, None where nothing is held out. All processes call it, and get the same; draw: with a picture."""
        if not self.places:
            return None
        found: list[dict[str, Any]] = []
        rounds = -(-len(self.groups) // self.ranks.world)
        for turn in range(rounds):
            number = turn * self.ranks.world + self.ranks.rank
            # Where weights are shared out, each call needs all processes: one without a batch repeats the last.
            counted = number < len(self.groups)
            number = min(number, len(self.groups) - 1)
            batch = batch_or_raise(next(batches(self.samples, [self.groups[number]])))
            judged = self._judged(assembly, batch, number, draw)
            if counted:
                found.append(judged)
        everyone = [one for each in self.ranks.gather(found) for one in each]
        return _summed(sorted(everyone, key=lambda one: one["number"]), self.shown if draw and self.ranks.main else ())

    def _judged(self, assembly: Assembly, batch: Batch, number: int, draw: bool) -> dict[str, Any]:
        """One batch, as JSON; the same noise each time."""
        device = self.ranks.device
        loss = batch_loss(assembly, batch, Draws.of("validation", 0, batch.positions), device, self.bf16)
        prior = None if batch.prior is None else batch.prior.to(device)
        rng = Draws.of("fused", 0, batch.positions)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            fused = assembly.fuse(batch.a.to(device), batch.b.to(device), batch.prompts, rng, prior=prior)
        images = {name: _pixels(one) for name, one in batch.images.items()}
        images["fused"] = _pixels(to_bytes(fused))
        rows = [
            self._sample(batch, place, error, {name: one[index] for name, one in images.items()}, index, draw)
            for index, (place, error) in enumerate(zip(batch.positions, loss.each.tolist(), strict=True))
        ]
        load = loss.load.float().tolist() if loss.load.shape[1] else []
        return {"number": number, "loss": float(loss.total), "samples": rows, "load": load}

    def _sample(
        self, batch: Batch, place: int, error: float, images: dict[str, np.ndarray], index: int, draw: bool
    ) -> dict[str, Any]:
        fused, truth = images["fused"].astype(np.float32), images["gt"].astype(np.float32)
        row: dict[str, Any] = {"place": place, "task": batch.tasks[index], "operators": list(batch.operators[index])}
        row |= {"error": error, "PSNR": min(psnr(fused, truth), MOST_DB)}
        if min(fused.shape[:2]) >= WINDOW:
            row["SSIM"] = ssim(fused, truth)
        if draw and place in self.shown:
            row["prompt"] = batch.prompts[index]
            row["pictures"] = {name: _packed(images[name]) for name in ("a", "b", "fused", "gt")}
        return row


def _summed(found: Sequence[dict[str, Any]], shown: Sequence[int]) -> Scores:
    """Batches in their order to means."""
    samples = sorted((row for one in found for row in one["samples"]), key=lambda row: row["place"])
    loss = sum(one["loss"] * len(one["samples"]) for one in found) / len(samples)
    values = {"loss": loss, **_means(samples)}
    groups = {task: [row for row in samples if row["task"] == task] for task in TASKS}
    for mark in sorted({mark for row in samples for mark in row["operators"]}):
        groups[mark] = [row for row in samples if mark in row["operators"]]
    for name, rows in groups.items():
        if rows:
            values |= {f"{what}/{name}": mean for what, mean in _means(rows).items()} | {f"samples/{name}": len(rows)}
    weights = np.array([len(one["samples"]) for one in found], np.float64)
    loads = np.array([one["load"] for one in found], np.float64)
    if loads.size:
        values |= balance_of((loads * weights[:, None, None]).sum(0) / weights.sum())
    drawn = [row for row in samples if row["place"] in shown]
    return Scores(loss, values["PSNR"], values, _sheet(drawn) if drawn else None)


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of what all the rows have."""
    names = [name for name in ("error", "PSNR", "SSIM") if all(name in row for row in rows)]
    return {name: sum(row[name] for row in rows) / len(rows) for name in names}


def balance_of(load: Float[np.ndarray, "layers experts"]) -> dict[str, float]:
    """How evenly each layer's experts work.

    ``entropy/layer-N``: −Σ p log p / log experts, 1 where all work alike; ``least/layer-N`` and ``most/layer-N``: the
    least and the most loaded one's share of the tokens.
    """
    values: dict[str, float] = {}
    for layer, shares in enumerate(load):
        used = shares[shares > 0]
        entropy = float(-(used * np.log(used)).sum() / math.log(len(shares))) if len(shares) > 1 else 1.0
        values[f"entropy/layer-{layer}"] = entropy
        values |= {f"least/layer-{layer}": float(shares.min()), f"most/layer-{layer}": float(shares.max())}
    return values


def is_drawn(number: int) -> bool:
    """Whether the validation of a number, the first being 1, draws pictures."""
    return number <= EARLY or number % SELDOM == 0


def _sheet(rows: Sequence[dict[str, Any]]) -> UInt8[np.ndarray, "h w 3"]:
    """A row a sample: the degraded pair, what is made of it, and the ground truth."""
    drawn: list[gallery.GalleryRow] = []
    widest = CAPTION
    for row in rows:
        roles = ROLES[row["task"]]
        titles = {"a": f"degraded {roles['a']}", "b": f"degraded {roles['b']}", "fused": "fused", "gt": "ground truth"}
        cells = tuple((title, _unpacked(row["pictures"][name])) for name, title in titles.items())
        widest = max(widest, cells[0][1].shape[1])
        scored = "   ".join(f"{name} {row[name]:.2f}" for name in ("PSNR", "SSIM") if name in row)
        drawn.append(gallery.GalleryRow(cells, (f"{scored}   {', '.join(row['operators'])}", f'"{row["prompt"]}"')))
    return np.asarray(gallery.sheet(f"{len(rows)} held-out samples", drawn, min(CELL, widest)).convert("RGB"))


def to_bytes(images: Float[Tensor, "b 3 H W"]) -> UInt8[Tensor, "b 3 H W"]:
    """[−1, 1] to code values, as ``train fuse`` writes them."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def _pixels(images: UInt8[Tensor, "b 3 H W"]) -> UInt8[np.ndarray, "b H W 3"]:
    return images.permute(0, 2, 3, 1).cpu().numpy()


def _packed(image: UInt8[np.ndarray, "h w 3"]) -> str:
    """A PNG in text, which passes between processes."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", compress_level=1)
    return base64.b64encode(out.getvalue()).decode()


def _unpacked(text: str) -> UInt8[np.ndarray, "h w 3"]:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def batch_or_raise(batch: Batch | UnreadableSample) -> Batch:
    """The batch. Raises WorkIncomplete where a sample of it could not be read."""
    if isinstance(batch, UnreadableSample):
        raise WorkIncomplete(batch.reason)
    return batch

"""Validation of the EMA weights: losses, metrics and images of the same held-out samples each time.

Everything is computed sample by sample and summed in order, so that the numbers do not depend on the world size.
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
from clearfuse.synth.types import CATEGORIES, ROLES, TASKS, WorkIncomplete
from clearfuse.train.data.batch import Batch, UnreadableSample
from clearfuse.train.data.loader import batches
from clearfuse.train.data.samples import Samples
from clearfuse.train.designs.design import Assembly
from clearfuse.train.metrics.fidelity import WINDOW, psnr, ssim
from clearfuse.train.objectives.noise import Draws
from clearfuse.train.training.loss import batch_loss, semantics_of
from clearfuse.train.training.ranks import Ranks

VALIDATED = 48
"""Maximum number of held-out samples in a validation, spread evenly over all of them."""
SHOWN = 6
"""Number of these that are shown as images."""
CELL, CAPTION = 256, 140
"""Maximum width of an image, and minimum width of a column, in pixels."""
SCORES = ("error", "PSNR", "PSNR-guess", "SSIM")
"""Of each sample; PSNR-guess where the network is given a first guess: what it starts from."""
MAX_PSNR = 100.0
"""PSNR in dB of an image without error, so that means stay finite."""
ALWAYS, EVERY = 20, 10
"""Images are drawn in the first ``ALWAYS`` validations, and then in every tenth."""


@dataclass(frozen=True)
class Scores:
    """Means over the held-out samples. psnr: of the fused crops, dB.

    values: all values by name, for the log: also ``SCORES`` for each task and for the samples with each degradation
    (``error/haze``; their number is ``samples/haze``), the network's notes (``expert-0/haze``: see ``Prediction``), and
    the load of each layer's experts.
    picture: a sheet of some samples, on rank 0, if requested.
    """

    loss: float
    psnr: float
    values: dict[str, float]
    picture: UInt8[np.ndarray, "h w 3"] | None = None


class Validator:
    """Scores an assembly on held-out samples; the batches are distributed over the ranks."""

    def __init__(self, samples: Samples, size: int, ranks: Ranks, bf16: bool = False) -> None:
        self.samples, self.ranks, self.bf16 = samples, ranks, bf16
        count = min(len(samples), VALIDATED)
        self.places = [i * len(samples) // count for i in range(count)]
        self.groups = samples.groups(self.places, size)
        few = min(count, SHOWN)
        self.shown = [self.places[i * count // few] for i in range(few)]

    @torch.inference_mode()
    def score(self, assembly: Assembly, draw: bool = False) -> Scores | None:
        """The scores, None if nothing is held out. All ranks must call it, and get the same. draw: include
        a picture.
        """
        if not self.places:
            return None
        results: list[dict[str, Any]] = []
        rounds = -(-len(self.groups) // self.ranks.world)
        for turn in range(rounds):
            number = turn * self.ranks.world + self.ranks.rank
            # With sharded weights each call needs all ranks: one without a batch repeats the last.
            counted = number < len(self.groups)
            number = min(number, len(self.groups) - 1)
            batch = batch_or_raise(next(batches(self.samples, [self.groups[number]])))
            result = self._score_batch(assembly, batch, number, draw)
            if counted:
                results.append(result)
        gathered = [result for part in self.ranks.gather(results) for result in part]
        gathered.sort(key=lambda result: result["number"])
        return _summarise(gathered, self.shown if draw and self.ranks.main else ())

    def _score_batch(self, assembly: Assembly, batch: Batch, number: int, draw: bool) -> dict[str, Any]:
        """Scores of one batch, as JSON; with the same noise each time."""
        device = self.ranks.device
        loss = batch_loss(assembly, batch, Draws.of("validation", 0, batch.positions), device, self.bf16)
        batch = batch.to(device)
        rng = Draws.of("fused", 0, batch.positions)
        with torch.autocast(device.type, torch.bfloat16, enabled=self.bf16):
            semantics = semantics_of(assembly, batch)
            given = {"guess": batch.guess, "semantics": semantics, "strength": batch.strength}
            fused = assembly.fuse(batch.a, batch.b, batch.prompts, rng, **given)
        images = {name: _pixels(image) for name, image in batch.images.items()}
        images["fused"] = _pixels(to_bytes(fused))
        rows = [
            self._sample(batch, place, error, {name: image[index] for name, image in images.items()}, index, draw)
            for index, (place, error) in enumerate(zip(batch.positions, loss.each.tolist(), strict=True))
        ]
        for name, notes in loss.notes.items():
            for row, values in zip(rows, notes.float().tolist(), strict=True):
                row["notes"] |= {f"{name}-{number}": value for number, value in enumerate(values)}
        load = loss.load.float().tolist() if loss.load.shape[1] else []
        return {"number": number, "loss": float(loss.total), "samples": rows, "load": load}

    def _sample(
        self, batch: Batch, place: int, error: float, images: dict[str, np.ndarray], index: int, draw: bool
    ) -> dict[str, Any]:
        fused, truth = images["fused"].astype(np.float32), images["gt"].astype(np.float32)
        row: dict[str, Any] = {"place": place, "task": batch.tasks[index], "operators": list(batch.operators[index])}
        row |= {"category": batch.categories[index]}
        row |= {"error": error, "PSNR": min(psnr(fused, truth), MAX_PSNR), "notes": {}}
        if "guess" in images:
            row["PSNR-guess"] = min(psnr(images["guess"].astype(np.float32), truth), MAX_PSNR)
        if min(fused.shape[:2]) >= WINDOW:
            row["SSIM"] = ssim(fused, truth)
        if draw and place in self.shown:
            row["prompt"] = batch.prompts[index]
            row["pictures"] = {name: _encode_png(images[name]) for name in ("a", "b", "fused", "gt")}
        return row


def _summarise(results: Sequence[dict[str, Any]], shown: Sequence[int]) -> Scores:
    """Means over the results of batches, which are in order."""
    samples = sorted((row for result in results for row in result["samples"]), key=lambda row: row["place"])
    loss = sum(result["loss"] * len(result["samples"]) for result in results) / len(samples)
    values = {"loss": loss, **_means(samples)}
    groups: dict[str, list[dict[str, Any]]] = {task: [row for row in samples if row["task"] == task] for task in TASKS}
    if any(row["category"] != "fusion" for row in samples):
        groups.update({name: [row for row in samples if row["category"] == name] for name in CATEGORIES})
    for operator in sorted({operator for row in samples for operator in row["operators"]}):
        groups[operator] = [row for row in samples if operator in row["operators"]]
    for name, rows in groups.items():
        if rows:
            values |= {f"{what}/{name}": mean for what, mean in _means(rows).items()} | {f"samples/{name}": len(rows)}
    weights = np.array([len(result["samples"]) for result in results], np.float64)
    loads = np.array([result["load"] for result in results], np.float64)
    if loads.size:
        values |= balance_of((loads * weights[:, None, None]).sum(0) / weights.sum())
    drawn = [row for row in samples if row["place"] in shown]
    return Scores(loss, values["PSNR"], values, _sheet(drawn) if drawn else None)


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The means of the scores that all rows have, and of the network's notes."""
    scored = [{name: row[name] for name in SCORES if name in row} | row["notes"] for row in rows]
    names = [name for name in scored[0] if all(name in row for row in scored)]
    return {name: sum(row[name] for row in scored) / len(rows) for name in names}


def balance_of(load: Float[np.ndarray, "layers experts"]) -> dict[str, float]:
    """How evenly the experts of each layer are loaded.

    ``entropy/layer-N``: −Σ p log p / log experts, 1 at uniform load; ``least/layer-N`` and ``most/layer-N``: the share
    of the tokens of the least and the most loaded expert.
    """
    values: dict[str, float] = {}
    for layer, shares in enumerate(load):
        used = shares[shares > 0]
        entropy = float(-(used * np.log(used)).sum() / math.log(len(shares))) if len(shares) > 1 else 1.0
        values[f"entropy/layer-{layer}"] = entropy
        values |= {f"least/layer-{layer}": float(shares.min()), f"most/layer-{layer}": float(shares.max())}
    return values


def draws_pictures(number: int) -> bool:
    """Whether the validation with this number, from 1, draws images."""
    return number <= ALWAYS or number % EVERY == 0


def _sheet(rows: Sequence[dict[str, Any]]) -> UInt8[np.ndarray, "h w 3"]:
    """A sheet with a row for each sample: the degraded pair, the fused image and the ground truth."""
    gallery_rows: list[gallery.GalleryRow] = []
    widest = CAPTION
    for row in rows:
        roles = ROLES[row["task"]]
        titles = {"a": f"degraded {roles['a']}", "b": f"degraded {roles['b']}", "fused": "fused", "gt": "ground truth"}
        cells = tuple((title, _decode_png(row["pictures"][name])) for name, title in titles.items())
        widest = max(widest, cells[0][1].shape[1])
        scores = "   ".join(f"{name} {row[name]:.2f}" for name in ("PSNR", "SSIM") if name in row)
        gallery_rows.append(
            gallery.GalleryRow(cells, (f"{scores}   {', '.join(row['operators'])}", f'"{row["prompt"]}"'))
        )
    return np.asarray(gallery.sheet(f"{len(rows)} held-out samples", gallery_rows, min(CELL, widest)).convert("RGB"))


def to_bytes(images: Float[Tensor, "b 3 H W"]) -> UInt8[Tensor, "b 3 H W"]:
    """Convert [−1, 1] to code values 0..255, as ``train fuse`` does."""
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def _pixels(images: UInt8[Tensor, "b 3 H W"]) -> UInt8[np.ndarray, "b H W 3"]:
    return images.permute(0, 2, 3, 1).cpu().numpy()


def _encode_png(image: UInt8[np.ndarray, "h w 3"]) -> str:
    """A PNG as base64 text, to be sent between ranks as JSON."""
    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG", compress_level=1)
    return base64.b64encode(out.getvalue()).decode()


def _decode_png(text: str) -> UInt8[np.ndarray, "h w 3"]:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def batch_or_raise(batch: Batch | UnreadableSample) -> Batch:
    """Return the batch. Raises WorkIncomplete if one of its samples could not be read."""
    if isinstance(batch, UnreadableSample):
        raise WorkIncomplete(batch.reason)
    return batch

"""``train downstream fit``: a detector or segmenter trained, or fine-tuned, on fused images."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clearfuse.synth.files.folders import check_folder
from clearfuse.synth.files.schema import Schema, StrictModel, validate
from clearfuse.synth.files.storage import landing, read_small
from clearfuse.synth.seeds import seed_of
from clearfuse.synth.types import UserError, WorkIncomplete
from clearfuse.train.device import find_device
from clearfuse.train.downstream.batches import Batches
from clearfuse.train.downstream.iou import IGNORED
from clearfuse.train.downstream.methods import find_methods
from clearfuse.train.downstream.networks import (
    TINY,
    USUAL,
    Network,
    drawn_by,
    make_network,
    read_network,
    write_network,
)
from clearfuse.train.downstream.pictures import make_pictures
from clearfuse.train.downstream.sources import Kind, Source
from clearfuse.train.evaluation.evaluate import locked
from clearfuse.train.evaluation.writers.data import json_text

Progress = Callable[[int, int], None]
RECORD = "downstream.json"
"""Lands last: a folder without it holds no network of ours."""
DECAY = 1e-4
"""Of the weights, AdamW's: RT-DETR's."""
CLIP = 1.0
"""Largest norm of the gradients."""
WARMUP = 0.05
"""Share of the steps in which the learning rate rises to its peak."""
RATES = {True: 3e-3, False: 1e-4}
"""Peak learning rate, of weights that are drawn here and of those that others trained."""
NOTED = 50
"""Steps whose mean loss is recorded."""


class Record(StrictModel):
    """``downstream.json``: what a detector or segmenter is, and was trained on."""

    schema_: Schema
    kind: Kind
    classes: tuple[str, ...]
    """What it finds, in the order of its numbers."""
    model: str
    """What it was made of: tiny, or a published network at a commit."""
    methods: tuple[str, ...]
    """Whose fused images it was trained on."""
    source: dict[str, Any]
    """What decided these images."""
    images: int
    left_out: int
    """Pairs that could not be used."""
    steps: int
    batch: int
    lr: float
    seed: int
    loss: tuple[float, ...]
    """Its mean over each 50 steps."""


@dataclass(frozen=True)
class Fitted:
    """What was fitted: its folder and record."""

    out: Path
    record: Record


def fit(
    source: Source,
    out: str,
    *,
    methods: Sequence[str] = ("pyramid",),
    results: Sequence[str] = (),
    model: str | None = None,
    steps: int = 1000,
    batch: int = 8,
    lr: float | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    device: str | None = None,
    workers: int | None = None,
    overwrite: bool = False,
    progress: Callable[[str], Progress] = lambda what: lambda done, total: None,
) -> Fitted:
    """Fuse the source's pairs by the methods, into ``out/pictures``, and train a network on them.

    model: see ``make_network``; None: ``USUAL`` on a GPU, else ``TINY``. lr: the peak; None: ``RATES``. size: (height,
    width) of what it sees; None: its own. On a CPU the same call gives the same weights. Raises UserError before work
    begins, and where a fitted network is there already.
    """
    folder = check_folder(out)
    if (folder / RECORD).exists() and not overwrite:
        raise UserError(f"--out {out}: holds a fitted network: give --overwrite, or another --out")
    where = find_device(device)
    reference = model or (USUAL[source.kind] if where.type == "cuda" else TINY)
    chosen = find_methods(source, methods, results, device)
    network = make_network(source.kind, reference, source.classes, seed_of(seed, "weights"), size)
    with locked(folder, "fit"):
        pictures = make_pictures(source, chosen, folder, workers, progress("fuse"))
        rate = lr or RATES[network.reference == TINY]
        network.module.to(where)
        batches = Batches(pictures, source.classes, network.preparation, batch, seed)
        losses = train(network, batches, steps, rate, seed, progress("fit"))
        record = Record(
            schema=1, kind=source.kind, classes=source.classes, model=network.reference, methods=pictures.methods,
            source=json.loads(json.dumps(dict(source.record))), images=len(pictures.keys),
            left_out=len(pictures.left_out), steps=steps, batch=batch, lr=rate, seed=seed, loss=tuple(losses),
        )  # fmt: skip
        (folder / RECORD).unlink(missing_ok=True)
        write_network(replace(network, module=network.module.cpu()), folder)
        with landing(folder / RECORD) as file:
            file.write(json_text(record.model_dump(mode="json", by_alias=True)))
    return Fitted(folder, record)


def train(network: Network, batches: Batches, steps: int, rate: float, seed: int, progress: Progress) -> list[float]:
    """Train in place by AdamW: a linear rise, then a cosine to 0. The mean loss of each ``NOTED`` steps.

    Raises WorkIncomplete where the loss is not finite.
    """
    module = network.module
    optimizer = torch.optim.AdamW(module.parameters(), rate, weight_decay=DECAY)
    rise = max(round(WARMUP * steps), 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, rise, steps))
    losses: list[float] = []
    module.train()
    for step, batch in enumerate(batches(steps)):
        with drawn_by(seed_of(seed, "step", step)):
            found = loss_of(network, network.preparation(batch.images, network.device), batch.labels)
        optimizer.zero_grad()
        found.backward()
        nn.utils.clip_grad_norm_(module.parameters(), CLIP)
        value = found.item()
        if not math.isfinite(value):
            raise WorkIncomplete(f"step {step + 1}: the loss is {value}: give a smaller --lr than {rate:g}")
        optimizer.step()
        schedule.step()
        losses.append(value)
        progress(step + 1, steps)
    parts = (losses[at : at + NOTED] for at in range(0, steps, NOTED))
    return [round(sum(part) / len(part), 6) for part in parts]


def rate_at(step: int, rise: int, steps: int) -> float:
    """The share of the peak learning rate: (step + 1) / rise, then (1 + cos(π (step − rise) / (steps − rise))) / 2."""
    if step < rise:
        return (step + 1) / rise
    return (1 + math.cos(math.pi * (step - rise) / max(steps - rise, 1))) / 2


def loss_of(network: Network, seen: Tensor, labels: Any) -> Tensor:
    """A detector's own loss, which matches its boxes to those there; a segmenter's cross entropy at full resolution."""
    if network.kind == "detection":
        there = [{name: value.to(seen.device) for name, value in one.items()} for one in labels]
        return network.module(pixel_values=seen, labels=there).loss
    logits = network.module(pixel_values=seen).logits
    full = nn.functional.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=False)
    return nn.functional.cross_entropy(full, labels.to(seen.device), ignore_index=IGNORED)


def read_fitted(folder: str) -> tuple[Network, Record]:
    """A network that ``fit`` wrote, and its record. Raises UserError where the folder holds none."""
    path = Path(folder) / RECORD
    if not path.is_file():
        raise UserError(f"{folder}: holds no detector or segmenter of train downstream fit: {RECORD} is missing")
    record = validate(Record, read_small(path), str(path))
    return read_network(record.kind, Path(folder), record.classes, folder), record

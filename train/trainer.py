"""The trainer: batches in, a run folder out.

A step is a function of (settings, data, weights before it): its samples by position, its noise by a seed of its
number. So a run that was killed goes on from its last checkpoint to the same numbers, bit for bit on a CPU.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from synth.execute import settle
from synth.seeds import seed_of
from synth.shards import write_json
from synth.types import WorkIncomplete
from train import checkpoint, degrading, optim, pipeline
from train.batch import Batch, Broken
from train.checkpoint import Training
from train.corpus import Corpus, index
from train.data import Samples, batches, cache_size, dealt
from train.design import AS_DESIGNED, Assembly, Parts
from train.device import find_device
from train.draws import Draws
from train.feeding import samples_of
from train.forward import batch_loss
from train.ranks import Ranks
from train.runs import Log, Settings, Stop, begin, run_record
from train.validation import Validator, whole

Progress = Callable[[int, int], None]
Note = Callable[[str], None]


@dataclass(frozen=True)
class Fitted:
    """How a run stands. loss: of its last step; validation: the lowest so far."""

    out: str
    step: int
    steps: int
    loss: float | None
    validation: float | None
    psnr: float | None

    def line(self) -> str:
        """What the command line prints."""
        said = "" if self.validation is None else f", lowest validation loss {self.validation:.4f}"
        said += "" if self.psnr is None else f", PSNR {self.psnr:.2f} dB on held-out crops"
        return f"{self.out}: step {self.step} of {self.steps}{said}"


def fit(
    paths: list[str],
    out: str,
    settings: Settings,
    *,
    recipes: Sequence[str] = (),
    partial: float = 0.0,
    workers: int = 0,
    validate_every: int = 250,
    checkpoint_every: int = 250,
    device: str | None = None,
    compiled: bool = False,
    overwrite: bool = False,
    parts: Parts = AS_DESIGNED,
    progress: Progress = lambda done, total: None,
    note: Note = lambda line: None,
) -> Fitted:
    """Fit ``settings.preset`` on shards, or go on with the run in ``out`` where it left off.

    recipes, partial: what lean shards are degraded by. compiled: the network's steps go through torch.compile. Raises
    UserError before work begins, WorkIncomplete where a sample can't be read or a loss is not finite.
    """
    design = settings.design()
    where = find_device(device)
    settle()
    rng = torch.Generator().manual_seed(seed_of("weights", settings.seed))
    assembly = Assembly(design, rng, parts, suit=settings.suits)
    corpus = index(paths)
    degraders = degrading.choose(corpus.lean, recipes, partial)
    folder = begin(Path(out), run_record(settings, corpus, degraders), overwrite)
    pipeline.check_parts(folder, assembly)
    pipeline.write_design(folder, assembly)
    run = _Run(settings, corpus, degraders, assembly.to(where), folder, workers)
    if compiled:
        assembly.network.compile()  # in place: the weights keep their names
    kept = checkpoint.found(folder / "checkpoints")
    if kept:
        checkpoint.load(kept[-1], run.state)
        note(f"going on after step {run.state.step} of {settings.steps}")
    note(
        f"{settings.preset} on {where.type}: {len(corpus.train)} samples to train on, {len(corpus.held_out)} held out; "
        f"{settings.steps} steps of {settings.batch * settings.accumulate}"
    )
    for task, degrader in degraders.items():
        note(f"lean shards of {task} are degraded as they are read: recipe '{degrader.recipe.name}'")
    return run.go(validate_every, checkpoint_every, progress, note)


class _Run:
    """The parts of a run, and its loop."""

    def __init__(
        self,
        settings: Settings,
        corpus: Corpus,
        degraders: degrading.Degraders,
        assembly: Assembly,
        folder: Path,
        workers: int,
    ) -> None:
        self.settings, self.corpus, self.degraders, self.assembly, self.folder, self.workers = (
            settings, corpus, degraders, assembly.train(), folder, workers,
        )  # fmt: skip
        self.shadow = copy.deepcopy(assembly).eval()
        weights = assembly.trained()
        optimizer = optim.build_optimizer(weights, settings.lr, settings.decay)
        self.state = Training(weights, self.shadow.trained(), optimizer)
        self.device = next(iter(weights.values())).device
        held_out = self._samples(training=False, cache=cache_size() // 8)
        self.validator = Validator(held_out, settings.batch, Ranks(self.device))

    def go(self, validate_every: int, checkpoint_every: int, progress: Progress, note: Note) -> Fitted:
        """All steps that are left."""
        state, settings = self.state, self.settings
        loss: float | None = None
        psnr: float | None = None
        with Log(self.folder, state.step) as log, Stop() as stop:
            batch_of = self._batches(state.step)
            progress(state.step, settings.steps)
            while state.step < settings.steps:
                loss = self._step(batch_of, log)
                last = state.step == settings.steps or stop.asked
                if state.step % validate_every == 0 or state.step == settings.steps:
                    psnr = self._validated(log, note, loss)
                if state.step % checkpoint_every == 0 or last:
                    log.flush()
                    checkpoint.save(self.folder / "checkpoints", state)
                progress(state.step, settings.steps)
                if stop.asked and state.step < settings.steps:
                    note(f"stopped after step {state.step}, which is saved; the same command goes on")
                    stop.raise_if_interrupted()
                    break
        return Fitted(str(self.folder), state.step, settings.steps, loss, state.best, psnr)

    def _samples(self, training: bool, cache: int) -> Samples:
        return samples_of(self.settings, self.assembly, self.corpus, self.degraders, training=training, cache=cache)

    def _batches(self, step: int) -> Iterator[Batch | Broken]:
        """The training batches from a step on."""
        s = self.settings
        cache = cache_size() // max(self.workers, 1)
        samples = self._samples(training=True, cache=cache)
        return batches(samples, dealt(step * s.accumulate, s.steps * s.accumulate, s.batch), self.workers)

    def _step(self, source: Iterator[Batch | Broken], log: Log) -> float:
        """One step of the optimizer: gradients of all its batches, clipped, applied; the average follows."""
        settings, state = self.settings, self.state
        began, waited, total = time.monotonic(), 0.0, 0.0
        terms: dict[str, float] = {}
        lr = optim.learning_rate(state.step, peak=settings.lr, warmup=settings.warmup, steps=settings.steps)
        optim.set_learning_rate(state.optimizer, lr)
        state.optimizer.zero_grad(set_to_none=True)
        names: list[str] = []
        for _ in range(settings.accumulate):
            asked = time.monotonic()
            batch = whole(next(source))
            waited += time.monotonic() - asked
            names += batch.names
            rng = Draws.of("noise", settings.seed, batch.positions)
            loss = batch_loss(self.assembly, batch, rng, self.device)
            value = float(loss.total.detach())
            if not math.isfinite(value):
                self._stop_at(names, f"the loss is {value}")
            (loss.total / settings.accumulate).backward()
            total += value / settings.accumulate
            for name, term in loss.terms.items():
                terms[name] = terms.get(name, 0.0) + float(term) / settings.accumulate
        norm = optim.grad_norm(state.weights.values())
        if not torch.isfinite(norm):
            self._stop_at(names, f"the gradients' norm is {float(norm)}")
        optim.clip_gradients(state.weights.values(), norm, settings.clip)
        state.optimizer.step()
        optim.average(state.shadow.values(), state.weights.values(), state.step, settings.ema)
        state.step += 1
        values = {"loss": total, **terms, "lr": lr, "grad_norm": float(norm)}
        spent = time.monotonic() - began
        speed = {"samples_per_second": len(names) / spent, "data_wait": waited / spent}
        log.write(state.step, "train", values, speed)
        return total

    def _stop_at(self, names: list[str], what: str) -> None:
        """Leave before the optimizer's step, with the samples written out."""
        path = self.folder / "nonfinite.json"
        write_json(path, {"step": self.state.step, "what": what, "samples": names})
        kept = checkpoint.found(self.folder / "checkpoints")
        whole = f"the last checkpoint, {kept[-1].name}, is whole" if kept else "there is no checkpoint yet"
        raise WorkIncomplete(f"step {self.state.step}: {what}; its samples are in {path}; {whole}")

    def _validated(self, log: Log, note: Note, loss: float) -> float | None:
        """Score the averaged weights on held-out samples; the best so far become the run's model."""
        state = self.state
        scores = self.validator.score(self.shadow)
        if scores is None:
            self._publish()
            note(f"step {state.step}: loss {loss:.4f} (nothing held out)")
            return None
        log.write(state.step, "validation", {"loss": scores.loss, "PSNR": scores.psnr}, {})
        if state.best is None or scores.loss < state.best:
            state.best = scores.loss
            self._publish()
        note(f"step {state.step}: loss {loss:.4f}, validation {scores.loss:.4f} (PSNR {scores.psnr:.2f} dB)")
        return scores.psnr

    def _publish(self) -> None:
        weights = self.shadow.state_dict()
        checkpoint.write_tensors(
            self.folder / pipeline.WEIGHTS, weights, {"format": "pt", "step": str(self.state.step)}
        )

"""The trainer: fits a model on shards and writes a run folder.

A step depends only on the settings, the data and the weights before it: samples are a function of their position, and
noise is seeded by position. A run that was killed therefore resumes from its last checkpoint to the same numbers, bit
for bit on a CPU, and with another number of ranks it still sees the same samples and noise.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from clearfuse.synth.console import PLAIN, Unit
from clearfuse.synth.execute.tasks import limit_threads
from clearfuse.synth.seeds import seed_of
from clearfuse.synth.types import UserError, WorkIncomplete
from clearfuse.train.data.batch import Batch, UnreadableSample
from clearfuse.train.data.corpus import Corpus, index
from clearfuse.train.data.degrade import Degraders, choose_degraders
from clearfuse.train.data.find import ground_truth_by
from clearfuse.train.data.loader import batches, cache_size
from clearfuse.train.data.order import RankBatches
from clearfuse.train.data.samples import Samples
from clearfuse.train.designs.design import AS_DESIGNED, Assembly, Parts
from clearfuse.train.designs.folder import WEIGHTS, check_parts, with_recorded_commits, write_design
from clearfuse.train.designs.presets import find_preset
from clearfuse.train.models import check_room
from clearfuse.train.models.attention import attention_kernel, find_kernel
from clearfuse.train.models.experts import has_grouped_products
from clearfuse.train.models.lora import merged
from clearfuse.train.objectives.noise import Draws
from clearfuse.train.pipeline.initial import identity_of, limit_learning, start_from
from clearfuse.train.runs.folder import NONFINITE, append_line, run_folder, run_record
from clearfuse.train.runs.logs import Log, NoLog
from clearfuse.train.runs.options import RunOptions
from clearfuse.train.runs.settings import Settings
from clearfuse.train.runs.trackers import choose_trackers
from clearfuse.train.text.pretrain import pretrain
from clearfuse.train.training import checkpoint, optim, parallel
from clearfuse.train.training.checkpoint import Training
from clearfuse.train.training.inputs import check_data, samples_of
from clearfuse.train.training.progress import Progress, Report
from clearfuse.train.training.ranks import Ranks, join_ranks
from clearfuse.train.training.stop import Stop
from clearfuse.train.training.validation import Validator, batch_or_raise, draws_pictures
from clearfuse.train.weights.tensors import write_tensors

Note = Callable[[str], None]
MAX_SKIPPED = 10
"""Maximum number of consecutive non-finite steps that are skipped: more are not due to single samples."""


@dataclass(frozen=True)
class Fitted:
    """The state of a run. loss: of its last step; validation: the lowest validation loss so far; psnr: of that
    validation, dB, whose weights are the run's model. unit: what both losses become times ``factor``.
    """

    out: str
    step: int
    steps: int
    loss: float | None
    validation: float | None
    psnr: float | None
    unit: Unit = PLAIN
    rank: int = 0  # of the reporting process

    def line(self) -> str:
        """What the command line prints."""
        scores = "" if self.validation is None else f", lowest validation loss {self.unit.say(self.validation)}"
        scores += "" if self.psnr is None else f", PSNR of that validation {self.psnr:.2f} dB on held-out crops"
        return f"{self.out}: step {self.step} of {self.steps}{scores}"


DEFAULT_RUN = RunOptions()


def fit(
    paths: list[str],
    out: str,
    settings: Settings,
    *,
    recipes: Sequence[str] = (),
    partial: float = 0.0,
    language: str = "en",
    dial: float = 0.0,
    run_options: RunOptions = DEFAULT_RUN,
    device: str | None = None,
    overwrite: bool = False,
    parts: Parts = AS_DESIGNED,
    progress: Progress = lambda report: None,
    note: Note = lambda line: None,
) -> Fitted:
    """Fit ``settings.preset`` on shards, or resume the run in ``out``.

    Runs in a single process, or as a rank of ``torchrun`` or ``accelerate launch``, where each batch is split equally
    over the ranks; their number may change when a run is resumed. recipes, partial, language, dial: see
    ``choose_degraders``.
    Raises UserError before work begins, WorkIncomplete if a sample can't be read or a loss is not finite.
    """
    design = settings.design() if overwrite else with_recorded_commits(Path(out), settings.design())
    with join_ranks(device) as ranks, ExitStack() as stack:
        stack.enter_context(attention_kernel(find_kernel(run_options.attention)))
        if run_options.graphs and ranks.device.type != "cuda":
            raise UserError(f"--cuda-graphs: needs a CUDA device, not {ranks.device.type}")
        if run_options.graphs and getattr(design.config, "experts", 0) and not has_grouped_products(ranks.device):
            raise UserError("--cuda-graphs: experts need a GPU of compute capability 9.0 (H100) or above for it")
        if settings.batch % ranks.world:
            raise UserError(f"--batch {settings.batch}: must be a multiple of {ranks.world}, the number of processes")
        limit_threads()
        if not ranks.main:
            progress, note = (lambda report: None), (lambda line: None)
        rng = torch.Generator().manual_seed(seed_of("weights", settings.seed))
        # Weights, gradients, a moment at least and the average; on another device the weights alone come by here.
        learns_whole = settings.lora is None and not settings.freeze
        copies = 4 if ranks.device.type == "cpu" and learns_whole else 1
        assembly = Assembly(
            design, rng, parts, adapt=settings.adapts, check=lambda network: check_room(network, copies)
        )
        if settings.init is not None:
            note(start_from(assembly, settings.init))
            settings = settings.model_copy(update={"init": identity_of(settings.init)})
        if (said := limit_learning(assembly, settings, rng)) is not None:
            note(said)
            if run_options.sharded:
                what = "--lora or --freeze" if settings.lora or settings.freeze else f"'{settings.preset}'"
                raise UserError(f"--sharded: not with {what}: the weights of a group must all learn")
        if run_options.sharded and settings.optimizer == "muon":
            raise UserError("--sharded: not with --set schedule.optimizer=muon: it needs each matrix whole")
        if settings.reading and not assembly.text.trainable:
            raise UserError(f"--set schedule.reading: the prompt encoder '{assembly.design.text}' does not learn")
        if dial and not assembly.has_dial:
            raise UserError(f"--dial {dial:g}: networks of '{settings.preset}' have no dial")
        corpus = index(paths, settings.hold_out)
        check_data(settings, assembly, corpus)
        degraders = choose_degraders(corpus.lean, recipes, partial, language, dial)
        folder = Path(out)
        if ranks.main:
            record = run_record(settings, corpus, degraders)
            before = stack.enter_context(run_folder(folder, record, overwrite, corpus.shards))
            if before is not None:
                note(f"the run was of {before} steps: from here its rate is that of a run of {settings.steps}")
            check_parts(folder, assembly)
            write_design(folder, assembly.design, assembly.found)
        ranks.wait()
        if settings.reading and settings.init is None and not checkpoint.found(folder / "checkpoints"):
            how = {"seed": settings.seed, "language": language, "instructed": corpus.instructed}
            pretrain(assembly.text, steps=settings.reading, **how, note=note)
        run = _Run(settings, corpus, degraders, assembly.to(ranks.device), folder, run_options, ranks)
        stack.callback(run.engine.close)
        checkpoints = checkpoint.found(folder / "checkpoints")
        if checkpoints:
            checkpoint.load_checkpoint(checkpoints[-1], run.state)
            note(f"going on after step {run.state.step} of {settings.steps}")
        if ranks.main:
            checkpoint.tidy(folder / "checkpoints", run.state, run_options.keep)
        note(
            f"{settings.preset} on {ranks}: {len(corpus.train)} samples to train on; "
            f"{settings.steps} steps of {settings.batch * settings.accumulate}; {corpus.said_of_held_out()}"
        )
        if find_preset(settings.preset).paper and (count := ground_truth_by(corpus.shards)["pyramid"]):
            note(
                f"{count} of {len(corpus.shards)} shards have ground truth by the pyramid fuser, the paper's is "
                "SwinFusion's and DeFuse's: synth build --fuser paper"
            )
        for task, degrader in degraders.items():
            note(f"lean shards of {task} are degraded as they are read: recipe '{degrader.recipe.name}'")
        return run.run(progress, note)


class _Run:
    """A run: its model, data and state, and the training loop."""

    def __init__(
        self,
        settings: Settings,
        corpus: Corpus,
        degraders: Degraders,
        assembly: Assembly,
        folder: Path,
        options: RunOptions,
        ranks: Ranks,
    ) -> None:
        self.settings, self.corpus, self.degraders, self.assembly, self.folder, self.options, self.ranks = (
            settings, corpus, degraders, assembly.train(), folder, options, ranks,
        )  # fmt: skip
        self.cut: set[str] = set()  # prompts that the encoder reads in part
        self.unknown: set[str] = set()  # prompts with characters that it has no token for
        bf16 = settings.bf16(ranks.device)
        self.shadow = copy.deepcopy(assembly).eval()
        if settings.recompute:
            parallel.recompute(assembly.network)
            assembly.tokenizer.recompute()  # for the pixel loss
        if options.sharded and ranks.world > 1:
            for model in (assembly, self.shadow):
                parallel.shard_model(model, ranks)
        if options.compiled or options.graphs:
            assembly.compile_for(partial(parallel.compile_network, graphs=options.graphs))
        self.engine = parallel.Engine(assembly, ranks, bf16, options.graphs)
        optimizer = optim.build_optimizer(assembly, settings.lr, settings.decay, settings.cautious, settings.optimizer)
        self.state = Training(assembly.trained(), self.shadow.trained(), optimizer)
        held_out = self._samples(training=False, cache=cache_size() // 8)
        self.validator = Validator(held_out, settings.batch, ranks, bf16)

    def run(self, progress: Progress, note: Note) -> Fitted:
        """Take all remaining steps."""
        state, settings, options = self.state, self.settings, self.options
        report = Report(state.step, settings.steps)
        with ExitStack() as stack:
            log = stack.enter_context(self._log())
            stop = stack.enter_context(Stop())
            source = self._batches(state.step)
            progress(report)
            while state.step < settings.steps:
                report = self._step(source, log, note)
                stopping = self.ranks.any(bool(stop.requested))
                last = state.step == settings.steps
                best = state.best_step
                if state.step % options.validate_every == 0 or last:
                    self._validate(log, note, last)
                if state.step % options.checkpoint_every == 0 or last or stopping or state.best_step != best:
                    self._save(log)
                progress(report)
                if stopping and not last:
                    if state.best_step is None:  # no validation yet: a run that is stopped leaves a model all the same
                        self._publish()
                    note(f"stopped after step {state.step}, which is saved; the same command goes on")
                    stop.raise_if_interrupted()
                    break
        if self.cut:
            limit = self.assembly.text.limit
            note(f"{len(self.cut)} prompts were cut to the {limit} tokens that the text encoder reads")
        if self.unknown:
            note(
                f"{len(self.unknown)} prompts have characters that the text encoder does not know, as Chinese for T5: "
                "'bytes' reads every language"
            )
        scores = (report.loss, state.best, state.best_psnr, self.assembly.objective.unit)
        return Fitted(str(self.folder), state.step, settings.steps, *scores, self.ranks.rank)

    def _log(self) -> NoLog:
        """The log of rank 0; other ranks log nothing."""
        if not self.ranks.main:
            return NoLog()
        trackers = choose_trackers(self.options.trackers)
        return Log(self.folder, self.state.step, trackers, self.settings.model_dump())

    def _samples(self, training: bool, cache: int) -> Samples:
        return samples_of(self.settings, self.assembly, self.corpus, self.degraders, training=training, cache=cache)

    def _batches(self, step: int) -> Iterator[Batch | UnreadableSample]:
        """This rank's parts of the training batches from a step on."""
        s, ranks = self.settings, self.ranks
        cache = cache_size() // (self.options.workers or 1)
        samples = self._samples(training=True, cache=cache)
        parts = RankBatches(step * s.accumulate, s.steps * s.accumulate, s.batch, ranks.rank, ranks.world)
        return batches(samples, parts, self.options.workers or 0, pin=ranks.device.type == "cuda")

    def _step(self, source: Iterator[Batch | UnreadableSample], log: NoLog, note: Note) -> Report:
        """One optimizer step: accumulate and clip gradients, update the weights and their moving average."""
        settings, state, ranks = self.settings, self.state, self.ranks
        start, waited = time.monotonic(), 0.0
        lr = optim.learning_rate(state.step, peak=settings.lr, warmup=settings.warmup, steps=settings.steps)
        optim.set_learning_rate(state.optimizer, lr)
        state.optimizer.zero_grad(set_to_none=not self.options.graphs)
        names: list[str] = []
        sums: dict[str, Tensor] = {}
        for part in range(settings.accumulate):
            requested = time.monotonic()
            batch = batch_or_raise(next(source))
            waited += time.monotonic() - requested
            names += batch.names
            self.cut.update(prompt for prompt in batch.prompts if self.assembly.text.is_cut(prompt))
            self.unknown.update(prompt for prompt in batch.prompts if self.assembly.text.has_unknown(prompt))
            rng = Draws.of("noise", settings.seed, batch.positions)
            with self.engine.accumulating(part < settings.accumulate - 1):
                loss = self.engine.loss(batch, rng)
                (loss.total / settings.accumulate).backward()
            for name, term in {"loss": loss.total.detach(), **loss.terms}.items():
                sums[name] = sums.get(name, 0.0) + term.float() / settings.accumulate
        means = ranks.total(torch.stack(list(sums.values()))) / ranks.world
        norm = optim.grad_norm(state.weights.values())
        # The only synchronisation with the device in a step: all work so far is queued asynchronously.
        *terms, size = torch.cat([means, norm.view(1).to(means)]).tolist()
        values = {**dict(zip(sums, terms, strict=True)), "lr": lr, "grad_norm": size}
        if self._finite(values, names, note):
            optim.clip_gradients(state.weights.values(), norm, settings.clip)
            state.optimizer.step()
            optim.update_ema(state.shadow.values(), state.weights.values(), state.step, settings.ema)
        state.step += 1
        spent, samples = time.monotonic() - start, len(names) * ranks.world
        speed = {"samples_per_second": samples / spent, "data_wait": waited / spent}
        log.write(state.step, "train", {name: v for name, v in values.items() if math.isfinite(v)}, speed)
        unit = self.assembly.objective.unit
        return Report(state.step, settings.steps, values["loss"], lr, samples, spent, waited, unit)

    def _finite(self, values: Mapping[str, float], names: list[str], note: Note) -> bool:
        """Whether the step is finite. If not, its samples are recorded, and the run ends unless it may skip
        the step.
        """
        loss, norm = values["loss"], values["grad_norm"]
        if math.isfinite(loss) and math.isfinite(norm):
            self.state.skipped = 0
            return True
        what = f"the gradients' norm is {norm}" if math.isfinite(loss) else f"the loss is {loss}"
        path = self.folder / NONFINITE
        all_names = [name for part in self.ranks.gather(names) for name in part]
        if self.ranks.main:
            append_line(path, {"step": self.state.step, "what": what, "samples": all_names})
        self.state.skipped += 1
        if self.options.on_nan == "skip" and self.state.skipped < MAX_SKIPPED:
            note(f"step {self.state.step}: {what}; passed over; its samples are in {path}")
            return False
        found = checkpoint.found(self.folder / "checkpoints")
        saved = f"the last checkpoint, {found[-1].name}, is whole" if found else "there is no checkpoint yet"
        repeated = f", the {MAX_SKIPPED}th in a row" if self.options.on_nan == "skip" else ""
        raise WorkIncomplete(f"step {self.state.step}: {what}{repeated}; its samples are in {path}; {saved}")

    def _validate(self, log: NoLog, note: Note, last: bool) -> None:
        """Score the EMA weights on held-out samples; if they are the best so far, they become the run's model."""
        state = self.state
        draw = last or draws_pictures(state.step // self.options.validate_every)
        scores = self.validator.score(self.shadow, draw=draw)
        if scores is None:
            self._publish()
            note(f"step {state.step}: nothing is held out to validate on")
            return
        log.write(state.step, "validation", scores.values, {})
        if scores.picture is not None:
            log.picture(state.step, scores.picture)
        if math.isfinite(scores.loss) and (state.best is None or scores.loss < state.best):
            state.best, state.best_step, state.best_psnr = scores.loss, state.step, scores.psnr
            self._publish()
        said = self.assembly.objective.unit.say(scores.loss)
        guess = scores.values.get("PSNR-guess")
        beside = "" if guess is None else f" (the degraded pair fused without a network: {guess:.2f})"
        note(f"step {state.step}: validation loss {said}, PSNR {scores.psnr:.2f} dB{beside}")

    def _save(self, log: NoLog) -> None:
        log.flush()
        checkpoint.save(self.folder / "checkpoints", self.state, self.ranks, self.options.keep)

    def _publish(self) -> None:
        """Write the EMA weights as the run's model."""
        weights = {name: optim.full_tensor(tensor) for name, tensor in self.shadow.state_dict().items()}
        weights = merged(self.shadow, weights)
        if self.ranks.main:
            path = self.folder / WEIGHTS
            write_tensors(path, weights, {"format": "pt", "step": str(self.state.step)})

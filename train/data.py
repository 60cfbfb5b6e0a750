"""Training samples from shards: an index of all of them, which are held out, and batches by position.

What a batch holds is a function of (seed, position) alone, whatever the number of loader processes and wherever a run
was taken up again. Samples of lean shards are degraded as they are read, by a new plan at each position. Shapes: b
samples, H and W the side of the crop.
"""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from synth.execute import settle
from synth.memory import memory_limit
from synth.pools import shipped_templates
from synth.prompts import compose
from synth.seeds import generator, seed_of, unit_hash
from synth.shards import (
    END_MARK,
    LEAN_IMAGES,
    SHARD,
    Sample,
    Span,
    decode_sample,
    is_lean,
    is_real,
    read_members,
    read_spans,
)
from synth.types import TASKS, Step, Task, UserError
from synth.verify import find_local_shards
from train.degrading import Degraders
from train.priors import find_prior
from train.text import plain_request

HELD_OUT = 0.05
"""Share of the pairs, by hash, that is never trained on where there are no validation shards."""

INPUTS = ("a", "b", "gt")
CLEAN = ("clean_a", "clean_b")


@dataclass(frozen=True)
class Place:
    """Where a sample lies: its shard's number, and the bytes of its members in the tar; whether it is lean."""

    shard: int
    start: int
    stop: int
    lean: bool = False


@dataclass(frozen=True)
class Corpus:
    """The samples of a run: those to train on, those to validate on. lean: the tasks that lean samples are of."""

    shards: tuple[Path, ...]
    train: tuple[Place, ...]
    held_out: tuple[Place, ...]
    lean: tuple[Task, ...] = ()

    def fingerprint(self) -> list[list[Any]]:
        """The shards by name and size, as a run's record holds them."""
        return sorted([path.name, path.stat().st_size] for path in self.shards)


@dataclass(frozen=True)
class Batch:
    """Degraded pairs and their ground truth in [−1, 1], grey as three equal channels, with what to say of them.

    clean_a, clean_b: the pairs as they were before, where a loss asks for them.
    """

    a: Float[Tensor, "b 3 H W"]
    b: Float[Tensor, "b 3 H W"]
    gt: Float[Tensor, "b 3 H W"]
    prior: Float[Tensor, "b 3 H W"] | None
    prompts: list[str]
    names: list[str]
    clean_a: Float[Tensor, "b 3 H W"] | None = None
    clean_b: Float[Tensor, "b 3 H W"] | None = None


@dataclass(frozen=True)
class Broken:
    """A sample that could not be read, and why: an exception would lose its type between processes."""

    reason: str


def index(paths: Sequence[str]) -> Corpus:
    """Find all samples of the training and validation shards under ``paths`` (folders and tars).

    ``*-val-*`` is validated on where there is any, else 5 % of the pairs by hash. ``*-test-*`` is left alone. A shard
    of another name is trained on. Raises UserError where there is nothing to train on, a shard is cut short, or its
    pairs are real, without ground truth.
    """
    everything = dict.fromkeys(find_local_shards(paths))
    found = [path for path in everything if _split(path) != "test"]
    if not found:
        for path in everything:  # test shards: where they are of real pairs, that is what to say
            next(_read(path), None)
        raise UserError(f"{', '.join(paths)}: no shards to train on")
    by_split = any(_split(path) == "val" for path in found)
    train: list[Place] = []
    held_out: list[Place] = []
    tasks: set[Task] = set()
    for number, path in enumerate(found):
        for span, meta in _read(path):
            if by_split:
                aside = _split(path) == "val"
            else:
                aside = unit_hash("held out", meta["dataset"], meta["pair"]) < HELD_OUT
            (held_out if aside else train).append(Place(number, span.start, span.stop, is_lean(meta)))
            tasks |= {meta["task"]} if is_lean(meta) else set()
    if not train:
        raise UserError(f"{', '.join(paths)}: no samples to train on")
    return Corpus(tuple(found), tuple(train), tuple(held_out), tuple(task for task in TASKS if task in tasks))


def _split(path: Path) -> str:
    match = SHARD.match(path.name)
    return match[2] if match else "train"


def _read(path: Path) -> Iterator[tuple[Span, dict[str, Any]]]:
    """Each sample of a tar and its ``json``; only headers and that member are read."""
    try:
        spans = read_spans(path)
        with path.open("rb") as file:
            for span in spans:
                start, size = span.members.get("json", (0, 0))
                file.seek(start)
                yield span, _checked(json.loads(file.read(size)) if size else None, path, span.key)
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: {error}; see synth verify") from None


def _checked(meta: Any, path: Path, key: str) -> dict[str, Any]:
    if not isinstance(meta, dict) or not {"dataset", "pair", "task"} <= meta.keys() or meta["task"] not in TASKS:
        raise UserError(f"{path}: sample {key} has no json of a synth sample; see synth verify")
    if is_real(meta):
        raise UserError(f"{path}: its pairs are real, without ground truth to train on; they are for train eval")
    return meta


@lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> np.ndarray:
    return generator(seed_of("order", seed, epoch)).permutation(count)


def which(seed: int, position: int, count: int) -> int:
    """The sample at a position of the run: each epoch is a permutation of its own."""
    return int(_order(seed, position // count, count)[position % count])


class Samples(Dataset[Any]):
    """Crops by position: for training drawn and mirrored at random, for validation from the middle.

    side: of the crops; smaller images are continued by reflection. plain: share of prompts that the task's plain
    request stands in for. rephrase: share of the others that say the same in other words, where their own words are of
    the shipped pools. drop: share of training prompts left empty. clean: whether batches hold the clean pair too.
    cache: bytes of decoded samples to keep.
    degrade: what degrades lean samples, by task: for training with a seed of the position, for validation with the
    sample's own, so that it is the same each time. Operators act on the whole image, before the crop.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        side: int,
        training: bool,
        seed: int = 0,
        plain: float = 0.0,
        rephrase: float = 0.0,
        drop: float = 0.0,
        clean: bool = False,
        prior: str = "none",
        cache: int = 0,
        degrade: Degraders | None = None,
    ) -> None:
        self.shards = corpus.shards
        self.places = corpus.train if training else corpus.held_out
        self.side, self.training, self.seed, self.cache = side, training, seed, cache
        self.plain, self.rephrase, self.drop = plain, rephrase, drop
        self.inputs = (*INPUTS, *CLEAN) if clean else INPUTS
        self.degrade = degrade or {}
        bare = [task for task in corpus.lean if task not in self.degrade]
        if bare:
            raise ValueError(f"lean samples of {', '.join(bare)}: degrade must hold what degrades them")
        self.prior = find_prior(prior)
        self._kept: dict[int, Sample] = {}

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, position: int) -> dict[str, Any] | Broken:
        number = which(self.seed, position, len(self.places)) if self.training else position
        path = self.shards[self.places[number].shard]
        rng = generator(seed_of("crop", self.seed, position))
        u, v, mirrored, plain, rephrase = rng.random(5).tolist()
        if not self.training:
            u, v, mirrored, plain, rephrase = 0.5, 0.5, 1.0, 1.0, 1.0
        try:
            sample = self._sample(number)
            if sample.lean:
                sample = self._degraded(sample, position, whole=plain < self.plain)
        except (ValueError, KeyError, OSError) as error:
            return Broken(f"{path}: {error}")
        images = {name: sample.images[name] for name in (*self.inputs, "prior") if name in sample.images}
        crops = {name: cropped(image, self.side, (u, v), mirrored < 0.5) for name, image in images.items()}
        prompt = sample.prompt
        if plain < self.plain:
            prompt = plain_request(sample.meta["task"])
        elif rephrase < self.rephrase and not self.places[number].lean:  # a lean sample's words are new each time
            prompt = rephrased(sample, rng)
        if self.training and generator(seed_of("drop", self.seed, position)).random() < self.drop:
            prompt = ""
        return {**crops, "prompt": prompt, "name": f"{path.name} {sample.key}"}

    def _degraded(self, sample: Sample, position: int, whole: bool) -> Sample:
        """The lean sample after a plan; whole: ground truth without any of its steps, as the plain request has it."""
        degrade = self.degrade[sample.meta["task"]]
        if whole:
            degrade = replace(degrade, partial=0.0)
        if not self.training:
            return self._with_prior(degrade(sample))
        # A schedule of severities goes by variant: here by epoch.
        seed, epoch = seed_of("degrade", self.seed, position), position // len(self.places)
        return self._with_prior(degrade(sample, seed, epoch))

    def _with_prior(self, sample: Sample) -> Sample:
        if self.prior is None:
            return sample
        first = self.prior(sample.images["a"], sample.images["b"], sample.meta["task"])
        return replace(sample, images={**sample.images, "prior": first})

    def _sample(self, number: int) -> Sample:
        """The sample, from memory or its shard, with the images that a model needs, or that a plan needs."""
        if number in self._kept:
            return self._kept[number]
        place = self.places[number]
        with self.shards[place.shard].open("rb") as file:
            file.seek(place.start)
            data = file.read(place.stop - place.start)
        (key, members), *_ = read_members(io.BytesIO(data + bytes(END_MARK)))
        sample = decode_sample(key, members, LEAN_IMAGES if place.lean else self.inputs)
        if not place.lean:
            sample = self._with_prior(sample)
        size = sum(image.nbytes for image in sample.images.values())
        size += 0 if sample.depth is None else sample.depth.nbytes
        # What is kept stays: passing over everything in turn, the most lately used would always be gone when needed.
        if size <= self.cache:
            self.cache -= size
            self._kept[number] = sample
        return sample


def rephrased(sample: Sample, rng: np.random.Generator) -> str:
    """A prompt that asks for what the sample's asks for, composed anew from its recorded steps.

    Only where its words are of the shipped pools: one's own phrasings, or a language model's, stay as they are.
    """
    said = sample.meta["prompt"]
    if not set(said["templates"]) <= shipped_templates():
        return sample.prompt
    steps = [Step.from_json(step) for step in sample.meta["steps"]]
    return compose(sample.meta["task"], steps, rng, said["asked"]).text


def cache_size() -> int:
    """Bytes of decoded samples that all loader processes together keep: a quarter of the memory."""
    return memory_limit() // 4


def cropped(image: np.ndarray, side: int, at: tuple[float, float], mirrored: bool) -> np.ndarray:
    """A square of an image, ``(side, side, 3)``; at: its place, 0 at the top or left end, 1 at the other."""
    short = [max(side - length, 0) for length in image.shape[:2]]
    if any(short):
        image = np.pad(image, ((0, short[0]), (0, short[1]), (0, 0)), "symmetric")
    y, x = (int(part * (length - side + 1)) for part, length in zip(at, image.shape[:2], strict=True))
    image = image[y : y + side, x : x + side]
    image = image[:, ::-1] if mirrored else image
    return np.repeat(image, 3, 2) if image.shape[2] == 1 else image


def to_tensor(images: Sequence[np.ndarray]) -> Float[Tensor, "b 3 H W"]:
    """uint8 ``(H, W, 3)`` to [−1, 1]."""
    stacked = torch.from_numpy(np.ascontiguousarray(np.stack(images).transpose(0, 3, 1, 2)))
    return stacked.float() / 127.5 - 1


def collate(items: Sequence[dict[str, Any] | Broken]) -> Batch | Broken:
    """One batch; the first sample that could not be read in its stead."""
    good: list[dict[str, Any]] = []
    for item in items:
        if isinstance(item, Broken):
            return item
        good.append(item)
    a, b, gt = (to_tensor([item[name] for item in good]) for name in INPUTS)
    prior, *clean = (
        to_tensor([item[name] for item in good]) if name in good[0] else None for name in ("prior", *CLEAN)
    )
    return Batch(a, b, gt, prior, [item["prompt"] for item in good], [item["name"] for item in good], *clean)


def batches(samples: Samples, positions: Sequence[int], size: int, workers: int = 0) -> Iterator[Batch | Broken]:
    """Batches of ``size`` over positions, in order, decoded ahead by ``workers`` processes; 0: in this one."""
    more: dict[str, Any] = {}
    if workers:
        more = {"multiprocessing_context": "spawn", "prefetch_factor": 4, "worker_init_fn": _start_worker}
    return iter(
        DataLoader(
            samples,
            batch_size=size,
            sampler=positions,
            num_workers=workers,
            collate_fn=collate,
            generator=torch.Generator(),  # or it would draw from the global one
            **more,
        )
    )


def _start_worker(number: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the trainer hears it too, and ends us
    torch.set_num_threads(1)
    settle()

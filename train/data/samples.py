"""Training samples from shards, by position.

What a batch holds is a function of (seed, position) alone: of any number of loader processes and of trainers, and
wherever a run was taken up again. What is drawn for a sample, its crop, mirroring and words, is a function of (seed,
sample, how often it came before). Samples of lean shards are degraded as they are read, by a new plan each time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
from torch.utils.data import Dataset

from clearfuse.synth.color import as_hwc
from clearfuse.synth.fusers.pyramid.region import Region, Windows, full_region
from clearfuse.synth.prompts.compose import compose
from clearfuse.synth.prompts.pools import shipped_templates
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.shards.records import LEAN_IMAGES, SampleMeta
from clearfuse.synth.shards.sample import Sample, decode_sample, read_meta
from clearfuse.train.data import ahead
from clearfuse.train.data.batch import Broken, Item
from clearfuse.train.data.buckets import MULTIPLE, Shape, find_shape, parse_ratios
from clearfuse.train.data.corpus import Corpus, SamplePlace
from clearfuse.train.data.degrade import Degraders
from clearfuse.train.data.latents import decode_cached
from clearfuse.train.data.order import Order, Pick, RankBatches
from clearfuse.train.data.priors import find_prior
from clearfuse.train.data.reader import Reader
from clearfuse.train.text import plain_request

INPUTS = ("a", "b", "gt")
CLEAN = ("clean_a", "clean_b")


class Samples(Dataset[Any]):
    """Crops by position: for training drawn and mirrored at random, for validation from the middle.

    side: of a square as large as the crops; ratios: of their sides, see ``data.buckets``; batch: samples of one shape
    in a row, and mix: weights of the sources, see ``data.order``; multiple: pixels of which their sides are
    multiples; repeats: crops in a row of each sample, for one decoding. plain: share of prompts that the task's plain
    request stands in for. rephrase: share of the others that say the same in other words, where their own words are of
    the shipped pools. drop: share of training prompts left empty. clean: whether batches hold the clean pair too.
    cache: bytes to keep, of decoded samples or, where those are too many, of later crops, see ``data.ahead``. degrade:
    what degrades lean samples, by task: for training with a seed of the sample and its epoch, for validation with the
    sample's own, so that it is the same each time. Operators act on the whole image, before the crop.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        side: int,
        training: bool,
        ratios: str = "1:1",
        batch: int = 1,
        mix: Sequence[float] | None = None,
        multiple: int = MULTIPLE,
        repeats: int = 1,
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
        self.training, self.seed, self.cache, self.repeats = training, seed, cache, repeats
        self.plain, self.rephrase, self.drop = plain, rephrase, drop
        self.inputs = (*INPUTS, *CLEAN) if clean else INPUTS
        self.degrade = degrade or {}
        bare = [task for task in corpus.lean if task not in self.degrade]
        if bare:
            raise ValueError(f"lean samples of {', '.join(bare)}: degrade must hold what degrades them")
        self.prior = find_prior(prior)
        self.cached = corpus.cached
        self.shapes, self.shape = _shapes(self.places.size, ratios, side, multiple)
        self.order = (
            Order(self.places.source, self.shape, corpus.weights(mix), batch, seed, repeats) if training else None
        )
        self.reader = Reader(corpus.shards, corpus.sizes)
        self._kept: dict[int, Sample] = {}
        self._latest: tuple[tuple[int, int], Sample, Windows | None] | None = None
        self._room = self._room_for_crops()
        self._ahead: ahead.Ahead | None = None

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, position: int) -> Item | Broken:
        """The sample at a position of the run, or at a place among the held-out ones."""
        pick = self.order.at(position) if self.order else Pick(position, int(self.shape[position]), 0)
        place = self.places[pick.row]
        try:
            item = replace(self._made_at(position, pick), position=position)
        except (ValueError, KeyError, OSError) as error:
            said = str(error.strerror or error) if isinstance(error, OSError) else str(error)
            named = said if said.startswith("sample ") else f"sample {place.key}: {said}"
            remedy = "delete the shard and run train cache again" if self.cached else "see synth verify"
            return Broken(f"{self.shards[place.shard]}: {named}; {remedy}")
        if self.training and self.drop:
            rng = generator(seed_of("drop", self.seed, *item.identity, pick.epoch))
            if rng.random() < self.drop:
                return replace(item, prompt="", text=item.empty)
        return item

    def follow(self, course: RankBatches, number: int = 0, workers: int = 1) -> None:
        """Be told which positions this loader process, of so many, will be asked for: of these, crops are cut early.

        Nothing is kept in their place before.
        """
        if self.order and self._room:
            self._ahead = ahead.Ahead(
                self.order.where,
                partial(course.asks, number, workers),
                end=course.last * course.size,
                crops=self._room,
                count=len(self.order.drawn),
                repeats=self.repeats,
                processes=workers * course.world,
            )

    def groups(self, places: Sequence[int], size: int) -> list[list[int]]:
        """Held-out places in batches of ``size`` at most, each of one shape."""
        kinds: dict[int, list[int]] = {}
        for place in places:
            kinds.setdefault(int(self.shape[place]), []).append(place)
        return [kind[at : at + size] for kind in kinds.values() for at in range(0, len(kind), size)]

    def made(self, row: int, epoch: int) -> Item:
        """A sample as it is when it came ``epoch`` times before, its prompt not yet dropped.

        Raises ValueError, KeyError or OSError where it can't be read.
        """
        place = self.places[row]
        name = f"{self.shards[place.shard].name} {place.key}"
        if self.cached:
            return self._from_cache(place, name, epoch)
        visit = epoch // self.repeats
        sample, prior = self._ready(row, place, visit)
        identity, task = _identity(sample), sample.meta.task
        (u, v, mirrored, _, rephrase), rng = self._drawn(identity, epoch)
        shape = self.shapes[self.shape[row]]
        at = window(sample.images["a"].shape, shape, (u, v))
        images = {name: sample.images[name][at] for name in self.inputs if name in sample.images}
        if prior is not None:
            images["prior"] = prior(at)
        crops = {name: finished(image, shape, mirrored < 0.5) for name, image in images.items()}
        prompt = sample.prompt
        if self._plain(identity, visit):
            prompt = plain_request(task)
        elif rephrase < self.rephrase and not place.lean:  # a lean sample's words are new each time
            prompt = rephrased(sample, rng)
        operators = tuple(step.op for step in sample.meta.steps)
        return Item(-1, name, identity, task, operators, prompt, crops)

    def _made_at(self, position: int, pick: Pick) -> Item:
        """The sample of a position, made before or now, and now with crops of its picture for positions to come."""
        if self._ahead is None:
            return self.made(pick.row, pick.epoch)
        item = self._ahead.take(position)
        if item is None:
            item = self.made(pick.row, pick.epoch)
            for later, epoch in self._ahead.later(pick.row, pick.epoch):
                self._ahead.hold(later, self.made(pick.row, epoch))
        return item

    def decoded_size(self) -> int:
        """Bytes of all pictures that a run draws from, decoded, with their priors."""
        rows = slice(None) if self.order is None else self.order.drawn
        a, b, gt = self.places.channels[rows].T.astype(np.int64)
        clean, prior = len(self.inputs) > len(INPUTS), self.prior is not None
        values = (a + b) * (1 + clean) + gt + np.maximum(a, b) * prior
        return int((self.places.size[rows].prod(1, dtype=np.int64) * values).sum())

    def _room_for_crops(self) -> int:
        """Crops of later epochs that are kept, in place of pictures; 0: none."""
        if self.order is None or self.cached or self.places.lean.any():  # small already, or degraded anew each time
            return 0
        images = len(self.inputs) + (self.prior is not None)
        crop = 3 * images * max(width * height for width, height in self.shapes)
        return ahead.room(self.cache, self.decoded_size(), crop, len(self.order.drawn) * self.repeats)

    def _drawn(self, identity: tuple[Any, ...], epoch: int) -> tuple[list[float], np.random.Generator]:
        """What decides a crop: its place along height and width, whether it is mirrored, and its words."""
        rng = generator(seed_of("crop", self.seed, *identity, epoch))
        return rng.random(5).tolist() if self.training else [0.5, 0.5, 1.0, 1.0, 1.0], rng

    def _plain(self, identity: tuple[Any, ...], visit: int) -> bool:
        """Whether the plain request stands in for the prompt: of a lean sample it decides the ground truth too, so it
        is one for all crops of a visit.
        """
        return self._drawn(identity, visit * self.repeats)[0][3] < self.plain

    def meta(self, row: int) -> SampleMeta:
        """A sample's json."""
        place = self.places[row]
        return read_meta(place.key, self.reader.members(place, lambda name: name == "json"))

    def _from_cache(self, place: SamplePlace, name: str, epoch: int) -> Item:
        images = (*self.inputs, "prior") if self.prior else self.inputs
        held = decode_cached(self.reader, place, epoch if self.training else None, images)
        return Item(
            -1,
            name,
            held.identity,
            held.task,
            held.operators,
            held.prompt,
            held.images,
            held.latents,
            held.text,
            held.empty,
        )

    def _ready(self, row: int, place: SamplePlace, visit: int) -> tuple[Sample, Windows | None]:
        """A sample, a lean one degraded, and the windows of its prior: the latest again without any work."""
        key = row, visit if place.lean else 0
        if self._latest is None or self._latest[0] != key:
            self._latest = None  # its memory first
            sample = self._sample(row, place)
            if place.lean:
                sample = self._degraded(sample, visit)
            self._latest = key, sample, self._prior_of(sample)
        return self._latest[1:]

    def _degraded(self, sample: Sample, visit: int) -> Sample:
        """The lean sample after a plan. As the plain request has it, its ground truth is without any of the steps."""
        identity = _identity(sample)
        degrade = self.degrade[sample.meta.task]
        if self._plain(identity, visit):
            degrade = replace(degrade, partial=0.0)
        if not self.training:
            return degrade(sample)
        # A schedule of severities goes by variant: here by visit.
        return degrade(sample, seed_of("degrade", self.seed, *identity, visit), visit)

    def _prior_of(self, sample: Sample) -> Windows | None:
        if "prior" in sample.images:
            return sample.images["prior"].__getitem__
        return self.prior and self.prior(sample.images["a"], sample.images["b"], sample.meta.task)

    def _sample(self, row: int, place: SamplePlace) -> Sample:
        """The sample, from memory or its shard, with the images that a model needs, or that a plan needs."""
        if row in self._kept:
            return self._kept[row]
        images = LEAN_IMAGES if place.lean else self.inputs
        wanted = {"json", "txt", *images, *(("depth",) if place.lean else ())}
        members = self.reader.members(place, lambda name: name.partition(".")[0] in wanted)
        sample = decode_sample(place.key, members, images, depth=place.lean)
        size = sum(image.nbytes for image in sample.images.values())
        size += 0 if sample.depth is None else sample.depth.nbytes
        fused = self.prior is not None and not place.lean
        size += sample.images["gt"].nbytes if fused else 0
        # What is kept stays: passing over everything in turn, the most lately used would always be gone when needed.
        if size <= self.cache and not self._room:
            windows = self._prior_of(sample) if fused else None
            if windows:  # a crop alone costs less, but many crops will be taken of what is kept
                made = windows(full_region(sample.images["a"].shape))
                sample = replace(sample, images={**sample.images, "prior": made})
            self.cache -= size
            self._kept[row] = sample
        return sample


def _identity(sample: Sample) -> tuple[str, str, int]:
    return sample.meta.dataset, sample.meta.pair, sample.meta.variant


def _shapes(sizes: np.ndarray, ratios: str, side: int, multiple: int) -> tuple[list[Shape], np.ndarray]:
    """The shapes that images of these sizes (width, height) are cropped to, and the number of each image's."""
    wanted = parse_ratios(ratios)
    different, inverse = np.unique(sizes, axis=0, return_inverse=True)
    found = [find_shape((int(w), int(h)), wanted, side, multiple) for w, h in different]
    shapes = sorted(set(found))
    numbers = np.array([shapes.index(shape) for shape in found], np.int32)
    return shapes, numbers[inverse.ravel()]


def rephrased(sample: Sample, rng: np.random.Generator) -> str:
    """A prompt that asks for what the sample's asks for, composed anew from its recorded steps.

    Only where its words are of the shipped pools: one's own phrasings, or a language model's, stay as they are.
    """
    said = sample.meta.prompt
    if not set(said.templates) <= shipped_templates():
        return sample.prompt
    return compose(sample.meta.task, sample.meta.steps, rng, said.asked).text


def window(size: Sequence[int], shape: Shape, at: tuple[float, float]) -> Region:
    """Rows and columns of a crop of an image of ``size`` (rows, columns, ...): fewer where the image is smaller.

    shape: (width, height); at: its place, 0 at the left or top end, 1 at the other.
    """
    spans: list[slice] = []
    for part, length, side in zip(reversed(at), size[:2], reversed(shape), strict=True):
        first = int(part * (max(length - side, 0) + 1))
        spans.append(slice(first, min(first + side, length)))
    return spans[0], spans[1]


def finished(image: np.ndarray, shape: Shape, mirrored: bool) -> np.ndarray:
    """A window as a crop of ``shape`` (width, height), ``(height, width, 3)``: a smaller one goes on by reflection."""
    short = [max(side - length, 0) for side, length in zip(reversed(shape), image.shape[:2], strict=True)]
    if any(short):
        image = np.pad(image, ((0, short[0]), (0, short[1]), (0, 0)), "symmetric")
    image = as_hwc(cv2.flip(image, 1)) if mirrored else image  # numpy's steps backwards take ten times as long
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.shape[2] == 1 else np.ascontiguousarray(image)

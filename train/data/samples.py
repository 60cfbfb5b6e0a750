"""Training samples from shards, by position.

The contents of a batch depend only on (seed, position), not on the number of data-loader workers or ranks, nor on where
a run was resumed. The random choices of a sample, its crop, flip and prompt, depend only on (seed, sample, how often it
came before). Samples of lean shards (``synth build --lean``) are degraded anew each time they are read.
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
from clearfuse.synth.prompts.compose import compose, language_of
from clearfuse.synth.prompts.instructions import instruct, is_tagged, spoken_language
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.shards.records import LEAN_IMAGES, SampleMeta
from clearfuse.synth.shards.sample import Sample, decode_sample, read_meta
from clearfuse.train.data import ahead
from clearfuse.train.data.batch import Item, UnreadableSample
from clearfuse.train.data.buckets import MULTIPLE, Shape, find_shape, parse_ratios
from clearfuse.train.data.corpus import Corpus, Mix, SamplePlace
from clearfuse.train.data.degrade import Degraders
from clearfuse.train.data.guesses import find_guess
from clearfuse.train.data.latents import decode_cached
from clearfuse.train.data.order import Order, Pick, RankBatches
from clearfuse.train.data.reader import Reader
from clearfuse.train.data.scale import draw_factor, rescale
from clearfuse.train.semantics import View
from clearfuse.train.text import plain_request

INPUTS = ("a", "b", "gt")
CLEAN = ("clean_a", "clean_b")
VIEWS = "views"


class Samples(Dataset[Any]):
    """Crops by position: random and randomly flipped for training, from the centre for validation.

    side: crops have about side² pixels; ratios: aspect ratios, see ``data.buckets``; batch: samples in a row with the
    same shape, and mix: weights of the sources or categories, see ``data.order``; multiple: the sides are multiples of
    this many pixels; repeats: crops of a sample from one decoding. plain: share of prompts to fuse that are
    replaced by the task's default prompt. rephrase: share of the others that are composed anew in other words, if their
    templates are shipped ones. drop: share of training prompts left empty. clean: whether batches include the clean
    pair. view: what an encoder that is trained sees of whole degraded pictures. cache: bytes for caching decoded
    samples or, if those are too many, later crops, see ``data.ahead``. degrade: degraders of lean samples, by task: in
    training seeded by sample and epoch, in validation by the sample's own seed, so that it is the same each time.
    Degradations apply to the whole image, before the crop. undegraded: share of lean samples, in training, that are
    left as they are, with the task's default prompt: of a clean pair nothing is to be removed. scale: lean samples, in
    training, are made smaller before that, by a factor between it and 1; see ``data.scale``.
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        side: int,
        training: bool,
        ratios: str = "1:1",
        batch: int = 1,
        mix: Mix | None = None,
        multiple: int = MULTIPLE,
        repeats: int = 1,
        seed: int = 0,
        plain: float = 0.0,
        rephrase: float = 0.0,
        drop: float = 0.0,
        clean: bool = False,
        guess: str = "none",
        view: View | None = None,
        cache: int = 0,
        degrade: Degraders | None = None,
        undegraded: float = 0.0,
        scale: float = 1.0,
    ) -> None:
        self.shards = corpus.shards
        self.places = corpus.train if training else corpus.held_out
        self.training, self.seed, self.cache, self.repeats = training, seed, cache, repeats
        self.plain, self.rephrase, self.drop = plain, rephrase, drop
        self.inputs = (*INPUTS, *CLEAN) if clean else INPUTS
        self.degrade, self.undegraded, self.scale = degrade or {}, undegraded, scale
        missing = [task for task in corpus.lean if task not in self.degrade]
        if missing:
            raise ValueError(f"lean samples of {', '.join(missing)}: degrade must hold what degrades them")
        self.guess, self.view = find_guess(guess), view
        self.cached = corpus.cached
        self.shapes, self.shape = _shapes(self.places.size, ratios, side, multiple)
        self.order = (
            Order(corpus.drawn_by(mix), self.shape, corpus.weights(mix), batch, seed, repeats) if training else None
        )
        self.reader = Reader(corpus.shards, corpus.sizes)
        self._decoded: dict[int, Sample] = {}
        self._latest: tuple[tuple[int, int], Sample, Windows | None] | None = None
        self._crops_ahead = self._find_crops_ahead()
        self._crop_cache: ahead.CropCache | None = None

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, position: int) -> Item | UnreadableSample:
        """The sample at a position of the run, or with this number among the held-out ones."""
        pick = self.order.at(position) if self.order else Pick(position, int(self.shape[position]), 0)
        place = self.places[pick.row]
        try:
            item = replace(self._item_at(position, pick), position=position)
        except (ValueError, KeyError, OSError) as error:
            reason = str(error.strerror or error) if isinstance(error, OSError) else str(error)
            named = reason if reason.startswith("sample ") else f"sample {place.key}: {reason}"
            remedy = "delete the shard and run train cache again" if self.cached else "see synth verify"
            return UnreadableSample(f"{self.shards[place.shard]}: {named}; {remedy}")
        if self.training and self.drop:
            rng = generator(seed_of("drop", self.seed, *item.identity, pick.epoch))
            if rng.random() < self.drop:
                return replace(item, prompt="", text=item.empty)
        return item

    def set_schedule(self, schedule: RankBatches, number: int = 0, workers: int = 1) -> None:
        """Set the batches to load, as worker ``number`` of ``workers``, so that their crops can be cached
        in advance.
        """
        if self.order is None or self.cached or (self._crops_ahead == 0 and self.repeats == 1):
            return
        crops, period = self._crops_ahead, self.repeats
        if crops:  # one of several processes sees a row in fewer epochs
            period *= ahead.decode_period(crops, len(self.order.drawn) * self.repeats) * workers * schedule.world
        self._crop_cache = ahead.CropCache(
            self.order.position_of,
            partial(schedule.assigned, number, workers),
            end=schedule.last * schedule.size,
            crops=max(crops, self.order.repeats_ahead()),
            period=period,
            repeats=self.repeats,
        )

    def groups(self, places: Sequence[int], size: int) -> list[list[int]]:
        """Split numbers of held-out samples into batches of at most ``size``, each of a single shape."""
        by_shape: dict[int, list[int]] = {}
        for place in places:
            by_shape.setdefault(int(self.shape[place]), []).append(place)
        return [group[at : at + size] for group in by_shape.values() for at in range(0, len(group), size)]

    def item(self, row: int, epoch: int) -> Item:
        """The sample of a row that came ``epoch`` times before, without prompt dropping.

        Raises ValueError, KeyError or OSError if it can't be read.
        """
        place = self.places[row]
        name = f"{self.shards[place.shard].name} {place.key}"
        if self.cached:
            return self._from_cache(place, name, epoch)
        visit = epoch // self.repeats
        sample, guess = self._load(row, place, visit)
        identity, task = _identity(sample), sample.meta.task
        (u, v, flip, _, rephrase), rng = self._draw(identity, epoch)
        shape = self.shapes[self.shape[row]]
        region = window(sample.images["a"].shape, shape, (u, v))
        images = {name: sample.images[name][region] for name in self.inputs if name in sample.images}
        if guess is not None:
            images["guess"] = guess(region)
        crops = {name: to_crop(image, shape, flip < 0.5) for name, image in images.items()}
        crops |= {VIEWS: sample.images[VIEWS]} if VIEWS in sample.images else {}
        prompt = sample.prompt
        fuses = sample.meta.category == "fusion"
        if (fuses and self._plain(identity, visit)) or (place.lean and not sample.meta.steps):
            prompt = plain_request(task)
        elif rephrase < self.rephrase and not place.lean:  # a lean sample gets a new prompt each time anyway
            prompt = rephrase_prompt(sample, rng)
        operators = tuple(step.op for step in sample.meta.steps)
        return Item(
            -1, name, identity, task, operators, prompt, crops,
            category=sample.meta.category, strength=1 - sample.meta.left,
        )  # fmt: skip

    def _item_at(self, position: int, pick: Pick) -> Item:
        """The sample at a position, from the crop cache; if it is not there, it is decoded, and later crops cached."""
        if self._crop_cache is None:
            return self.item(pick.row, pick.epoch)
        item = self._crop_cache.take(position)
        if item is None:
            item = self.item(pick.row, pick.epoch)
            for later, epoch in self._crop_cache.later(pick.row, pick.epoch):
                self._crop_cache.add(later, self.item(pick.row, epoch))
        return item

    def decoded_size(self) -> int:
        """Bytes of all decoded images that a run trains on, with their guesses."""
        rows = slice(None) if self.order is None else self.order.drawn
        a, b, gt = self.places.channels[rows].T.astype(np.int64)
        clean, guess = len(self.inputs) > len(INPUTS), self.guess is not None
        values = (a + b) * (1 + clean) + gt + np.maximum(a, b) * guess
        return int((self.places.size[rows].prod(1, dtype=np.int64) * values).sum())

    def _find_crops_ahead(self) -> int:
        """The number of crops of later visits to cache in place of decoded images; 0: none but those of one visit."""
        if self.order is None or self.cached or self.places.lean.any():  # small already, or degraded anew each time
            return 0
        images = len(self.inputs) + (self.guess is not None)
        crop = 3 * images * max(width * height for width, height in self.shapes)
        return ahead.crop_capacity(self.cache, self.decoded_size(), crop, len(self.order.drawn) * self.repeats)

    def _draw(self, identity: tuple[Any, ...], epoch: int) -> tuple[list[float], np.random.Generator]:
        """Random numbers in [0, 1): the crop's position along width and height, flip, default prompt, rephrasing."""
        rng = generator(seed_of("crop", self.seed, *identity, epoch))
        return rng.random(5).tolist() if self.training else [0.5, 0.5, 1.0, 1.0, 1.0], rng

    def _plain(self, identity: tuple[Any, ...], visit: int) -> bool:
        """Whether the task's default prompt replaces the prompt. It is the same for all crops of a visit, because it
        also decides the ground truth of a lean sample.
        """
        return self._draw(identity, visit * self.repeats)[0][3] < self.plain

    def meta(self, row: int) -> SampleMeta:
        """A sample's json."""
        place = self.places[row]
        return read_meta(place.key, self.reader.members(place, lambda name: name == "json"))

    def _from_cache(self, place: SamplePlace, name: str, epoch: int) -> Item:
        images = (*self.inputs, *(("guess",) if self.guess else ()), *((VIEWS,) if self.view else ()))
        cached = decode_cached(self.reader, place, epoch if self.training else None, images)
        return Item(
            -1,
            name,
            cached.identity,
            cached.task,
            cached.operators,
            cached.prompt,
            cached.images,
            cached.latents,
            cached.text,
            cached.empty,
            cached.category,
            cached.semantics,
        )

    def _load(self, row: int, place: SamplePlace, visit: int) -> tuple[Sample, Windows | None]:
        """A sample, degraded if it is lean, and the windows of its guess; the latest one is cached."""
        key = row, visit if place.lean else 0
        if self._latest is None or self._latest[0] != key:
            self._latest = None  # frees its memory first
            sample = self._sample(row, place)
            if place.lean:
                sample = self._degrade(self._rescaled(sample, row, visit), visit)
            sample = self._with_views(sample)
            self._latest = key, sample, self._guess_of(sample)
        return self._latest[1:]

    def _rescaled(self, sample: Sample, row: int, visit: int) -> Sample:
        if not self.training or self.scale == 1:
            return sample
        rng = generator(seed_of("scale", self.seed, *_identity(sample), visit))
        width, height = self.places.size[row].tolist()
        return rescale(sample, draw_factor(rng.random(), self.scale, (width, height), self.shapes[self.shape[row]]))

    def _degrade(self, sample: Sample, visit: int) -> Sample:
        """Degrade a lean sample. With the default prompt, its ground truth is free of all degradations."""
        identity = _identity(sample)
        if self.training and self.undegraded:
            rng = generator(seed_of("undegraded", self.seed, *identity, visit))
            if rng.random() < self.undegraded:
                clean = {name: sample.images[f"clean_{name}"] for name in ("a", "b")}
                return replace(sample, images={**sample.images, **clean})
        degrade = self.degrade[sample.meta.task]
        if self._plain(identity, visit):
            degrade = replace(degrade, partial=0.0)
        if not self.training:
            return degrade(sample)
        # A recipe may schedule severities by variant: here the visit counts as the variant.
        return degrade(sample, seed_of("degrade", self.seed, *identity, visit), visit)

    def _with_views(self, sample: Sample) -> Sample:
        """The sample with what the encoder of whole pictures sees of a and b."""
        if self.view is None or VIEWS in sample.images:
            return sample
        views = np.concatenate([self.view(sample.images[name]) for name in ("a", "b")])
        return replace(sample, images={**sample.images, VIEWS: views})

    def _guess_of(self, sample: Sample) -> Windows | None:
        if "guess" in sample.images:
            return sample.images["guess"].__getitem__
        return self.guess and self.guess(sample.images["a"], sample.images["b"], sample.meta.task)

    def _sample(self, row: int, place: SamplePlace) -> Sample:
        """The sample, from memory or its shard, with the images that the model or the degradations need."""
        if row in self._decoded:
            return self._decoded[row]
        images = LEAN_IMAGES if place.lean else self.inputs
        wanted = {"json", "txt", *images, *(("depth",) if place.lean else ())}
        members = self.reader.members(place, lambda name: name.partition(".")[0] in wanted)
        sample = decode_sample(place.key, members, images, depth=place.lean)
        size = sum(image.nbytes for image in sample.images.values())
        size += 0 if sample.depth is None else sample.depth.nbytes
        fused = self.guess is not None and not place.lean
        size += sample.images["gt"].nbytes if fused else 0
        # Nothing is evicted: in passes over all samples, an LRU cache would always evict what is needed next.
        if size <= self.cache and not self._crops_ahead:
            sample = sample if place.lean else self._with_views(sample)
            windows = self._guess_of(sample) if fused else None
            if windows:  # one crop's guess costs less, but many crops will be taken of a cached image
                guess = windows(full_region(sample.images["a"].shape))
                sample = replace(sample, images={**sample.images, "guess": guess})
            self.cache -= size
            self._decoded[row] = sample
        return sample


def _identity(sample: Sample) -> tuple[str, str, int]:
    return sample.meta.dataset, sample.meta.pair, sample.meta.variant


def _shapes(sizes: np.ndarray, ratios: str, side: int, multiple: int) -> tuple[list[Shape], np.ndarray]:
    """The crop shapes for images of these sizes (width, height), and the number of each image's shape."""
    parsed = parse_ratios(ratios)
    unique, inverse = np.unique(sizes, axis=0, return_inverse=True)
    shape_of_unique = [find_shape((int(w), int(h)), parsed, side, multiple) for w, h in unique]
    shapes = sorted(set(shape_of_unique))
    numbers = np.array([shapes.index(shape) for shape in shape_of_unique], np.int32)
    return shapes, numbers[inverse.ravel()]


def rephrase_prompt(sample: Sample, rng: np.random.Generator) -> str:
    """Compose a new prompt that asks for the same as the sample's, in its language, from its recorded degradations.

    A prompt from templates that are not shipped (the user's own, or a language model's) stays as it is.
    """
    meta, prompt = sample.meta, sample.meta.prompt
    if meta.category != "fusion":
        return _instruct_again(sample, rng)
    language = language_of(prompt.templates)
    if language is None:
        return sample.prompt
    return compose(meta.task, meta.steps, rng, prompt.asked, dataset=meta.dataset, language=language).text


def _instruct_again(sample: Sample, rng: np.random.Generator) -> str:
    """Other words for the same instruction; tags of the grammar stay."""
    meta = sample.meta
    language = spoken_language(meta.prompt.templates)
    if language is None:
        return sample.prompt
    tag, name = meta.control and meta.control.tag, meta.segment and meta.segment.name
    tagged = float(is_tagged(sample.prompt))
    return instruct(meta.category, rng, tag=tag, name=name, tagged=tagged, language=language).text


def window(size: Sequence[int], shape: Shape, at: tuple[float, float]) -> Region:
    """Rows and columns of a crop of an image of ``size`` (rows, columns, ...), smaller where the image is.

    shape: (width, height); at: position along width and height, from 0 (left, top) to 1 (right, bottom).
    """
    spans: list[slice] = []
    for fraction, length, side in zip(reversed(at), size[:2], reversed(shape), strict=True):
        first = int(fraction * (max(length - side, 0) + 1))
        spans.append(slice(first, min(first + side, length)))
    return spans[0], spans[1]


def to_crop(image: np.ndarray, shape: Shape, flip: bool) -> np.ndarray:
    """Make a crop ``(height, width, 3)`` of ``shape`` (width, height) from a window, padding by reflection."""
    missing = [max(side - length, 0) for side, length in zip(reversed(shape), image.shape[:2], strict=True)]
    if any(missing):
        image = np.pad(image, ((0, missing[0]), (0, missing[1]), (0, 0)), "symmetric")
    image = as_hwc(cv2.flip(image, 1)) if flip else image  # numpy's negative strides take ten times as long
    return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.shape[2] == 1 else np.ascontiguousarray(image)

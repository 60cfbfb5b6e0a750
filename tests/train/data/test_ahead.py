"""The crop cache: the same batches with fewer decodings, within the memory limit."""

from __future__ import annotations

import functools
import itertools
import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import made_shards

from clearfuse.synth.shards.sample import read_samples
from clearfuse.train.data.ahead import CropCache, crop_capacity, decode_period
from clearfuse.train.data.batch import Batch, Item
from clearfuse.train.data.corpus import Corpus, index
from clearfuse.train.data.loader import batches
from clearfuse.train.data.order import Order, RankBatches
from clearfuse.train.data.samples import Samples


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("made"))


def nothing(mark: int) -> Item:
    return Item(mark, "", (), "vif", (), "", {"a": np.zeros((4, 4, 3), np.uint8)})


def decoded(count: int, crops: int, epochs: int, workers: int = 1, world: int = 1) -> float:
    """The share of visits that decode a sample, for ``count`` samples over ``epochs``, the first five left out."""
    size, first = 4, 5 * count
    order = Order(np.zeros(count, int), np.zeros(count, int), [Fraction(1)], size, seed=3)
    done = 0
    for rank, number in itertools.product(range(world), range(workers)):
        schedule = RankBatches(0, epochs * count // size, size, rank, world)
        ahead = CropCache(
            order.position_of,
            functools.partial(schedule.assigned, number, workers),
            end=schedule.last * size,
            crops=crops,
            period=decode_period(crops, count) * workers * world,
        )
        for position in (p for batch in list(schedule)[number::workers] for p in batch):
            pick = order.at(position)
            item = ahead.take(position)
            if item is None:
                done += position >= first
                for later, epoch in ahead.later(pick.row, pick.epoch):
                    assert order.at(later).row == pick.row and order.at(later).epoch == epoch
                    ahead.add(later, nothing(later))
            else:
                assert item.position == position
            assert len(ahead) <= crops
    return done / (epochs * count - first)


@pytest.mark.parametrize(("crops", "share"), [(30, 1 / 2), (60, 1 / 3), (120, 1 / 5), (600, 1 / 5)])
def test_crops_spare_as_many_decodings_as_the_formula_says(crops: int, share: float) -> None:
    """Each decoding yields K = 2 crops / count later crops, at most 4: the share is 1 / (1 + K) within a quarter."""
    assert share * 0.99 < decoded(60, crops, 17) < share * 1.25


def test_a_little_memory_spares_a_little() -> None:
    few, fewer = decoded(32, 8, 20), decoded(32, 2, 20)
    assert 1 / 2 < few < 0.8 < fewer < 0.98


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "world"), [(3, 1), (1, 4), (2, 2)])
def test_each_of_several_processes_spares_its_own(workers: int, world: int) -> None:
    assert decoded(32, 32, 60, workers, world) == pytest.approx(1 / 3, rel=0.25)


def test_pictures_stay_where_they_spare_more_than_crops() -> None:
    """100 images of 1000 bytes; crops of 100 or 900 bytes."""
    assert crop_capacity(99_000, 100_000, 100, 100) == crop_capacity(81_000, 100_000, 100, 100) == 0
    assert crop_capacity(79_000, 100_000, 100, 100) == 790 and crop_capacity(99, 100_000, 100, 100) == 0
    # Crops nearly as large as their pictures: at 0.47 of the memory for all, 0.53 are decoded, and 1 / 1.9 with crops.
    assert crop_capacity(48_000, 100_000, 900, 100) == 0 and crop_capacity(46_000, 100_000, 900, 100) == 51
    assert crop_capacity(46_000, 100_000, 900, 200) == 0, "two crops of each picture in a row"
    assert decode_period(790, 100) == 5 and decode_period(3, 100) == 2 and decode_period(100, 100) == 3


@pytest.mark.parametrize("rank", [0, 1])
def test_a_loader_process_knows_what_it_is_asked_for(rank: int) -> None:
    schedule = RankBatches(3, 17, 6, rank, 2)
    asked = [list(positions) for positions in schedule]
    for workers in (1, 2, 3):
        for number in range(workers):
            mine = {position for positions in asked[number::workers] for position in positions}
            assert mine == {position for position in range(130) if schedule.assigned(number, workers, position)}


class Told(Samples):
    """Logs its decodings to a file, also from other processes."""

    log: Path

    def _sample(self, row: int, place: Any) -> Any:
        with self.log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        return super()._sample(row, place)


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"repeats": 2}, {"ratios": "16:9,4:3,1:1", "mix": [3, 1]}, {"drop": 0.5}])
def test_batches_are_the_same_and_fewer_are_decoded(shards: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    corpus = index([str(shards / "vif"), str(shards / "mef")])

    def taken(cache: int, start: int = 0, workers: int = 0) -> tuple[list[Batch], list[str]]:
        given: dict[str, Any] = {"plain": 0.3, "rephrase": 0.5, "guess": "pyramid", "seed": 5, **more}
        data = Told(corpus, side=32, training=True, cache=cache, batch=4, **given)
        data.log = tmp_path / "log"
        data.log.write_text("")
        found = [b for b in batches(data, RankBatches(start, 18, 4), workers) if isinstance(b, Batch)]
        return found, data.log.read_text().split()

    here, all_decoded = taken(0)
    # Crops of all samples, of a, b, gt and guess.
    memory = len(corpus.train) * more.get("repeats", 1) * 32 * 32 * 3 * 4
    for start, workers in ((0, 0), (4, 0), *(() if more else ((0, 2),))):
        found, less = taken(memory, start, workers)
        assert len(set(less)) == max(workers, 1)
        assert start or len(less) < 0.8 * len(all_decoded)
        for one, other in zip(here[start:], found, strict=True):
            assert one.prompts == other.prompts and one.names == other.names and one.positions == other.positions
            assert one.images.keys() == other.images.keys()
            assert all(torch.equal(images, other.images[name]) for name, images in one.images.items())


def followed(corpus: Corpus, cache: int, **more: Any) -> Samples:
    given: dict[str, Any] = {"side": 32, "training": True, "batch": 4, **more}
    data = Samples(corpus, cache=cache, **given)
    data.set_schedule(RankBatches(0, 8, 4))
    return data


def early(data: Samples) -> CropCache | None:
    return data._crop_cache  # pyright: ignore[reportPrivateUsage]


def test_memory_holds_crops_and_none_of_their_pictures(shards: Path) -> None:
    """Also where a crop is as wide as its image, so that it would be a view of it."""
    corpus = index([str(shards / "vif")])
    width, height = max(corpus.train.size.tolist(), key=lambda size: size[0] / size[1])
    assert width > height
    cache = len(corpus.train) * 9 * height * height // 3
    data = followed(corpus, cache, side=height)
    ahead = early(data)
    assert ahead is not None
    held: list[int] = []
    for position in range(32):
        assert isinstance(data[position], Item)
        items = ahead._items.values()  # pyright: ignore[reportPrivateUsage]
        images = [image for item in items for image in item.images.values()]
        assert all(image.base is None for image in images)
        held.append(sum(image.nbytes for image in images))
    assert 0 < max(held) <= cache and not held[-1]


def test_pictures_stay_where_all_fit(shards: Path) -> None:
    """The size is exact to the byte, with one channel for grey images, over the samples that the run trains on."""
    corpus = index([str(shards / "vif"), str(shards / "mef")])
    sizes = [0, 0]
    for row in range(len(corpus.train)):
        place = corpus.train[row]
        (sample,) = [s for s in read_samples(corpus.shards[place.shard]) if s.key == place.key]
        images = [sample.images[name] for name in ("a", "b", "gt", "gt")]  # once more for the guess
        sizes[int(corpus.train.source[row])] += sum(image.nbytes for image in images)
    more: dict[str, Any] = {"guess": "pyramid"}
    for cache, kept in ((sum(sizes), True), (sum(sizes) // 2, False), (1000, True)):
        assert (early(followed(corpus, cache, **more)) is None) is kept
    for cache, kept in ((sizes[0], True), (sizes[0] // 2, False)):
        assert (early(followed(corpus, cache, mix=[1, 0], **more)) is None) is kept
    data = followed(corpus, sum(sizes), **more)
    for position in range(2 * len(corpus.train)):
        assert isinstance(data[position], Item)
    read = data.reader.bytes_read
    assert all(isinstance(data[position], Item) for position in range(3 * len(corpus.train)))
    assert data.reader.bytes_read == read and data.cache == 0
    assert early(followed(corpus, sum(sizes) // 2, training=False)) is None


def test_what_is_degraded_anew_or_small_is_not_cut_early(shards: Path) -> None:
    corpus = index([str(shards / "vif")])
    cache = 20 * 32 * 32 * 9
    assert early(followed(corpus, cache)) is not None
    lean = replace(corpus, train=replace(corpus.train, lean=np.ones(len(corpus.train), np.bool_)))
    assert early(followed(lean, cache)) is None
    assert early(followed(replace(corpus, cached={"crop": 32}), cache)) is None

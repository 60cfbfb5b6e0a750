"""Crops cut before their turn: the same batches, fewer decodings, no more memory than there is."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import made_shards

from synth.shards import read_samples
from train.ahead import VISITS, Ahead, period, room
from train.batch import Batch, Item
from train.corpus import index
from train.data import Samples
from train.loading import batches
from train.mixing import Dealt, Order

CROP, PIXEL = 32 * 32, 3 * 3  # of a, b and gt


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("made"))


def nothing(mark: int) -> Item:
    return Item(mark, "", (), "vif", (), "", {"a": np.zeros((4, 4, 3), np.uint8)})


def decoded(count: int, crops: int, epochs: int, workers: int = 1) -> float:
    """The share of visits, after the first five of ``epochs``, for which one of ``count`` samples is decoded."""
    size, first = 4, 5 * count
    order = Order(np.zeros(count, int), np.zeros(count, int), [Fraction(1)], size, seed=3)
    course = Dealt(0, epochs * count // size, size)
    done = 0
    for number in range(workers):
        ahead = Ahead(
            order.where,
            lambda position, number=number: course.asks(number, workers, position),
            end=course.last * size,
            crops=crops,
            epochs=period(crops, count) * workers,
        )
        for position in (p for batch in list(course)[number::workers] for p in batch):
            pick = order.at(position)
            item = ahead.take(position)
            if item is None:
                done += position >= first
                for later, epoch in ahead.later(pick.row, pick.epoch):
                    assert order.at(later).row == pick.row and order.at(later).epoch == epoch
                    ahead.hold(later, nothing(later))
            else:
                assert item.position == position
            assert len(ahead) <= crops
    return done / (epochs * count - first)


@pytest.mark.parametrize(("crops", "share"), [(30, 1 / 2), (60, 1 / 3), (120, 1 / 5), (600, 1 / 5)])
def test_crops_spare_as_many_decodings_as_the_formula_says(crops: int, share: float) -> None:
    """K = 2 crops / count later crops of each decoding, at most 4: 1 / (1 + K), to a quarter."""
    assert share * 0.99 < decoded(60, crops, 17) < share * 1.25


def test_a_little_memory_spares_a_little() -> None:
    few, fewer = decoded(32, 8, 20), decoded(32, 2, 20)
    assert 1 / 2 < few < 0.8 < fewer < 0.98


@pytest.mark.slow
def test_each_of_several_processes_spares_its_own() -> None:
    assert decoded(32, 32, 60, workers=3) == pytest.approx(1 / 3, rel=0.2)


def test_pictures_stay_where_they_spare_more_than_crops() -> None:
    """N = 100 pictures of S = 1000 bytes, crops of 100: 1 − M / (N S) as pictures, 1 / (1 + 2 M / (N c)) as crops."""
    assert room(99_000, 1000, 100, 100) == room(81_000, 1000, 100, 100) == 0
    assert room(79_000, 1000, 100, 100) == 790 and room(99, 1000, 100, 100) == 0
    # Crops nearly as large as their pictures: at 0.55 of the memory for all, 0.45 as pictures, and 1 / 2.2 as crops.
    assert room(56_000, 1000, 900, 100) == 0 and room(54_000, 1000, 900, 100) == 60
    assert period(790, 100) == 1 + VISITS and period(3, 100) == 2 and period(100, 100) == 3


@pytest.mark.parametrize("rank", [0, 1])
def test_a_loader_process_knows_what_it_is_asked_for(rank: int) -> None:
    course = Dealt(3, 17, 6, rank, 2)
    asked = [list(positions) for positions in course]
    for workers in (1, 2, 3):
        for number in range(workers):
            mine = {position for positions in asked[number::workers] for position in positions}
            assert mine == {position for position in range(130) if course.asks(number, workers, position)}


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"repeats": 2}, {"ratios": "16:9,4:3,1:1", "mix": [3, 1]}, {"drop": 0.5}])
def test_batches_are_the_same_and_less_is_read(shards: Path, more: dict[str, Any]) -> None:
    corpus = index([str(shards / "vif"), str(shards / "mef")])

    def taken(cache: int, start: int = 0, workers: int = 0) -> tuple[list[Batch], int]:
        given: dict[str, Any] = {"plain": 0.3, "rephrase": 0.5, "prior": "pyramid", "seed": 5, **more}
        data = Samples(corpus, side=32, training=True, cache=cache, batch=4, **given)
        found = [b for b in batches(data, Dealt(start, 12, 4), workers) if isinstance(b, Batch)]
        return found, data.reader.taken

    here, read = taken(0)
    room = len(corpus.train) * CROP * 4 * 3  # crops of all samples, of a, b, gt and prior
    for start, workers in ((0, 0), (4, 0), (2, 2)):
        found, less = taken(room, start, workers)
        assert workers or start or less < 0.85 * read
        for one, other in zip(here[start:], found, strict=True):
            assert one.prompts == other.prompts and one.names == other.names and one.positions == other.positions
            assert one.images.keys() == other.images.keys()
            assert all(torch.equal(images, other.images[name]) for name, images in one.images.items())


def test_memory_holds_crops_and_none_of_their_pictures(shards: Path) -> None:
    """Also where a crop is as wide as its picture, of which it would be a view."""
    corpus = index([str(shards / "vif")])
    (width, height) = corpus.train.size[0].tolist()
    assert width > height
    cache = len(corpus.train) * 3 * PIXEL * height * height // 5
    data = Samples(corpus, side=height, training=True, cache=cache, batch=4)
    data.follow(Dealt(0, 5, 4))
    assert data._ahead is not None  # pyright: ignore[reportPrivateUsage]
    held: list[int] = []
    for position in range(20):
        assert isinstance(data[position], Item)
        items = data._ahead._held.values()  # pyright: ignore[reportPrivateUsage]
        images = [image for item in items for image in item.images.values()]
        assert all(image.base is None for image in images)
        held.append(sum(image.nbytes for image in images))
    assert 0 < max(held) <= cache and not held[-1]


def test_nothing_is_cut_early_where_all_pictures_fit_or_are_degraded_anew(shards: Path, tmp_path: Path) -> None:
    corpus = index([str(shards / "vif")])
    pictures = sum(
        sum(image.nbytes for name, image in sample.images.items() if name in ("a", "b", "gt"))
        for path in corpus.shards
        for sample in read_samples(path)
    )
    for cache, ahead in ((2 * pictures, False), (pictures // 2, True), (1000, False)):
        data = Samples(corpus, side=32, training=True, cache=cache, batch=4)
        data.follow(Dealt(0, 8, 4))
        assert (data._ahead is not None) is ahead  # pyright: ignore[reportPrivateUsage]
    held_out = Samples(corpus, side=32, training=False, cache=pictures // 2)
    held_out.follow(Dealt(0, 8, 4))
    assert held_out._ahead is None  # pyright: ignore[reportPrivateUsage]

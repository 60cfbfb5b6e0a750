"""Order of samples and shapes of crops: exact shares, complete epochs, random access."""

from __future__ import annotations

import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from clearfuse.synth.seeds import generator
from clearfuse.synth.types import UserError
from clearfuse.train.data.buckets import EIGHTHS, find_shape, parse_ratios, shape_of
from clearfuse.train.data.order import GAP, Interleave, Order, permute, unpermute

PAPER = "16:9,4:3,1:1"


@pytest.mark.parametrize("count", [1, 2, 3, 5, 64, 1000])
def test_a_permutation_puts_every_index_in_its_own_place(count: int) -> None:
    keys = [(3, 14, 15, 92, 65, 35), (2, 7, 18, 28, 18, 28)]
    orders = [[permute(index, count, key) for index in range(count)] for key in keys]
    assert all(sorted(order) == list(range(count)) for order in orders)
    assert count < 5 or orders[0] != orders[1] != sorted(orders[1])
    assert [unpermute(place, count, keys[0]) for place in orders[0]] == list(range(count))


def test_no_place_is_likelier_than_another() -> None:
    """Over many keys, index 0 of 5 is mapped uniformly: chi-square with 4 degrees of freedom, 99.9 % below 18.5."""
    keys = generator(3).integers(1 << 63, size=(1000, 6)).tolist()
    found = Counter(permute(0, 5, key) for key in keys)
    assert sum((found[place] - 200) ** 2 / 200 for place in range(5)) < 18.5


@pytest.mark.parametrize("weights", [(2, 1, 1), (1, 1000, 17, 333), (0, 3, 0, 1), (0.1, 0.7), (5,)])
def test_every_kind_has_its_share_at_every_place(weights: tuple[float, ...]) -> None:
    shares = [Fraction(str(weight)) for weight in weights]
    kinds, total = Interleave(shares, seed=3), sum(shares)
    found: Counter[int] = Counter()
    for place in range(1200):
        kind, before = kinds.at(place)
        assert before == found[kind] and kinds.index(kind, before) == place
        found[kind] += 1
        assert all(abs(found[k] - (place + 1) * share / total) < len(weights) for k, share in enumerate(shares))


def order(batch: int = 4, seed: int = 7, repeats: int = 1) -> Order:
    """Three sources of 6, 10 and 20 samples with weights 2, 1, 1; the last two have two shapes each."""
    source = np.repeat([0, 1, 2], [6, 10, 20])
    shape = np.concatenate([np.zeros(6), np.arange(10) % 2, np.arange(20) % 4 // 3]).astype(int)
    return Order(source, shape, [Fraction(2), Fraction(1), Fraction(1)], batch, seed, repeats)


@pytest.mark.slow
def test_each_sample_comes_once_an_epoch_and_batches_have_one_shape() -> None:
    drawn = [order().at(position) for position in range(4 * 100)]
    assert all(len({pick.shape for pick in drawn[i : i + 4]}) == 1 for i in range(0, len(drawn), 4))
    times = Counter((pick.row, pick.epoch) for pick in drawn)
    assert set(times.values()) == {1}
    rows = Counter(pick.row for pick in drawn)
    for first, count, share in ((0, 6, 200), (6, 10, 100), (16, 20, 100)):
        seen = [rows[row] for row in range(first, first + count)]
        assert abs(sum(seen) - share) <= 12 and max(seen) - min(seen) <= 4
    assert drawn != [order(seed=8).at(position) for position in range(4 * 100)]


@pytest.mark.parametrize(("batch", "repeats"), [(6, 3), (4, 8), (5, 3)])
def test_repeats_are_batches_apart_and_each_batch_has_as_many_new_samples(batch: int, repeats: int) -> None:
    """Batches are counted by shape; each visit of a sample has its own epochs."""
    made = order(batch, repeats=repeats)
    batches: dict[int, list[list[tuple[int, int]]]] = {0: [], 1: []}
    for start in range(0, 400 * batch, batch):
        picks = [made.at(position) for position in range(start, start + batch)]
        assert {pick.shape for pick in picks} == {picks[0].shape}
        batches[picks[0].shape].append([(pick.row, pick.epoch) for pick in picks])
    for of_shape in batches.values():
        seen: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for number, found in enumerate(of_shape):
            assert len({(row, epoch // repeats) for row, epoch in found}) == batch
            new = sum(epoch % repeats == 0 for _, epoch in found)
            assert new in (batch // repeats, -(-batch // repeats))
            for row, epoch in found:
                seen.setdefault((row, epoch // repeats), []).append((epoch % repeats, number))
        times = list(seen.values())
        assert all([repeat for repeat, _ in one] == list(range(one[0][0], one[0][0] + len(one))) for one in times)
        gaps = {b[1] - a[1] for one in times for a, b in itertools.pairwise(one)}
        assert gaps == {GAP} if batch % repeats == 0 else gaps <= {GAP, GAP + 1, GAP + 2}
        assert batch < repeats or any(len(one) == repeats for one in times)


@pytest.mark.parametrize(("batch", "repeats"), [(4, 1), (6, 3), (4, 3), (4, 8)])
def test_a_visit_is_where_the_order_has_it(batch: int, repeats: int) -> None:
    made = order(batch, repeats=repeats)
    for position in (*range(300), *range(10**12, 10**12 + 20)):
        pick = made.at(position)
        assert made.position_of(pick.row, pick.epoch) == position


def test_any_position_can_be_asked_for_alone() -> None:
    whole = [order().at(position) for position in range(60)]
    assert [order().at(position) for position in reversed(range(60))] == whole[::-1]
    assert order().at(10**12).epoch > 10**9


def test_shapes_are_about_as_large_and_of_their_ratio() -> None:
    for ratio in parse_ratios(PAPER):
        width, height = shape_of(ratio, 512)
        assert abs(width * height / 512**2 - 1) < 0.03 and abs(width / height / (ratio[0] / ratio[1]) - 1) < 0.03
        assert width % 16 == height % 16 == 0
    assert shape_of((16, 9), 512) == (688, 384) and shape_of((1, 1), 500) == (500, 500)
    assert shape_of((4, 3), 512, multiple=32) == (576, 448)


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((1920, 1080), (688, 384)), ((1080, 1920), (384, 688)), ((640, 480), (592, 448)), ((640, 352), (592, 336)),
        ((480, 480), (448, 448)), ((1280, 1024), (592, 448)), ((64, 64), (128, 128)),
    ],
)  # fmt: skip
def test_an_image_goes_to_the_nearest_shape_that_fits_into_it(size: tuple[int, int], shape: tuple[int, int]) -> None:
    assert find_shape(size, parse_ratios(PAPER), 512) == shape
    assert EIGHTHS[-1] == 2  # the last image is smaller than all: a quarter of 512


@pytest.mark.parametrize("text", ["", "16x9", "16:9,", "0:1", "-1:1", "9:1", "4:3:2"])
def test_ratios_are_checked(text: str) -> None:
    with pytest.raises(UserError, match=f"--ratios {text}: must be|--ratios 9:1: 9:1 must be between"):
        parse_ratios(text)

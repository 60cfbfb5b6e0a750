"""Training data: index, held-out samples, order and crops; batches do not depend on the number of workers."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made import made_shards

from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.prompts.pools import load_pool
from clearfuse.synth.seeds import generator
from clearfuse.synth.shards.sample import read_samples
from clearfuse.synth.shards.tar import read_shard, write_shard
from clearfuse.synth.types import UserError
from clearfuse.train.data.batch import Batch, Item, UnreadableSample, to_tensor
from clearfuse.train.data.corpus import index
from clearfuse.train.data.loader import batches
from clearfuse.train.data.order import RankBatches
from clearfuse.train.data.samples import Samples, rephrase_prompt, to_crop, window
from conftest import changed, textured


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("made"))


def test_the_index_finds_every_sample_once(shards: Path) -> None:
    corpus = index([str(shards / "vif"), str(shards / "mef"), str(shards / "vif" / "vif-train-000000.tar")])
    assert len(corpus.train) + len(corpus.held_out) == 8
    data = Samples(corpus, side=32, training=True)
    names = {data[i].name for i in range(len(data))}  # type: ignore[union-attr]
    assert len(names) == len(corpus.train)


def test_validation_shards_are_held_out_and_test_shards_left_alone(shards: Path, tmp_path: Path) -> None:
    for split, number in (("train", 0), ("val", 1), ("test", 1)):
        shutil.copy(shards / f"vif/vif-train-{number:06d}.tar", tmp_path / f"vif-{split}-000000.tar")
    corpus = index([str(tmp_path)])
    assert (len(corpus.train), len(corpus.held_out)) == (3, 2)
    assert [path.name for path in corpus.shards] == ["vif-train-000000.tar", "vif-val-000000.tar"]


def test_held_out_pairs_go_by_hash(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearfuse.train.data.corpus.HELD_OUT", 0.5)
    first = index([str(shards / "vif")])
    assert first.held_out and first.train
    both = index([str(shards / "vif"), str(shards / "mef")]).held_out
    assert [both[row].key for row in range(len(first.held_out))] == first.held_out.key.tolist()


@pytest.mark.parametrize(("hold_out", "pairs"), [(2, 2), (1, 1), (0, 0), (0.999, 5), (1e6, 5)])
def test_pairs_are_held_out_as_asked(shards: Path, tmp_path: Path, hold_out: float, pairs: int) -> None:
    """All variants of a pair together, the same ones of more data, more of them where more are asked for."""
    paths = [str(shards / "vif"), str(shards / "vif" / "vif-train-000000.tar")]
    if pairs == 5:
        with pytest.raises(UserError, match="no samples to train on: 5 are held out"):
            index(paths, hold_out)
        return
    held = index(paths, hold_out).held_out
    assert len(held) == pairs
    assert set(held.key.tolist()) <= set(index(paths, 3).held_out.key.tolist())
    data = Samples(index(paths, 2), side=32, training=False)
    assert len({data[i].identity for i in range(2)}) == 2  # type: ignore[union-attr]


def test_few_held_out_samples_are_said_and_what_is_decided_stays(shards: Path, tmp_path: Path) -> None:
    corpus = index([str(shards / "vif")], 2)
    said = "2 held out: fewer than 16 choose the best weights partly by chance"
    assert corpus.said_of_held_out() == f"{said}; --hold-out takes more"
    assert index([str(shards / "vif")], 0).said_of_held_out() == "0 held out"
    assert replace(corpus, held_out=corpus.train.where(np.zeros(16, np.int64))).said_of_held_out() == "16 held out"
    for split, number in (("train", 0), ("val", 1)):
        shutil.copy(shards / f"vif/vif-train-{number:06d}.tar", tmp_path / f"vif-{split}-000000.tar")
    with pytest.raises(UserError, match=r"^--hold-out 0\.1: what is held out is decided by the validation shards"):
        index([str(tmp_path)], 0.1)
    assert index([str(tmp_path)]).said_of_held_out() == said


def test_nothing_to_train_on_is_one_line(shards: Path, tmp_path: Path) -> None:
    shutil.copy(shards / "vif/vif-train-000000.tar", tmp_path / "vif-test-000000.tar")
    with pytest.raises(UserError, match="no shards to train on"):
        index([str(tmp_path)])
    shutil.copy(shards / "vif/vif-train-000000.tar", tmp_path / "vif-train-000000.tar")
    size = (tmp_path / "vif-train-000000.tar").stat().st_size
    for cut in (size // 2, 700):
        os.truncate(tmp_path / "vif-train-000000.tar", cut)
        with pytest.raises(UserError, match=r"vif-train-000000\.tar: not a whole shard"):
            index([str(tmp_path)])


def cropped(image: np.ndarray, shape: tuple[int, int], at: tuple[float, float], *, mirrored: bool) -> np.ndarray:
    return to_crop(image[window(image.shape, shape, at)], shape, mirrored)


def test_a_crop_is_a_window_of_the_image() -> None:
    image = textured(3)
    middle = cropped(image, (64, 64), (0.5, 0.5), mirrored=False)
    y, x = (128 - 64 + 1) // 2, (160 - 64 + 1) // 2
    np.testing.assert_array_equal(middle, image[y : y + 64, x : x + 64])
    np.testing.assert_array_equal(cropped(image, (64, 64), (0.5, 0.5), mirrored=True), middle[:, ::-1])
    np.testing.assert_array_equal(cropped(image, (64, 64), (0.999, 0.999), mirrored=False), image[-64:, -64:])
    grey = cropped(image[..., :1], (192, 192), (0, 0), mirrored=False)
    assert grey.shape == (192, 192, 3)
    np.testing.assert_array_equal(grey[128:, :160, 1], image[: 63 - 128 : -1, :, 0])


def test_a_batch_holds_one_window_of_all_three(shards: Path) -> None:
    corpus = index([str(shards / "vif")])
    (batch,) = batches(Samples(corpus, side=48, seed=3, training=True), [range(2)])
    assert isinstance(batch, Batch)
    truth = {f"{path.name} {s.key}": s for path in corpus.shards for s in read_samples(path)}
    for row, name in enumerate(batch.names):
        sample = truth[name]
        gt = to_tensor([sample.images["gt"]])[0]
        window = batch.gt[row]
        places = [
            (y, x, flip)
            for flip in (False, True)
            for y in range(gt.shape[1] - 47)
            for x in range(gt.shape[2] - 47)
            if torch.equal(gt[:, y : y + 48, x : x + 48].flip(-1) if flip else gt[:, y : y + 48, x : x + 48], window)
        ]
        (y, x, flip) = places[0]
        b = to_tensor([np.repeat(sample.images["b"], 3, 2)])[0][:, y : y + 48, x : x + 48]
        assert torch.equal(b.flip(-1) if flip else b, batch.b[row])


@pytest.mark.slow
def test_the_same_batches_for_any_number_of_workers_and_any_start(shards: Path) -> None:
    corpus = index([str(shards / "vif"), str(shards / "mef")])

    def taken(start: int, workers: int, cache: int) -> list[Batch]:
        data = Samples(corpus, side=32, seed=5, plain=0.3, training=True, cache=cache, batch=4)
        return [b for b in batches(data, RankBatches(start // 4, 6, 4), workers) if isinstance(b, Batch)]

    here = taken(0, 0, 0)
    for start, workers, cache in ((0, 1, 1 << 20), (8, 2, 0), (16, 0, 1 << 30)):
        for one, other in zip(here[start // 4 :], taken(start, workers, cache), strict=True):
            assert one.prompts == other.prompts and one.names == other.names
            assert torch.equal(one.a, other.a) and torch.equal(one.gt, other.gt)


@pytest.mark.parametrize("cache", [0, 1 << 30])
def test_repeats_are_several_crops_of_one_decoding(shards: Path, monkeypatch: pytest.MonkeyPatch, cache: int) -> None:
    """Each crop depends only on its position; an image is decoded, and its guess started, once per visit."""
    corpus = index([str(shards / "mef")])
    more: dict[str, Any] = {"side": 32, "batch": 4, "training": True, "guess": "pyramid", "plain": 0.5, "seed": 5}
    windows, began = PyramidFuser.windows, list[str]()

    def counted(self: PyramidFuser, a: np.ndarray, b: np.ndarray, task: Any) -> Any:
        began.append(task)
        return windows(self, a, b, task)

    monkeypatch.setattr(PyramidFuser, "windows", counted)
    monkeypatch.setattr("clearfuse.train.data.order.GAP", 1)
    positions, data = range(40), Samples(corpus, repeats=2, cache=cache, **more)
    data.set_schedule(RankBatches(0, 10, 4))
    made = [item for item in map(data.__getitem__, positions) if isinstance(item, Item)]
    assert len(made) == len(positions) and data.order is not None
    visits = {(pick.row, pick.epoch // 2) for pick in map(data.order.at, positions)}
    # 20 samples begin and as many end; the two that began before the run are decoded at their second repeat.
    rows = {row for row, _ in visits}
    assert len(visits) == 22 and (len(began) == len(rows) if cache else len(rows) < len(began) <= 22)
    alone = [Samples(corpus, repeats=2, **more)[position] for position in positions]
    for one, other in zip(made, alone, strict=True):
        assert isinstance(other, Item) and one.prompt == other.prompt
        assert all(np.array_equal(image, other.images[name]) for name, image in one.images.items())
    for first in range(0, len(made) - 5, 2):  # the second repeat is a batch, and a place, after the first
        one, other = made[first], made[first + 5]
        assert one.name == other.name and not np.array_equal(one.images["gt"], other.images["gt"])
    assert len({item.images["a"].tobytes() for item in made}) == len(made)


def test_a_share_of_the_prompts_is_the_plain_request(shards: Path) -> None:
    corpus = index([str(shards / "mef")])
    for plain, expected in ((1.0, {"fuse the under-exposed and over-exposed images"}), (0.0, set[str]())):
        data = Samples(corpus, side=32, plain=plain, training=True)
        prompts = {data[i].prompt for i in range(len(data))}  # type: ignore[union-attr]
        assert prompts & {"fuse the under-exposed and over-exposed images"} == expected


def test_a_share_of_the_training_prompts_is_dropped(shards: Path) -> None:
    corpus = index([str(shards / "vif"), str(shards / "mef")])
    kept, some = (Samples(corpus, side=32, drop=drop, training=True) for drop in (0.0, 0.5))
    pairs = [(kept[i].prompt, some[i].prompt) for i in range(60)]  # type: ignore[union-attr]
    assert all(dropped in ("", prompt) for prompt, dropped in pairs)
    assert 15 < sum(dropped == "" for _, dropped in pairs) < 45
    validation = Samples(corpus, side=32, drop=0.9, training=False)
    assert all(validation[i].prompt for i in range(len(validation)))  # type: ignore[union-attr]


def test_the_clean_pair_is_there_where_it_is_asked_for(shards: Path) -> None:
    """Its crops are taken from the clean images at the position of the degraded ones."""
    corpus = index([str(shards / "vif")])
    (bare,), (batch,) = (
        batches(Samples(corpus, side=1000, training=True, clean=clean), [range(2)]) for clean in (False, True)
    )
    assert isinstance(bare, Batch) and isinstance(batch, Batch)
    assert bare.clean_a is None and bare.clean_b is None and torch.equal(bare.a, batch.a)
    truth = {f"{path.name} {s.key}": s for path in corpus.shards for s in read_samples(path)}
    for row, name in enumerate(batch.names):
        for found, image in ((batch.clean_a, "clean_a"), (batch.clean_b, "clean_b")):
            assert found is not None
            stored = np.broadcast_to(truth[name].images[image], truth[name].images["clean_a"].shape)
            whole = to_tensor([np.ascontiguousarray(stored)])[0]
            part = found[row, :, : whole.shape[1]]
            assert any(torch.equal(p[:, :, : whole.shape[2]], whole) for p in (part, part.flip(-1)))


def test_prompts_in_other_words_ask_for_the_same(shards: Path) -> None:
    """A sample gets another prompt each epoch, always one that fits its degradations."""
    corpus = index([str(shards / "mef")])
    count = len(corpus.train)
    truth = {f"{path.name} {s.key}": s for path in corpus.shards for s in read_samples(path)}
    data = Samples(corpus, side=32, rephrase=1.0, training=True)
    items: list[Any] = [data[position] for position in range(12 * count)]
    assert [item.prompt for item in items] == [data[i].prompt for i in range(12 * count)]  # type: ignore[union-attr]
    for name, sample in truth.items():
        said = {item.prompt for item in items if item.name == name}
        if not said:
            continue  # held out
        assert len(said) > 3
        for step in sample.meta.steps:
            pool = load_pool(step.op)
            assert all(pool.mentions(prompt) for prompt in said), (step.op, said)


def test_words_that_did_not_ship_are_kept(shards: Path) -> None:
    """A user's own phrasings, perhaps in another language, are not rephrased."""
    sample = next(iter(read_samples(shards / "mef/mef-train-000000.tar")))
    prompt = sample.meta.prompt
    assert {rephrase_prompt(sample, generator(seed)) for seed in range(8)} != {sample.prompt}
    for own in ("haze-de-01", "rain-machine-01"):
        other = prompt.model_copy(update={"templates": (own, *prompt.templates[1:])})
        assert {rephrase_prompt(changed(sample, prompt=other), generator(seed)) for seed in range(8)} == {sample.prompt}


@pytest.mark.slow
def test_the_guess_is_made_of_the_whole_image(shards: Path) -> None:
    corpus = index([str(shards / "mef")])
    (batch,) = batches(Samples(corpus, side=48, training=True, guess="pyramid", cache=1 << 20), [range(2)])
    assert isinstance(batch, Batch) and batch.guess is not None
    truth = {f"{path.name} {s.key}": s for path in corpus.shards for s in read_samples(path)}
    for row, name in enumerate(batch.names):
        images = truth[name].images
        whole = PyramidFuser()(images["a"], images["b"], "mef")
        a, guess = batch.a[row], batch.guess[row]
        place = next(
            (y, x, flip)
            for flip in (False, True)
            for y in range(128 - 47)
            for x in range(160 - 47)
            if torch.equal(window_of(images["a"], y, x, flip), a)
        )
        assert torch.equal(window_of(whole, *place), guess)


def window_of(image: np.ndarray, y: int, x: int, flip: bool) -> torch.Tensor:
    window = to_tensor([image[y : y + 48, x : x + 48]])[0]
    return window.flip(-1) if flip else window


def test_a_damaged_sample_is_named(shards: Path, tmp_path: Path) -> None:
    path = tmp_path / "vif-train-000000.tar"
    data = bytearray((shards / "vif/vif-train-000000.tar").read_bytes())
    start = data.index(b"RIFF")
    data[start : start + 100] = bytes(100)
    path.write_bytes(data)
    (first, *_) = batches(Samples(index([str(path)]), side=32, training=True), [range(3)])
    assert isinstance(first, UnreadableSample) and first.reason.startswith(f"{path}: sample 000000000: ")


def test_a_batch_says_what_its_samples_are(shards: Path) -> None:
    corpus = index([str(shards / "vif"), str(shards / "mef")])
    truth = {f"{path.name} {s.key}": s for path in corpus.shards for s in read_samples(path)}
    data = Samples(corpus, side=32, batch=4, seed=3, training=True)
    (batch,) = batches(data, [[5, 2, 11]])
    assert isinstance(batch, Batch) and batch.positions == [5, 2, 11]
    for name, task, operators in zip(batch.names, batch.tasks, batch.operators, strict=True):
        assert task == truth[name].meta.task and operators == tuple(step.op for step in truth[name].meta.steps)


def test_trainers_share_each_batch(shards: Path) -> None:
    """The parts of any number of ranks together are the batches of one rank."""
    data = Samples(index([str(shards / "vif")]), side=32, batch=4, seed=3, training=True)
    whole = [b for b in batches(data, RankBatches(1, 3, 4)) if isinstance(b, Batch)]
    for world in (2, 4):
        parts = [list(batches(data, RankBatches(1, 3, 4, rank, world))) for rank in range(world)]
        for number, one in enumerate(whole):
            shares: list[Any] = [part[number] for part in parts]
            assert [p for share in shares for p in share.positions] == one.positions
            assert torch.equal(torch.cat([share.images["a"] for share in shares]), one.images["a"])


def test_what_is_drawn_goes_by_sample_and_epoch(shards: Path) -> None:
    """Independent of the loading order, and different each epoch."""
    corpus = index([str(shards / "vif")])
    one, other = (Samples(corpus, side=32, batch=batch, seed=3, training=True) for batch in (2, 7))
    count = len(corpus.train)
    crops = [
        {(i.name, n // count): i for n in range(3 * count) if isinstance(i := data[n], Item)} for data in (one, other)
    ]
    assert crops[0].keys() == crops[1].keys() and len(crops[0]) == 3 * count
    for key, item in crops[0].items():
        assert np.array_equal(item.images["a"], crops[1][key].images["a"]) and item.prompt == crops[1][key].prompt
    for name in {name for name, _ in crops[0]}:
        first, second = (crops[0][name, epoch].images["a"] for epoch in (0, 1))
        assert not np.array_equal(first, second)


def test_shapes_are_without_padding_and_one_a_batch(shards: Path) -> None:
    corpus = index([str(shards / "vif"), str(shards / "mef")])
    data = Samples(corpus, side=96, ratios="16:9,4:3,1:1", batch=3, seed=3, training=True)
    sizes = {f"{path.name} {s.key}": s.images["gt"].shape for path in corpus.shards for s in read_samples(path)}
    for batch in batches(data, RankBatches(0, 8, 3)):
        assert isinstance(batch, Batch)
        height, width = batch.images["a"].shape[2:]
        assert height % 16 == width % 16 == 0
        assert all(height <= sizes[name][0] and width <= sizes[name][1] for name in batch.names)


def test_only_what_is_needed_is_read_and_once(shards: Path) -> None:
    corpus = index([str(shards / "vif")])
    held = {path.name: path.stat().st_size for path in corpus.shards}
    data = Samples(corpus, side=32, training=True, cache=1 << 30)
    for _ in range(2):
        for position in range(2 * len(corpus.train)):
            assert isinstance(data[position], Item)
    assert 0.3 * sum(held.values()) < data.reader.bytes_read < 0.8 * sum(held.values())


@pytest.mark.parametrize("what", ["gone", "cut", "longer"])
def test_a_shard_that_changes_while_a_run_goes_on_is_named(shards: Path, tmp_path: Path, what: str) -> None:
    path = Path(shutil.copy(shards / "vif/vif-train-000000.tar", tmp_path))
    data = Samples(index([str(path)]), side=32, training=True)
    if what == "gone":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size + (512 if what == "longer" else -20_000))
    found = data[0]
    said = "the shard is gone since the run began" if what == "gone" else "the shard has changed since the run began"
    assert isinstance(found, UnreadableSample) and found.reason.startswith(f"{path}: sample 00000000")
    assert said in found.reason


def test_a_sample_without_a_member_is_named_before_work(shards: Path, tmp_path: Path) -> None:
    path = tmp_path / "vif-train-000000.tar"
    samples = list(read_shard(shards / "vif/vif-train-000000.tar"))
    samples[1][1].pop("gt.webp")
    write_shard(path, samples)
    with pytest.raises(UserError, match=r"vif-train-000000\.tar: sample 000000001: member gt is missing"):
        index([str(path)])

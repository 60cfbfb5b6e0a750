"""Training on lean shards: new degradations at each position, the same for any data loader; choice of recipes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import SMALL

from clearfuse.synth.builder.run import build
from clearfuse.synth.depth.maps import dequantise
from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.onthefly import OnTheFly
from clearfuse.synth.samples.render import degrade_pair, draw_left, weakened
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.shards.records import Origin
from clearfuse.synth.shards.sample import Sample, read_samples
from clearfuse.synth.types import Step, UserError
from clearfuse.train.data import degrade as degrading
from clearfuse.train.data.batch import Batch, Item, UnreadableSample, collate
from clearfuse.train.data.corpus import Corpus, index
from clearfuse.train.data.loader import batches
from clearfuse.train.data.order import RankBatches
from clearfuse.train.data.samples import Samples
from clearfuse.train.data.scale import draw_factor, rescale
from clearfuse.train.designs.design import Assembly
from clearfuse.train.designs.presets import PRESETS
from clearfuse.train.runs.folder import run_folder, run_record
from clearfuse.train.runs.options import RunOptions
from clearfuse.train.runs.settings import Settings
from clearfuse.train.text import plain_request
from clearfuse.train.training.checkpoint import found
from clearfuse.train.training.trainer import fit
from clearfuse.train.weights.tensors import read_tensors
from conftest import Ran, save, textured

pytestmark = pytest.mark.slow

Train = Callable[..., Ran]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``lean/vif``, ``lean/mef``, and the same builds without ``--lean`` in ``full``."""
    root = tmp_path_factory.mktemp("lean")
    for number in range(5):
        save(root / "MSRS/train/vi" / f"{number:05d}D.png", textured(number))
        save(root / "MSRS/train/ir" / f"{number:05d}D.png", textured(100 + number, channels=1))
        save(root / "under" / f"{number}.png", textured(200 + number) // 3)
        save(root / "over" / f"{number}.png", 255 - (255 - textured(200 + number)) // 3)
    data = {"vif": f"msrs={root / 'MSRS'}", "mef": f"folder={root / 'under'},{root / 'over'}"}
    for kind, lean in (("lean", True), ("full", False)):
        for task, where in data.items():
            out = str(root / kind / task)
            build(task, data=[where], out=out, shard_size=3, lean=lean, executor="serial", seed=3)  # type: ignore[arg-type]
    return root


@pytest.fixture(autouse=True)
def _presets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, preset in SMALL.items():
        monkeypatch.setitem(PRESETS, name, preset)


def read(shards: Path, *kinds: str) -> Corpus:
    return index([str(shards / kind) for kind in kinds])


def items(data: Samples, positions: range) -> list[Item]:
    found_ = [data[position] for position in positions]
    broken = [item.reason for item in found_ if isinstance(item, UnreadableSample)]
    assert not broken, broken
    return found_  # type: ignore[return-value]


def test_the_index_says_which_tasks_are_lean(shards: Path) -> None:
    assert read(shards, "lean/mef", "lean/vif").lean == ("vif", "mef")
    assert read(shards, "lean/mef", "full/vif").lean == ("mef",)
    assert read(shards, "full/vif").lean == ()
    with pytest.raises(ValueError, match="lean samples of vif: degrade must hold what degrades them"):
        Samples(read(shards, "lean/vif"), side=32, training=True)


def test_validation_sees_what_a_full_build_would_hold(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clearfuse.train.data.corpus.HELD_OUT", 0.5)
    lean, full = read(shards, "lean/vif", "lean/mef"), read(shards, "full/vif", "full/mef")
    assert len(lean.held_out) == len(full.held_out) > 1
    more: dict[str, Any] = {"side": 48, "training": False, "guess": "pyramid", "seed": 9}
    one = Samples(lean, degrade=degrading.choose_degraders(lean.lean), scale=0.5, undegraded=1.0, **more)
    other = Samples(full, **more)
    for made, held in zip(items(one, range(len(one))), items(other, range(len(other))), strict=True):
        assert (made.prompt, made.name, made.operators) == (held.prompt, held.name, held.operators) and len(
            made.images
        ) == 4
        assert all(np.array_equal(image, held.images[name]) for name, image in made.images.items())


def test_each_time_round_is_a_new_plan_of_seed_and_position(shards: Path) -> None:
    corpus = read(shards, "lean/vif")
    count = len(corpus.train)

    def made(seed: int = 4, cache: int = 0) -> list[Item]:
        degrade = degrading.choose_degraders(corpus.lean)
        data = Samples(corpus, side=32, seed=seed, training=True, degrade=degrade, cache=cache, rephrase=1.0)
        return items(data, range(6 * count))

    first = made()
    for again in (made(), made(cache=1 << 30)):
        for one, other in zip(first, again, strict=True):
            assert one.prompt == other.prompt and np.array_equal(one.images["a"], other.images["a"])
    for name in {item.name for item in first}:
        rounds = [item for item in first if item.name == name]
        assert len(rounds) == 6 and len({item.prompt for item in rounds}) > 3
    other_seed = {item.prompt for item in made(seed=5)}
    assert other_seed != {item.prompt for item in first}


def test_repeats_are_crops_of_one_plan(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image is degraded once per visit, and its ground truth fits the prompts of all its crops."""
    corpus, degraded, call = read(shards, "lean/vif"), list[Sample](), OnTheFly.__call__

    def counted(*given: Any) -> Sample:
        degraded.append(call(*given))
        return degraded[-1]

    monkeypatch.setattr(OnTheFly, "__call__", counted)
    monkeypatch.setattr("clearfuse.train.data.order.GAP", 1)
    more: dict[str, Any] = {"plain": 0.5, "degrade": degrading.choose_degraders(corpus.lean, partial=1.0)}
    data = Samples(corpus, side=64, seed=4, batch=2, repeats=2, training=True, **more)
    data.set_schedule(RankBatches(0, 6, 2))
    made = items(data, range(12))
    # Position 2 n has the first crop of picture n + 1, position 2 n + 3 its second; of picture 0 only the second comes.
    assert len(degraded) == 7
    degraded[:2] = degraded[1::-1]
    for number, item in enumerate(made):
        picture = degraded[number // 2 + (number + 1) % 2]
        whole, (height, width) = picture.images, item.images["a"].shape[:2]
        assert any(
            np.array_equal(whole["a"][y : y + height, x : x + width], item.images["a"][:, ::way])
            and np.array_equal(whole["gt"][y : y + height, x : x + width], item.images["gt"][:, ::way])
            for y in range(whole["a"].shape[0] - height + 1)
            for x in range(whole["a"].shape[1] - width + 1)
            for way in (1, -1)
        )
    words = [item.prompt for item in made]
    assert all(words[n] == words[n + 3] for n in (0, 2, 4, 6, 8)) and len(set(words)) > 1
    assert len({item.images["a"].tobytes() for item in made}) == len(made)


def test_the_same_batches_for_any_number_of_workers_and_any_start(shards: Path) -> None:
    corpus = read(shards, "lean/vif", "full/mef")
    degrade = degrading.choose_degraders(corpus.lean, partial=0.5)

    def taken(start: int, workers: int, cache: int) -> list[Batch]:
        more: dict[str, Any] = {"seed": 5, "plain": 0.3, "guess": "pyramid", "cache": cache, "degrade": degrade}
        data = Samples(corpus, side=32, batch=4, training=True, scale=0.5, **more)
        return [b for b in batches(data, RankBatches(start // 4, 6, 4), workers) if isinstance(b, Batch)]

    here = taken(0, 0, 0)
    assert len(here) == 6
    for start, workers, cache in ((8, 2, 1 << 20), (16, 0, 1 << 30)):
        for one, other in zip(here[start // 4 :], taken(start, workers, cache), strict=True):
            assert one.prompts == other.prompts and one.names == other.names
            assert one.guess is not None and other.guess is not None
            pairs = ((one.a, other.a), (one.b, other.b), (one.gt, other.gt), (one.guess, other.guess))
            assert all(torch.equal(x, y) for x, y in pairs)


def test_partial_ground_truth_goes_with_its_prompt_and_never_with_the_plain_request(shards: Path) -> None:
    corpus = read(shards, "lean/mef")
    truth = {f"{path.name} {s.key}": s.images["gt"] for path in corpus.shards for s in read_samples(path)}
    differs: dict[float, int] = {}
    for plain in (0.0, 1.0):
        degrade = degrading.choose_degraders(corpus.lean, partial=1.0)
        made = items(Samples(corpus, side=160, plain=plain, training=True, degrade=degrade), range(6))
        for item in made:
            held, crop = truth[item.name], item.images["gt"]
            height, width = crop.shape[:2]
            corners = [(y, x) for y in range(held.shape[0] - height + 1) for x in range(held.shape[1] - width + 1)]
            differs.setdefault(plain, 0)
            differs[plain] += not any(
                np.array_equal(held[y : y + height, x : x + width], way)
                for y, x in corners
                for way in (crop, crop[:, ::-1])
            )
    assert differs == {0.0: 6, 1.0: 0}


def test_a_dialled_ground_truth_keeps_the_recorded_share_of_the_steps(shards: Path) -> None:
    corpus = read(shards, "lean/mef")
    degrade = degrading.choose_degraders(corpus.lean, dial=1.0)["mef"]
    lefts = []
    for path in corpus.shards:
        for sample in read_samples(path):
            made = degrade(sample, 5, 0)
            meta, images = made.meta, made.images
            lefts.append(meta.left)
            assert 0 < meta.left < 1 and meta.to_json()["left"] == meta.left
            less = [weakened(step, meta.left) for step in meta.steps]
            depth = None if made.depth is None else dequantise(made.depth)
            pair = degrade_pair("mef", images["clean_a"], images["clean_b"], less, depth)
            np.testing.assert_array_equal(images["gt"], PyramidFuser()(*pair, "mef"))
            with pytest.raises(ValueError, match="its ground truth keeps steps"):
                degrade(made)
    assert len(set(lefts)) == len(lefts) > 2
    known = Step("haze", "a", {}, 1)
    bare = Step("albumentations:Posterize", "a", {}, 1)  # says no identity, so nobody knows what half of it is
    assert draw_left(1.0, [known], generator(1)) > 0
    assert [draw_left(1.0, asked, generator(1)) for asked in ([], [bare], [known, bare])] == [0, 0, 0]
    batch = collate(items(Samples(corpus, side=64, training=True, degrade={"mef": degrade}), range(4)))
    assert isinstance(batch, Batch) and batch.strength is not None
    assert ((batch.strength > 0) & (batch.strength < 1)).all() and len(batch.strength.unique()) == 4
    plain = collate(items(Samples(corpus, side=64, training=True, degrade=degrading.choose_degraders(("mef",))), [0]))
    assert isinstance(plain, Batch) and plain.strength is not None and plain.strength.tolist() == [1.0]


def test_a_share_of_samples_is_left_as_it_is_with_the_plain_request(shards: Path) -> None:
    corpus = read(shards, "lean/vif")
    degrade = degrading.choose_degraders(corpus.lean)
    for share, fits in ((0.0, lambda n: n == 0), (0.5, lambda n: 4 < n < 20), (1.0, lambda n: n == 24)):
        made = items(Samples(corpus, side=160, training=True, degrade=degrade, clean=True, undegraded=share), range(24))
        clean = [item.prompt == plain_request("vif") and not item.operators for item in made]
        assert fits(sum(clean)), (share, sum(clean))
        for item, as_it_is in zip(made, clean, strict=True):
            assert not as_it_is or np.array_equal(item.images["a"], item.images["clean_a"])
    held_out = Samples(corpus, side=160, training=False, degrade=degrade, undegraded=1.0)
    assert all(item.operators for item in items(held_out, range(len(held_out))))


def test_rescaled_pairs_keep_a_truth_that_fits_their_guess(shards: Path) -> None:
    """Undegraded, the guess of a smaller pair is its ground truth; crops still fit into it."""
    corpus = read(shards, "lean/vif")
    degrade = degrading.choose_degraders(corpus.lean)
    more: dict[str, Any] = {"training": True, "degrade": degrade, "guess": "pyramid", "undegraded": 1.0, "clean": True}
    whole = items(Samples(corpus, side=48, **more), range(12))
    small = items(Samples(corpus, side=48, scale=0.5, **more), range(12))
    for one, other in zip(whole, small, strict=True):
        assert one.name == other.name and one.images["a"].shape == other.images["a"].shape
        assert not np.array_equal(one.images["a"], other.images["a"])
        assert np.array_equal(other.images["guess"], other.images["gt"])


def test_factors_are_uniform_in_their_logarithm_and_leave_room_for_the_crop() -> None:
    assert draw_factor(0.0, 0.5, (640, 480), (160, 160)) == 1
    assert draw_factor(0.5, 0.25, (640, 480), (100, 100)) == pytest.approx(0.5)
    assert draw_factor(1.0, 0.25, (640, 480), (160, 240)) == 0.5, "the crop's height is half of the picture's"
    assert draw_factor(1.0, 0.25, (96, 96), (128, 128)) == 1


def test_depth_and_a_data_set_s_own_truth_are_made_smaller(shards: Path) -> None:
    sample = next(iter(read_samples(next((shards / "lean/vif").glob("*.tar")))))
    own = replace(sample, meta=sample.meta.model_copy(update={"fuser": Origin(name="dataset", weights=None)}))
    h, w = sample.images["gt"].shape[:2]
    half, other = rescale(sample, 0.5), rescale(own, 0.5)
    assert half.depth is not None and sample.depth is not None
    assert half.depth.shape == half.images["clean_a"].shape[:2] == (h // 2, w // 2)
    assert {*np.unique(half.depth)} <= {*np.unique(sample.depth)}, "no depth between two things"
    means = sample.images["gt"][: h // 2 * 2, : w // 2 * 2].reshape(h // 2, 2, w // 2, 2, -1).mean((1, 3))
    assert np.abs(other.images["gt"] - means).max() <= 0.5
    assert np.array_equal(half.images["gt"], PyramidFuser()(half.images["clean_a"], half.images["clean_b"], "vif"))


def test_recipes_are_chosen_by_task(shards: Path, tmp_path: Path) -> None:
    own = tmp_path / "night.toml"
    own.write_text('schema = 1\ntask = "vif"\nn = [1]\nratios = {"1:1" = 1}\n[operators.gaussian_noise]\n')
    assert {task: one.recipe.name for task, one in degrading.choose_degraders(("vif", "mef"), [str(own)]).items()} == {
        "vif": "night",
        "mef": "mef",
    }
    data = Samples(
        index([str(shards / "lean/vif")]),
        side=32,
        training=True,
        degrade=degrading.choose_degraders(("vif",), [str(own)]),
    )
    assert all(("nois" in item.prompt.lower() or "grain" in item.prompt.lower()) for item in items(data, range(4)))


MISTAKES: list[tuple[tuple[str, ...], tuple[str, ...], float, str]] = [
    ((), ("vif",), 0.0, "--recipe vif: is for lean shards (synth build --lean); these are degraded already"),
    ((), (), 0.2, "--partial 0.2: is for lean shards (synth build --lean); these are degraded already"),
    (("vif",), ("mef",), 0.0, "--recipe mef: is for mef, the lean shards here are of vif"),
    (("vif", "mef"), ("vif", "vif"), 0.0, "--recipe vif: vif has 'vif': give one a task"),
    (("vif",), ("vfi",), 0.0, "unknown recipe 'vfi': did you mean 'vif'?"),
    (("vif",), (), 1.2, "--partial 1.2: must be a share in [0, 1]"),
]


def test_a_dial_is_learned_by_networks_that_have_one(shards: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--dial 0\.5: networks of 'small' have no dial"):
        run(shards, tmp_path / "none", dial=0.5)
    settings = Settings.of("small-dial", steps=3)
    fit([str(shards / "lean/vif")], str(tmp_path / "dial"), settings, dial=1.0, run_options=RunOptions(workers=0))
    assert json.loads((tmp_path / "dial/run.json").read_bytes())["degrade"]["vif"]["dial"] == 1
    start = Assembly(PRESETS["small-dial"].design, torch.Generator().manual_seed(seed_of("weights", 0)))
    learned, _ = read_tensors(tmp_path / "dial/model.safetensors")
    name = "network.dial.outer.weight"
    assert (start.state_dict()[name] == 0).all() and learned[name].abs().max() > 0


@pytest.mark.parametrize(("lean", "recipes", "partial", "said"), MISTAKES)
def test_a_recipe_that_fits_nothing_is_one_line(
    lean: tuple[Any, ...], recipes: tuple[str, ...], partial: float, said: str
) -> None:
    with pytest.raises(UserError) as error:
        degrading.choose_degraders(lean, recipes, partial)
    assert str(error.value).startswith(said)


def run(shards: Path, out: Path, **changed: Any) -> None:
    run_options = RunOptions(validate_every=3, checkpoint_every=2, workers=changed.pop("workers", 0))
    fit([str(shards / "lean/vif")], str(out), Settings.of("small", steps=4), run_options=run_options, **changed)


def test_a_run_records_its_recipes_and_stops_and_goes_on_bit_for_bit(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    run(shards, tmp_path / "whole", note=notes.append)
    assert "lean shards of vif are degraded as they are read: recipe 'vif'" in notes
    record = json.loads((tmp_path / "whole/run.json").read_bytes())["degrade"]
    assert record["vif"]["partial"] == 0 and record["vif"]["recipe"]["n"] == [1, 2, 3]

    def stopped(report: Any) -> None:
        if report.step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(shards, tmp_path / "cut", progress=stopped)
    run(shards, tmp_path / "cut")
    assert (tmp_path / "cut/log.jsonl").read_bytes() == (tmp_path / "whole/log.jsonl").read_bytes()
    one, other = (
        read_tensors(found(tmp_path / name / "checkpoints")[-1] / "rank-000.safetensors")[0]
        for name in ("whole", "cut")
    )
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    with pytest.raises(
        UserError, match=r"a run with other degradations: vif\.partial was 0\.0, is 0\.5; choose another"
    ):
        run(shards, tmp_path / "whole", partial=0.5)


def test_a_run_of_before_lean_shards_and_repeats_goes_on(shards: Path, tmp_path: Path) -> None:
    record = run_record(Settings.of("small"), read(shards, "full/vif"))
    before = record.to_json()
    assert before.pop("degrade") is None and before["settings"].pop("repeats") == 1
    with run_folder(tmp_path / "run", record, overwrite=False):
        assert json.loads((tmp_path / "run/run.json").read_text()) == record.to_json()
    (tmp_path / "run/run.json").write_text(json.dumps(before))
    with run_folder(tmp_path / "run", record, overwrite=False):
        assert json.loads((tmp_path / "run/run.json").read_text()) == before
    other = run_record(Settings.of("small", repeats=2), read(shards, "full/vif"))
    with (
        pytest.raises(UserError, match="a run with repeats 1, not 2"),
        run_folder(tmp_path / "run", other, overwrite=False),
    ):
        pass


def test_the_command_line(train: Train, shards: Path, tmp_path: Path) -> None:
    options = ("--preset", "small", "--steps", "1", "--workers", "0", "--out", tmp_path / "run")
    ran = train("fit", shards / "lean/vif", shards / "lean/mef", *options, "--recipe", "mef", "--recipe", "vif")
    assert ran.code == 0, ran.err
    ran = train("fit", shards / "full/vif", "--preset", "small", "--recipe", "vif", "--out", tmp_path / "none")
    assert (ran.code, ran.error) == (
        2,
        "train: error: --recipe vif: is for lean shards (synth build --lean); these are degraded already",
    )
    assert not (tmp_path / "none").exists()


def test_eval_of_lean_shards_is_one_line(train: Train, shards: Path, tmp_path: Path) -> None:
    ran = train("eval", shards / "lean/vif", "--model", "none", "--out", tmp_path / "report")
    path = shards / "lean/vif/vif-train-000000.tar"
    assert (ran.code, ran.out, (tmp_path / "report").exists()) == (2, "", False)
    assert ran.error == (f"train: error: {path}: is lean, without degraded images to score: build it without --lean")

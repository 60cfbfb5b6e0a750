"""Pairs made of single pictures: exposures and focus distances against the optics, and builds of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clearfuse.synth.builder.run import build
from clearfuse.synth.datasets.find import find_all, own_task
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.datasets.read import read_image
from clearfuse.synth.depth.metres import decode_png, encode_png, quantise
from clearfuse.synth.onthefly import OnTheFly
from clearfuse.synth.prompts.compose import sides_known
from clearfuse.synth.review.verify import check_sample, verify
from clearfuse.synth.samples import single
from clearfuse.synth.samples.recipe import load_recipe
from clearfuse.synth.seeds import generator
from clearfuse.synth.shards.codecs import CODECS
from clearfuse.synth.shards.records import Exposed, Focused, Origin
from clearfuse.synth.shards.sample import encode_sample, read_samples
from clearfuse.synth.shards.tar import read_shard
from clearfuse.synth.types import BadPair, Task, UserError
from conftest import Ran, folder_bytes, save, textured

Synth = Callable[..., Ran]
MAPS = Origin(name="maps", weights=None)
CODES = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)


def drawn(count: int = 40) -> list[Exposed]:
    """What the pairs of so many seeds are made by."""
    return [single.draw_exposures(generator(seed)) for seed in range(count)]


def step(height: int = 128, width: int = 160, near: float = 2.0, far: float = 20.0) -> np.ndarray:
    """Metres: the left part near, the right one far, with a strip of sky above that."""
    metres = np.full((height, width), far, np.float32)
    metres[:10] = np.inf
    metres[:, : width // 2] = near
    return metres


def test_the_camera_curve_is_one_and_its_inverse_undoes_it() -> None:
    values = np.linspace(0, 1, 1001)
    for how in drawn():
        assert np.allclose(single.response(single.light_of(values, how), how), values, atol=1e-12)
        assert single.response(np.array([0.0, 1.0, 7.0]), how).tolist() == [0.0, 1.0, 1.0]
        # At H = 1 the slope is n σ / (1 + σ), by differentiation.
        slope = (1 - single.response(np.array([1 - 1e-6]), how)[0]) / 1e-6
        assert slope == pytest.approx(how.n * how.sigma / (1 + how.sigma), rel=1e-4)


def test_an_exposure_is_the_light_times_two_to_the_stops_within_half_a_code() -> None:
    """Against the curve inverted numerically: the codes are compared in light, by the ends of their rounding cells."""
    dense = np.linspace(0, 1, 1 << 16) ** 3
    for how in drawn():
        curve = (1 + how.sigma) * dense**how.n / (dense**how.n + how.sigma)
        light = np.interp(CODES.ravel() / 255, curve, dense)
        for image, ev in zip(single.expose(CODES, how), (how.ev_a, how.ev_b), strict=True):
            codes, wanted = image.ravel().astype(float), light * 2**ev
            full = wanted >= 1
            assert (codes[full] == 255).all() and full.any() == (ev > 0)
            low, high = (np.interp((codes + half) / 255, curve, dense) for half in (-0.5001, 0.5001))
            assert ((low <= wanted) & (wanted <= high))[~full].all()


def test_a_is_the_darker_one_and_stops_vary() -> None:
    picture = textured(3)
    draws = drawn()
    for how in draws:
        under, over = single.expose(picture, how)
        assert single.UNDER[0] <= how.ev_a <= single.UNDER[1] and single.OVER[0] <= how.ev_b <= single.OVER[1]
        assert (under <= picture).all() and (picture <= over).all() and under.mean() < picture.mean() < over.mean()
    assert len({how.ev_a for how in draws}) == len({how.n for how in draws if how.n not in (0.7, 1.1)}) + sum(
        how.n in (0.7, 1.1) for how in draws
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_away_from_the_boundary_every_pixel_is_the_pictures_in_one_image(channels: int) -> None:
    picture, metres = textured(5, channels=channels), step()
    made = single.refocus(picture, metres, MAPS, generator(1))
    assert isinstance(made.how, Focused) and 2 < made.how.cut < 20
    radius = made.how.aperture * (1 / 2 - 1 / 20)
    reach = int(np.ceil(radius)) + 4
    middle = picture.shape[1] // 2
    assert np.array_equal(made.a[:, : middle - reach], picture[:, : middle - reach])
    assert np.array_equal(made.b[:, middle + reach :], picture[:, middle + reach :])
    for blurred, side in ((made.a, np.s_[20:, middle + reach :]), (made.b, np.s_[20:, : middle - reach])):
        assert (
            np.diff(blurred[side].astype(float), axis=0).std()
            < 0.6 * np.diff(picture[side], axis=0).astype(float).std()
        )


def test_the_blurred_near_side_spreads_over_the_far_one_and_not_the_other_way() -> None:
    picture = np.full((96, 160, 3), 30, np.uint8)
    picture[:, :80] = 220
    made = single.refocus(picture, step(96), MAPS, generator(2))
    assert (made.b[40, 80:83] > 60).all(), "the light of a near side out of focus lies over the far one"
    assert (made.b[40, 78:80] < 215).all(), "and its rim lets the far side through"
    assert np.abs(made.a[40, 83:].astype(int) - 30).max() <= 1, "none of a sharp near side leaks into the far blur"
    assert (made.a[40, :79] == 220).all()


def test_both_images_are_of_one_lens() -> None:
    """The blur of each side is the aperture times its distance from the focus in 1/z, between the least and largest."""
    metres = step()
    made = single.refocus(textured(1), metres, MAPS, generator(3))
    assert isinstance(made.how, Focused)
    inverse = single.inverse_depth(single.Scene(depth=metres))
    assert inverse is not None
    near = inverse > 1 / made.how.cut
    assert made.how.near == pytest.approx(1 / float(np.median(inverse[near])), abs=1e-3)
    assert made.how.far == pytest.approx(1 / float(np.median(inverse[~near])), abs=1e-3)
    before = float(np.percentile(inverse[near], 95)) - 1 / made.how.far
    behind = 1 / made.how.near - float(np.percentile(inverse[~near], 5))
    largest = made.how.aperture * max(before, behind)
    assert single.LEAST_BLUR - 0.01 <= largest <= max(single.BLUR[1] * 160, single.LEAST_BLUR) + 0.01


def test_the_gap_is_where_the_depth_has_one() -> None:
    rng = generator(4)
    metres = np.where(np.arange(160) < 50, 2.0, 12.0) * rng.uniform(0.85, 1.15, (128, 160))
    metres[:12] = np.inf
    near = single.near_side((1 / metres).astype(np.float32))
    assert np.array_equal(near, np.broadcast_to(metres < 6, near.shape))


@pytest.mark.parametrize(
    ("metres", "reason"),
    [
        (np.full((64, 64), 5.0), "the far end is 1.* times the near end"),
        (np.full((64, 64), np.inf), "all is sky"),
        (np.full((64, 64), np.nan), "unknown everywhere"),
        (np.where(np.arange(64) < 1, 1.0, 5.0) * np.ones((64, 1)), "% of it is near|times the near end"),
        (np.where(np.arange(64) < 32, 4.0, 4.9) * np.ones((64, 1)), "no two sides"),
    ],
)
def test_a_depth_without_two_sides_is_a_reason(metres: np.ndarray, reason: str) -> None:
    with pytest.raises(BadPair, match=reason):
        single.pair_of(textured(1, 64, 64), "mff", metres.astype(np.float32), MAPS, generator(0))


@pytest.mark.parametrize("task", ["mef", "mff"])
def test_a_flat_picture_is_a_reason(task: Task) -> None:
    with pytest.raises(BadPair, match="flat: its luma spans 4 grey levels, under 16"):
        single.pair_of(100 + CODES // 52, task, np.ones((16, 16), np.float32), MAPS, generator(0))


def test_it_is_for_two_tasks(tmp_path: Path, pictures: Path, synth: Synth) -> None:
    ran = synth("build", "--task", "vif", "--data", f"single={pictures}", "--out", tmp_path / "out")
    assert ran.code == 2 and not (tmp_path / "out").exists()
    assert ran.error.endswith(": is for mef and mff, not for vif: a picture has no infrared side")


def test_it_is_a_data_set_like_others(pictures: Path, synth: Synth) -> None:
    manifest = load_manifest("single")
    found = find_all(manifest, str(pictures), own_task(manifest))
    assert [ref.key for ref in found.pairs] == ["0", "1", "2", "3", "4", "5"]
    assert all(ref.single and not ref.real and not ref.predegraded for ref in found.pairs)
    assert sum(found.splits.values()) == 6 and not found.unpaired and found.ignored == 1
    assert sides_known("mff", "single")
    facts = json.loads(synth("list", "datasets", "--json").out)["single"]
    assert facts["single"] is True and facts["gt"] is True and facts["splits"] == "by hash of the scene"
    assert "made of single pictures" in synth("list", "datasets").out
    checked = synth("datasets", "check", f"single={pictures}")
    assert checked.code == 0, checked.out


@pytest.mark.parametrize("image", ["a", "b", "degraded_a", "sequence"])
def test_a_manifest_of_single_pictures_has_no_other(tmp_path: Path, image: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'schema = 1\nkind = "single"\ntask = "any"\ngt = "{{key}}.*"\n{image} = "{{key}}.*"\n')
    with pytest.raises(UserError, match=f"{image} does not go with kind single"):
        load_manifest("mine", path)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six pictures in two folders, and a file that is none."""
    root = tmp_path / "pictures"
    for number in range(6):
        save(root / ("one" if number < 3 else "two") / f"{number}.png", textured(number))
    (root / "notes.txt").write_text("none")
    return root


@pytest.fixture
def maps(tmp_path: Path) -> str:
    """Their depth, two sides each but for picture 0, which is at one depth."""
    root = tmp_path / "maps"
    root.mkdir()
    for number in range(6):
        metres = step(near=1 + number) if number else np.full((128, 160), 4, np.float32)
        (root / f"{number}.png").write_bytes(encode_png(quantise(metres)))
    return f"maps={root}"


def made(out: Path, task: Task, pictures: Path, depth: str, **options: Any) -> Path:
    """The folder of a build of all splits."""
    options = {"codec": "png", "executor": "serial", "n": "1-2", "seed": 7, "max_rejects": 1.0, **options}
    splits = find_all(load_manifest("single"), str(pictures), task).splits
    split = ",".join(name for name, count in splits.items() if count)
    build(task, data=[f"single={pictures}"], out=str(out), depth=depth, split=split, **options)
    return out


def samples_of(folder: Path) -> list[Any]:
    return [sample for tar in sorted(folder.glob("*.tar")) for sample in read_samples(tar)]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["mef", "mff"])
def test_the_ground_truth_is_the_picture_to_the_bit(tmp_path: Path, pictures: Path, maps: str, task: Task) -> None:
    out = made(tmp_path / "out", task, pictures, maps, partial=0.0)
    samples = samples_of(out)
    assert {s.meta.pair for s in samples} == set("012345") - ({"0"} if task == "mff" else set())
    for sample in samples:
        meta, (x, y, w, h) = sample.meta, sample.meta.crop
        picture, sha256 = read_image(str(next(pictures.glob(f"*/{meta.pair}.png"))))
        assert np.array_equal(sample.images["gt"], picture[y : y + h, x : x + w])
        assert (meta.fuser.name, meta.sources["gt"]) == ("dataset", sha256) and set(meta.sources) == {"a", "b", "gt"}
        if isinstance(meta.single, Exposed):
            crops = (sample.images["clean_a"], sample.images["clean_b"])
            assert all(map(np.array_equal, crops, single.expose(sample.images["gt"], meta.single)))
        else:
            assert isinstance(meta.single, Focused) and meta.single.depth.name == "maps"
            sharp = [(sample.images[f"clean_{name}"] == sample.images["gt"]).all(2) for name in ("a", "b")]
            assert (sharp[0] | sharp[1]).mean() > 0.85
    if task == "mff":
        rejects = [one for path in out.glob("mff-*.json") for one in json.loads(path.read_text())["rejects"]]
        assert [(one["pair"], one["reason"][:26]) for one in rejects] == [("0", "its depth has no two sides")]
    report = verify([str(out)], replay=True)
    assert report.ok and report.replayed == len(samples)
    data = json.loads((out / "dataset.json").read_text())["settings"]["data"]
    assert data["single"]["single"] is True
    assert "their ground truth is the picture itself" in " ".join((out / "README.md").read_text().split())


@pytest.mark.slow
def test_an_image_that_is_no_exposure_is_found(tmp_path: Path, pictures: Path, maps: str) -> None:
    sample = samples_of(made(tmp_path / "out", "mef", pictures, maps, lean=True, n=None))[0]
    assert not list(check_sample(sample))
    wrong = {**sample.images, "clean_b": np.maximum(sample.images["clean_b"], 1) - 1}
    assert [line.partition(": ")[2] for line in check_sample(replace(sample, images=wrong))] == [
        "clean_b is not the exposure of gt that the json says"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["mef", "mff"])
def test_lean_and_on_the_fly_are_the_full_build(tmp_path: Path, pictures: Path, maps: str, task: Task) -> None:
    full = made(tmp_path / "full", task, pictures, maps)
    lean = made(tmp_path / "lean", task, pictures, maps, lean=True, n=None)
    degrade = OnTheFly(load_recipe(task, n="1-2"))
    for one, other in zip(sorted(full.glob("*.tar")), sorted(lean.glob("*.tar")), strict=True):
        for (_, members), sample in zip(read_shard(one), read_samples(other), strict=True):
            assert encode_sample(degrade(sample), CODECS["png"]) == members
    report = verify([str(lean)], replay=True)
    assert report.ok and report.lean == report.samples > 3


@pytest.mark.slow
def test_the_depth_of_a_sample_is_what_split_it_and_what_is_kept_changes_no_byte(
    tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the prior, whose depth is kept where there are several variants, and is refined by focus for other pairs."""
    monkeypatch.setenv("CLEARFUSE_CACHE", str(tmp_path / "cache"))
    options: dict[str, Any] = {"lean": True, "n": None, "limit": 3}
    kept = made(tmp_path / "kept", "mff", pictures, "prior", variants=2, **options)
    alone = made(tmp_path / "alone", "mff", pictures, "prior", **options)
    parallel = {"workers": 2, "executor": "processes"}
    again = made(tmp_path / "again", "mff", pictures, "prior", variants=2, **options, **parallel)
    assert folder_bytes(kept) == folder_bytes(again)
    first = {s.meta.pair: encode_sample(s, CODECS["png"]) for s in samples_of(kept) if s.meta.variant == 0}
    assert first == {s.meta.pair: encode_sample(s, CODECS["png"]) for s in samples_of(alone)} and first
    for members in first.values():
        assert decode_png(members["depth.png"]).any()
    lenses: dict[str, set[str]] = {}
    for sample in samples_of(kept):
        lenses.setdefault(sample.meta.pair, set()).add(str(sample.meta.single))
    assert all(len(those) == 1 for those in lenses.values()), "the variants are of one pair"

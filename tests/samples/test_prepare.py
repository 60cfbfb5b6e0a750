"""Ground truth and depth are computed once per pair, for any number of variants, recipes and builds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from clearfuse.synth.builder.options import Options
from clearfuse.synth.builder.run import build, plan_build
from clearfuse.synth.datasets.read import read_pair
from clearfuse.synth.files import cache
from clearfuse.synth.fusers.quality import MOST, correlation, qabf, spread_tiles, truth_quality
from clearfuse.synth.samples.prepare import Prepared, depth_entry, prepare, prepare_batch, truth_entry
from clearfuse.synth.shards.sample import read_samples
from clearfuse.synth.types import UserError

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CLEARFUSE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def members(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.tar"))]


def test_sixteen_variants_make_each_once_and_another_recipe_none(tmp_path: Path, msrs: Path) -> None:
    options = {"data": [f"msrs={msrs}"], "executor": "serial", "shard_size": 4}
    first = build("vif", out=str(tmp_path / "one"), variants=16, n="2", **options)
    pairs = len(plan_build(Options(task="vif", data=(f"msrs={msrs}",)))[0].pairs)
    assert (first.made.truths, first.made.depths) == (pairs, pairs) and first.samples == 16 * pairs
    assert {each.kind: each.entries for each in cache.usage()} | {"thumbnails": 0} == {
        "truth": pairs, "quality": pairs, "depth": pairs, "inverse": 0, "thumbnails": 0
    }  # fmt: skip
    other = build("vif", out=str(tmp_path / "two"), variants=2, n="1", recipe="vif-severe", **options)
    assert (other.made.truths, other.made.depths) == (0, 0)
    seeded = build("vif", out=str(tmp_path / "three"), variants=2, seed=5, **options)
    assert (seeded.made.truths, seeded.made.depths) == (0, pairs), "another seed puts the far end elsewhere"


def test_what_is_kept_changes_no_byte(tmp_path: Path, msrs: Path) -> None:
    options = {"data": [f"msrs={msrs}"], "executor": "serial", "seed": 3}
    build("vif", out=str(tmp_path / "kept"), variants=2, **options)
    assert any(each.entries for each in cache.usage())
    build("vif", out=str(tmp_path / "again"), variants=2, **options)
    cache.clear()
    single = build("vif", out=str(tmp_path / "single"), variants=1, **options)
    assert (single.made.truths, single.made.depths) == (0, 0) and not any(each.entries for each in cache.usage())
    kept, again, alone = (members(tmp_path / name) for name in ("kept", "again", "single"))
    assert kept == again and kept[0] == alone[0]


@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_a_kept_pair_is_the_pair(task: str) -> None:
    planned = plan_build(Options(task=task, variants=2, limit=1))[0]
    (ref,) = planned.pairs
    pair = read_pair(ref)
    fresh = prepare(planned.spec, ref)
    depth = fresh.depth(planned.spec)
    if planned.spec.fusers[ref.dataset] != "dataset":
        assert truth_entry(planned.spec, ref, pair).is_file()
    assert (depth_entry(planned.spec, fresh) is None) == (planned.spec.depths[ref.dataset].name == "true")
    again = prepare(planned.spec, ref)
    assert np.array_equal(again.gt, fresh.gt) and np.array_equal(again.depth(planned.spec), depth)


def test_a_damaged_entry_is_made_anew(msrs: Path) -> None:
    spec = plan_build(Options(task="vif", data=(f"msrs={msrs}",), variants=2))[0]
    ref = spec.pairs[0]
    fresh = prepare(spec.spec, ref)
    path = truth_entry(spec.spec, ref, fresh.pair)
    path.write_bytes(path.read_bytes()[:-5])
    assert np.array_equal(prepare(spec.spec, ref).gt, fresh.gt)
    assert cache.load_cached(path) is not None


def test_a_pair_that_cannot_be_read_is_left_to_its_sample(tmp_path: Path, msrs: Path) -> None:
    planned = plan_build(Options(task="vif", data=(f"msrs={msrs}",), variants=2))[0]
    bad, *rest = planned.pairs
    Path(bad.sources["a"]).write_bytes(b"no picture")
    made = prepare_batch(planned.spec, planned.pairs)
    assert made.truths == len(rest)
    report = build(
        "vif", out=str(tmp_path / "out"), data=[f"msrs={msrs}"], variants=2, executor="serial", max_rejects=1.0
    )
    assert {reject["pair"] for reject in report.rejects} == {bad.key}


def test_a_network_gives_one_answer_kept_or_not(tmp_path: Path, msrs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Depth Anything runs in batches, once per image, whatever the seed."""
    asked: list[int] = []

    def answer(pictures: list[np.ndarray], folder: str) -> list[np.ndarray]:
        asked.append(len(pictures))
        return [np.linspace(0, 1 / 3, 48 * 64, dtype=np.float32).reshape(48, 64) for _ in pictures]

    monkeypatch.setattr("clearfuse.synth.depth.anything.inverse_depths", answer)
    monkeypatch.setattr("clearfuse.synth.depth.anything.weights_digest", lambda folder: "0" * 16)
    (tmp_path / "net").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "net" / name).write_bytes(b"")
    options = {
        "data": [f"msrs={msrs}"], "depth": f"depth-anything={tmp_path / 'net'}", "executor": "serial"
    }  # fmt: skip
    monkeypatch.setattr("clearfuse.synth.samples.prepare.on_gpu", lambda spec: False)
    first = build("vif", out=str(tmp_path / "one"), **options)
    pairs = first.samples
    assert sum(asked) == pairs == first.made.depths and max(asked) > 1
    build("vif", out=str(tmp_path / "two"), seed=1, **options)
    assert sum(asked) == pairs
    cache.clear()
    build("vif", out=str(tmp_path / "three"), **options)
    assert members(tmp_path / "one") == members(tmp_path / "three")
    assert {s.meta.depth.name for s in read_samples(next((tmp_path / "one").glob("*.tar"))) if s.meta.depth} == {
        "depth-anything"
    }


def test_what_is_prepared_is_what_a_sample_has(msrs: Path) -> None:
    planned = plan_build(Options(task="vif", data=(f"msrs={msrs}",), variants=2))[0]
    prepared = [prepare(planned.spec, ref) for ref in planned.pairs]
    assert all(isinstance(one, Prepared) and one.picture() is one.pair.a for one in prepared)
    assert all(replace(one, ref=replace(one.ref, task="mef")).picture() is one.gt for one in prepared)


def test_the_quality_of_the_truth_is_recorded_and_judged(tmp_path: Path, msrs: Path) -> None:
    options = {"data": [f"msrs={msrs}"], "executor": "serial"}
    build("vif", out=str(tmp_path / "all"), **options)
    found = {s.meta.pair: s.meta.gt_quality for s in read_samples(next((tmp_path / "all").glob("*.tar")))}
    assert all(0 < each["Qabf"] < 0.975 and -1 <= each["CC"] <= 1 for each in found.values())
    ranked = sorted(found, key=lambda pair: found[pair]["Qabf"])
    least = (found[ranked[1]]["Qabf"] + found[ranked[2]]["Qabf"]) / 2
    some = build("vif", out=str(tmp_path / "some"), min_gt=least, max_rejects=1.0, **options)
    assert {reject["pair"] for reject in some.rejects} == set(ranked[:2])
    assert all("under --min-gt" in reject["reason"] for reject in some.rejects)
    with pytest.raises(UserError, match="--min-gt 2: must be a share"):
        build("vif", out=str(tmp_path / "none"), min_gt=2.0, **options)


def test_quality_of_known_pictures() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    same = truth_quality(a, a, a)
    # Γg/(1 + e^(−15 · 0.5)) · Γα/(1 + e^(−22 · 0.2)), where strength and orientation are kept.
    assert same["CC"] == 1.0 and same["Qabf"] == pytest.approx(
        0.9994 / (1 + np.exp(-7.5)) * 0.9879 / (1 + np.exp(-4.4)), abs=1e-4
    )
    negative = truth_quality(255 - a, a, a)
    assert negative["CC"] == -1.0
    flat = np.full_like(a, 7)
    assert truth_quality(flat, a, a)["CC"] is None


def test_quality_of_large_pictures_is_that_of_tiles() -> None:
    """Of a picture that is alike everywhere, to a hundredth; the tiles are apart, inside, and a megapixel at most."""
    for size in ((1300, 1700), (3000, 4000), (40, 90_000), (90_000, 40), (1024, 1024)):
        tiles = spread_tiles(*size)
        covered = np.zeros(size, np.uint8)
        for at in tiles:
            covered[at] += 1
        assert covered.max() == 1 and 0.5 * min(MOST, covered.size) < covered.sum() <= MOST
    rng = np.random.default_rng(0)
    a, b = (cv2.GaussianBlur(rng.integers(0, 256, (1300, 1700, 1), np.uint8), (0, 0), s)[..., None] for s in (1.0, 1.5))
    gt = np.maximum(a, b)
    values = truth_quality(gt, a, b)
    planes = [x[..., 0].astype(np.float32) for x in (gt, a, b)]
    assert values["Qabf"] == pytest.approx(qabf(*planes), abs=0.01)
    assert values["CC"] == pytest.approx(sum(correlation(planes[0], x) for x in planes[1:]) / 2, abs=0.01)


@pytest.mark.parametrize("task", ["mef", "mff"])
def test_depth_is_kept_by_all_that_it_is_made_of(msrs: Path, task: str) -> None:
    """Depth is estimated from the ground truth, which may be the data set's own: another one gives another depth."""
    planned = plan_build(Options(task="vif", data=(f"msrs={msrs}",), variants=2))[0]
    one = prepare(planned.spec, planned.pairs[0])
    spec = replace(planned.spec, task=task, fusers={"msrs": "dataset"})
    entries = [
        depth_entry(spec, replace(one, pair=replace(one.pair, sha256={**one.pair.sha256, "gt": digest})))
        for digest in ("a" * 64, "a" * 64, "b" * 64)
    ]
    assert entries[0] == entries[1] != entries[2]

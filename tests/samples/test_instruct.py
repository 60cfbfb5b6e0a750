"""Instructed builds: categories and their shares, targets, replay, damage that is found, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clearfuse.synth.builder.run import build
from clearfuse.synth.onthefly import OnTheFly
from clearfuse.synth.review.inspection import inspect
from clearfuse.synth.review.verify import check_replay, check_sample, verify
from clearfuse.synth.samples.control import adjust, marked
from clearfuse.synth.samples.instruct import draw_category
from clearfuse.synth.samples.mixture import read_mixture
from clearfuse.synth.samples.recipe import load_recipe
from clearfuse.synth.shards.codecs import CODECS
from clearfuse.synth.shards.records import SampleMeta
from clearfuse.synth.shards.sample import Sample, encode_sample, read_samples
from clearfuse.synth.types import UserError
from conftest import Ran, changed, folder_bytes, sample_meta, save, textured

Synth = Callable[..., Ran]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six single pictures, one of them grey."""
    for number in range(6):
        save(tmp_path / "single" / f"{number}.png", textured(number, channels=1 if number == 5 else 3))
    return tmp_path / "single"


@pytest.fixture
def labelled(msrs: Path) -> Path:
    """MSRS with label maps beside its training pairs: a car in each but the last, which shows nothing."""
    for number in range(1, 7):
        ids = np.zeros((128, 160), np.uint8)
        ids[50:80, 60:100] = number < 6
        path = msrs / "train" / "Segmentation_labels" / f"{number:05d}D.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(ids).save(path)
    return msrs


def built(out: Path, task: str, split: str = "train,test", **options: Any) -> list[Sample]:
    """The samples of a build without rejects."""
    report = build(task=task, out=out, executor="serial", split=split, **options)
    assert not report.failed and not report.rejects
    return [sample for shard in sorted(out.glob("*.tar")) for sample in read_samples(shard)]


def test_m3_of_pictures_and_of_pairs(tmp_path: Path, pictures: Path, msrs: Path) -> None:
    data = [f"single={pictures}", f"msrs={msrs}"]
    samples = built(tmp_path / "out", "m3", "train,val,test", data=data, sets=["blocks.sizes=[32,64]"])
    assert len(samples) == 14 and sorted(tmp_path.glob("out/m3-*.tar"))
    for sample in samples:
        meta, images = sample.meta, sample.images
        assert meta.category == "m3" and meta.task == "mff" and meta.blocks is not None and meta.n == 0
        assert meta.blocks.size in (32, 64)
        assert np.array_equal(images["gt"], images["clean_a"]) and np.array_equal(images["gt"], images["clean_b"])
        assert any(not np.array_equal(images[name], images["gt"]) for name in ("a", "b"))
        assert not list(check_replay(sample))
        whole = (images["a"] == images["gt"]).all(2) | (images["b"] == images["gt"]).all(2)
        assert whole.all(), "what one has lost the other shows"
    report = verify([str(tmp_path / "out")], replay=True)
    assert report.ok and report.replayed == 14


def test_control_targets_are_exact(tmp_path: Path, msrs: Path) -> None:
    """Of blocks it is the picture's tone curve, of pairs that of the ground truth, as another build has it."""
    samples = built(tmp_path / "out", "control", data=[f"msrs={msrs}"], variants=4, fuser="pyramid")
    truth = {s.meta.pair: s for s in built(tmp_path / "vif", "vif", data=[f"msrs={msrs}"], fuser="pyramid", lean=True)}
    kinds = Counter(sample.meta.blocks is None for sample in samples)
    assert min(kinds[True], kinds[False]) > 5
    for sample in samples:
        how = sample.meta.control
        assert how is not None and sample.meta.category == "control"
        if sample.meta.blocks is not None:
            base = sample.images["clean_a"]
        elif sample.meta.crop == truth[sample.meta.pair].meta.crop:
            base = truth[sample.meta.pair].images["gt"]
        else:
            continue
        assert np.array_equal(sample.images["gt"], adjust(base, how))
    assert verify([str(tmp_path / "out")], replay=True).ok


def test_overlays_are_exact_on_label_maps(tmp_path: Path, labelled: Path) -> None:
    out = tmp_path / "out"
    assert not build(task="segment", out=out, executor="serial", data=[f"msrs={labelled}"], sets=["pairs=0"]).rejects
    samples = list(read_samples(next(out.glob("*.tar"))))
    assert len(samples) == 6
    assert any(sample.meta.segment and len(sample.meta.segment.counts) == 1 for sample in samples), "nothing is shown"
    for sample in samples:
        what, (x, y, w, h) = sample.meta.segment, sample.meta.crop
        assert what is not None and "labels" in sample.meta.sources
        ids = np.asarray(Image.open(labelled / "train" / "Segmentation_labels" / f"{sample.meta.pair}.png"))
        mask = (ids[y : y + h, x : x + w] == 1) & (what.name == "car")
        assert (what.name == "car") >= mask.any()
        assert np.array_equal(sample.images["gt"], marked(sample.images["clean_a"], mask))
    assert verify([str(out)]).ok


def test_a_mixture_draws_what_a_pair_can_be_of() -> None:
    mixture = read_mixture("ditfuse")
    total = sum(mixture.categories.values())
    for pair, labels in ((True, True), (True, False), (False, True), (False, False)):
        found = Counter(draw_category(mixture, seed, pair=pair, labels=labels) for seed in range(4000))
        left = {"m3", "control"} | ({"fusion"} if pair else set()) | ({"segment"} if labels else set())
        assert set(found) == left
        weight = sum(mixture.categories[one] for one in left)  # type: ignore[index]
        for one in left:
            assert found[one] / 4000 == pytest.approx(mixture.categories[one] / weight, abs=0.03)  # type: ignore[index]
    assert set(mixture.categories) == {"m3", "control", "segment", "fusion"} and total > 0


@pytest.mark.slow
def test_all_four_in_one_build_and_what_inspect_says(
    tmp_path: Path, labelled: Path, pictures: Path, synth: Synth
) -> None:
    data = [f"msrs={labelled}", f"single={pictures}"]
    samples = built(tmp_path / "out", "ditfuse", "train,val,test", data=data, variants=6, language="mix")
    found = Counter(sample.meta.category for sample in samples)
    assert set(found) == {"m3", "control", "segment", "fusion"}
    for sample in samples:
        if sample.meta.category == "fusion":
            assert sample.meta.task == "vif" and np.array_equal(sample.images["a"], sample.images["clean_a"])
    report = inspect([str(tmp_path / "out")])
    assert report["categories"] == dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
    assert sum(report["sides"].values()) == sum(len(s.meta.blocks.blocks) for s in samples if s.meta.blocks)
    text = synth("inspect", tmp_path / "out").out
    assert "categories: m3 " in text and "controls: " in text and "blocks: block_mask " in text
    card = (tmp_path / "out" / "README.md").read_text()
    assert "## Mixture `ditfuse`" in card and "| `m3` | 50 % |" in card
    tagged = [s for s in samples if s.prompt.startswith("[")]
    assert 0.3 < len(tagged) / len(samples) < 0.7


@pytest.mark.slow
def test_workers_and_order_change_no_byte(tmp_path: Path, labelled: Path) -> None:
    for name, workers in (("one", 1), ("two", 2)):
        build(task="ditfuse", out=tmp_path / name, data=[f"msrs={labelled}"], workers=workers, shard_size=2)
    assert folder_bytes(tmp_path / "one") == folder_bytes(tmp_path / "two")


@pytest.mark.slow
def test_built_in_scenes_serve_every_category_without_data(tmp_path: Path) -> None:
    report = build(task="ditfuse", out=tmp_path / "out", executor="serial", limit=4, variants=2)
    assert report.samples == 8 and not report.rejected


def test_damage_is_found(tmp_path: Path, labelled: Path) -> None:
    built(tmp_path / "c", "control", data=[f"msrs={labelled}"], sets=["pairs=0"])
    sample = next(read_samples(next((tmp_path / "c").glob("*.tar"))))
    assert not list(check_sample(sample))
    assert sample.meta.control is not None and sample.meta.blocks is not None
    other = sample.meta.control.model_copy(
        update={"tag": "LIGHT-" if sample.meta.control.tag == "LIGHT+" else "LIGHT+"}
    )
    assert "gt is not what the prompt asks" in next(check_sample(changed(sample, control=other)))
    assert "control goes with" in next(check_sample(changed(sample, control=None)))
    moved = sample.meta.blocks.model_copy(update={"seed": sample.meta.blocks.seed + 1})
    assert any("differs from its replay" in fault for fault in check_replay(changed(sample, blocks=moved)))


def test_old_samples_are_of_fusion_and_new_ones_say_so() -> None:
    meta = sample_meta()
    said = meta.to_json()
    assert said["category"] == "fusion" and "blocks" not in said and "segment" not in said
    del said["category"]
    assert SampleMeta.model_validate_json(json.dumps(said)).category == "fusion"


def test_a_sample_keeps_its_record(tmp_path: Path, labelled: Path) -> None:
    samples = built(tmp_path / "out", "ditfuse", data=[f"msrs={labelled}"])
    assert samples
    for sample in samples:
        members = encode_sample(sample, CODECS["png"])
        assert SampleMeta.model_validate_json(members["json"]) == sample.meta


def test_instructed_samples_are_not_degraded_on_the_fly(tmp_path: Path, pictures: Path) -> None:
    (sample, *_) = built(tmp_path / "out", "m3", "train,val", data=[f"single={pictures}"])
    with pytest.raises(ValueError, match="is of category m3, whose target is not the fusion"):
        OnTheFly(load_recipe("mff"))(replace(sample))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--n", "2"], "--n 2: has no effect with --task m3"),
        (["--lean"], "--lean: has no effect with --task m3"),
        (["--partial", "0.5"], "--partial 0.5: has no effect with --task m3"),
        (["--depth", "prior"], "--depth prior: has no effect with --task m3"),
        (["--recipe", "ditfuse"], "recipe 'ditfuse' draws m3, control, segment, fusion: it is for --task ditfuse, not"),
        (["--recipe", "vif"], "unknown recipe of samples by instruction 'vif'"),
        (["--set", "blocks.operators={haze=1}"], "unknown block operator 'haze'"),
        (["--set", "blocks.sizes=[8]"], "blocks.sizes"),
    ],
)
def test_what_decides_nothing_or_is_wrong_is_one_line(
    tmp_path: Path, pictures: Path, synth: Synth, options: list[str], message: str
) -> None:
    ran = synth("build", "--task", "m3", "--data", f"single={pictures}", "--out", tmp_path / "out", *options)
    assert ran.code == 2 and message in ran.error and not (tmp_path / "out").exists()


def test_segment_without_label_maps_and_fusion_of_single_pictures_are_refused(msrs: Path, pictures: Path) -> None:
    with pytest.raises(UserError, match="--data msrs: --task segment needs label maps, and none is in its folder"):
        build(task="segment", data=[f"msrs={msrs}"], out="unused")
    with pytest.raises(UserError, match="--data single: fusion needs pairs, and these are single pictures"):
        build(task="ditfuse", data=[f"single={pictures}"], out="unused", sets=["categories={fusion=1}"])

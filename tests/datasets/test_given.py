"""Data sets with degraded images of their own: layouts, samples, prompts, verification, reading for training."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clearfuse.synth.builder.run import build
from clearfuse.synth.datasets.find import find_all
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.datasets.read import read_image, read_pair
from clearfuse.synth.onthefly import OnTheFly
from clearfuse.synth.review.verify import check_sample, verify
from clearfuse.synth.samples.chain import apply_steps
from clearfuse.synth.samples.recipe import load_recipe
from clearfuse.synth.samples.render import Seeds, use_provided
from clearfuse.synth.shards.sample import Sample, read_samples
from clearfuse.synth.types import Step, UserError
from clearfuse.train.data.batch import collate
from clearfuse.train.data.corpus import index
from clearfuse.train.data.samples import Samples
from clearfuse.train.evaluation.evaluate import in_memory
from clearfuse.train.evaluation.methods.fusers import METHODS
from clearfuse.train.evaluation.samples import plan_portions
from clearfuse.train.evaluation.scoring import choose_metrics
from conftest import Ran, changed, save, textured

pytestmark = pytest.mark.slow

Synth = Callable[..., Ran]


def drmf_folder(root: Path, count: int = 4) -> Path:
    """A synthetic folder in the layout of DRMF's samples."""
    for number in range(1, count + 1):
        for seed, (name, channels) in enumerate({"vi": 3, "vi_degraded": 3, "ir": 1, "ir_degraded": 1}.items()):
            save(root / "train" / name / f"{number:05d}D.png", textured(10 * number + seed, channels=channels))
    return root


@pytest.fixture
def drmf(tmp_path: Path) -> Path:
    """Four synthetic pairs with degraded images."""
    return drmf_folder(tmp_path / "drmf")


def made(root: Path, data: Path, **options: Any) -> list[Sample]:
    """The samples of a build of a data set in DRMF's layout."""
    build("vif", data=f"drmf={data}", out=str(root), workers=1, executor="serial", codec="png", **options)
    return [sample for path in sorted(root.glob("*.tar")) for sample in read_samples(path)]


LAYOUTS = [
    ("drmf", "train/vi", "train/ir", "train/vi_degraded", "train/ir_degraded", "train", "7", "gaussian_blur[b] "
     "low_exposure[a] ir_stripes[b] ir_low_contrast[b]"),
    ("awfusion", "Test_Image/Test_haze/gt_vi", "Test_Image/Test_haze/gt_ir", "Test_Image/Test_haze/vi",
     "Test_Image/Test_haze/ir", None, "haze-7", "haze[a]"),
    ("awfusion", "Test_rain/gt_vi", "Test_rain/gt_ir", "Test_rain/vi", "Test_rain/ir", None, "rain-7", "rain[a]"),
    ("awmm", "Train/Snow/gt_vi", "Train/Snow/gt_ir", "Train/Snow/vi", "Train/Snow/ir", "train", "snow-7", "snow[a]"),
    ("ems", "EMS_lite/IR_Noise/train/Visible_gt", "EMS_lite/IR_Noise/train/Infrared_gt",
     "EMS_lite/IR_Noise/train/Visible", "EMS_lite/IR_Noise/train/Infrared", "train", "ir_noise-7", "gaussian_noise[b]"),
    ("ems", "train/Over_exposure/Visible_gt", "train/Over_exposure/Infrared_gt", "train/Over_exposure/Visible",
     "train/Over_exposure/Infrared", "train", "over_exposure-7", "high_exposure[a]"),
    ("demmi-rf", "Test/denoise/noise25/FMB/visible", "Test/denoise/noise25/FMB/infrared",
     "Test/denoise/noise25/FMB/input", None, "test", "noise25-FMB-7", "gaussian_noise[a]"),
    ("demmi-rf", "Test/DefocusBlur/MSRS/visible", "Test/DefocusBlur/MSRS/infrared", "Test/DefocusBlur/MSRS/input",
     None, "test", "defocus-MSRS-7", "defocus_blur[a]"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "a", "b", "degraded_a", "degraded_b", "split", "key", "named"), LAYOUTS)
def test_a_pair_is_found_with_its_degraded_side(
    tmp_path: Path, name: str, a: str, b: str, degraded_a: str, degraded_b: str | None, split: str | None, key: str,
    named: str,
) -> None:  # fmt: skip
    at = {"a": a, "b": b, "degraded_a": degraded_a} | ({} if degraded_b is None else {"degraded_b": degraded_b})
    images = {image: textured(i, channels=1 if "b" in image else 3) for i, image in enumerate(at)}
    images |= {"b": textured(9, channels=1), "degraded_a": textured(8)}
    for image, folder in at.items():
        save(tmp_path / folder / "7.png", images[image])
    found = find_all(load_manifest(name), str(tmp_path), "vif")
    (ref,) = found.pairs
    assert (ref.key, ref.predegraded, set(ref.sources)) == (key, True, set(at)) and split in (None, ref.split)
    assert " ".join(f"{op}[{target}]" for op, target in ref.degradation) == named
    assert (found.ignored, found.unpaired) == (0, ())
    pair = read_pair(ref)
    assert np.array_equal(pair.a, images["a"]) and np.array_equal(pair.b, images["b"])
    assert set(pair.degraded) == {image[-1] for image in at if image.startswith("degraded")}
    assert np.array_equal(pair.degraded["a"], images["degraded_a"])


def test_a_pair_without_its_degraded_side_is_no_pair(drmf: Path) -> None:
    (drmf / "train/ir_degraded/00002D.png").unlink()
    found = find_all(load_manifest("drmf"), str(drmf), "vif")
    assert [ref.key for ref in found.pairs] == ["00001D", "00003D", "00004D"]
    assert sorted(Path(path).parent.name for path in found.unpaired) == ["ir", "vi", "vi_degraded"]


def test_the_pair_is_packed_as_it_is(tmp_path: Path, drmf: Path) -> None:
    samples = made(tmp_path / "out", drmf, variants=2)
    assert len(samples) == 8 and len({(s.meta.pair, tuple(s.meta.crop)) for s in samples}) > 4
    for sample in samples:
        meta, (x, y, w, h) = sample.meta, sample.meta.crop
        assert w % 16 == h % 16 == 0
        members = {"a": "vi_degraded", "b": "ir_degraded", "clean_a": "vi", "clean_b": "ir"}
        for member, folder in members.items():
            image, _ = read_image(str(drmf / "train" / folder / f"{meta.pair}.png"))
            assert np.array_equal(sample.images[member], image[y : y + h, x : x + w])
        assert (meta.given, meta.n, meta.depth, meta.fuser.name) == (True, 4, None, "pyramid")
        assert meta.channels == {"a": 3, "b": 1, "gt": 3} and sample.depth is None
        assert set(meta.sources) == {"a", "b", "degraded_a", "degraded_b"}
        assert meta.prompt.asked == (0, 1, 2, 3) and len(sample.prompt.split()) > 8
        ops = [template.rpartition("-")[0] for template in meta.prompt.templates]
        assert {"low_exposure", "ir_stripes", "ir_low_contrast", "gaussian_blur"} <= set(ops)
        assert all((step.params, step.seed, step.severity) == ({}, None, None) for step in sample.meta.steps)
    card = (tmp_path / "out/README.md").read_text()
    assert "The pairs of drmf come degraded" in card and "| operator |" not in card
    assert json.loads((tmp_path / "out/dataset.json").read_text())["settings"]["data"]["drmf"]["given"] is True


def test_the_same_bytes_again_and_other_ones_by_seed(tmp_path: Path, drmf: Path) -> None:
    one, two, other = (made(tmp_path / str(i), drmf, seed=seed) for i, seed in enumerate((0, 0, 1)))
    assert [(s.prompt, s.meta) for s in one] == [(s.prompt, s.meta) for s in two]
    assert [s.prompt for s in one] != [s.prompt for s in other]
    names = [path.name for path in sorted((tmp_path / "0").iterdir())]
    assert all((tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes() for name in names)


def test_an_image_without_a_degraded_file_is_the_clean_one(tmp_path: Path) -> None:
    for folder, seed, channels in (("visible", 1, 3), ("infrared", 2, 1), ("input", 3, 3)):
        save(tmp_path / "in/Test/dehaze/FMB" / folder / "1.png", textured(seed, channels=channels))
    build("vif", data=f"demmi-rf={tmp_path / 'in'}", split="test", out=str(tmp_path / "out"), workers=1)
    (sample,) = read_samples(tmp_path / "out/vif-test-000000.tar")
    assert np.array_equal(sample.images["b"], sample.images["clean_b"])
    assert not np.array_equal(sample.images["a"], sample.images["clean_a"])
    assert [(step.op, step.target) for step in sample.meta.steps] == [("haze", "a")]
    assert sample.meta.prompt.templates[0].startswith("haze")


def test_where_nothing_is_known_the_request_is_plain() -> None:
    clean = {"clean_a": textured(1), "clean_b": textured(2, channels=1), "gt": textured(3)}
    given = use_provided("vif", Seeds(0, "vif", "x", "1", 0), clean, {"a": textured(4)}, (), "pyramid")
    assert (given.steps, given.prompt.asked, given.record()["n"]) == ((), (), 0)
    assert given.prompt.text and all("fuse" in name for name in given.prompt.templates)
    assert np.array_equal(given.images["a"], textured(4)) and np.array_equal(given.images["b"], clean["clean_b"])


def test_grey_and_coloured_files_of_one_image_have_three_channels(drmf: Path) -> None:
    save(drmf / "train/vi_degraded/00001D.png", textured(5, channels=1))
    pair = read_pair(find_all(load_manifest("drmf"), str(drmf), "vif").pairs[0])
    assert pair.degraded["a"].shape == pair.a.shape == (128, 160, 3)
    assert np.array_equal(pair.degraded["a"][..., :1], textured(5, channels=1))


def test_a_degraded_file_of_another_size_is_a_reject(tmp_path: Path, drmf: Path) -> None:
    save(drmf / "train/ir_degraded/00001D.png", textured(5, 80, 64, channels=1))
    samples = made(tmp_path / "out", drmf, max_rejects=1.0)
    receipt = json.loads((tmp_path / "out/vif-train-000000.json").read_text())
    assert len(samples) == 3 and receipt["rejects"][0]["reason"].startswith("sizes differ: a 160x128")


@pytest.mark.slow
def test_verify_counts_what_it_can_not_replay(tmp_path: Path, drmf: Path, msrs: Path, synth: Synth) -> None:
    build("vif", data=[f"drmf={drmf}", f"msrs={msrs}"], n="1", out=str(tmp_path / "out"), workers=1)
    report = verify([str(tmp_path / "out")], replay=True)
    assert report.to_json() == {"ok": True, "samples": 10, "replayed": 6, "given": 4, "problems": []}
    ran = synth("verify", tmp_path / "out", "--replay")
    assert ran.out.strip() == "ok: 10 samples, 6 replayed, 4 given as they are: nothing to replay"
    assert "given: 4, degraded by others" in synth("inspect", tmp_path / "out").out
    assert synth("preview", tmp_path / "out", "--out", tmp_path / "sheet.png").code == 0


def test_verify_finds_what_pretends(tmp_path: Path, drmf: Path) -> None:
    sample = made(tmp_path / "out", drmf, limit=1)[0]
    assert list(check_sample(sample)) == []
    hidden = changed(sample, given=False)
    assert list(check_sample(hidden)) == [
        f"sample {sample.key}: a step has no seed, though the sample was not given as it is"
    ]
    steps = tuple(replace(step, seed=1) for step in sample.meta.steps)
    assert "yet a step says parameters" in next(check_sample(changed(sample, steps=steps)))
    assert list(check_sample(changed(sample, sources={"a": "", "b": "", "degraded_a": ""}))) == [
        f"sample {sample.key}: b differs from clean_b, and no source of it is named"
    ]
    with pytest.raises(ValueError, match="no parameters and no seed"):
        apply_steps(sample.images["clean_a"], sample.meta.steps, task="vif", name="a")


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (("--lean",), "--lean: the pairs of 'drmf' come degraded: build them without --lean"),
        (("--n", "2"), "--n 2: has no effect: the pairs of drmf come degraded"),
        (("--partial", "0.5"), "--partial 0.5: has no effect: the pairs of drmf come degraded"),
    ],
)
def test_what_decides_nothing_is_refused(
    tmp_path: Path, drmf: Path, synth: Synth, option: tuple[str, ...], said: str
) -> None:
    ran = synth("build", "--task", "vif", "--data", f"drmf={drmf}", "--out", tmp_path / "out", *option)
    assert (ran.code, ran.error) == (2, f"synth: error: {said}") and not (tmp_path / "out").exists()


def test_training_reads_them(tmp_path: Path, drmf: Path) -> None:
    samples = {sample.meta.pair: sample for sample in made(tmp_path / "out", drmf)}
    corpus = index([str(tmp_path / "out")])
    assert len(corpus.train) + len(corpus.held_out) == 4 and corpus.lean == ()
    batch = collate([Samples(corpus, side=64, training=True, rephrase=share)[0] for share in (0.0, 1.0)])
    assert not hasattr(batch, "reason") and batch.a.shape == (2, 3, 64, 64)  # type: ignore[union-attr]
    known, new = batch.prompts  # type: ignore[union-attr]
    assert known in {sample.prompt for sample in samples.values()} and new and new != known


def test_evaluation_reads_them(tmp_path: Path, drmf: Path) -> None:
    made(tmp_path / "out", drmf, limit=1)
    done, _ = in_memory(plan_portions([str(tmp_path / "out")]), list(METHODS.values()), choose_metrics("PSNR"))
    assert (done.samples, done.partial) == (1, 0)
    assert {name for name, _ in done.ordered("operator")} == {
        *("gaussian_blur", "low_exposure", "ir_stripes", "ir_low_contrast")
    }


def test_its_clean_crop_can_be_degraded_anew(tmp_path: Path, drmf: Path) -> None:
    sample = made(tmp_path / "out", drmf, limit=1)[0]
    anew = OnTheFly(load_recipe("vif", n="1", sets=("operators.gaussian_blur.weight=1",)))
    found = next(one for one in (_tried(anew, sample, seed) for seed in range(20)) if one is not None)
    assert not found.meta.given and found.meta.steps[0].seed is not None and "given" not in found.meta.to_json()


def _tried(degrade: OnTheFly, sample: Sample, seed: int) -> Sample | None:
    try:
        return degrade(sample, seed)
    except ValueError:  # needs depth, which the sample lacks
        return None


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('degradation = { all = { haze = "a" } }',
         "degradation says what was done to degraded_a and degraded_b: neither is there"),
        ('degraded_a = "x/{key}.*"\ndegradation = { all = { haez = "a" } }',
         "degradation: unknown operator 'haez': did you mean 'haze'?"),
        ('degraded_a = "x/{key}.*"\ndegradation = { all = { haze = "c" } }',
         "degradation.all.haze: unknown value 'c': allowed: a, b, both"),
        ('degraded_a = "x/{key}.*"\ndegradation = { night = { haze = "a" } }',
         "degradation: unknown part 'night': allowed: all"),
        ('degraded_a = "x/*.png"', "degraded_a must be a path template with {key} in it"),
        ('degraded_a = "x/{key}.*"\nsequence = "{key}/{frame}.*"',
         "degraded_a goes with a and b, not with a sequence"),
        ('kind = "reel"', "unknown kind 'reel': did you mean 'real'? allowed: clean, real"),
        ('kind = "real"\ngt = "x/{key}.*"',
         "gt does not go with kind real: there a and b are the degraded pair, and all"),
        ('kind = "real"\ndegraded_a = "x/{key}.*"', "degraded_a does not go with kind real"),
        ('kind = "real"\ndegradation = { all = { haez = "a" } }', "degradation: unknown operator 'haez'"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_manifest_is_one_line(tmp_path: Path, lines: str, said: str) -> None:
    path = tmp_path / "own.toml"
    path.write_text(f'schema = 1\ntask = "vif"\na = "a/{{key}}.*"\nb = "b/{{key}}.*"\n{lines}\n')
    with pytest.raises(UserError) as error:
        load_manifest("own", path)
    assert str(error.value).startswith(f"{path}: {said}") and "\n" not in str(error.value)


def test_steps_without_seeds_go_through_json() -> None:
    step = Step("haze", "a", {}, None)
    assert Step(**json.loads(json.dumps(asdict(step)))) == step


@pytest.mark.slow
@pytest.mark.parametrize(("name", "at"), [("drmf", "vif/DRMF_degraded"), ("awfusion", "vif/AWFusion_degraded")])
def test_real_sets_are_packed_and_verified(tmp_path: Path, shared: Path, name: str, at: str) -> None:
    build("vif", data=f"{name}={shared / 'data' / at}", out=str(tmp_path / "out"), workers=1)
    assert verify([str(tmp_path / "out")], replay=True).to_json() == {
        "ok": True, "samples": 4, "replayed": 0, "given": 4, "problems": [],
    }  # fmt: skip
    for sample in read_samples(tmp_path / "out/vif-train-000000.tar"):
        means = {name: float(image.mean()) for name, image in sample.images.items()}
        if name == "drmf":  # darker visible, infrared on a pedestal
            assert means["a"] < means["clean_a"] - 30 and means["b"] > means["clean_b"] + 40
        else:  # weather veils the visible image and reduces the infrared's contrast
            assert means["a"] > means["clean_a"] + 5 and means["b"] < means["clean_b"]
        assert sample.prompt and sample.meta.given

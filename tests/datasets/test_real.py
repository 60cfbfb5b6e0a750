"""Real degraded pairs without clean images: packed unchanged, verified, refused by training, scored."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clearfuse.synth.builder.run import build
from clearfuse.synth.datasets.find import find_all, of_split
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.datasets.read import read_image, read_pair
from clearfuse.synth.onthefly import OnTheFly
from clearfuse.synth.review.verify import check_sample, verify
from clearfuse.synth.samples.recipe import load_recipe
from clearfuse.synth.shards.records import Origin
from clearfuse.synth.shards.sample import decode_sample, read_samples
from clearfuse.synth.shards.tar import read_shard
from clearfuse.synth.types import UserError
from clearfuse.train.data.corpus import index
from clearfuse.train.evaluation.evaluate import in_memory
from clearfuse.train.evaluation.methods.fusers import METHODS
from clearfuse.train.evaluation.samples import plan_portions
from clearfuse.train.evaluation.scoring import choose_metrics, select_applicable
from clearfuse.train.metrics import evaluate
from conftest import Ran, changed, folder_bytes, save, textured

pytestmark = pytest.mark.slow

Run = Callable[..., Ran]
MEMBERS = ["a.png", "b.png", "txt", "json"]


@pytest.fixture
def weather(tmp_path: Path) -> Path:
    """Two synthetic snow pairs and two with unknown weather, in AWFusion's layout."""
    root = tmp_path / "AWFusion"
    for part, kind in (("Test_Snow", "png"), ("Test_real", "jpg")):
        for number in (1, 2):
            seed = 10 * number + len(part)
            save(root / "Test_Image" / part / "vi" / f"{number}.{kind}", textured(seed))
            save(root / "Test_Image" / part / "ir" / f"{number}.{kind}", textured(seed + 5, channels=1))
    return root


@pytest.fixture
def shards(tmp_path: Path, weather: Path) -> Path:
    """A build of the pairs."""
    return made(tmp_path / "out", weather)


def made(out: Path, data: Path, name: str = "awfusion-real", **options: Any) -> Path:
    """The folder of a build of a real data set."""
    options = {"split": "test", "codec": "png", "workers": 1, "executor": "serial", **options}
    build("vif", data=f"{name}={data}", out=str(out), **options)
    return out


def test_the_pairs_are_those_of_the_test_split(weather: Path) -> None:
    found = find_all(load_manifest("awfusion-real"), str(weather), "vif")
    assert [ref.key for ref in found.pairs] == ["real-1", "real-2", "snow-1", "snow-2"]
    assert all(ref.real and ref.predegraded and ref.split == "test" for ref in found.pairs)
    assert all(set(ref.sources) == {"a", "b"} for ref in found.pairs)
    assert [ref.degradation for ref in found.pairs] == [(), (), (("snow", "a"),), (("snow", "a"),)]
    with pytest.raises(UserError, match="'train': 0 train, 0 val, 4 test; real pairs are for evaluation: --split test"):
        of_split(load_manifest("awfusion-real"), str(weather), found, "train")


def test_the_pair_is_packed_alone(weather: Path, shards: Path) -> None:
    (tar,) = shards.glob("*.tar")
    assert tar.name == "vif-test-000000.tar"
    assert [list(members) for _, members in read_shard(tar)] == [MEMBERS] * 4
    for sample in read_samples(tar):
        meta, (x, y, w, h) = sample.meta, sample.meta.crop
        part, _, number = meta.pair.partition("-")
        folder = weather / "Test_Image" / ("Test_Snow" if part == "snow" else "Test_real")
        for name, at in (("a", "vi"), ("b", "ir")):
            image, sha256 = read_image(str(next((folder / at).glob(f"{number}.*"))))
            assert np.array_equal(sample.images[name], image[y : y + h, x : x + w])
            assert meta.sources[name] == sha256
        assert (meta.real, meta.depth, meta.fuser.name, meta.fuser.weights) == (True, None, "none", None)
        assert not {"given", "gt_quality"} & meta.to_json().keys() and meta.channels == {"a": 3, "b": 1}
        assert meta.n == len(sample.meta.steps) == (1 if part == "snow" else 0)
        assert all((step.op, step.params, step.seed) == ("snow", {}, None) for step in sample.meta.steps)
        assert meta.prompt.asked == tuple(range(meta.n)) and sample.prompt
        assert meta.prompt.templates[0].startswith("snow" if part == "snow" else "vif-fuse")


def test_the_build_says_what_it_holds(shards: Path) -> None:
    settings = json.loads((shards / "dataset.json").read_text())["settings"]
    assert settings["data"]["awfusion-real"]["real"] is True and settings["depth"] == {}
    assert "given" not in settings["data"]["awfusion-real"]
    card = (shards / "README.md").read_text()
    assert "4 samples of 4 real pairs" in card and "no ground truth and no depth" in card
    assert "clean_a" not in card and "| operator |" not in card


@pytest.mark.slow
def test_the_same_bytes_whatever_the_workers(tmp_path: Path, weather: Path, shards: Path) -> None:
    again = made(tmp_path / "again", weather, workers=2, executor="processes")
    assert folder_bytes(again) == folder_bytes(shards)


def test_variants_are_other_crops(tmp_path: Path, weather: Path) -> None:
    more = made(tmp_path / "more", weather, variants=2)
    metas = [sample.meta for tar in more.glob("*.tar") for sample in read_samples(tar)]
    assert len(metas) == 8 and len({(meta.pair, tuple(meta.crop)) for meta in metas}) > 4


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--lean",), "--lean"),
        (("--n", "2"), "--n 2"),
        (("--partial", "0.5"), "--partial 0.5"),
        (("--fuser", "dataset"), "--fuser dataset"),
        (("--fuser", "pyramid"), "--fuser pyramid"),
        (("--fuser", "paper"), "--fuser paper"),
        (("--depth", "prior"), "--depth prior"),
        (("--min-gt", "0.3"), "--min-gt 0.3"),
        (("--set", "operators.haze.weight=2"), "--set operators.haze.weight=2"),
    ],
)
def test_what_decides_nothing_is_refused(
    tmp_path: Path, weather: Path, synth: Run, options: tuple[str, ...], said: str
) -> None:
    at = ("--data", f"awfusion-real={weather}", "--split", "test", "--out", tmp_path / "out")
    ran = synth("build", "--task", "vif", *at, *options)
    idle = f"{said}: has no effect: the pairs of awfusion-real are real: packed as they are"
    assert (ran.code, ran.error) == (2, f"synth: error: {idle}") and not (tmp_path / "out").exists()


def test_real_and_clean_sets_are_built_apart(tmp_path: Path, weather: Path, msrs: Path, synth: Run) -> None:
    data = ("--data", f"awfusion-real={weather}", "--data", f"msrs={msrs}")
    ran = synth("build", "--task", "vif", *data, "--split", "test", "--out", tmp_path / "out")
    assert (ran.code, ran.error) == (
        2,
        "synth: error: --data awfusion-real: its pairs are real, without a clean side, those of 'msrs' are not: "
        "build them apart",
    )


@pytest.mark.slow
def test_verify_inspect_and_preview(tmp_path: Path, weather: Path, shards: Path, synth: Run) -> None:
    report = verify([str(shards)], replay=True)
    assert report.to_json() == {"ok": True, "samples": 4, "replayed": 0, "real": 4, "problems": []}
    said = "ok: 4 samples, 0 replayed, 4 real, without a clean side: nothing to replay"
    assert synth("verify", shards, "--replay").out.strip() == said
    assert "real: 4, degraded pairs without a clean side" in synth("inspect", shards).out
    facts = json.loads(synth("inspect", shards, "--json").out)
    assert (facts["real"], facts["n"], facts["operators"]) == (4, {"0": 2, "1": 2}, {"snow": 2})
    sheet = ("--out", tmp_path / "sheet.png")
    assert synth("preview", shards, *sheet).code == 0
    at = ("--task", "vif", "--data", f"awfusion-real={weather}", "--split", "test")
    assert synth("preview", *at, *sheet).code == 0
    ran = synth("preview", *at, *sheet, "--op", "haze")
    assert (ran.code, ran.error.partition(": ")[2]) == (
        2, "error: --op haze: acts on clean images, and the pairs of 'awfusion-real' have none",
    )  # fmt: skip


def test_verify_finds_what_pretends(shards: Path) -> None:
    sample = next(one for one in read_samples(shards / "vif-test-000000.tar") if one.meta.steps)
    assert list(check_sample(sample)) == []
    steps = tuple(replace(step, seed=1) for step in sample.meta.steps)
    assert "yet a step says parameters" in next(check_sample(changed(sample, steps=steps)))
    fused = Origin(name="pyramid", weights=None)
    assert "yet says a ground truth or depth" in next(check_sample(changed(sample, fuser=fused)))


def test_what_is_not_there_is_named(shards: Path) -> None:
    key, members = next(read_shard(shards / "vif-test-000000.tar"))
    with pytest.raises(ValueError, match=f"sample {key}: is a real pair and holds no gt"):
        decode_sample(key, members, ("a", "b", "gt"))
    with pytest.raises(ValueError, match="is a real pair, without a clean side to degrade"):
        OnTheFly(load_recipe("vif"))(decode_sample(key, members))


def test_test_shards_beside_others_are_left_alone(tmp_path: Path, shards: Path, msrs: Path) -> None:
    clean = made(tmp_path / "msrs", msrs, "msrs", split="train", n="1", fuser="pyramid", depth="prior")
    corpus = index([str(clean), str(shards)])
    assert len(corpus.train) + len(corpus.held_out) == 6


@pytest.mark.parametrize("name", ["vif-test-000000.tar", "vif-train-000000.tar", "own.tar"])
def test_training_refuses_them_whatever_they_are_called(tmp_path: Path, shards: Path, name: str) -> None:
    tar = (shards / "vif-test-000000.tar").rename(tmp_path / name)
    with pytest.raises(UserError) as error:
        index([str(tar)])
    said = f"{tar}: its pairs are real, without ground truth to train on; they are for train eval"
    assert str(error.value) == said


@pytest.mark.slow
def test_a_fit_on_them_is_refused_before_it_begins(tmp_path: Path, shards: Path, train: Run) -> None:
    ran = train("fit", shards, "--preset", "tiny-reg", "--out", tmp_path / "run")
    at = shards / "vif-test-000000.tar"
    said = f"{at}: its pairs are real, without ground truth to train on; they are for train eval"
    assert (ran.code, ran.error) == (2, f"train: error: {said}") and not (tmp_path / "run").exists()


def test_they_are_their_own_sources(shards: Path) -> None:
    portions = plan_portions([str(shards)])
    methods, metrics = select_applicable(portions, tuple(METHODS.values()), choose_metrics("PSNR,SSIM,VIF,Qabf"))
    assert [method.name for method in methods] == ["pyramid on degraded"]
    assert [metric.name for metric in metrics] == ["VIF", "Qabf"]
    done, scored = in_memory(portions, methods, metrics)
    assert done.samples == 4 and done.real and "ground truth" not in done.groups and "severity" not in done.groups
    for one in scored:
        images = one.sample.images
        row = evaluate(one.fused["pyramid on degraded"], images["a"], images["b"], None, ["VIF", "Qabf"])
        assert one.values.tolist() == [list(row.values())]


def test_the_report_says_what_its_numbers_mean(tmp_path: Path, shards: Path, train: Run) -> None:
    ran = train("eval", shards, "--model", "none", "--out", tmp_path / "report")
    assert ran.code == 0 and "PSNR" not in ran.out.splitlines()[0]
    text = (tmp_path / "report/report.md").read_text()
    assert "VIF, Qabf: the pair itself as the two sources" in text
    assert "Left out: PSNR, SSIM (no ground truth) and pyramid on clean (no clean pair)." in text
    assert "| pyramid on degraded |" in text and "By what made the ground truth" not in text
    facts = json.loads((tmp_path / "report/report.json").read_text())
    assert facts["real"] is True and [metric["name"] for metric in facts["metrics"]] == ["VIF", "Qabf"]
    assert "ground truth (" not in (tmp_path / "report/report.html").read_text()
    header, *rows = (tmp_path / "report/report.csv").read_text().splitlines()
    assert header.endswith("method,VIF,Qabf,from a,from b,from both,from neither") and len(rows) == 2 * 4


def test_what_can_not_be_scored_is_one_line(tmp_path: Path, shards: Path, msrs: Path, train: Run) -> None:
    ran = train("eval", shards, "--model", "none", "--metrics", "PSNR,SSIM", "--out", tmp_path / "report")
    said = "--metrics PSNR, SSIM: needs a ground truth, which these pairs have not; allowed: VIF, VIF-authors, Qabf, "
    assert ran.code == 2 and ran.error.startswith(f"train: error: {said}") and not (tmp_path / "report").exists()
    made(tmp_path / "msrs", msrs, "msrs", n="1", fuser="pyramid", depth="prior")
    ran = train("eval", tmp_path / "msrs", shards, "--model", "none", "--out", tmp_path / "report")
    said = "its pairs are real, without ground truth, those of other shards not: score them apart"
    assert (ran.code, ran.error) == (2, f"train: error: {shards / 'vif-test-000000.tar'}: {said}")


def test_a_list_of_sets_says_so(synth: Run) -> None:
    assert "splits: test; ground truth: no; real: no clean images, for evaluation only" in synth("list", "datasets").out
    assert json.loads(synth("list", "datasets", "--json").out)["textif"]["real"] is True


def test_a_real_set_is_packed_and_scored(tmp_path: Path, shared: Path) -> None:
    data = shared / "data/vif/TextIF_test_imgs"
    refs = find_all(load_manifest("textif"), str(data), "vif").pairs
    assert {ref.key: ref.scene for ref in refs} == {
        "00016N": "00016N", "00036N": "00036N", "010007": "textif/010007", "FLIR_01932": "textif/FLIR_01932",
    }  # fmt: skip
    assert read_pair(refs[0]).b.shape[2] == 1
    out = made(tmp_path / "out", data, "textif")
    assert verify([str(out)], replay=True).to_json() == {
        "ok": True, "samples": 4, "replayed": 0, "real": 4, "problems": [],
    }  # fmt: skip
    portions = plan_portions([str(out)])
    done, _ = in_memory(portions, *select_applicable(portions, tuple(METHODS.values()), choose_metrics("Qabf")))
    assert 0.3 < done.groups["overall"]["all"].stat(0, 0).mean < 1

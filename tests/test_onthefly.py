"""``--lean`` builds and degradation on the fly: same bytes as a full build, and every command on such shards."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clearfuse.synth.builder.run import build
from clearfuse.synth.files.jsonstream import dumps
from clearfuse.synth.onthefly import OnTheFly
from clearfuse.synth.samples.recipe import load_recipe
from clearfuse.synth.shards.codecs import CODECS
from clearfuse.synth.shards.records import LEAN_IMAGES
from clearfuse.synth.shards.sample import decode_sample, encode_sample, read_samples
from clearfuse.synth.shards.tar import read_shard, write_shard
from clearfuse.synth.types import UserError
from conftest import Ran, folder_bytes, save, textured

pytestmark = pytest.mark.slow

Synth = Callable[..., Ran]
COMMON: dict[str, Any] = {"variants": 2, "codec": "png", "executor": "serial", "seed": 5}


@pytest.fixture(scope="module")
def mff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One build of pairs with their own ground truth, ``full``, with partial prompts, and ``lean``."""
    root = tmp_path_factory.mktemp("mff")
    for number in range(7):
        for place, name in enumerate(("near", "far", "gt")):
            save(root / name / f"{number}.png", textured(10 * place + number))
    data = ["folder=" + ",".join(str(root / name) for name in ("near", "far", "gt"))]
    build("mff", data=data, out=str(root / "full"), partial=0.6, n="1-3", **COMMON)
    build("mff", data=data, out=str(root / "lean"), lean=True, **COMMON)
    return root


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))


def test_the_bytes_of_a_full_build(mff: Path) -> None:
    """Degraded images, depth, prompt, partial ground truth, json: member for member."""
    degrade = OnTheFly(load_recipe("mff", n="1-3"), partial=0.6)
    parts = 0
    for full, lean in zip(shards(mff / "full"), shards(mff / "lean"), strict=True):
        assert full.name == lean.name
        for (key, members), sample in zip(read_shard(full), read_samples(lean), strict=True):
            made = degrade(sample)
            assert sample.key == key and encode_sample(made, CODECS["png"]) == members
            parts += made.meta.partial
    assert parts > 1


@pytest.mark.parametrize("task", ["vif", "mef"])
def test_the_bytes_of_a_full_build_of_files(tmp_path: Path, msrs: Path, folder_pair: str, task: str) -> None:
    data = [f"msrs={msrs}"] if task == "vif" else [f"folder={folder_pair}"]
    build(task, data=data, out=str(tmp_path / "full"), n="2", **COMMON)  # type: ignore[arg-type]
    build(task, data=data, out=str(tmp_path / "lean"), lean=True, **COMMON)  # type: ignore[arg-type]
    degrade = OnTheFly(load_recipe(task, n="2"))
    for full, lean in zip(shards(tmp_path / "full"), shards(tmp_path / "lean"), strict=True):
        for (_, members), sample in zip(read_shard(full), read_samples(lean), strict=True):
            assert encode_sample(degrade(sample), CODECS["png"]) == members


def test_another_seed_or_variant_is_another_plan_of_the_same_crop(mff: Path) -> None:
    sample = next(read_samples(shards(mff / "lean")[0]))
    degrade = OnTheFly(load_recipe("mff"))
    made = [degrade(sample), degrade(sample, 6), degrade(sample, 5, 7)]
    assert len({str(one.meta.steps) for one in made}) == 3
    assert [(one.meta.seed, one.meta.variant) for one in made] == [(5, 0), (6, 0), (5, 7)]
    for one in made:
        assert all(np.array_equal(one.images[name], sample.images[name]) for name in LEAN_IMAGES)
        assert one.prompt and not one.meta.lean and one.meta.crop == sample.meta.crop
    assert degrade(sample, 6).prompt == made[1].prompt


def test_a_full_sample_is_degraded_anew_where_it_holds_what_that_needs(tmp_path: Path, msrs: Path) -> None:
    sets = tuple(f"operators.{name}.weight=0" for name in ("rain", "snow", "haze"))
    build("vif", data=[f"msrs={msrs}"], out=str(tmp_path / "o"), sets=sets, partial=0.5, **COMMON)
    degrade, hazy = OnTheFly(load_recipe("vif", sets=sets)), load_recipe("vif", n="8")
    held = [sample for path in shards(tmp_path / "o") for sample in read_samples(path)]
    asked_all = [not sample.meta.partial for sample in held]
    assert 0 < sum(asked_all) < len(held)
    for sample, whole in zip(held, asked_all, strict=True):
        if whole:
            assert encode_sample(degrade(sample), CODECS["png"]) == encode_sample(sample, CODECS["png"])
            with pytest.raises(ValueError, match=f"sample {sample.key}: holds no depth, which the plan needs"):
                OnTheFly(hazy)(sample)
        else:
            with pytest.raises(ValueError, match=f"sample {sample.key}: its ground truth keeps steps"):
                degrade(sample)


def test_a_recipe_of_another_task_and_a_wrong_share_are_named(mff: Path) -> None:
    sample = next(read_samples(shards(mff / "lean")[0]))
    with pytest.raises(ValueError, match="is mff, recipe 'mef' mef"):
        OnTheFly(load_recipe("mef"))(sample)
    with pytest.raises(UserError, match=r"--partial 1\.5: must be a share in \[0, 1\]"):
        OnTheFly(load_recipe("mef"), partial=1.5)


def test_every_lean_sample_has_the_same_members_and_its_depth(mff: Path) -> None:
    paths = shards(mff / "lean")
    assert paths
    for path in paths:
        for key, members in read_shard(path):
            assert list(members) == ["clean_a.png", "clean_b.png", "gt.png", "depth.png", "json"]
            sample = decode_sample(key, members)
            assert sample.meta.lean is True and sample.meta.steps == () and sample.prompt == ""
            metres = sample.metres()
            assert metres is not None and (metres > 0).all()
            with pytest.raises(ValueError, match=f"sample {key}: is lean and holds no degraded a"):
                decode_sample(key, members, ("a", "gt"))


def test_the_receipt_and_the_index_say_lean_and_nothing_that_decides_nothing(mff: Path) -> None:
    receipt = json.loads(shards(mff / "lean")[0].with_suffix(".json").read_bytes())
    index = json.loads((mff / "lean/dataset.json").read_bytes())
    for settings in (receipt["settings"], index["settings"]):
        assert settings["lean"] is True and list(settings["recipe"]) == ["name", "ratios"]
        assert not {"partial", "prompts"} & settings.keys()
    assert "lean" not in json.loads((mff / "full/dataset.json").read_bytes())["settings"]
    card = (mff / "lean/README.md").read_text()
    assert "# Clean multi-focus pairs" in card and '`"lean": true`' in card and "`a.png`" not in card


@pytest.mark.filterwarnings("ignore")  # of datasets and what it imports
def test_datasets_reads_a_lean_shard(mff: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="needs Hugging Face datasets")
    files = [str(path) for path in shards(mff / "lean")]
    rows = datasets.load_dataset("webdataset", data_files=files, split="train", cache_dir=str(tmp_path))
    assert len(rows) == sum(1 for name in files for _ in read_shard(Path(name))) and {
        "clean_a.png",
        "clean_b.png",
        "gt.png",
        "depth.png",
        "json",
    } <= set(rows.column_names)


def test_the_card_s_example_runs(mff: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(mff / "lean")
    text = (mff / "lean/README.md").read_text()
    exec(text.split("```python\n")[1].split("```")[0], {})
    assert len(capsys.readouterr().out.splitlines()) == sum(1 for _ in read_shard(shards(mff / "lean")[0]))


def test_resume_of_a_lean_build_and_a_full_one_in_its_folder(mff: Path, tmp_path: Path) -> None:
    out = tmp_path / "o"
    shutil.copytree(mff / "lean", out)
    before = folder_bytes(out)
    shards(out)[0].unlink()
    again: dict[str, Any] = {
        "data": ["folder=" + ",".join(str(mff / name) for name in ("near", "far", "gt"))],
        **COMMON,
    }
    build("mff", out=str(out), lean=True, **again)
    assert folder_bytes(out) == before
    with pytest.raises(UserError, match=f"{out} holds another build: lean was true, is not set"):
        build("mff", out=str(out), **again)


IDLE = [
    ("--n", "3", "--n 3"),
    ("--partial", "0.5", "--partial 0.5"),
    ("--prompts", "here", "--prompts here"),
    ("--set", "operators.haze.weight=2", "--set operators.haze.weight=2"),
]


@pytest.mark.parametrize(("option", "value", "said"), IDLE)
def test_what_decides_nothing_is_refused(synth: Synth, tmp_path: Path, option: str, value: str, said: str) -> None:
    ran = synth("build", "--task", "vif", "--lean", option, value, "--out", tmp_path / "o")
    assert ran.code == 2 and not (tmp_path / "o").exists()
    assert ran.error == (
        f"synth: error: {said}: has no effect with --lean, which degrades nothing; "
        "give train fit a recipe with --recipe"
    )


def test_build_verify_inspect_and_preview_of_lean_shards(synth: Synth, tmp_path: Path, msrs: Path) -> None:
    out = tmp_path / "shards"
    options = ("--data", f"msrs={msrs}", "--out", out, "--executor", "serial", "--set", "ratios={'1:1'=1}")
    ran = synth("build", "--task", "vif", "--lean", *options)
    assert (ran.code, ran.out) == (0, f"built 6 samples in 1 shard in {out}\n")
    assert "lean: no degraded images; train fit --recipe degrades as it reads" in ran.err
    ran = synth("verify", out, "--replay", "--workers", "1")
    assert (ran.code, ran.out) == (0, "ok: 6 samples, 0 replayed, 6 lean: no degraded images to replay\n")
    report = json.loads(synth("inspect", out, "--json").out)
    assert (report["samples"], report["lean"], report["n"], report["operators"]) == (6, 6, {}, {})
    text = synth("inspect", out).out
    assert "lean: 6, clean images, ground truth and depth alone: degraded as they are read" in text
    assert "crop ratios: 1:1 6" in text and "operators" not in text
    sheet = tmp_path / "sheet.png"
    assert synth("preview", out, "--samples", "2", "--out", sheet).code == 0
    with Image.open(sheet) as picture:
        assert picture.width > 5 * 160
    assert "(lean ones degraded here: recipe of their task)" in sheet.with_suffix(".html").read_text()
    ran = synth("preview", out, "--recipe", "mef", "--out", sheet)
    assert (ran.code, ran.error) == (2, "synth: error: recipe 'mef' is for mef, not for vif")


def test_preview_with_a_recipe_of_full_shards_is_refused(synth: Synth, mff: Path, tmp_path: Path) -> None:
    ran = synth("preview", mff / "full", "--recipe", "mff", "--out", tmp_path / "x.png")
    assert (ran.code, ran.error) == (
        2,
        "synth: error: --recipe mff: these shards hold their degradations; it is for lean ones",
    )


def test_verify_names_what_a_lean_sample_lacks(synth: Synth, mff: Path, tmp_path: Path) -> None:
    path = tmp_path / "mff-train-000000.tar"
    content = list(read_shard(shards(mff / "lean")[0]))
    key, members = content[0]
    meta = json.loads(members["json"])
    content[0] = (key, members | {"json": json.dumps(meta | {"depth": None}).encode()})
    without = {name: data for name, data in content[1][1].items() if name != "gt.png"}
    content[1] = (content[1][0], without)
    write_shard(path, content)
    ran = synth("verify", path)
    assert ran.code == 1
    assert f"sample {key}: is lean, which goes with no steps and with depth" in ran.out
    assert f"sample {content[1][0]}: member gt is missing" in ran.out


@pytest.mark.filterwarnings("ignore")
def test_a_lean_shard_is_plain_webdataset(mff: Path) -> None:
    import webdataset  # warns of a tar that it leaves open

    path = shards(mff / "lean")[0]
    rows = list(webdataset.WebDataset(str(path), shardshuffle=False).decode("pil"))  # type: ignore[attr-defined]
    for row, sample in zip(rows, read_samples(path), strict=True):
        assert row["json"] == json.loads(dumps(sample.meta.to_json())) and np.array_equal(
            np.asarray(row["clean_a.png"]), sample.images["clean_a"]
        )

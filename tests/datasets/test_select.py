"""Selection of pairs: several splits in one build, quotas, limits, and no scene in two splits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from test_pairs import table
from test_sequences import sequence

from clearfuse.synth.builder.card import card
from clearfuse.synth.builder.options import Options
from clearfuse.synth.builder.run import build, plan_build
from clearfuse.synth.datasets.pairs import Pairs
from clearfuse.synth.datasets.select import keep_apart, quotas, split_names
from clearfuse.synth.shards.receipts import Receipts
from clearfuse.synth.shards.sample import read_samples
from clearfuse.synth.types import UserError
from conftest import Ran, save, textured

pytestmark = pytest.mark.slow


def test_quotas_keep_proportions_and_leave_none_out() -> None:
    assert quotas(32, {"train": 157_500, "val": 31_500, "test": 6_300}) == {"train": 26, "val": 5, "test": 1}
    assert quotas(8, {"train": 6, "test": 2}) == {"train": 6, "test": 2}
    assert sum(quotas(1953, {"train": 157_500, "val": 31_500, "test": 6_300}).values()) == 1953


def test_split_names_are_in_one_order() -> None:
    assert split_names("test, train") == ("train", "test")
    with pytest.raises(UserError, match="--split val,val: val is named twice"):
        split_names("val,val")


def test_a_scene_that_another_set_tests_on_is_left_out() -> None:
    pairs = Pairs([table("one", ["1"], ["test"]), table("two", ["1", "2"], ["train", "train"])])
    kept, left = keep_apart(pairs)
    assert [ref.name for ref in kept] == ["one/1", "two/2"] and [ref.name for ref in left] == ["two/1"]


def test_built_in_scenes_by_split() -> None:
    planned, found = plan_build(Options(task="vif", split="train,val,test"))
    assert found.notes[0].startswith("pairs: 32 built-in scenes (26 train, 5 val, 1 test)")
    assert planned.split == "train,val,test" and planned.shard_count == 3
    assert [planned.path(shard).name for shard in range(3)] == [f"vif-{s}-000000.tar" for s in planned.splits]


def test_several_splits_in_one_folder(tmp_path: Path, msrs: Path, synth: Callable[..., Ran]) -> None:
    data = {"data": [f"msrs={msrs}"], "n": "1", "executor": "serial", "shard_size": 2, "depth": "prior"}
    out = tmp_path / "out"
    report = build("vif", out=out, split="test,train", variants=2, **data)
    assert (report.samples, report.shards) == (16, 8)
    names = sorted(path.name for path in out.glob("*.tar"))
    assert names == [f"vif-test-{i:06d}.tar" for i in range(2)] + [f"vif-train-{i:06d}.tar" for i in range(6)]
    index = json.loads((out / "dataset.json").read_text())
    assert (index["split"], index["splits"]) == ("train,test", {"train": 12, "test": 4})
    for path in out.glob("*.tar"):
        assert {sample.meta.split for sample in read_samples(path)} == {path.name.split("-")[1]}
    text = (out / "README.md").read_text()
    assert '- split: train\n    path: "vif-train-*.tar"\n  - split: test\n' in text and "12 train, 4 test" in text
    assert synth("verify", out, "--replay", "--workers", "1").code == 0
    one = tmp_path / "one"
    build("vif", out=one, split="test", variants=2, **data)
    for path in one.glob("*.tar"):  # a split's shards equal those of a build of that split only
        assert path.read_bytes() == (out / path.name).read_bytes()


def test_a_build_of_several_splits_resumes_and_extends(tmp_path: Path, msrs: Path) -> None:
    data = {
        "data": [f"msrs={msrs}"],
        "n": "1",
        "executor": "serial",
        "shard_size": 2,
        "depth": "prior",
        "split": "train,test",
    }
    whole = tmp_path / "whole"
    build("vif", out=whole, variants=2, **data)
    grown = tmp_path / "grown"
    build("vif", out=grown, **data)
    assert build("vif", out=grown, variants=2, extend=True, **data).resumed == 4
    for path in whole.glob("*.tar"):
        assert path.read_bytes() == (grown / path.name).read_bytes()
    (grown / "vif-train-000001.json").unlink()
    assert build("vif", out=grown, variants=2, **data).resumed == 7


def test_a_split_without_pairs_is_refused(msrs: Path, synth: Callable[..., Ran]) -> None:
    ran = synth("build", "--task", "vif", "--data", f"msrs={msrs}", "--split", "train,val", "--dry-run")
    assert ran.code == 2
    assert ran.error == "synth: error: --split train,val: no pair in split 'val': msrs has 6 train, 2 test"


def test_a_limit_leaves_every_split_its_share(msrs: Path) -> None:
    planned, _ = plan_build(Options(task="vif", data=(f"msrs={msrs}",), split="train,test", limit=4))
    assert [len(planned.order(0, split)) for split in planned.splits] == [3, 1]


def test_pairs_of_sequences_decide_the_digest(tmp_path: Path, synth: Callable[..., Ran]) -> None:
    root = tmp_path / "SICE"
    for scene in range(4):
        sequence(root / f"Dataset_Part1/{scene}")
    seen: dict[str, tuple[int, str]] = {}
    for pairs in ("extreme", "adjacent", "all"):
        ran = synth("build", "--task", "mef", "--data", f"sice={root}", "--pairs", pairs, "--dry-run", "--json")
        result = json.loads(ran.out)
        assert result["settings"]["pairs"] == pairs
        seen[pairs] = (result["samples"], result["digest"])
    assert seen["extreme"][0] * 4 == seen["adjacent"][0] and seen["extreme"][0] * 10 == seen["all"][0]
    assert len({digest for _, digest in seen.values()}) == 3


def test_two_forms_of_one_set_are_refused(tmp_path: Path, synth: Callable[..., Ran]) -> None:
    sequence(tmp_path / "Dataset_Part1/1")
    for folder in ("under", "over"):
        save(tmp_path / folder / "1.png", textured(1))
    data = [f"--data=sice={tmp_path}", f"--data=sice-flat={tmp_path}"]
    ran = synth("build", "--task", "mef", *data, "--dry-run")
    expected = f"--data sice-flat={tmp_path}: holds the pictures of 'sice' in another form: give one"
    assert (ran.code, ran.error) == (2, f"synth: error: {expected}")


def test_the_card_of_one_split_names_it(msrs: Path) -> None:
    planned, _ = plan_build(Options(task="vif", data=(f"msrs={msrs}",), split="test"))
    assert "0 shards (test), 1 degraded" in card(planned, Receipts())


@pytest.mark.parametrize(
    ("use", "error"),
    [
        ("research", ""),
        ("non-commercial", "--licence non-commercial: the terms of 'msrs' grant research use at most (none stated; "),
        (
            "comercial",
            "unknown use 'comercial': did you mean 'commercial'? allowed: commercial, non-commercial, research",
        ),
    ],
)
def test_a_build_refuses_sets_whose_terms_do_not_grant_its_use(
    msrs: Path, synth: Callable[..., Ran], use: str, error: str
) -> None:
    ran = synth("build", "--task", "vif", "--data", f"msrs={msrs}", "--licence", use, "--dry-run")
    assert ran.code == (2 if error else 0)
    assert not error or ran.error.startswith(f"synth: error: {error}")

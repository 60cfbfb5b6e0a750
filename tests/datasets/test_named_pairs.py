"""Pairs by name (``--key``), all pairs as one split (``--whole``): of sets with splits of their own and without."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clearfuse.synth.builder.options import Options
from clearfuse.synth.builder.run import plan_build
from clearfuse.synth.files.schema import check_options
from clearfuse.synth.types import UserError
from conftest import save, textured


def planned(**options: object) -> list[tuple[str, str]]:
    build, _ = plan_build(check_options(Options, {"split": "test", "depth": "prior", **options}))
    return [(ref.key, ref.split) for ref in build.pairs]


def test_a_pair_keeps_to_the_split_of_a_set_that_has_its_own(msrs: Path) -> None:
    data = {"task": "vif", "data": [f"msrs={msrs}"]}
    assert planned(**data, keys=["00008D"]) == [("00008D", "test")]
    with pytest.raises(UserError, match=re.escape(f"--data msrs={msrs}: no pair '00001D' in {msrs}, split 'test'")):
        planned(**data, keys=["00001D", "00008D"])


def test_drawn_splits_do_not_stand_in_the_way(tmp_path: Path) -> None:
    for number in range(1, 5):
        for image in "AB":
            save(tmp_path / f"lytro-0{number}-{image}.png", textured(number))
    data = {"task": "mff", "data": [f"lytro={tmp_path}"]}
    assert planned(**data, keys=["04", "01", "02"]) == [("01", "test"), ("02", "test"), ("04", "test")]
    assert {split for _, split in planned(**data, split="train,val")} == {"train", "val"}
    with pytest.raises(UserError, match=r"no pair '05' \(and 1 more\) in "):
        planned(**data, keys=["06", "05", "01"])


def test_built_in_scenes_by_name() -> None:
    assert planned(task="mef", keys=["test-000040", "test-000003"]) == [
        ("test-000003", "test"),
        ("test-000040", "test"),
    ]
    with pytest.raises(
        UserError, match=r"--key train-000001: must be like test-000007: a built-in scene of split 'test'"
    ):
        planned(task="mef", keys=["train-000001"])


def test_keys_are_of_one_set_and_one_split() -> None:
    with pytest.raises(UserError, match="--key 1: goes with one data set and one split"):
        planned(task="vif", split="train,test", keys=["1"])
    with pytest.raises(UserError, match="--key 1: goes with one data set and one split"):
        planned(task="vif", data=["msrs=a", "m3fd=b"], keys=["1"])


def test_a_whole_set_is_of_the_split_that_is_asked_for(tmp_path: Path, msrs: Path) -> None:
    for number in range(1, 6):
        for side in ("near", "far"):
            save(tmp_path / side / f"{number}.png", textured(number))
    data = {"task": "mff", "data": [f"folder={tmp_path}/near,{tmp_path}/far"]}
    with pytest.raises(
        UserError, match=r"no pair in split 'test': 5 train, 0 val, 0 test; --whole puts all of them into 'test'"
    ):
        planned(**data)
    assert planned(**data, whole=True) == [(str(number), "test") for number in range(1, 6)]
    assert len(planned(**data, whole=True, limit=2)) == 2
    assert planned(**data, whole=True, keys=["3"]) == [("3", "test")]
    with pytest.raises(UserError, match="--whole: data set 'msrs' has splits of its own, train, test: leave it out"):
        planned(task="vif", data=[f"msrs={msrs}"], whole=True)
    for wrong in ({"task": "vif"}, {**data, "split": "train,test"}):
        with pytest.raises(UserError, match="--whole: goes with --data and one split, such as --split test"):
            planned(**wrong, whole=True)

"""What ``train fuse`` and the others find: patterns of names, data sets, shards, and what is said of both sides."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from made import made_shards
from tiny import small

from clearfuse.synth.datasets.find import find_all
from clearfuse.synth.datasets.manifest import load_manifest
from clearfuse.synth.datasets.match import split_pattern
from clearfuse.synth.datasets.read import read_image
from clearfuse.synth.shards.sample import read_samples
from clearfuse.synth.types import UserError
from clearfuse.train.designs.design import Assembly
from clearfuse.train.pipeline.fusion import FusionPipeline
from conftest import Ran, save, textured

Command = Callable[..., Ran]
MATCH = ("--match", "{key}-A", "{key}-B")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    FusionPipeline(Assembly(small(guess=True), torch.Generator().manual_seed(0))).save_pretrained(folder)
    return folder


@pytest.fixture
def suffixed(tmp_path: Path) -> Path:
    """One folder with both sides of two pairs, whose names end in the side, and a ground truth beside it."""
    for key in ("one", "two"):
        for number, side in enumerate("AB"):
            save(tmp_path / f"set/{key}-{side}.png", textured(number, 96, 80))
        save(tmp_path / f"gt/{key}_F.png", textured(0, 96, 80))
    return tmp_path


def test_patterns_in_every_command(suffixed: Path, model: Path, train: Command, synth: Command) -> None:
    both = f"{suffixed / 'set'},{suffixed / 'set'}"
    as_mff = ("--task", "mff", "--model", model)
    ran = train("fuse", suffixed / "set", suffixed / "set", *MATCH, "-o", suffixed / "o", *as_mff)
    assert ran.code == 0 and sorted(p.name for p in (suffixed / "o").iterdir()) == ["one.png", "two.png"], ran.err
    ran = train("fuse", "--data", f"folder={both}", *MATCH, "-o", suffixed / "d", *as_mff)
    assert ran.code == 0 and sorted(p.name for p in (suffixed / "d").iterdir()) == ["one.png", "two.png"], ran.err
    ran = train("metrics", suffixed / "set", suffixed / "set", suffixed / "o", *MATCH, "--metrics", "EN", "--json")
    assert ran.code == 0 and set(json.loads(ran.out)["images"]["o"]) == {"one", "two"}, ran.err
    ran = train("tokenizers", "--data", f"folder={both}", *MATCH, "--limit", "1")
    assert ran.code == 0, ran.err
    ran = synth("datasets", "check", f"folder={both}", *MATCH, "--task", "mff", "--json")
    assert json.loads(ran.out)["sets"]["folder"]["pairs"] == 2, ran.out
    ran = synth("list", "datasets", "--data", f"folder={both}", *MATCH, "--json")
    assert json.loads(ran.out)["folder"]["found"]["pairs"] == 2, ran.out
    options = ("--task", "mff", "--n", "1", "--executor", "serial", "--out", suffixed / "b")
    ran = synth("build", "--data", f"folder={both}", *MATCH, *options)
    assert ran.code == 0, ran.err
    keys = [s.meta.pair for path in sorted((suffixed / "b").glob("*.tar")) for s in read_samples(path)]
    assert sorted(keys) == ["one", "two"]


def test_patterns_may_stand_behind_the_folder(suffixed: Path) -> None:
    folder = suffixed / "set"
    found = find_all(
        load_manifest("folder"), f"{folder}/{{key}}-A,{folder}/{{key}}-B.png,{suffixed}/gt/{{key}}_F", "mff"
    )
    assert [ref.key for ref in found.pairs] == ["one", "two"]
    assert found.pairs[0].sources["gt"].endswith("gt/one_F.png")
    assert split_pattern("x/y/{key}-A") == ("x/y", "{key}-A") and split_pattern("{key}_a") == (".", "{key}_a")
    assert split_pattern("x/y") == ("x/y", "")
    with pytest.raises(UserError, match=r"expected \{key\}-C\.\* and \{key\}-B\.\* below it; .* has one-A\.png"):
        find_all(load_manifest("folder"), f"{folder}/{{key}}-C,{folder}/{{key}}-B", "mff")


def test_mistakes_of_patterns(suffixed: Path, train: Command, synth: Command) -> None:
    pair = (suffixed / "set", suffixed / "gt", "-o", suffixed / "o")
    for ran, said in (
        (train("fuse", *pair, "--match", "x", "{key}-B"), "pattern x: must have {key} once, such as '{key}-A'"),
        (train("fuse", *pair, *MATCH), "set has one-A.png, two-A.png; "),
        (train("fuse", *pair), "names that differ at their ends: --match '{key}-A' '{key}-B'"),
        (
            train("metrics", suffixed / "set", suffixed / "gt", suffixed / "gt"),
            "set has one-A.png, one-B.png, two-A.png",
        ),
        (synth("list", "datasets", "--data", "msrs=x", *MATCH), "--match {key}-A {key}-B: is for your own folders"),
        (synth("list", "datasets", "--data", "folder=x/{key},y", *MATCH), "has patterns of its own"),
    ):
        assert ran.code == 2 and said in ran.error, ran.error


@pytest.mark.slow
def test_shards_and_data_sets(tmp_path: Path, model: Path, train: Command, msrs: Path) -> None:
    """Samples go where ``train eval --results`` looks, with their own prompts; sets by split, task known."""
    shards = made_shards(tmp_path)
    tar = next((shards / "vif").glob("*.tar"))
    ran = train("fuse", tar, "-o", tmp_path / "o", "--model", model, "--limit", "2", "--json")
    assert ran.code == 0, ran.err
    written = json.loads(ran.out)["fused"]
    pipeline = FusionPipeline.from_pretrained(model)
    for path, sample in zip(written, read_samples(tar), strict=False):
        assert path == str(tmp_path / f"o/vif/{sample.key}.png")
        expected = pipeline(sample.images["a"], sample.images["b"], task="vif", prompt=sample.prompt)
        np.testing.assert_array_equal(read_image(path)[0], expected)
    ran = train("fuse", "--data", f"msrs={msrs}", "--split", "test", "-o", tmp_path / "m", "--model", model)
    assert ran.code == 0 and len(list((tmp_path / "m").iterdir())) == 2, ran.err
    ran = train("fuse", "-o", tmp_path / "x")
    assert ran.code == 2 and "nothing to fuse: name two pictures" in ran.error
    ran = train("fuse", tar, "-o", tar)
    assert ran.code == 2 and "is a file, must be a folder" in ran.error

"""Pictures of shards as files, and scored again under the same names."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made import made_shards

from clearfuse.synth.datasets.read import read_image
from clearfuse.synth.review.extract import extract
from clearfuse.synth.shards.sample import read_samples
from clearfuse.train.evaluation.methods.results import result_methods
from clearfuse.train.evaluation.samples import plan_portions
from conftest import Ran, folder_bytes


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("made"))


def test_pictures_and_prompts_lie_by_task(shards: Path, tmp_path: Path, synth: Callable[..., Ran]) -> None:
    out = tmp_path / "out"
    ran = synth("extract", shards / "vif", shards / "mef", "--out", out, "--images", "a,b,gt", "--json")
    assert (ran.code, json.loads(ran.out)["samples"]) == (0, {"vif": 5, "mef": 3})
    for task, count in (("vif", 5), ("mef", 3)):
        samples = [sample for tar in sorted((shards / task).glob("*.tar")) for sample in read_samples(tar)]
        assert len(folder_bytes(out / task / "a")) == len(samples) == count
        for sample in samples:
            for name in ("a", "b", "gt"):
                image, _ = read_image(str(out / task / name / f"{sample.key}.png"))
                np.testing.assert_array_equal(image, sample.images[name])
        lines = [json.loads(line) for line in (out / task / "prompts.jsonl").read_text("utf-8").splitlines()]
        assert [(line["key"], line["prompt"]) for line in lines] == [(s.key, s.prompt) for s in samples]


def test_results_are_found_under_the_same_names(shards: Path, tmp_path: Path) -> None:
    """Ground truth put where a method's results belong is scored as perfect."""
    extract([str(shards / "vif"), str(shards / "mef")], str(tmp_path / "out"), ["gt"])
    for task in ("vif", "mef"):
        shutil.copytree(tmp_path / "out" / task / "gt", tmp_path / "results" / task)
    portions = plan_portions([str(shards / "vif"), str(shards / "mef")], None)
    (method,) = result_methods([f"perfect={tmp_path / 'results'}"], portions)
    for tar in sorted(shards.glob("*/*.tar")):
        for sample in read_samples(tar):
            fused = method.fuse(sample)
            assert fused is not None
            np.testing.assert_array_equal(fused, sample.images["gt"])


def test_what_cannot_be_is_refused_and_leaves_nothing(shards: Path, tmp_path: Path, synth: Callable[..., Ran]) -> None:
    shutil.copytree(shards / "vif", tmp_path / "again")
    for arguments, message in (
        ((shards / "vif", tmp_path / "again"), "two builds of vif, whose keys are the same"),
        ((shards / "vif", "--images", "a,c"), "unknown image 'c'"),
        ((tmp_path / "none",), "no such file or folder"),
    ):
        ran = synth("extract", *arguments, "--out", tmp_path / "out")
        assert ran.code == 2 and message in ran.error
        assert {path.name for path in tmp_path.iterdir()} == {"again"}
    assert synth("extract", shards / "vif", "--out", tmp_path / "again").error.endswith("already; name a new folder")

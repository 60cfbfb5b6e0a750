"""``make model``: a page of stages is built and fitted, each stage from the one before, and published; its curves."""

from __future__ import annotations

import importlib.util
import json
import xml.etree.ElementTree as Xml
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from clearfuse.synth.files.checkpoints import digest
from clearfuse.synth.types import UserError
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.runs.compare import Curve, Run, read_run
from clearfuse.train.runs.manifest import read_run_manifest
from clearfuse.train.runs.record import read_record
from conftest import ROOT

PAGE = """
schema = 1
[[build]]
name = "vif"
task = "vif"
options = { limit = 3, executor = "serial", workers = 1 }
[[build]]
name = "mef"
task = "mef"
weight = 2
options = { limit = 3, executor = "serial", workers = 1 }

[[fit]]
preset = "small"
sets = [
    "config.width=8", "config.depth=1", "config.blocks=[1, 1, 1]", "config.heads=2",
    "schedule.repeats=1", "schedule.reading=2",
]
crop = 32
batch = 4
steps = 3
hold_out = 1
workers = 0
validate_every = 2
trackers = ["none"]
device = "cpu"

[[fit]]
crop = 48
steps = 2
"""


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


@pytest.fixture
def curves() -> Iterator[Any]:
    yield module(ROOT / "docs/curves.py")


@pytest.mark.slow
def test_stages_go_on_from_each_other_and_the_last_is_published(tmp_path: Path, curves: Any) -> None:
    script, page = module(ROOT / "models/train.py"), tmp_path / "tiny.toml"
    page.write_text(PAGE)
    work, out = tmp_path / "work", tmp_path / "models/tiny"
    script.train(page, tmp_path, work, out)
    first, second = (read_record(work / f"run-{number}").settings for number in (1, 2))
    assert (first.crop, first.steps, first.seed, first.init) == (32, 3, 0, None)
    assert (second.crop, second.batch, second.steps, second.seed, second.mix) == (48, 4, 2, 1, [1.0, 2.0])
    assert second.init == f"{work}/run-1 {digest(work / 'run-1/model.safetensors')}"
    assert str(tmp_path) not in "".join(path.read_text() for path in out.glob("*.json*")), "no path of this machine"
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2, 3, 4, 5]
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [2, 3, 5]
    FusionPipeline.from_pretrained(out)
    weights, kept = digest(out / "model.safetensors"), (work / "run-2/log.jsonl").read_bytes()
    script.train(page, tmp_path, work, out)  # goes on where nothing is left
    assert (digest(out / "model.safetensors"), (work / "run-2/log.jsonl").read_bytes()) == (weights, kept)
    Xml.fromstring(curves.svg(read_run(out, "tiny")))


def test_a_stage_has_what_the_one_before_it_says_and_a_seed_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(PAGE)
    first, second = read_run_manifest(path).stages()
    assert (first["seed"], second["seed"]) == (0, 1)
    assert {name for name in second if second[name] != first[name]} == {"seed", "crop", "steps"}
    script = module(ROOT / "models/train.py")
    path.write_text(PAGE.replace("crop = 48", "crp = 48"))
    with pytest.raises(UserError, match=r"tiny\.toml: fit: .*crp"):
        script.train(path, tmp_path, tmp_path / "work", tmp_path / "out")
    assert not (tmp_path / "work").exists(), "before work begins"


def test_the_curves_are_the_run_s_values(curves: Any) -> None:
    """The first and last validation at the panel's ends, the extremes at its top and bottom, training in means."""

    def curve(*values: float) -> Curve:
        made = Curve()
        for step, value in enumerate(values, 1):
            made.add(step, value)
        return made

    run = Run(
        "x",
        Path(),
        {},
        {"train/loss": curve(*range(60)), "validation/PSNR": curve(20, 30), "speed/data_wait": curve(1)},
    )
    assert curves.means(curves.points(run, "train/loss"))[:2] == [(2, 0.5), (4, 2.5)]
    texts = [one.text for one in Xml.fromstring(curves.svg(run)).iter("{http://www.w3.org/2000/svg}text")]
    assert texts.count("step 60") == 1 and {"training", "all", "20.0", "22.5", "30.0"} <= set(texts)
    assert "validation" not in texts and "vif" not in texts
    loss, psnr = (
        one.get("points") for one in Xml.fromstring(curves.svg(run)).iter("{http://www.w3.org/2000/svg}polyline")
    )
    assert psnr == f"{420 + 52 + (420 - 66) / 2:.1f},226.0 {840 - 14}.0,30.0"
    assert loss.startswith("63.8,226.0 ") and loss.endswith(" 406.0,30.0") and loss.count(",") == 30

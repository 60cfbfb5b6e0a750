"""What networks note of samples: kept with their scores, averaged by degradation, drawn as charts."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import small_mdaif

from clearfuse.synth.builder.run import build
from clearfuse.synth.types import UserError
from clearfuse.train.designs.design import Assembly
from clearfuse.train.evaluation.aggregate import NoteSums
from clearfuse.train.evaluation.evaluate import evaluate_shards
from clearfuse.train.evaluation.methods.fusers import model_methods
from clearfuse.train.evaluation.scoring import FAITHFULNESS, Record
from clearfuse.train.evaluation.writers.charts import bars, radar
from clearfuse.train.pipeline.fusion import FusionPipeline
from conftest import save, textured

RECORD = Record(
    *("s.tar", "0", "msrs", "1", "vif", 1), (("haze", "a", 0.5),), "pyramid", False, np.array([[1.0, 2.0]]), (False,),
    {"mdaif": {"prototype": (0.25, 0.75), "expert": (1.0,)}},
)  # fmt: skip


def test_a_record_keeps_what_was_noted() -> None:
    assert Record.parse(RECORD.line(), 2).noted == RECORD.noted
    assert Record.parse(replace(RECORD, noted={}).line(), 2).noted == {}


def test_notes_are_averaged_by_degradation() -> None:
    sums = NoteSums()
    sums.add(RECORD)
    both = (("haze", "a", 0.5), ("rain", "a", 0.5))
    sums.add(replace(RECORD, steps=both, noted={"mdaif": {"prototype": (0.75, 0.25)}}))
    sums.add(replace(RECORD, steps=(), noted={}))
    assert sums.means() == {
        "mdaif": {
            "expert": {"all": [1.0], "haze": [1.0]},
            "prototype": {"all": [0.5, 0.5], "haze": [0.5, 0.5], "rain": [0.75, 0.25]},
        }
    }


def test_what_differs_between_degradations_is_tested() -> None:
    """By method and note; where pixels come from is no note of a model."""
    sums, rng = NoteSums(), np.random.default_rng(0)
    for i in range(40):
        op = ("haze", "rain")[i % 2]
        notes = {
            "prototype": (float(rng.normal() + 3 * (i % 2)),),
            "expert": (float(rng.normal()),),
            FAITHFULNESS: (1.0,),
        }
        sums.add(replace(RECORD, steps=((op, "a", 0.5),), noted={"mdaif": notes}))
    found = sums.differs()["mdaif"]
    assert found.keys() == {"prototype", "expert"} and found["prototype"] < 0.001 < 0.05 < found["expert"]


def test_bars_are_as_high_as_their_values() -> None:
    heights = [
        float(height)
        for height in re.findall(
            r"height=([\d.]+) fill='#\w+'><title>", bars({"haze": [0.5, 1.0], "rain": [0.25, 0.0]})
        )
    ]
    assert [round(height / heights[1], 2) for height in heights] == [0.5, 1.0, 0.25, 0.0]


def test_a_radar_reaches_as_far_as_its_values() -> None:
    """The circle of 1 lies at half the radius where the largest value is 2."""
    picture = radar({"one": {"north": 2.0, "east": 1.0, "south": 1.0, "west": 0.0}})
    (corners,) = re.findall(r"points='([^']+)'", picture)
    points = np.array([[float(part) for part in pair.split(",")] for pair in corners.split()]) - [210, 130]
    np.testing.assert_allclose(points, [[0, -90], [45, 0], [0, 45], [0, 0]], atol=0.1)
    assert "r=45.0" in picture and all(axis in picture for axis in ("north", "east", "south", "west"))


@pytest.mark.slow
def test_a_report_shows_what_a_model_noted(tmp_path: Path) -> None:
    for number in range(2):
        save(tmp_path / "MSRS/train/vi" / f"{number:05d}D.png", textured(number))
        save(tmp_path / "MSRS/train/ir" / f"{number:05d}D.png", textured(100 + number, channels=1))
    build("vif", data=[f"msrs={tmp_path / 'MSRS'}"], out=str(tmp_path / "vif"), n="1", executor="serial", workers=1)
    FusionPipeline(Assembly(small_mdaif(), torch.Generator().manual_seed(0))).save_pretrained(tmp_path / "mdaif")
    methods = model_methods([str(tmp_path / "mdaif")], "cpu", None, {}, without_prior=True)
    done = evaluate_shards([str(tmp_path / "vif")], str(tmp_path / "out"), metrics="PSNR", methods=methods, examples=0)
    assert [method.name for method in done.methods][:2] == ["mdaif", "mdaif, no prior"] and set(done.noted) == {"mdaif"}
    notes = done.noted["mdaif"]
    assert notes.keys() == {"prototype", "expert"} and len(notes["prototype"]["all"]) == 3
    assert sum(notes["expert"]["all"]) == pytest.approx(1) and len(notes["expert"]) > 1
    assert done.preferences["mdaif"].keys() == {"prototype-0", "prototype-1", "prototype-2"}
    assert len(done.preferences["mdaif"]["prototype-0"]) == 8
    page = (tmp_path / "out/report.html").read_text()
    assert "What mdaif notes" in page and page.count("<svg") == 3
    assert '"noted"' in (tmp_path / "out/report.json").read_text()


def test_zeros_in_place_of_the_prior_and_a_model_without_one(tmp_path: Path) -> None:
    """Its picture is then that of any other picture's views."""
    pipeline = FusionPipeline(Assembly(small_mdaif(), torch.Generator().manual_seed(0)))
    with torch.no_grad():
        for parameter in pipeline.assembly.network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    pair = textured(0), textured(100, channels=1)
    seen, blind = (pipeline(*pair, task="vif", prior=prior).astype(int) for prior in (True, False))
    assert np.abs(seen - blind).max() > 0
    pipeline.assembly.semantics.place.weight.data.add_(1)  # type: ignore[union-attr, operator]
    assert np.array_equal(pipeline(*pair, task="vif", prior=False), blind)
    tiny_without = Assembly(
        replace(small_mdaif(), config=replace(small_mdaif().config, semantics_width=0), semantics="none"),
        torch.Generator().manual_seed(0),
    )
    FusionPipeline(tiny_without).save_pretrained(tmp_path / "plain")
    with pytest.raises(UserError, match="--without-prior: 'plain' has no semantic prior"):
        model_methods([str(tmp_path / "plain")], "cpu", None, {}, without_prior=True)

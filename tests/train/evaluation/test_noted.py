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
from clearfuse.train.designs.design import Assembly
from clearfuse.train.evaluation.aggregate import NoteSums
from clearfuse.train.evaluation.evaluate import evaluate_shards
from clearfuse.train.evaluation.methods.fusers import model_methods
from clearfuse.train.evaluation.scoring import Record
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
    methods = model_methods([str(tmp_path / "mdaif")], "cpu", None, {})
    done = evaluate_shards([str(tmp_path / "vif")], str(tmp_path / "out"), metrics="PSNR", methods=methods, examples=0)
    notes = done.noted["mdaif"]
    assert notes.keys() == {"prototype", "expert"} and len(notes["prototype"]["all"]) == 3
    assert sum(notes["expert"]["all"]) == pytest.approx(1) and len(notes["expert"]) > 1
    assert done.preferences["mdaif"].keys() == {"prototype-0", "prototype-1", "prototype-2"}
    assert len(done.preferences["mdaif"]["prototype-0"]) == 8
    page = (tmp_path / "out/report.html").read_text()
    assert "What mdaif notes" in page and page.count("<svg") == 3
    assert '"noted"' in (tmp_path / "out/report.json").read_text()

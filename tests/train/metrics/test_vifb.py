"""The profile ``vifb`` against the toolbox's published table, and against analytic values for simple images."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearfuse.synth.types import UserError
from clearfuse.train.metrics import ALIASES, PROFILES, evaluate
from clearfuse.train.metrics.toolboxes.vifb import VIFB
from conftest import textured

REMADE = ("SwinFusion", "YDTR")
"""Methods whose stored pictures are not the ones that were measured."""


@pytest.mark.slow
def test_the_published_table_is_reproduced(shared: Path) -> None:
    """Two methods on every third image; ``benchmarks/published.py`` has all 21 images and 10 methods."""
    root = shared / "data" / "vif" / "VIFB"
    with (root / "published_metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = [name for name in rows[0] if name not in ("image", "method")]
    images = sorted({row["image"] for row in rows})[::3]
    checked = 0
    for i, image in enumerate(images):
        sources = [np.asarray(Image.open(root / "input" / side / f"{image}.jpg")) for side in ("VI", "IR")]
        mine = [row for row in rows if row["image"] == image and row["method"] not in REMADE]
        for row in (mine[i % len(mine)], mine[(i + 3) % len(mine)]):
            fused = np.asarray(Image.open(root / "output" / "fused_images" / f"{image}_{row['method']}.jpg"))
            found = evaluate(fused, *sources, metrics=names, profile="vifb")
            assert found == pytest.approx({name: float(row[name]) for name in names}, rel=2e-4), (image, row["method"])
            checked += len(names)
    assert checked == 7 * 2 * 13


def test_an_image_that_is_both_sources() -> None:
    x = textured(1, 64, 48)
    found = evaluate(x, x, x, profile="vifb")
    assert list(found) == list(VIFB)
    assert found["CE"] == 0 and found["RMSE"] == 0 and found["PSNR"] == math.inf and found["Qcv"] == 0
    assert found["SSIM"] == pytest.approx(2, abs=1e-9) and found["Qcb"] == pytest.approx(1, abs=1e-9)
    assert found["Qabf"] == pytest.approx(0.9994 * 0.9879 / (1 + math.exp(-22 * 0.2)), rel=1e-6)


def test_formulas_on_two_levels() -> None:
    """Half 0, half 200: one bit of entropy; an edge of 200 in the middle."""
    x = np.zeros((16, 16), np.uint8)
    x[:, 8:] = 200
    y = np.full((16, 16), 100, np.uint8)
    found = evaluate(x, x, y, profile="vifb", metrics=["EN", "MI", "SD", "RMSE", "PSNR", "SF", "AG", "EI", "CE"])
    assert found["EN"] == 1 and found["SD"] == 100
    assert found["MI"] == pytest.approx(math.log(2)), "what a constant shares is nothing"
    assert found["RMSE"] == pytest.approx((0 + 100 * 16 / 256) / 2)
    assert found["PSNR"] == pytest.approx(20 * math.log10(255 / math.sqrt(found["RMSE"])))
    assert found["SF"] == pytest.approx(math.sqrt(16 * 200**2 / 256))
    assert found["AG"] == pytest.approx(2 * 16 * 100 / math.sqrt(2) / 15**2)
    assert found["EI"] == pytest.approx(2 * 16 * 800 / 256)
    assert found["CE"] == 0, "the constant's one level is not in the image: left out"


def test_a_grey_source_stands_beside_each_channel() -> None:
    colour, grey = textured(1, 64, 48), textured(2, 64, 48, channels=1)
    fused = (colour // 2 + grey // 2).astype(np.uint8)
    found = evaluate(fused, colour, grey, profile="vifb")
    assert found == evaluate(fused, colour, np.repeat(grey, 3, 2), profile="vifb")
    one = [evaluate(fused[..., k], colour[..., k], grey, profile="vifb") for k in range(3)]
    for name in set(VIFB) - {"SF"}:
        assert found[name] == pytest.approx(np.mean([each[name] for each in one]), rel=1e-9), name


def test_floats_in_0_1_are_the_codes_they_stand_for() -> None:
    x, y, z = (textured(seed, 64, 48) for seed in (1, 2, 3))
    floats = [image.astype(np.float64) / 255 for image in (x, y, z)]
    assert evaluate(*floats, profile="vifb") == pytest.approx(evaluate(x, y, z, profile="vifb"), rel=1e-12)


@pytest.mark.parametrize("name", VIFB)
def test_sources_may_be_swapped(name: str) -> None:
    x, y, z = (textured(seed, 64, 48) for seed in (1, 2, 3))
    one, other = evaluate(x, y, z, metrics=[name], profile="vifb"), evaluate(x, z, y, metrics=[name], profile="vifb")
    assert one == pytest.approx(other, rel=1e-9)


def test_constant_images_are_undefined_where_the_formula_is() -> None:
    flat, x = np.full((32, 32), 9, np.uint8), textured(1, 32, 32, 1)
    found = evaluate(flat, flat, flat, profile="vifb")
    assert math.isnan(found["Qcv"]) and math.isnan(found["Qcb"])
    assert found["EN"] == 0 and found["MI"] == 0 and found["SD"] == 0
    assert math.isnan(evaluate(x, flat, x, metrics=["Qcb"], profile="vifb")["Qcb"])


def test_names_are_the_toolboxes_too() -> None:
    x = textured(1, 32, 32)
    asked = [alias.upper() for alias in ALIASES]
    assert list(evaluate(x, x, x, metrics=asked, profile="vifb")) == asked
    with pytest.raises(UserError, match="profile"):
        evaluate(x, x, x, profile="vif")
    with pytest.raises(UserError, match="metric"):
        evaluate(x, x, x, metrics=["MEF-SSIM"], profile="vifb")
    assert set(PROFILES) == {"strict", "vifb", "mefb", "tang", "papers"}

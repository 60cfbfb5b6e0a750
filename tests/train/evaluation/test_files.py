"""Scores of image files without shards: values, pairing by name, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clearfuse import evaluate
from clearfuse.train.evaluation.files import score_files
from clearfuse.train.evaluation.options import ScoringOptions
from conftest import Ran, save, textured

NAMES = ("one", "two", "three")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Pairs in ``a`` and ``b``, ground truth in ``gt``, two methods' images in ``x`` and ``y``, which lacks one."""
    for number, name in enumerate(NAMES):
        for folder, seed, channels in (("a", 0, 3), ("b", 10, 1), ("gt", 20, 3), ("x", 20, 3), ("y", 30, 3)):
            if (folder, name) != ("y", "two"):
                suffix = "png" if folder != "x" else "bmp"
                save(tmp_path / folder / f"{name}.{suffix}", textured(seed + number, 64, 52, channels))
    return tmp_path


def test_values_are_those_of_evaluate_and_means_leave_out_what_is_missing(folders: Path) -> None:
    paths = {name: str(folders / name) for name in ("a", "b", "gt")}
    fused = ("perfect=" + str(folders / "x"), str(folders / "y"))
    scores = score_files(ScoringOptions(**paths, fused=fused, workers=2))
    assert set(scores.values["y"]) == {"one", "three"} and scores.missing == {"perfect": [], "y": ["two"]}
    wanted = evaluate(textured(30, 64, 52), textured(0, 64, 52), textured(10, 64, 52, 1), textured(20, 64, 52))
    assert scores.values["y"]["one"] == pytest.approx(wanted)
    means = scores.means()
    assert means["perfect"]["SSIM"] == 1 and means["perfect"]["PSNR"] == np.inf
    assert means["y"]["VIF"] == pytest.approx(np.mean([scores.values["y"][name]["VIF"] for name in ("one", "three")]))


def test_from_the_command_line(folders: Path, train: Callable[..., Ran]) -> None:
    ran = train(
        "metrics", *(folders / name for name in ("a", "b", "x", "y")), "--gt", folders / "gt", "--metrics", "psnr,qabf"
    )
    lines = ran.out.splitlines()
    assert ran.code == 0 and lines[0].split() == ["method", "PSNR", "Qabf", "images"]
    assert lines[1].split()[:2] == ["x", "inf*"] and lines[3] == "y: 1 image missing: two"
    ran = train("metrics", *(folders / f"{name}/one.png" for name in "ab"), folders / "x/one.bmp", "--json")
    told = json.loads(ran.out)
    assert ran.code == 0 and "PSNR" not in told["means"]["one.bmp"] and told["images"]["one.bmp"]["one"]["VIF"] > 0
    save(folders / "tiny.png", textured(0, 24, 24))
    assert "undefined" in train("metrics", *[folders / "tiny.png"] * 3, "--metrics", "VIF,EN").out  # VIF needs 41
    # The names of single files do not matter.
    assert train("metrics", folders / "a/one.png", folders / "b/two.png", folders / "x/three.bmp").code == 0


def test_what_cannot_be_scored_is_one_line(folders: Path, train: Callable[..., Ran]) -> None:
    pair = (folders / "a", folders / "b")
    (folders / "empty").mkdir()
    save(folders / "small/one.png", textured(1, 20, 20))
    for arguments, code, message in (
        ((*pair, folders / "x", "--metrics", "psnr"), 2, "--metrics PSNR: needs --gt, a ground truth"),
        ((*pair, folders / "none"), 2, "no such file or folder"),
        ((*pair, folders / "empty"), 2, "no images in this folder"),
        ((folders / "a", folders / "y", folders / "x"), 2, "not of the same names: "),
        ((*pair, folders / "x", folders / "a/../x"), 2, "two methods are called 'x'"),
        ((*pair, folders / "small"), 1, "one.png: a is 64x52, fused 20x20"),
        ((*pair, folders / "x", "--metrics", "vof"), 2, "unknown metric 'vof'"),
    ):
        ran = train("metrics", *arguments)
        assert ran.code == code and message in ran.error, ran.error


def test_faithfulness_adds_shares_and_maps(folders: Path, train: Callable[..., Ran]) -> None:
    for name in NAMES:
        save(folders / f"mine/{name}.png", textured(NAMES.index(name), 64, 52, 3))  # a itself
    arguments = (folders / "a", folders / "b", folders / "mine", folders / "y", "--faithfulness", folders / "maps")
    ran = train("metrics", *arguments, "--json")
    told = json.loads(ran.out)["faithfulness"]
    assert set(told["mine"]) == set(NAMES) and set(told["y"]) == {"one", "three"}
    for shares in told["mine"].values():
        assert sum(shares.values()) == pytest.approx(1) and shares["neither"] == 0 and shares["a"] > shares["b"] == 0
    assert sorted(path.name for path in (folders / "maps/mine").iterdir()) == ["one.png", "three.png", "two.png"]
    lines = train("metrics", *arguments).out.splitlines()
    assert "from a" in lines[0] and "0.0%" in lines[1]
    ran = train("metrics", *arguments[:-1], folders / "a/one.png")
    assert ran.code == 2 and "is a file, must be a folder" in ran.error

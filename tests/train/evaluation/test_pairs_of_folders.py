"""``train eval --pairs``: plain folders, with and without ground truth, scored as the metrics themselves score them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clearfuse.train.metrics import evaluate
from conftest import Ran, save, textured

Train = Callable[..., Ran]


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Three pairs of exposures with a ground truth, and the results of a method."""
    for number in range(3):
        scene = textured(number, 80, 64)
        for name, image in {
            "under": scene // 4,
            "over": np.clip(scene * 1.6, 0, 255).astype(np.uint8),
            "gt": scene,
        }.items():
            save(tmp_path / name / f"{number}.png", image)
        save(tmp_path / "mine" / f"{number}.png", np.clip(scene + 3.0, 0, 255).astype(np.uint8))
    return tmp_path


def test_with_and_without_ground_truth(folders: Path, train: Train) -> None:
    pairs, mine = f"{folders / 'under'},{folders / 'over'}", f"mine={folders / 'mine'}"
    options = ("--results", mine, "--model", "none", "--fuser", "none", "--workers", "1", "--examples", "1", "--json")
    scores: dict[str, dict[str, float]] = {}
    for name, given in (("with", f"{pairs},{folders / 'gt'}"), ("without", pairs)):
        ran = train("eval", "--pairs", given, *options, "--out", folders / name)
        assert ran.code == 0, ran.err
        assert "task: mef, as the exposures differ by" in ran.err
        told = json.loads(ran.out)
        assert [method["name"] for method in told["methods"]] == ["mine", "pyramid on degraded"]
        rows = (folders / name / "report.csv").read_text().splitlines()
        header, line = rows[0].split(","), next(row.split(",") for row in rows if ",mine," in row and ",0," in row)
        measured = header[header.index("method") + 1 : header.index("from a")]
        scores[name] = {metric: float(line[header.index(metric)]) for metric in measured}
        assert sum(map(float, line[header.index("from a") :])) == pytest.approx(1, abs=1e-5)
    assert set(scores["without"]) == {"VIF", "Qabf"} and set(scores["with"]) == {"PSNR", "SSIM", "VIF", "Qabf"}
    scene = textured(0, 80, 64)
    fused, a, b = np.clip(scene + 3.0, 0, 255), scene // 4, np.clip(scene * 1.6, 0, 255)
    expected = evaluate(*(x.astype(np.uint8) for x in (fused, a, b, scene)), metrics=list(scores["with"]))
    for metric, value in scores["with"].items():
        assert value == pytest.approx(expected[metric], rel=1e-6), metric
        assert scores["without"].get(metric, value) == value
    assert "ground truth (dataset)" in (folders / "with/report.html").read_text()
    assert "ground truth (" not in (folders / "without/report.html").read_text()


def test_mistakes(folders: Path, train: Train) -> None:
    pairs = f"{folders / 'under'},{folders / 'over'}"
    save(folders / "odd/0.png", textured(0, 80, 60))
    save(folders / "some/0.png", textured(0, 80, 64))
    (folders / "text").mkdir()
    (folders / "text/0.png").write_text("no picture")
    for arguments, said in (
        (("--pairs", pairs, "shards"), "takes no shards beside it, and shards is one"),
        ((), "nothing to score: name shards, or folders of pairs by --pairs A,B[,GT]"),
        (("shards", "--task", "mef"), "--task: goes with --pairs; shards have their own"),
        (("--pairs", pairs, "--papers"), "--papers: needs shards"),
        (("--pairs", str(folders / "under")), "must be DIR_A,DIR_B or DIR_A,DIR_B,DIR_GT"),
        (("--pairs", f"{folders / 'under'},{folders / 'mine'}x"), "minex does not exist"),
        (("--pairs", f"{folders / 'odd'},{folders / 'over'}"), "pair 0: sizes differ: a 80x60, b 80x64"),
        (("--pairs", f"{folders / 'text'},{folders / 'over'}"), "pair 0: 0.png: is not an image"),
        (("--pairs", f"{pairs},{folders / 'some'}"), "2 pairs have no ground truth, and others have: 1, 2"),
        (("--pairs", pairs, "--metrics", "PSNR", "--task", "mef"), "needs a ground truth, which these pairs have not"),
    ):
        ran = train("eval", *arguments, "--model", "none", "--out", folders / "r")
        assert ran.code == 2 and said in ran.error, ran.error
    assert not (folders / "r").exists()

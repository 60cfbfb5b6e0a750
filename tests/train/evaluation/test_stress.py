"""The stress test of metrics: rank correlations, disturbances, what is told, and the checked-in marks."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from clearfuse.synth.fusers import PyramidFuser
from clearfuse.train.evaluation.stress.disturb import DISTURBANCES, Scene
from clearfuse.train.evaluation.stress.ranks import kendall, ranks, spearman
from clearfuse.train.evaluation.stress.report import FILES, to_marks
from clearfuse.train.evaluation.stress.run import Stress, stress
from clearfuse.train.metrics import METRICS, marks
from conftest import Ran, save, textured

A, B = textured(1), textured(2, channels=1)
SCENE = Scene("vif", A, B, PyramidFuser()(A, B, "vif"))


def test_rank_correlations_are_those_worked_by_hand() -> None:
    """One pair of six swapped: τ = (5 − 1) / 6, ρ = 1 − 6 · 2 / (4 · 15); ties share ranks; of equal values there is
    none."""
    swapped = np.array([1.0, 3, 2, 4])
    assert kendall(np.arange(4.0), swapped) == pytest.approx(2 / 3)
    assert spearman(np.arange(4.0), swapped) == pytest.approx(0.8)
    assert ranks(np.array([3.0, 1, 3, np.inf])).tolist() == [2.5, 1, 2.5, 4]
    x, y = np.array([1.0, 2, 2, 3]), np.array([1.0, 2, 3, 3])
    assert kendall(x, y) == pytest.approx(4 / 5) and spearman(x, y) == pytest.approx(3.75 / 4.5)
    assert spearman(x, -x) == kendall(x, -x) == -1 and math.isnan(kendall(x, np.ones(4)))
    stats = pytest.importorskip("scipy.stats")
    drawn = np.random.default_rng(3).integers(0, 6, (2, 40)).astype(float)
    assert kendall(*drawn) == pytest.approx(stats.kendalltau(*drawn).statistic)
    assert spearman(*drawn) == pytest.approx(stats.spearmanr(*drawn).statistic)


@pytest.mark.parametrize("name", DISTURBANCES)
def test_a_disturbance_grows_with_its_strength(name: str) -> None:
    one, good = DISTURBANCES[name], SCENE.fused.astype(float)
    made = [one.of(SCENE, strength) for strength in (0, *one.strengths) if strength or name != "blur"]
    assert all(image.dtype == np.uint8 and image.shape == SCENE.fused.shape for image in made)
    errors = [float(((image - good) ** 2).mean()) for image in made]
    assert errors == sorted(errors) and errors[-1] > 10
    if name != "blur":
        assert errors[0] < 0.1  # strength 0 is the good fusion, but for a rounding of the veil's


def test_answers_have_the_sign_of_goodness() -> None:
    """Of two metrics with the same values the one for which more is better is rewarded, the other not."""
    versions = 1 + sum(len(one.strengths) for one in DISTURBANCES.values())
    rising = np.repeat(np.arange(10.0, 10 + versions)[None, :, None], 2, axis=2)
    found = Stress("strict", (METRICS["EN"], METRICS["CE"]), {"vif scenes": ["0"]}, rising)
    up, down = (found.answer(k, "noise") for k in (0, 1))
    assert up is not None and (up.trend, up.change, up.best, up.rewards) == (
        1,
        pytest.approx(0.4),
        pytest.approx(0.4),
        True,
    )
    assert down is not None and (down.trend, down.change, down.best, down.rewards) == (
        -1,
        0.4,
        pytest.approx(0.1),
        False,
    )
    assert found.agreement().tolist() == [[1, -1], [-1, 1]]
    assert "EN = [1.000, 0.400, 0.400]" in to_marks([found])


def test_from_the_command_line(train: Callable[..., Ran], tmp_path: Path) -> None:
    for number in range(2):
        save(tmp_path / f"a/{number}.png", textured(number, 96, 80))
        save(tmp_path / f"b/{number}.png", textured(9 + number, 96, 80, 1))
    data, out = f"folder={tmp_path / 'a'},{tmp_path / 'b'}", tmp_path / "out"
    options = ("--data", data, "--task", "vif", "--metrics", "EN,Qabf,PSNR", "--workers", "1", "--out", out)
    ran = train("metrics", "stress", *options, "--json")
    told = json.loads(ran.out)
    assert ran.code == 0 and told == json.loads((out / "stress.json").read_text())
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES) and told["pairs"] == {"vif folder": ["0", "1"]}
    assert told["metrics"]["PSNR"]["noise"] == {"trend": -1, "change": None, "best": None, "rewards": False}
    assert told["metrics"]["Qabf"]["noise"]["trend"] == -1 and told["metrics"]["Qabf"]["blur"]["change"] < -0.1
    assert told["agreement"]["kendall"][1][2] == told["agreement"]["kendall"][2][1] > 0.3
    with (out / "stress.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 3 * sum(1 + len(one.strengths) for one in DISTURBANCES.values())
    text = train("metrics", "stress", *options[:-2], "--crop", "64").out
    assert text.isascii() and text.splitlines()[0].split() == ["metric", *DISTURBANCES]
    ran = train("metrics", "stress", *options[:-2], "--out", tmp_path / "a/0.png")
    assert ran.code == 2 and "is a file, must be a folder" in ran.error
    ran = train("metrics", "stress", "--data", f"single={tmp_path / 'a'}")
    assert ran.code == 2 and "single pictures" in ran.error


def test_reports_mark_what_noise_raises_with_the_figure() -> None:
    assert marks.mark("EN") == "‡" and marks.mark("EN", plain=True) == "!" and not marks.mark("Qabf")
    assert set(marks.rewards("AG")) == {"noise"} and not marks.rewards("EN", "none")
    sentence = marks.explain(["EN", "Qabf", "PSNR"])
    assert sentence.startswith("‡: ") and "EN by +" in sentence and "Qabf" not in sentence
    assert marks.explain(["Qabf", "PSNR"]) == "" and marks.explain(["EN"], plain=True).isascii()


@pytest.mark.slow
def test_the_checked_in_marks_are_fresh() -> None:
    """A small run, on a scene of each task, answers to noise and haze as the table says where the table is sure."""
    found = stress(
        limit=1,
        crop=192,
        workers=1,
        metrics=",".join(name for name in METRICS if name != "FMI" and not METRICS[name].missing()),
    )
    table = marks.answers()["strict"]
    runnable = {name for name, metric in METRICS.items() if not metric.missing()}
    assert runnable <= set(table["noise"]) | {"BRISQUE", "NIQE"} and set(table["noise"]) <= set(METRICS)
    for name in marks.MARKED:
        for k, metric in enumerate(found.metrics):
            said, now = table[name].get(metric.name), found.answer(k, name)
            if said is not None and now is not None and abs(said.trend) > 0.9:
                assert said.rewards == now.rewards, (name, metric.name, said, now)

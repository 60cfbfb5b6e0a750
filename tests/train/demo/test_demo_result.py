"""From a state to pictures, scores and texts, without a browser."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from html import escape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.operators import OPERATORS
from clearfuse.synth.types import UserError
from clearfuse.train.demo import report
from clearfuse.train.demo.pair import degrade, instructions, read_files, scene_of
from clearfuse.train.demo.result import CLASSICAL_PYRAMID, FULL, PYRAMID, Method, difference_map, methods_of, run
from clearfuse.train.demo.state import State
from clearfuse.train.demo.words import OPERATOR_WORDS, WORDS

SMALL = (96, 64)


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def methods() -> Mapping[str, Method]:
    return methods_of((), "cpu")


@pytest.fixture
def pair(tmp_path: Path) -> list[str]:
    """A built-in exposure pair as files, the brighter one first."""
    scene = scene_of("mef", 1, SMALL)
    for name, image in (("over.png", scene.b), ("under.png", scene.a)):
        Image.fromarray(image).save(tmp_path / name)
    return [str(tmp_path / name) for name in ("over.png", "under.png")]


def test_the_scene_is_the_one_of_a_build() -> None:
    from clearfuse.synth.datasets.read import read_pair
    from clearfuse.synth.types import PairRef

    built = read_pair(PairRef("mff", "scenes", "train-000001", "train-000001", "train"))
    assert np.array_equal(scene_of("mff", 2).a, built.a)


def test_steps_act_in_physical_order_and_stronger_ones_do_more() -> None:
    scene = scene_of("vif", 1, SMALL)
    made = degrade(scene, {"jpeg": 0.5, "haze": 0.5, "ir_stripes": 0.5})
    assert [(step.op, step.target) for step in made.steps] == [("haze", "a"), ("ir_stripes", "b"), ("jpeg", "a")]
    apart = [np.abs(degrade(scene, {"haze": s}).a.astype(float) - scene.a).mean() for s in (0.1, 0.5, 0.9)]
    assert apart == sorted(apart) and apart[0] > 1
    assert "visibility" in report.parameters(made.steps[0]) and report.parameters(made.steps[0]).endswith(" m")


def test_what_cannot_act_is_left_out_and_said(methods: Mapping[str, Method]) -> None:
    flat = scene_of("vif", 1, SMALL)
    white = degrade(
        type(flat)("mef", np.full_like(flat.a, 250), np.full_like(flat.a, 255), None, flat.depth), {"high_exposure": 1}
    )
    assert white.left_out == ("high_exposure",) and not white.steps


def test_a_scene_through_each_method(methods: Mapping[str, Method]) -> None:
    assert [*methods] == ["clearfuse-small", PYRAMID, CLASSICAL_PYRAMID]
    found = {name: run(State("vif", 3, {"gaussian_noise": 0.3}, "", name), (), methods) for name in methods}
    own = found["clearfuse-small"]
    assert own.fused.shape == own.difference.shape == (480, 640, 3)
    assert own.scores["clearfuse-small"]["PSNR"] > own.scores[PYRAMID]["PSNR"] + 0.5
    assert found[CLASSICAL_PYRAMID].scores[CLASSICAL_PYRAMID]["PSNR"] > own.scores[PYRAMID]["PSNR"] + 0.5
    assert own.request is not None and [one.finding.op for one in own.request.found] == ["gaussian_noise"]
    said = report.status(own, State("vif", 3, {}, "", "clearfuse-small"))
    assert "estimated: gaussian noise in the first picture, σ " in said and escape(own.request.prompt) in said
    assert found[PYRAMID].request is None and "estimated" not in report.status(found[PYRAMID], State())
    assert own.seconds > 0 and {*own.scores} == {"clearfuse-small", PYRAMID}
    page = report.known_table(own, State("vif", 3, {}, "", "", "zh"))
    assert "高斯噪声" in page and "sigma 0." in page


def test_an_instruction_is_done_in_place_of_the_estimate(methods: Mapping[str, Method]) -> None:
    noisy = {"gaussian_noise": 0.3}
    own, name = State("vif", 3, noisy, " ", "clearfuse-small", "zh"), "clearfuse-small"
    plain, estimated = (run(one, (), methods) for one in (replace(own, prompt="fuse"), own))
    assert plain.request is None and estimated.request is not None
    assert plain.scores[name]["PSNR"] < estimated.scores[name]["PSNR"], "the plain request names no noise"
    assert "估计：第一幅有高斯噪声（σ " in report.status(estimated, own)


def test_the_truth_is_the_clean_pair_fused(methods: Mapping[str, Method]) -> None:
    result = run(State("vif", 1, {}, "", PYRAMID), (), methods)
    assert math.isinf(result.scores[PYRAMID]["PSNR"]) and not result.difference[..., 0].any()
    scene = scene_of("vif", 1)
    assert np.array_equal(result.fused, PyramidFuser()(scene.a, scene.b, "vif"))
    assert "∞" in report.scores_table(result, "en")


def test_own_pictures_are_told_and_put_in_order(pair: list[str], methods: Mapping[str, Method]) -> None:
    state = State("auto", None, {}, "", PYRAMID)
    result = run(state, pair, methods)
    assert result.pair.task == "mef" and result.pair.swapped and not result.has_truth
    assert {*result.scores[PYRAMID]} == {"VIF", "Qabf", "MEF-SSIM"}
    assert "Dark + bright exposure" in report.status(result, state)
    degraded = run(State("mef", None, {"haze": 0.5}, "", PYRAMID), pair[::-1], methods)  # by estimated depth
    assert degraded.has_truth and [step.op for step in degraded.steps] == ["haze"]


def test_bad_input_is_one_line(pair: list[str], tmp_path: Path, methods: Mapping[str, Method]) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.fromarray(np.zeros((32, 40, 3), np.uint8)).save(tmp_path / "less.png")
    frames = [Image.new("L", (8, 8), value) for value in (0, 255)]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    for files, said in (
        ([], "two pictures make a pair"),
        (pair[:1], "here is 1"),
        ([*pair, pair[0]], "here are 3"),
        ([pair[0], str(tmp_path / "text.png")], "text.png: is not an image"),
        (
            [pair[0], str(tmp_path / "less.png")],
            "over.png and less.png: the two images differ in size: 96x64 and 40x32",
        ),
        ([pair[0], str(tmp_path / "film.gif")], "film.gif: is animated"),
        ([pair[0], str(tmp_path / "gone.png")], "gone.png"),
    ):
        with pytest.raises(UserError, match=said) as caught:
            run(State("auto", None, {}, "", PYRAMID), files, methods)
        assert "\n" not in str(caught.value)
    assert "<b>" not in report.problem("<b>x</b>")  # a file's name is no markup


def test_tiny_pictures_are_scored_as_far_as_they_can_be(tmp_path: Path, methods: Mapping[str, Method]) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        Image.fromarray(rng.integers(0, 255, (17, 23, 3), np.uint8)).save(tmp_path / f"{name}.png")
    files = [str(tmp_path / f"{name}.png") for name in "ab"]
    assert read_files(files, "mff").a.shape == (17, 23, 3)
    result = run(State("mff", None, {}, "", "clearfuse-small"), files, methods)
    assert result.fused.shape == (17, 23, 3) and "nothing is estimated: too small to tell" in report.status(
        result, State()
    )


def test_the_map_is_dark_where_nothing_differs() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    other = image.copy()
    other[0, 0] += FULL
    shown = difference_map(image, other)
    assert shown[0, 0].sum() > 500 and shown[1:].max() < 10


def test_instructions_fit_state_and_language() -> None:
    english = instructions(State("vif", 1, {"haze": 0.8}))
    assert english == sorted(english, key=len) and len({*english}) == len(english) > 1
    assert any("haz" in text or "fog" in text for text in english)
    chinese = instructions(State("vif", 1, {"haze": 0.8}, language="zh"))
    assert all(any("\u4e00" <= sign <= "\u9fff" for sign in text) for text in chinese)


def test_two_models_of_one_name_are_refused(methods: Mapping[str, Method]) -> None:
    with pytest.raises(UserError, match="two models of the name 'clearfuse-small'"):
        methods_of(("clearfuse-small", "clearfuse-small"), "cpu")


def test_every_word_has_both_languages() -> None:
    assert all(all(texts) for texts in WORDS.values())
    assert {*OPERATOR_WORDS} == {*OPERATORS}

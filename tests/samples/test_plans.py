"""Plans made for a pair: what it cannot bear is not drawn, what loses its structure is drawn again, and both replay."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clearfuse.synth.builder.run import build
from clearfuse.synth.color import code_to_linear, luma
from clearfuse.synth.onthefly import OnTheFly
from clearfuse.synth.review.verify import verify
from clearfuse.synth.samples import render
from clearfuse.synth.samples.chain import apply_steps
from clearfuse.synth.samples.draw import CleanFrames, draw_operators, draw_step, draw_steps
from clearfuse.synth.samples.recipe import load_recipe
from clearfuse.synth.samples.render import Seeds, degrade_clean
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.shards.codecs import CODECS
from clearfuse.synth.shards.sample import encode_sample, read_samples
from clearfuse.synth.types import TASKS, BadPair, Task
from conftest import textured


def no_depth() -> np.ndarray:
    raise AssertionError("no operator here needs depth")


def frames(image: np.ndarray, task: Task = "mff") -> CleanFrames:
    return CleanFrames(task, image, image, no_depth)


def dark(median: float) -> np.ndarray:
    """A picture whose linear light has about that median."""
    noise = generator(1).random((64, 80, 1), dtype=np.float32)
    light = median * (0.5 + noise)
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.repeat((255 * code + 0.5).astype(np.uint8), 3, 2)


def test_the_same_pair_has_another_plan_in_each_task() -> None:
    seeds = {task: Seeds(0, task, "folder", "1", 0) for task in TASKS}
    for role in ("crop", "plan", "step", "prompt"):
        assert len({seed(role) for seed in seeds.values()}) == len(TASKS)
    assert seeds["vif"]("step", 2) == seed_of(0, "vif", "folder", "1", 0, "step", 2)
    again = replace(seeds["vif"], attempt=1)
    assert len({seeds["vif"]("step", 1), again("step", 1), again("step", 2), again("plan")}) == 4


@pytest.mark.parametrize("median", [0.005, 0.02, 0.2])
def test_low_exposure_leaves_the_median_above_its_floor(median: float) -> None:
    recipe, image = load_recipe("vif", sets=["severity=1"]), dark(median)
    step = draw_step(recipe, "low_exposure", 3, pair=CleanFrames("vif", image, image, no_depth))
    if step is None:
        assert median * 2**-0.5 < 0.004
        return
    assert -3 <= step.params["ev"] <= -0.5
    left = np.median(luma(code_to_linear(image))) * 2 ** step.params["ev"]
    assert left == pytest.approx(0.004, rel=0.02) or step.params["ev"] == -3
    seen = apply_steps(image, [step], task="vif", name="a")
    assert np.median(seen) > 2


def test_high_exposure_clips_at_most_two_fifths() -> None:
    recipe, image = load_recipe("mff", sets=["severity=1", "operators.high_exposure.params.ev=[0.4,4]"]), textured(3)
    step = draw_step(recipe, "high_exposure", 3, pair=frames(image))
    assert step is not None and 0.4 <= step.params["ev"] < 4
    clipped = (apply_steps(image, [step], task="mff", name="a") == 255).any(2).mean()
    assert 0.3 < clipped <= 0.42
    white = np.full((64, 64, 3), 250, np.uint8)
    assert draw_step(recipe, "high_exposure", 3, pair=frames(white)) is None
    assert draw_step(recipe, "high_exposure", 3) is not None, "without a pair the ranges are the recipe's"


def test_the_worse_of_both_images_decides() -> None:
    recipe = load_recipe("mff", sets=["severity=1"])
    bright, dim = textured(3), dark(0.008)
    pair = CleanFrames("mff", bright, dim, no_depth)
    step = draw_step(recipe, "low_exposure", 3, pair=pair)
    alone = draw_step(recipe, "low_exposure", 3, pair=frames(dim))
    assert step is not None and step == alone


def test_what_the_pair_cannot_bear_is_replaced_and_n_stays() -> None:
    recipe = load_recipe("vif", n="1-3", sets=[f"operators.{name}.weight=0" for name in ("haze", "rain", "snow")])
    night = CleanFrames("vif", dark(0.001), textured(2, channels=1), no_depth)
    sizes, names = Counter[int](), set[str]()
    for seed in range(60):
        free = draw_operators(recipe, generator(seed))
        steps = draw_steps(recipe, generator(seed), lambda i, seed=seed: 100 * seed + i, pair=night)
        assert len(steps) == len(free)
        if "low_exposure" not in free:
            assert [step.op for step in steps] == free
        sizes[len(steps)] += 1
        names |= {step.op for step in steps}
    assert set(sizes) == {1, 2, 3} and "low_exposure" not in names and len(names) > 5


def test_a_pair_for_which_too_little_is_left_is_a_reject() -> None:
    recipe = load_recipe(
        "vif", n="1", sets=[f"operators.{n}.weight=0" for n in load_recipe("vif").operators if n != "low_exposure"]
    )
    night = CleanFrames("vif", dark(0.001), dark(0.001), no_depth)
    with pytest.raises(BadPair, match="recipe 'vif' has no 1 degradations for it: low_exposure unfit"):
        draw_steps(recipe, generator(0), lambda i: i, pair=night)


def test_ghosting_without_anything_that_could_move_is_not_drawn() -> None:
    recipe = load_recipe("mef-extended")
    far = np.full((128, 160), 30.0, np.float32)
    flat = CleanFrames("mef", *(np.full((128, 160, 3), 120, np.uint8),) * 2, lambda: far)
    board = np.full((128, 160, 3), 120, np.uint8)
    board[50:65, 60:75] = 240
    assert draw_step(recipe, "ghosting", 1, pair=flat) is None
    assert draw_step(recipe, "ghosting", 1, pair=CleanFrames("mef", board, board, lambda: far)) is not None


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["", "-extended", "-severe"])
def test_weather_never_meets_other_weather_or_over_exposure_that_it_cannot_bear(task: str, kind: str) -> None:
    recipe = load_recipe(task + kind)
    for first, second in (
        ("rain", "snow"),
        ("haze", "high_exposure"),
        ("rain", "high_exposure"),
        ("snow", "high_exposure"),
    ):
        if {first, second} <= set(recipe.operators):
            assert not recipe.allows(frozenset((first, second)))
    assert recipe.allows(frozenset(("haze", "rain"))) and recipe.protect


def clean_of(seed: int) -> dict[str, np.ndarray]:
    return {"clean_a": textured(seed), "clean_b": textured(seed + 50), "gt": textured(seed)}


def far_away() -> np.ndarray:
    return np.full((128, 160), 64 * 20, np.uint16)


def losing(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """The first plans of each sample count as lost."""
    left: dict[int, int] = {}

    def keeps(clean: tuple[np.ndarray, np.ndarray], degraded: Any) -> bool:
        content = seed_of(clean[0].tobytes().hex()[:4000])
        left[content] = left.get(content, times) - 1
        if left[content] < 0:
            del left[content]
            return True
        return False

    monkeypatch.setattr(render, "keeps_structure", keeps)


def test_a_plan_that_loses_the_structure_is_drawn_again_with_as_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, seed = load_recipe("mff", n="1-3"), Seeds(0, "mff", "folder", "1", 0)
    first = degrade_clean(recipe, seed, clean_of(1), far_away, "pyramid")
    losing(monkeypatch, 2)
    third = degrade_clean(recipe, seed, clean_of(1), far_away, "pyramid")
    assert (first.redrawn, third.redrawn) == (0, 2)
    assert len(third.steps) == len(first.steps) and third.steps != first.steps
    assert {step.seed for step in third.steps} == {replace(seed, attempt=2)("step", i) for i in range(len(third.steps))}
    losing(monkeypatch, 100)
    with pytest.raises(BadPair, match="none of 16 plans of recipe 'mff' keeps its structure"):
        degrade_clean(recipe, seed, clean_of(1), far_away, "pyramid")
    bare = load_recipe("mff", n="1-3", sets=["protect=false"])
    assert degrade_clean(bare, seed, clean_of(1), far_away, "pyramid").redrawn == 0


def test_a_white_out_is_drawn_again() -> None:
    """Over-exposed by 10 EV without protection; with it, the step is fitted or another plan drawn."""
    sets = ["operators.high_exposure.params.ev=[0.1,10]", "severity=1", "operators.high_exposure.weight=1000"]
    seed = Seeds(0, "mff", "folder", "1", 0)
    bare = load_recipe("mff", n="2", sets=[*sets, "protect=false"])
    kept = load_recipe("mff", n="2", sets=sets)
    lost, saved = (degrade_clean(recipe, seed, clean_of(1), far_away, "pyramid") for recipe in (bare, kept))
    assert (lost.images["a"] > 250).mean() > 0.95
    assert (saved.images["a"] > 250).mean() < 0.6


@pytest.mark.slow
def test_redrawn_samples_are_counted_replay_and_come_out_again_on_the_fly(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder_pair: str
) -> None:
    losing(monkeypatch, 1)
    common: dict[str, Any] = {"data": [f"folder={folder_pair}"], "codec": "png", "executor": "serial", "seed": 5}
    build("mff", out=str(tmp_path / "full"), n="2", **common)
    build("mff", out=str(tmp_path / "lean"), lean=True, **common)
    (full,), (lean,) = (sorted((tmp_path / name).glob("*.tar")) for name in ("full", "lean"))
    receipt = json.loads(full.with_suffix(".json").read_bytes())
    assert receipt["redrawn"] == receipt["samples"] == 3  # one of the four pairs is held out
    assert json.loads((tmp_path / "full/dataset.json").read_bytes())["redrawn"] == 3
    assert ", 3 drawn again since their structure was lost." in (tmp_path / "full/README.md").read_text()
    report = verify([str(full.parent)], replay=True)
    assert report.ok and report.replayed == 3
    degrade = OnTheFly(load_recipe("mff", n="2"))
    for one, bare in zip(read_samples(full), read_samples(lean), strict=True):
        assert one.meta.redrawn == 1
        assert encode_sample(degrade(bare), CODECS["png"]) == encode_sample(one, CODECS["png"])

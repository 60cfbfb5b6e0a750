"""Draws of a sample: crops inside of the image and on the grid, exactly n operators, constraints, weights."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clearfuse.synth.operators import OPERATORS
from clearfuse.synth.samples.draw import draw_crop, draw_operators, draw_step, draw_steps, draw_weighted, largest_box
from clearfuse.synth.samples.recipe import load_recipe
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.types import TASKS, BadPair


@pytest.mark.slow
@given(width=st.integers(64, 3000), height=st.integers(64, 3000), seed=st.integers(0, 2**53 - 1))
def test_a_crop_lies_inside_on_the_grid_and_is_as_large_as_can_be(width: int, height: int, seed: int) -> None:
    recipe = load_recipe("vif")
    try:
        crop = draw_crop(recipe, width, height, generator(seed))
    except BadPair:
        assert all(min(largest_box(width, height, ratio)) < 64 for ratio in recipe.ratios)
        return
    assert 0 <= crop.x <= width - crop.width and 0 <= crop.y <= height - crop.height
    assert crop.width % 16 == 0 == crop.height % 16 and min(crop.width, crop.height) >= 64
    across, down = map(int, crop.ratio.split(":"))
    assert crop.width + 16 > min(width, height * across / down) - 1e-6


def test_known_crops() -> None:
    assert largest_box(640, 480, "4:3") == (640, 480)
    assert largest_box(640, 480, "16:9") == (640, 352)
    assert largest_box(640, 480, "1:1") == (480, 480)
    assert largest_box(1280, 1024, "4:3") == (1280, 960)


def test_too_small_is_a_reject_with_its_reason() -> None:
    with pytest.raises(BadPair) as error:
        draw_crop(load_recipe("vif"), 63, 500, generator(0))
    assert str(error.value) == "63x500 is too small: no ratio leaves sides of 64 or more"


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_exactly_n_in_physical_order_without_replacement(task: str) -> None:
    order = list(OPERATORS)
    for n in range(1, load_recipe(task).max_n() + 1):
        recipe = load_recipe(task, n=str(n))
        for seed in range(25):
            names = draw_operators(recipe, generator(seed))
            assert len(names) == n == len(set(names))
            assert names == sorted(names, key=order.index)
            assert recipe.allows(frozenset(names))


@pytest.mark.slow
def test_n_is_uniform_over_a_range_and_weights_are_obeyed() -> None:
    recipe = load_recipe("vif", n="1-3", sets=["operators.haze.weight=4"])
    drawn = [draw_operators(recipe, generator(seed_of("plan", i))) for i in range(1500)]
    sizes = Counter(map(len, drawn))
    assert all(abs(sizes[n] / 1500 - 1 / 3) < 0.035 for n in (1, 2, 3))
    single = Counter(names[0] for names in drawn if len(names) == 1)
    others = [count for name, count in single.items() if name != "haze"]
    assert single["haze"] / (sum(others) / len(others)) == pytest.approx(4, rel=0.35)


def test_weighted_never_draws_a_zero() -> None:
    draws = {draw_weighted(generator(i), {"a": 0.0, "b": 1.0, "c": 0.0}) for i in range(200)}
    assert draws == {"b"}


def test_a_step_depends_on_its_seed_alone() -> None:
    recipe = load_recipe("vif")
    step = draw_step(recipe, "gaussian_noise", 7)
    assert step == draw_step(recipe, "gaussian_noise", 7) != draw_step(recipe, "gaussian_noise", 8)
    assert step.seed == 7 and 0 <= (step.severity or 0) <= 1


def test_each_step_has_the_seed_of_its_place() -> None:
    steps = draw_steps(load_recipe("mff", n="3"), generator(1), lambda i: 1000 + i)
    assert [step.seed for step in steps] == [1000, 1001, 1002]


def test_severity_and_parameters_stay_in_the_recipe() -> None:
    recipe = load_recipe(
        "vif", sets=["operators.haze.severity=[0.2,0.4]", "operators.haze.params.visibility=[100,300]"]
    )
    for seed in range(50):
        step = draw_step(recipe, "haze", seed)
        assert 0.2 <= (step.severity or 0) <= 0.4
        assert 100 <= step.params["visibility"] <= 300


def test_a_schedule_of_severities_goes_by_variant() -> None:
    recipe = load_recipe("vif", sets=["severity={schedule=[0.25, 0.5, [0.9, 1]]}", "operators.rain.severity=0.1"])
    drawn = [draw_step(recipe, "haze", 7, turn).severity for turn in range(6)]
    assert drawn[:2] == drawn[3:5] == [0.25, 0.5]
    assert drawn[2] == drawn[5] and 0.9 <= (drawn[2] or 0) <= 1
    assert {draw_step(recipe, "rain", seed, seed).severity for seed in range(5)} == {0.1}

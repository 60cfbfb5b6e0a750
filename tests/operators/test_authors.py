"""The operators of the MMAIF authors' pipeline, against their formulas; and the recipes that draw them."""

from __future__ import annotations

import colorsys
import dataclasses
import json
import math
from dataclasses import asdict

import numpy as np
import pytest

from clearfuse.synth import color
from clearfuse.synth.operators import AUTHORS, OPERATORS, operator_class
from clearfuse.synth.operators.authors import detail, our_name, tone, weather
from clearfuse.synth.operators.base import Scene
from clearfuse.synth.samples.chain import apply_steps, degrade
from clearfuse.synth.samples.draw import draw_operators, draw_steps
from clearfuse.synth.samples.recipe import load_recipe, parse_recipe
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.types import Modality, Step, UserError

NAMES = list(AUTHORS)
NO_SCENE = Scene()
DEPTH = np.geomspace(4, 80, 40, dtype=np.float32)[:, None] * np.ones((1, 56), np.float32)
DEPTH[:8] = np.inf


def picture(seed: int = 0, channels: int = 3) -> np.ndarray:
    return generator(seed).uniform(0.05, 0.95, (40, 56, channels)).astype(np.float32)


def modalities(name: str) -> list[Modality]:
    cls = AUTHORS[name]
    return [m for m in ("visible", "infrared") if m in cls.modalities or (cls.event and m == "infrared")]


@pytest.mark.parametrize("name", NAMES)
def test_each_is_a_pure_function_of_image_parameters_and_seed(name: str) -> None:
    cls = AUTHORS[name]
    assert cls.name == name and our_name(name) in OPERATORS and operator_class(name) is cls
    assert dataclasses.is_dataclass(cls) and len(cls.__doc__ or "") > 60 and "EDACA-Net" in cls.source
    for severity, channels in ((0.0, 1), (1.0, 3)):
        op = cls.draw(generator(5), severity)
        assert cls(**json.loads(json.dumps(op.params()))) == op
        for modality in modalities(name):
            image, scene = picture(1, channels), Scene(modality, DEPTH)
            before = image.copy()
            out = op(image, generator(2), scene)
            np.testing.assert_array_equal(image, before)
            np.testing.assert_array_equal(out, op(image, generator(2), scene))
            assert out.shape == image.shape and out.dtype == np.float32 and not np.shares_memory(out, image)
            assert np.isfinite(out).all() and out.min() >= 0 and out.max() <= 1
    with pytest.raises(ValueError, match="must be"):
        first = next(iter(cls.ranges()))
        cls(**(op.params() | {first: type(op.params()[first])(10**9)}))


def test_ranges_are_those_of_the_snapshot() -> None:
    ends = {
        (name, parameter): sorted((declared.mild, declared.strong))
        for name, cls in AUTHORS.items()
        for parameter, declared in cls.ranges().items()
    }
    expected = {
        ("authors:haze", "visual_range"): [3, 15],
        ("authors:haze", "ir_sigma"): [1, 2],
        ("authors:snow", "gain"): [3, 5],
        ("authors:snow", "level"): [0.15, 0.25],
        ("authors:motion_blur", "reach"): [2, 14],
        ("authors:motion_blur", "angle"): [-35, 35],
        ("authors:motion_blur", "direction"): [-0.5, 0.5],
        ("authors:gaussian_blur", "sigma"): [1, 3],
        ("authors:low_exposure", "shift"): [-0.5, -0.1],
        ("authors:high_exposure", "shift"): [0.1, 0.5],
        ("authors:low_contrast", "gain"): [0.2, 0.8],
        ("authors:high_contrast", "gain"): [1.6, 2.6],
        ("authors:gaussian_noise", "sigma"): [15 / 255, 15 / 255],
        ("authors:downsample", "scale"): [1, 2],
        ("authors:jpeg", "quality"): [5, 50],
        ("authors:rain", "wind"): [-10, 10],
    }
    assert {key: ends[key] for key in expected} == expected


def test_exposure_is_a_sum_and_contrast_a_product() -> None:
    image = np.array([[[0.1, 0.5, 0.9]]], np.float32)
    for shift, wanted in ((-0.3, [0, 0.2, 0.6]), (0.3, [0.4, 0.8, 1])):
        np.testing.assert_allclose(tone.shifted(image, shift)[0, 0], wanted, atol=1e-6)
    for gain, wanted in ((0.5, [0.05, 0.25, 0.45]), (2.0, [0.2, 1, 1])):
        np.testing.assert_allclose(tone.multiplied(image, gain)[0, 0], wanted, atol=1e-6)


def test_what_leaves_the_range_stretches_the_whole_picture() -> None:
    inside = np.array([[[0.1, 0.9]]], np.float32)
    assert tone.stretched(inside) is inside
    np.testing.assert_allclose(tone.stretched(np.array([[[-0.5, 0.5, 1.5]]], np.float32)), [[[0, 0.5, 1]]])
    sigma = 15 / 255
    grey = np.full((400, 400, 1), 0.5, np.float32)
    out = detail.Noise(sigma=sigma)(grey, generator(3), NO_SCENE)
    assert out.mean() == pytest.approx(0.5, abs=5e-4) and out.std() == pytest.approx(sigma, rel=0.01)
    dark = detail.Noise(sigma=sigma)(grey * 0, generator(3), NO_SCENE)
    assert dark.min() == 0 and dark.max() == 1 and abs(dark.mean() - 0.5) < 0.05


def test_the_gaussian_has_5_rows_and_31_columns() -> None:
    image = np.zeros((61, 61, 1), np.float32)
    image[30, 30] = 1
    out = detail.Blur(sigma=3)(image, generator(0), NO_SCENE)[..., 0]
    rows, columns = np.nonzero(out.sum(1))[0], np.nonzero(out.sum(0))[0]
    assert (len(rows), len(columns)) == (5, 31) and out.sum() == pytest.approx(1, abs=1e-5)
    assert out[30, 33] / out[30, 30] == pytest.approx(math.exp(-0.5), rel=1e-4)


def test_the_line_of_the_motion_blur() -> None:
    flat = detail.line_kernel(3, 0, 0)
    np.testing.assert_allclose(flat[3], np.full(7, 1 / 7), atol=1e-6)
    assert np.count_nonzero(flat) == 7
    falling = detail.line_kernel(2, 0, 0.5)[2]
    np.testing.assert_allclose(falling, np.array([0.75, 0.625, 0.5, 0.375, 0.25]) / 2.5, atol=1e-6)
    turned = detail.line_kernel(2, 90, 0.5)[:, 2]  # counter-clockwise: the right end goes up
    np.testing.assert_allclose(turned, falling[::-1], atol=1e-6)
    white = np.ones((50, 50, 1), np.float32)
    out = detail.Motion(reach=14, angle=0.0, direction=0.0)(white, generator(0), NO_SCENE)
    assert out[25, 25] == pytest.approx(1, abs=1e-5) and out[25, 0] == pytest.approx(15 / 29, abs=1e-4)


def test_resolution_keeps_the_corners() -> None:
    image = picture(4)
    for side in (19, 28):
        small = detail.resized(image, side, side)
        for corner in ((0, 0), (0, -1), (-1, 0), (-1, -1)):
            np.testing.assert_array_equal(small[corner], image[corner])
    ramp = np.linspace(0, 1, 40, dtype=np.float32)[:, None, None] * np.ones((1, 9, 1), np.float32)
    np.testing.assert_allclose(detail.Downsample(scale=2)(ramp, generator(0), NO_SCENE), ramp, atol=1e-6)
    np.testing.assert_allclose(detail.Downsample(scale=1)(image, generator(0), NO_SCENE), image, atol=1e-6)


def test_haze_by_its_formula() -> None:
    d = weather.pseudo_distance(DEPTH)
    assert d.max() == 1 and d.min() == pytest.approx(1 - 255 / 355)
    assert np.all(np.diff(d[8:, 0]) > 0) and np.all(d[:8] == 1)
    assert np.all(weather.pseudo_distance(np.full((2, 2), 7.0)) == 1)
    # Dark enough that nothing leaves the range: A = 4 × 0.1, not linearised.
    image = np.full((40, 56, 3), 0.1, np.float32)
    out = weather.Haze(visual_range=3, ir_sigma=1)(image, generator(0), Scene("visible", DEPTH))
    for row in (0, 39):
        t = math.exp(-3.912 / 3 * d[row, 0])
        linear = color.srgb_to_linear(np.full((1, 1, 1), 0.1)).item() * t + 0.4 * (1 - t)
        np.testing.assert_allclose(out[row], color.linear_to_srgb(np.full((1, 1, 1), linear)).item(), atol=1e-5)
    # The transmissions of the two ends, as the snapshot's ranges give them.
    ends = [math.exp(-3.912 / v * at) for v in (3, 15) for at in (d.min(), 1)]
    np.testing.assert_allclose(ends, [0.69, 0.27, 0.93, 0.77], atol=0.01)
    bright = weather.Haze(visual_range=3, ir_sigma=1)(image * 7, generator(0), Scene("visible", DEPTH))
    assert bright.min() == 0 and bright.max() == 1, "an airlight of 2.8 stretches the picture"


def test_haze_only_blurs_the_infrared() -> None:
    image = np.zeros((40, 56, 1), np.float32)
    image[20, 28] = 1
    out = weather.Haze(visual_range=3, ir_sigma=2)(image, generator(0), Scene("infrared", DEPTH))[..., 0]
    assert (np.count_nonzero(out.sum(1)), np.count_nonzero(out.sum(0))) == (5, 17)


def test_snow_lifts_dark_pixels_and_keeps_hue_and_saturation() -> None:
    image = picture(9) * np.linspace(0.1, 1, 56, dtype=np.float32)[:, None]
    out = weather.Snow(gain=3, level=0.2)(image, generator(0), NO_SCENE)
    light = (image.max(2) + image.min(2)) / 2
    np.testing.assert_array_equal(out[light >= 0.2], image[light >= 0.2])
    for before, after in zip(image[light < 0.2][:200], out[light < 0.2][:200], strict=True):
        h, level, s = colorsys.rgb_to_hls(*before.tolist())
        np.testing.assert_allclose(after, colorsys.hls_to_rgb(h, min(3 * level, 1), s), atol=2e-5)


def test_rain_adds_one_mask_to_all_channels() -> None:
    image = picture(2) * 0.4
    rain, scene = weather.Rain(rate=60, wind=5), Scene("visible", np.full((40, 56), 30, np.float32))
    mask = rain.mask(generator(4), scene)
    assert mask.min() >= 0 and mask.max() < 1 and mask.max() > 0.02
    np.testing.assert_allclose(rain(image, generator(4), scene), np.minimum(image + mask, 1), atol=1e-6)


# Recipes


@pytest.mark.parametrize("task", ["vif", "mef", "mff"])
def test_recipes_act_in_the_order_of_the_draw(task: str) -> None:
    recipe = load_recipe(f"{task}-authors", task=task)  # type: ignore[arg-type]
    assert recipe.reproduction and not load_recipe(task).reproduction
    draws = {tuple(draw_operators(recipe, generator(seed))) for seed in range(400)}
    assert any(draw[::-1] in draws for draw in draws if len(draw) == 2)
    modality: dict[str, Modality] = {"a": "visible", "b": "infrared" if task == "vif" else "visible"}
    for seed in range(12):
        steps = draw_steps(recipe, generator(seed), lambda i, seed=seed: seed_of("authors", seed, i))
        for name in ("a", "b"):
            image = color.to_uint8(picture(3, 1 if modality[name] == "infrared" else 3))
            read = [Step(**json.loads(json.dumps(asdict(step)))) for step in steps]
            first = apply_steps(image, steps, task=task, name=name, depth=DEPTH)  # type: ignore[arg-type]
            np.testing.assert_array_equal(first, apply_steps(image, read, task=task, name=name, depth=DEPTH))  # type: ignore[arg-type]


def test_the_infrared_replays_the_visible_but_for_rain_and_snow() -> None:
    recipe = load_recipe("vif-authors")
    for name, rule in recipe.operators.items():
        if name in ("authors:rain", "authors:snow", "authors:haze"):
            assert dict(rule.target) == {"a": 1} and AUTHORS[name].event == (name == "authors:haze")
        elif name in AUTHORS:
            assert dict(rule.target) == {"both": 1}
    image = color.to_uint8(picture(5, 1))
    rain = Step("authors:rain", "a", {"rate": 50.0, "wind": 0.0}, 3)
    np.testing.assert_array_equal(apply_steps(image, [rain], task="vif", name="b", depth=DEPTH), image)


def test_the_order_matters() -> None:
    image = color.to_uint8(picture(6))
    steps = [
        Step("authors:low_exposure", "both", {"shift": -0.3}, 1),
        Step("authors:high_contrast", "both", {"gain": 2.0}, 2),
    ]
    first, second = (apply_steps(image, s, task="vif", name="a") for s in (steps, steps[::-1]))
    x = image / 255
    np.testing.assert_allclose(first / 255, np.clip(2 * np.clip(x - 0.3, 0, 1), 0, 1), atol=0.003)
    np.testing.assert_allclose(second / 255, np.clip(np.clip(2 * x, 0, 1) - 0.3, 0, 1), atol=0.003)


def test_elsewhere_they_are_refused() -> None:
    entry = {"operators": {"authors:haze": {"target": {"a": 1}}}}
    with pytest.raises(UserError) as error:
        parse_recipe({"schema": 1, "task": "vif", **entry}, "mine", "mine.toml")
    assert str(error.value) == (
        "mine.toml: operators.authors:haze: authors:haze is for recipes with reproduction = true; ours is haze"
    )
    linear = {"schema": 1, "task": "vif", "reproduction": True, "operators": {"haze": {"target": {"a": 1}}}}
    with pytest.raises(UserError, match=r"haze acts in linear light, before what a reproduction may draw ahead of it"):
        parse_recipe(linear, "mine", "mine.toml")
    with pytest.raises(UserError, match="did you mean 'authors:haze'"):
        degrade(picture(), "authors:hase")

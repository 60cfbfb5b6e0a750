"""The built-in scenes: properties on which later stages rely, for every kind, by day and by night."""

from __future__ import annotations

from typing import get_args

import cv2
import numpy as np
import pytest

from clearfuse.synth.color import linear_to_srgb
from clearfuse.synth.scenes import KINDS, SceneMap, exposure_pair, infrared, make_scene, scene_pair, visible
from clearfuse.synth.scenes.rendering import sky
from clearfuse.synth.scenes.rendering.faces import Face, ground, quad
from clearfuse.synth.scenes.rendering.focus import disc, focused, separate, split_depth
from clearfuse.synth.scenes.rendering.imaging import expose, vignette
from clearfuse.synth.scenes.rendering.materials import MATERIALS, TILE, mip_levels, sample
from clearfuse.synth.scenes.rendering.renderer import draw, paste
from clearfuse.synth.scenes.rendering.shading import render
from clearfuse.synth.scenes.rendering.shadows import soften
from clearfuse.synth.scenes.rendering.view import NEAR, View, clip_near
from clearfuse.synth.scenes.things.vehicles import car
from clearfuse.synth.seeds import generator
from clearfuse.synth.types import Task, UserError

pytestmark = pytest.mark.slow

SMALL = (160, 120)
SIZES = [(16, 16), (97, 61), (120, 200)]
TASKS: tuple[Task, ...] = get_args(Task)


@pytest.fixture(scope="module")
def scenes() -> list[SceneMap]:
    return [make_scene(s, SMALL, kind, night) for s in range(2) for kind in KINDS for night in (False, True)]


def detail(image: np.ndarray) -> np.ndarray:
    """Local deviation of the green channel in sRGB codes."""
    g = image[..., 1].astype(np.float32)
    mean = cv2.blur(g, (7, 7))
    return np.sqrt(np.maximum(cv2.blur(g * g, (7, 7)) - mean**2, 0))


def sharpness(image: np.ndarray, where: np.ndarray) -> float:
    """Mean absolute Laplacian inside a mask."""
    return float(np.abs(cv2.Laplacian(image[..., 1].astype(np.float32), cv2.CV_32F))[where].mean())


def test_the_same_seed_gives_the_same_bytes_whatever_the_threads() -> None:
    threads = cv2.getNumThreads()
    try:
        for task in TASKS:
            cv2.setNumThreads(1)
            first = scene_pair(task, 7, SMALL)
            cv2.setNumThreads(2)
            second = scene_pair(task, 7, SMALL)
            assert np.array_equal(first.a, second.a) and np.array_equal(first.b, second.b)
            assert np.array_equal(first.depth, second.depth)
    finally:
        cv2.setNumThreads(threads)


@pytest.mark.parametrize("task", TASKS)
def test_other_seeds_give_other_pictures(task: Task) -> None:
    a, b = scene_pair(task, 1, SMALL).a, scene_pair(task, 2, SMALL).a
    assert np.abs(a.astype(int) - b).mean() > 8


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("task", TASKS)
def test_pairs_have_the_contract_s_shapes_and_types(task: Task, size: tuple[int, int]) -> None:
    pair = scene_pair(task, 3, size)
    width, height = size
    assert pair.a.shape == (height, width, 3) and pair.b.shape == (height, width, 1 if task == "vif" else 3)
    assert pair.depth.shape == (height, width) and pair.depth.dtype == np.float32
    assert pair.a.dtype == pair.b.dtype == np.uint8
    assert (pair.gt is not None) == (task == "mff")
    assert pair.kind in KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_at_every_size(kind: str) -> None:
    for size in SIZES:
        scene = make_scene(11, size, kind)
        assert scene.kind == kind and scene.radiance.shape == (size[1], size[0], 3)


@pytest.mark.slow
def test_radiance_is_finite_and_of_high_range(scenes: list[SceneMap]) -> None:
    stops = []
    for scene in scenes:
        assert scene.radiance.dtype == scene.temperature.dtype == scene.depth.dtype == np.float32
        assert np.isfinite(scene.radiance).all() and scene.radiance.min() >= 0
        y = scene.radiance.mean(-1)
        stops.append(float(np.log2(np.percentile(y, 99.9) / np.percentile(y, 1))))
    assert np.median(stops) > 5 and max(stops) > 9


def test_depth_is_positive_and_infinite_in_the_sky_alone(scenes: list[SceneMap]) -> None:
    for scene in scenes:
        assert not np.isnan(scene.depth).any() and scene.depth.min() >= 0.25
        sky = np.isinf(scene.depth)
        assert not sky[-8:].any()
        if scene.kind == "yard":
            assert sky.any()


@pytest.mark.slow
def test_ground_recedes_upwards() -> None:
    for kind in ("street", "yard"):
        for seed in range(3):
            depth = make_scene(seed, SMALL, kind).depth
            rows = np.median(depth[-30:], axis=1)
            assert rows[0] > rows[-1]
            # It increases upwards along a column, where there is no upright object.
            assert (np.diff(depth[-30:][::-1], axis=0) > 0).mean() > 0.5


def test_people_glow_and_the_sky_is_coldest(scenes: list[SceneMap]) -> None:
    found = 0
    for scene in scenes:
        sky, solid = np.isinf(scene.depth), np.isfinite(scene.depth)
        if sky.sum() > 200 and scene.kind != "interior":
            assert np.median(scene.temperature[sky]) < np.percentile(scene.temperature[solid], 2)
        warm = scene.temperature > np.median(scene.temperature[solid]) + 5
        if warm.sum() < 60:
            continue
        found += 1
        ir = infrared(scene)[..., 0].astype(float)
        assert ir[warm].mean() > ir[solid & ~warm].mean() + 40
        if sky.any():
            assert ir[sky].mean() < ir[solid].mean()
    assert found >= 4


def test_night_is_darker_and_the_infrared_does_not_care() -> None:
    day, night = make_scene(5, SMALL, "street", False), make_scene(5, SMALL, "street", True)
    assert visible(night).mean() < 0.7 * visible(day).mean()
    assert night.radiance.mean() < 0.2 * day.radiance.mean()
    assert infrared(night).std() > 15


@pytest.mark.slow
def test_each_exposure_keeps_what_the_other_clips() -> None:
    kept_by_under = kept_by_over = 0
    for seed in range(8):
        pair = scene_pair("mef", seed, SMALL)
        assert pair.a.mean() < pair.b.mean() - 25
        under, over = pair.a.max(-1), pair.b.max(-1)
        kept_by_under += bool(((over >= 254) & (under > 25) & (under < 240)).mean() > 0.01)
        crushed = (under < 16) & (over > 24) & (over < 240)
        kept_by_over += bool(crushed.mean() > 0.01 and detail(pair.b)[crushed].mean() > detail(pair.a)[crushed].mean())
    assert kept_by_under >= 6 and kept_by_over >= 5


def test_exposure_pair_straddles_the_metered_exposure() -> None:
    scene = make_scene(2, SMALL, "interior", False)
    near, far = exposure_pair(scene, 1.0), exposure_pair(scene, 3.0)
    assert far[0].mean() < near[0].mean() < near[1].mean() < far[1].mean()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_each_focus_is_sharp_where_it_focuses(seed: int) -> None:
    pair = scene_pair("mff", seed, (256, 192))
    assert pair.gt is not None
    inverse = 1 / pair.depth
    near = inverse > split_depth(inverse)
    inner = cv2.erode(near.astype(np.uint8), np.ones((5, 5))).astype(bool)
    unclipped = (pair.gt.max(-1) < 245) & ~near
    outer = cv2.erode(unclipped.astype(np.uint8), np.ones((9, 9))).astype(bool)
    assert sharpness(pair.a, inner) > sharpness(pair.b, inner)
    if outer.sum() > 100:
        assert sharpness(pair.b, outer) > sharpness(pair.a, outer)
        assert sharpness(pair.gt, outer) >= 0.99 * sharpness(pair.b, outer)
    assert sharpness(pair.gt, inner) >= 0.99 * sharpness(pair.a, inner)


def test_a_car_has_a_warm_bonnet_and_no_holes_in_its_depth() -> None:
    width, height = 320, 240
    view = View(width, height, 90.0, 1.6)
    heaven, light = sky.day(generator(1), "noon")
    frame = sky.start_frame(view, heaven, light, generator(2))
    call = car(frame, generator(3), 0.0, 7.0, -np.pi / 2, driving=True)
    soften(frame)
    draw(frame, [ground([(-60, -4), (60, -4), (60, 300), (-60, 300)], colour=(0.2, 0.2, 0.2))], level=True)
    call()
    render(frame)
    body = frame.z[110:150, 140:180]
    assert body.max() < 10 and frame.temperature[110:150, 140:180].max() > light.air + 8
    assert not frame.queue and np.isinf(frame.z[0, 0])


def test_a_later_face_hides_a_cutout_and_an_earlier_one_does_not() -> None:
    view = View(64, 48, 24.0, 1.0)
    white, levels = (1.0, 1.0, 1.0), (np.ones((8, 8, 4), np.float32),)
    heaven, light = sky.day(generator(1), "overcast")

    def wall(z: float) -> Face:
        return quad((-9, 0, z), (9, 0, z), (9, 9, z), (-9, 9, z), colour=white)

    for before, expected in ((True, 5.0), (False, 3.0)):
        frame = sky.start_frame(view, heaven, light, generator(2))
        draw(frame, [wall(6.0)])
        if before:
            draw(frame, [wall(5.5)])
        paste(frame, levels, (0, 0, 5.0), 3.0, white)
        if not before:
            draw(frame, [wall(3.0)])
        render(frame)
        assert frame.z[24, 32] == pytest.approx(expected, abs=1e-3)


def test_the_tone_table_agrees_with_the_curve() -> None:
    linear = np.linspace(0, 3, 3000, dtype=np.float32).reshape(10, 100, 3)
    want = np.clip(np.floor(255 * linear_to_srgb(linear * vignette(10, 100)) + 0.5), 0, 255)
    assert np.abs(expose(linear, 0.0).astype(int) - want).max() <= 1


def test_a_blurred_background_takes_no_light_from_a_sharp_subject() -> None:
    depth = np.full((64, 64), 40.0, np.float32)
    depth[:, 20:44] = 2.0
    radiance = np.full((64, 64, 3), 0.1, np.float32)
    radiance[:, 20:44] = 5.0
    out = focused(separate(radiance, depth, 20.0), 2.0, 20.0)
    assert np.allclose(out[:, :19], 0.1, atol=2e-3) and np.allclose(out[:, 21:43], 5.0, atol=1e-2)


def test_an_even_field_stays_even_out_of_focus() -> None:
    depth = np.full((48, 48), 30.0, np.float32)
    depth[24:] = np.linspace(8, 1.5, 24, dtype=np.float32)[:, None]
    out = focused(separate(np.full((48, 48, 3), 0.4, np.float32), depth, 12.0), 1.5, 12.0)
    assert np.allclose(out, 0.4, atol=4e-3)


def test_disc_is_a_unit_kernel() -> None:
    for radius in (0.4, 1.0, 2.7):
        assert disc(radius).sum() == pytest.approx(1, abs=1e-5)


def test_materials_are_near_one_and_tile() -> None:
    for name in MATERIALS:
        tile = mip_levels(name)[0]
        assert tile.shape[:2] == (TILE, TILE) and tile.mean() == pytest.approx(1, abs=1e-3)
        assert 0.02 < tile.std() < 0.8
        metres = MATERIALS[name][1]
        s = np.array([[0.3, 0.3 + metres]], np.float32)
        here = sample(name, s, np.full_like(s, 0.7), np.full_like(s, 0.001))
        assert np.allclose(here[:, 0], here[:, 1], atol=0.05)


def test_view_turns_there_and_back_and_clips() -> None:
    view = View(64, 48, 20.0, 1.6, 0.4, 0.3)
    points = np.array([[1.0, 0.2, 5.0], [-2.0, 3.0, 9.0]])
    assert np.allclose(view.to_world(view.to_camera(points)), points)
    x, z = view.spot(0.5, 4.0)
    assert view.pixels(view.to_camera(np.array([x, 0.0, z])))[0] == pytest.approx(view.cx + 16, abs=0.1)
    cut = clip_near(np.array([[0.0, 0, -1], [0, 0, 2], [1, 0, 2]]))
    assert len(cut) == 4 and cut[:, 2].min() == pytest.approx(NEAR)


def test_mistakes_are_named() -> None:
    with pytest.raises(UserError, match="unknown scene kind 'stret': did you mean 'street'"):
        make_scene(0, kind="stret")
    with pytest.raises(ValueError, match="at least 16x16"):
        make_scene(0, (8, 20))

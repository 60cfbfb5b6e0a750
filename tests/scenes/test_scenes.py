"""The built-in scenes: properties on which later stages rely, for every kind, by day and by night."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import get_args

import cv2
import numpy as np
import pytest

from clearfuse.synth.color import linear_to_srgb
from clearfuse.synth.scenes import KINDS, SceneMap, exposure_pair, focus_pair, infrared, make_scene, scene_pair, visible
from clearfuse.synth.scenes.rendering import sky
from clearfuse.synth.scenes.rendering.faces import Face, ground, quad
from clearfuse.synth.scenes.rendering.focus import disc, focused, separate, split_depth
from clearfuse.synth.scenes.rendering.imaging import (
    COLUMNS,
    FULL_WELLS,
    NETD,
    READ_NOISE,
    Noise,
    expose,
    finish,
    thermal,
    vignette,
)
from clearfuse.synth.scenes.rendering.materials import MATERIALS, TILE, mip_levels, sample
from clearfuse.synth.scenes.rendering.renderer import Frame, draw, paste
from clearfuse.synth.scenes.rendering.shading import SUN_HEAT, render
from clearfuse.synth.scenes.rendering.shadows import cast_shadow, soften
from clearfuse.synth.scenes.rendering.view import NEAR, View, clip_near
from clearfuse.synth.scenes.things.figures import person
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


def soothed(image: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """An image without what may be sensor noise: differences from the clean one of up to five codes."""
    far = np.abs(image.astype(int) - clean) > 5
    return np.where(far, image, clean)


def flat_world(light: float, depth: np.ndarray, seed: int = 3) -> SceneMap:
    """An even grey field of 290 K."""
    radiance = np.full((*depth.shape, 3), light, np.float32)
    return SceneMap("yard", False, radiance, depth, np.full(depth.shape, 290, np.float32),
                    np.zeros(depth.shape, np.uint8), np.zeros(depth.shape, np.uint16), seed)  # fmt: skip


def lone_person(seed: int, view: View) -> tuple[Frame, float]:
    """A person by night on asphalt, five metres away; and the air's temperature."""
    heaven, light = sky.night(generator(seed))
    frame = sky.start_frame(view, heaven, light, generator(2))
    call = person(frame, generator(seed), 0.0, 5.0)
    soften(frame)
    floor = ground([(-60, -4), (60, -4), (60, 300), (-60, 300)], colour=(0.2, 0.2, 0.2), material="asphalt", warmth=2)
    draw(frame, [floor], level=True)
    call()
    render(frame)
    return frame, float(light.air)


def slope_of_spectrum(tile: np.ndarray) -> float:
    """The exponent of the power spectrum over radial frequency, from 4 to 64 cycles per tile."""
    power = np.abs(np.fft.fft2(tile - tile.mean())) ** 2
    f = np.fft.fftfreq(TILE, 1 / TILE)
    radius = np.hypot(f, f[:, None])
    edges = np.geomspace(4, 64, 9)
    bands = [(radius >= low) & (radius < high) for low, high in pairwise(edges)]
    mean, centre = [power[band].mean() for band in bands], [radius[band].mean() for band in bands]
    return float(np.polyfit(np.log(centre), np.log(mean), 1)[0])


def test_albedo_varies_as_in_natural_images() -> None:
    """Power falls as f^-2 (Field 1987, J. Opt. Soc. Am. A 4), somewhat faster for weathering; nothing is flat."""
    assert slope_of_spectrum(mip_levels("grain")[0]) == pytest.approx(-2, abs=0.3)
    assert slope_of_spectrum(mip_levels("weathering")[0][..., 0]) == pytest.approx(-2.4, abs=0.4)
    view = View(96, 72, 20.0, 1.5)
    heaven, light = sky.day(generator(1), "overcast")
    frame = sky.start_frame(view, heaven, light, generator(2))
    draw(frame, [quad((-9, -2, 5), (9, -2, 5), (9, 9, 5), (-9, 9, 5), colour=(0.5, 0.5, 0.5))])
    render(frame)
    assert 0.03 < frame.radiance[..., 1].std() / frame.radiance[..., 1].mean() < 0.2
    assert 0.1 < frame.temperature.std() < 2


def test_noise_is_of_a_good_exposure_and_follows_the_sensor_s_equation() -> None:
    light, height, width = 0.2, 200, 300
    centre = np.s_[90:110, 140:160]
    field = np.full((height, width, 3), light, np.float32)
    for full_well in FULL_WELLS:
        frames = np.stack([expose(field, 0.0, noise=Noise(full_well, generator(i))) for i in range(12)]).astype(float)
        per_code = float(np.diff(linear_to_srgb(np.array([light, light + 1e-4], np.float32)))[0]) / 1e-4 * 255
        variance = light / full_well + (READ_NOISE / full_well) ** 2
        want = np.sqrt(per_code**2 * variance + 1 / 12)
        found = frames[:, *centre].std()
        assert found == pytest.approx(want, rel=0.06)
        assert frames[:, *centre].mean() == pytest.approx(
            255 * float(linear_to_srgb(np.array([light], np.float32))[0]), abs=0.3
        )
        grey = finish(field, 0.57, Noise(full_well, generator(1)))[centre].astype(float)
        assert 100 < grey.mean() < 136 and 0.5 < grey.std() < 1.3


def test_frames_of_a_pair_share_the_world_and_not_the_noise() -> None:
    depth = np.full((96, 128), 12.0, np.float32)
    depth[:, 60:] = 2.0
    world = flat_world(0.4, depth)
    near, far, truth = (image.astype(float) for image in focus_pair(world))
    # The truth's own rounding would be in both differences.
    even = cv2.GaussianBlur(truth, (0, 0), 6)
    a, b = near - even, far - even
    assert 0.5 < a.std() < 1.6 and 0.5 < b.std() < 1.6 and abs(a.mean()) < 0.2 and abs(b.mean()) < 0.2
    assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.1
    # The vignette alone is in the truth: it is smooth, to a code.
    assert np.abs(np.diff(truth, axis=1)).max() <= 1
    assert np.array_equal(visible(world), visible(world)) and np.array_equal(infrared(world), infrared(world))
    assert not np.array_equal(visible(world), visible(flat_world(0.4, depth, seed=4)))


def test_infrared_noise_is_the_detector_s() -> None:
    kelvin = np.broadcast_to(np.linspace(280, 300, 320, dtype=np.float32), (240, 320)).copy()
    depth = np.full(kelvin.shape, 10.0, np.float32)
    clean, noisy = (thermal(kelvin, depth, rng)[..., 0].astype(float) for rng in (None, generator(1)))
    middle = np.s_[:, 120:260]
    per_kelvin = np.polyfit(kelvin[middle].ravel(), clean[middle].ravel(), 1)[0]
    want = np.hypot(per_kelvin * np.hypot(NETD, COLUMNS), np.sqrt(1 / 6))
    assert (noisy - clean)[middle].std() == pytest.approx(want, rel=0.25) and 0.3 < want < 1.5


def test_by_night_heads_are_warmer_than_clothes_and_clothes_than_the_ground() -> None:
    view = View(160, 120, 50.0, 1.5)
    margins: list[float] = []
    graded = 0
    for seed in range(6):
        frame, _ = lone_person(seed, view)
        body = np.abs(frame.z - 5) < 1e-3
        rows = np.flatnonzero(body.any(1))
        tall = rows[-1] - rows[0]
        on = np.arange(len(body))[:, None]
        head, torso = body & (on < rows[0] + 0.16 * tall), body & (abs(on - rows[0] - 0.33 * tall) < 0.1 * tall)
        below = ~body & np.isfinite(frame.z) & (on > rows[-1] - 0.3 * tall)
        hot, worn, cold = (frame.temperature[mask] for mask in (head, torso, below))
        assert np.percentile(hot, 90) > np.median(worn)
        margins.append(np.percentile(hot, 90) - np.median(worn))
        assert np.median(worn) > np.median(cold) + 1
        # Within the clothes the middle is mostly warmer than the outline, where bare hands may be.
        inside = cv2.erode(torso.astype(np.uint8), np.ones((5, 5))).astype(bool)
        graded += bool(frame.temperature[inside].mean() > frame.temperature[torso & ~inside].mean())
    assert np.mean(margins) > 1.5 and graded >= 4


def test_people_differ_and_their_feet_stand_on_the_ground() -> None:
    shapes = set()
    for seed in range(8):
        frame, _ = lone_person(seed, View(120, 160, 60.0, 1.5))
        body = np.abs(frame.z - 5) < 1e-3
        shapes.add(body.tobytes())
        foot = view_row(frame.view, 0.0)
        assert abs(np.flatnonzero(body.any(1))[-1] - foot) <= 2
        assert 1.5 < 5 * body.any(1).sum() / frame.view.focal < 2.0
    assert len(shapes) == 8


def view_row(view: View, height: float) -> float:
    """The row of a point five metres away."""
    return float(view.pixels(view.to_camera(np.array([0.0, height, 5.0])))[1])


def test_the_sky_is_darker_bluer_and_colder_upwards() -> None:
    view = View(64, 96, 95.0, 1.5)
    for hour in ("noon", "morning"):
        heaven, light = sky.day(generator(1), hour)
        frame = sky.start_frame(view, replace(heaven, cover=0.0, glow=(0.0, 0.0, 0.0)), light, generator(2))
        top, low = frame.radiance[:4].mean((0, 1)), frame.radiance[86:92].mean((0, 1))
        assert top.mean() < 0.7 * low.mean() and top[2] / top[0] > 1.2 * low[2] / low[0]
        rows = frame.temperature.mean(1)[:92]
        assert (np.diff(rows) >= -1e-3).all() and rows[-1] - rows[0] > 20
    zenith = sky.sky_temperature(np.ones((1, 1), np.float32), np.zeros((1, 1), np.float32), 0.3, 290.0)
    assert zenith[0, 0] == pytest.approx(290 * 0.3**0.25, rel=1e-4)


def test_the_sun_warms_what_it_shines_on() -> None:
    view = View(64, 48, 10.0, 1.6)
    heaven, light = sky.day(generator(1), "noon")
    light.sun_from = (-0.6, 0.6, -0.52)
    frame = sky.start_frame(view, heaven, light, generator(2))
    cast_shadow(frame, [np.array([(0.0, 0, 3), (0, 9, 3), (0, 9, 30), (0, 0, 30)])])
    soften(frame)
    draw(frame, [ground([(-60, -4), (60, -4), (60, 300), (-60, 300)], colour=(0.2, 0.2, 0.2))], level=True)
    render(frame)
    sun, shade = frame.temperature[40, 10:20].mean(), frame.temperature[30, 34:40].mean()
    want = 0.8 * SUN_HEAT * np.mean(light.sun) * 0.6 / np.sqrt(0.36 + 0.36 + 0.2704) * 0.8
    assert sun - shade == pytest.approx(want, abs=1.2) and want > 3


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
            assert np.median(scene.temperature[sky]) < np.percentile(scene.temperature[solid], 5)
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
        assert sharpness(pair.gt, outer) >= 0.95 * sharpness(soothed(pair.b, pair.gt), outer)
    assert sharpness(pair.gt, inner) >= 0.95 * sharpness(soothed(pair.a, pair.gt), inner)


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


@pytest.mark.parametrize("name", MATERIALS)
def test_no_material_depends_on_the_maker_of_the_processor(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenCV's power -0.5 refines rsqrtps, whose 12 bits are not the same on every processor; sqrt's and 1/x's are."""

    def power(x: np.ndarray, exponent: float) -> np.ndarray:
        assert exponent > 0
        return np.power(x, np.float32(exponent))

    monkeypatch.setattr(cv2, "pow", power)
    assert np.isfinite(MATERIALS[name][0](generator(0))).all()


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

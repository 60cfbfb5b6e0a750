"""Haze, rain and snow against their formulas, and their effects on images."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest

from clearfuse.synth import color
from clearfuse.synth.operators.base import SKY_PATH, Operator, Scene
from clearfuse.synth.operators.light.estimate import estimate_light
from clearfuse.synth.operators.light.pair import light_of_pair
from clearfuse.synth.operators.physics import air, particles
from clearfuse.synth.operators.weather import Haze, Rain, Snow
from clearfuse.synth.samples.chain import apply_steps
from clearfuse.synth.seeds import generator
from clearfuse.synth.types import Step

HAZE: dict[str, Any] = {"airlight": 1.0, "tint": 0.0, "ir_ratio": 0.2}
RAIN: dict[str, Any] = {"wind": 10.0, "exposure": 1 / 100, "contrast": 3.0, "ir_ratio": 1.0}
SNOW: dict[str, Any] = {"crowding": 2.0, "wetness": 0.5, "wind": 10.0, "exposure": 1 / 200, "ir_ratio": 1.0}
WEATHER: list[type[Operator]] = [Haze, Rain, Snow]


def scene_of(depth: np.ndarray, modality: Any = "visible") -> Scene:
    return Scene(modality, depth.astype(np.float32))


def daylight(h: int = 120, w: int = 160, channels: int = 3) -> np.ndarray:
    """A street in daylight: bright upper third, textured ground."""
    noise = generator(3).random((h, w, channels), dtype=np.float32)
    level = np.where(np.arange(h) < h // 3, 0.7, 0.15).astype(np.float32)
    return level[:, None, None] * (0.7 + 0.6 * noise)


def ramp(h: int = 120, w: int = 160) -> np.ndarray:
    """A ground plane under a sky: infinity in the upper third, then from 200 m down to 3 m."""
    rows = np.arange(h, dtype=np.float32)
    depth = np.where(rows < h // 3, np.inf, 200 * (3 / 200) ** ((rows - h // 3) / (h - h // 3)))
    return np.broadcast_to(depth[:, None], (h, w)).astype(np.float32)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return -10 * math.log10(float(np.mean((np.clip(a, 0, 1) - np.clip(b, 0, 1)) ** 2)) + 1e-12)


def test_the_transmission_is_koschmieders_at_known_depths() -> None:
    # Two scenes differ in a patch too small to affect the airlight: their difference is scaled by t only.
    depth = np.tile(np.linspace(5, 400, 160, dtype=np.float32), (120, 1))
    image, other = daylight(), daylight()
    other[60:62] += 0.05
    haze = Haze(visibility=300.0, **HAZE)
    a, b = (haze(x, generator(0), scene_of(depth)) for x in (image, other))
    share = (b[60] - a[60]) / (other[60] - image[60])
    assert np.abs(air.transmission(depth, air.haze_extinction(300.0)) - np.exp(-2.9957 * depth / 300)).max() < 1e-3
    assert np.abs(share - np.exp(-2.9957 * depth[60] / 300)[:, None]).max() < 1e-2


def test_five_percent_of_contrast_is_left_at_the_visibility() -> None:
    depth = np.full((1, 2), 250.0, np.float32)
    clear = air.transmission(depth, air.haze_extinction(250.0))
    out = air.koschmieder(np.float32([[[0.2], [0.8]]]), clear, np.float32([0.7]))
    assert float(out[0, 1, 0] - out[0, 0, 0]) / 0.6 == pytest.approx(0.05, abs=1e-5)


def test_the_sky_becomes_the_airlight_and_near_things_stay() -> None:
    image, depth = daylight(), ramp()
    scene = scene_of(depth)
    out = Haze(visibility=80.0, **HAZE)(image, generator(0), scene)
    airlight = estimate_light(image, depth).airlight
    assert np.abs(out[:40] - airlight).max() < 1e-4
    assert 0.5 < airlight.mean() < 0.95
    changes = np.abs(out - image).mean(axis=(1, 2))
    assert changes[-1] < 0.12 < 0.3 < changes[45]


def night(h: int = 120, w: int = 160, channels: int = 3) -> np.ndarray:
    """A dark street under a black sky, with a lamp in the middle."""
    image = 0.1 * daylight(h, w, channels)
    image[: h // 3] *= 0.05
    image[h // 2 : h // 2 + 4, w // 2 : w // 2 + 4] = 1.0
    return image


def test_fog_at_night_is_dark_and_glows_around_lamps() -> None:
    image, scene = night(), scene_of(ramp())
    out = Haze(visibility=80.0, **HAZE)(image, generator(0), scene)
    assert out[:30].mean() < 0.06
    lamp_side, far_side = out[36:40, 70:94].mean(), out[36:40, :20].mean()
    assert lamp_side > 1.15 * far_side
    sky = out[:30].mean(axis=(0, 1))
    assert sky.max() < 1.2 * image[40:].mean(), "never a grey sky"


@pytest.mark.parametrize("op", [Rain(rate=100.0, **RAIN), Snow(rate=8.0, **SNOW)], ids=["rain", "snow"])
def test_particles_are_seen_before_a_night_s_black_sky(op: Operator) -> None:
    image = night()
    out = op(image, generator(0), scene_of(ramp()))
    assert (out[:38] > 1.3 * np.median(out[:38])).mean() > 0.005


def test_flakes_at_night_are_six_times_as_bright_as_what_is_around_them() -> None:
    grey = np.full((120, 160, 3), 0.005, np.float32)
    light = estimate_light(grey, np.full((120, 160), 20, np.float32))
    assert light.night == 1
    np.testing.assert_allclose(light.on_particles((120, 160), 6.0), 0.03, rtol=1e-3)


EXPOSED: list[Operator] = [
    Haze(visibility=150.0, cool_sky=0.7, **HAZE),
    Rain(rate=60.0, wet_ground=0.8, cool_sky=0.5, **RAIN),
    Snow(rate=6.0, snow_cover=0.5, cool_sky=0.5, **SNOW),
]


@pytest.mark.parametrize("op", EXPOSED, ids=lambda op: op.name)
@pytest.mark.parametrize("picture", [daylight, night])
def test_weather_then_exposure_is_exposure_then_weather(op: Operator, picture: Any) -> None:
    """A scene exposed at two EVs and fogged in each is the fogged scene exposed at two EVs, before the clip."""
    depth = ramp()
    scene = picture().astype(np.float64)
    scene[45:50, 20:30] = 1.7  # clipped in the brighter frame alone
    dark, bright = (np.minimum(ev * scene, 1).astype(np.float32) for ev in (0.5, 4.0))
    dark, bright = np.minimum(dark, 1), np.minimum(bright, 1)
    out: list[np.ndarray] = []
    for frame, beside in ((dark, bright), (bright, dark)):
        light, radiance = light_of_pair(frame, beside, depth)
        out.append(op(radiance, generator(4), Scene("visible", depth, light=light)))
    assert out[1].max() > 1
    np.testing.assert_allclose(out[1], 8 * out[0], rtol=2e-3, atol=1e-4)
    # Each for itself, the frames would disagree.
    alone = [op(frame, generator(4), Scene("visible", depth)) for frame in (dark, bright)]
    assert np.abs(np.clip(alone[1], 0, 1) - np.clip(out[1], 0, 1)).max() > 0.05


def test_the_chain_takes_one_light_for_both_exposures() -> None:
    """The dark frame of a day is fogged as a day: its sky is the bright frame's, divided by the exposure ratio."""
    scene = np.repeat(daylight(channels=1), 3, axis=2)
    a, b = (color.to_uint8(color.linear_to_srgb(np.minimum(k * scene, 1))) for k in (0.04, 0.6))
    step = Step("haze", "both", Haze(visibility=60.0, **HAZE).params(), 3)
    fogged = [
        color.code_to_linear(apply_steps(x, [step], task="mef", name=name, depth=ramp(), beside=y))[:30].mean()
        for x, y, name in ((a, b, "a"), (b, a, "b"))
    ]
    assert fogged[1] / fogged[0] == pytest.approx(15, rel=0.03)


def test_infrared_haze_is_thinner_by_the_ratio() -> None:
    image = np.full((60, 80, 1), 0.2, np.float32)
    image[:, 40:] = 0.6
    depth = np.full((60, 80), 100.0, np.float32)
    haze = Haze(visibility=200.0, **HAZE)
    out = haze(image, generator(0), scene_of(depth, "infrared"))
    left = float(out[30, 70, 0] - out[30, 10, 0]) / 0.4
    assert left == pytest.approx(math.exp(-0.2 * air.haze_extinction(200.0) * 100), abs=1e-3)


def test_extinctions_are_the_published_ones() -> None:
    assert air.rain_extinction(25.0) * 1e3 == pytest.approx(2.70, abs=0.01)
    assert air.rain_extinction(100.0) * 1e3 == pytest.approx(6.83, abs=0.01)
    assert air.snow_extinction(2.0, 1.0) * 1e3 == pytest.approx(3.84626 * 2**0.72 / 4.343, rel=1e-4)
    assert air.snow_extinction(2.0, 0.0) * 1e3 == pytest.approx(5.52981 * 2**1.38 / 4.343, rel=1e-4)


def test_drops_fall_and_are_as_many_as_published() -> None:
    assert particles.terminal_velocity(np.array([1.0, 5.0])) == pytest.approx([4.0, 9.14], abs=0.01)
    size, slope = np.linspace(1.0, 12.0, 20_001), 4.1 * 25**-0.21
    counted = float(np.trapezoid(8000 * np.exp(-slope * size), size))
    assert particles.exponential_count(8000.0, slope, np.array([1.0])) == pytest.approx(counted, rel=1e-4)
    assert counted == pytest.approx(476, rel=0.01)


def test_a_field_fills_the_frustum_with_its_number_density() -> None:
    focal = particles.focal_length(640, 60.0)
    drawn = {"intercept": 8000.0, "smallest": 0.5, "largest": 5.0, "smallest_px": 0.3, "travel": 0.0}
    field = particles.draw_field(generator(1), (480, 640), focal, slope=2.0, **drawn)
    near = (field.z < 1.2) & (field.diameter > 1.5)
    edge = near & (field.x >= 0) & (field.x < 640) & (field.y >= 0) & (field.y < 480)
    volume = 480 * 640 / focal**2 * (1.2**3 - particles.NEAR**3) / 3
    assert edge.sum() == pytest.approx(volume * particles.exponential_count(8000.0, 2.0, np.array([1.5])), rel=0.25)
    assert (field.diameter * 1e-3 * focal / field.z).min() >= 0.3


@pytest.mark.parametrize(("length", "slant", "step"), [(12.0, 0.2, 2), (30.0, 0.2, 4), (30.0, 2.0, 1)])
def test_a_streak_covers_its_width_over_its_length(length: float, slant: float, step: int) -> None:
    one = particles.Field(*(np.float32([v]) for v in (40.3, 50.2, 2.0, 2.0, 0.5, 0.5)))
    arrays = {"length": length, "slant": slant, "width": 1.0, "cover": 0.02}
    fall = particles.splat_streaks(
        one, (100, 80), **{k: np.float32([v]) for k, v in arrays.items()}, depth=np.full((100, 80), 10, np.float32)
    )
    assert fall.step == step
    summed = -np.log(fall.clear)
    middles = np.arange(len(summed)) * step + (step - 1) / 2
    rows = summed.sum(axis=1)
    inside, outside = np.abs(middles - 50.2) < length / 4 - 1, np.abs(middles - 50.2) > length / 2 + step
    assert rows[inside] == pytest.approx(0.02, rel=0.15)
    assert (rows[outside] == 0).all()
    (first, *_, last) = np.nonzero(inside)[0]
    middle = (summed[[first, last]] * np.arange(80)).sum(axis=1) / rows[[first, last]]
    assert middle[1] - middle[0] == pytest.approx(slant * (middles[last] - middles[first]), abs=0.3)


def test_particles_hide_behind_what_is_nearer() -> None:
    image = np.full((120, 160, 3), 0.05, np.float32)
    image[:10] = 0.8
    depth = np.full((120, 160), 50.0, np.float32)
    depth[:, :80] = 0.3
    for op in (Rain(rate=100.0, **RAIN), Snow(rate=8.0, **SNOW)):
        out = op(image, generator(0), scene_of(depth))
        rough = [float(np.abs(np.diff(out[20:, side], axis=0)).mean()) for side in (slice(0, 78), slice(82, 160))]
        assert rough[0] < 1e-6 < 1e-3 < rough[1], op.name


def test_streaks_fade_against_the_sky() -> None:
    image = np.full((120, 160, 3), 0.05, np.float32)
    image[:60] = 0.8
    depth = np.full((120, 160), 20.0, np.float32)
    out = Rain(rate=100.0, **RAIN)(image, generator(0), scene_of(depth))
    assert out[:58].std() < 0.2 * out[62:].std()
    assert out[:58].max() <= 1.0


@pytest.mark.parametrize("op", [Rain(rate=100.0, **RAIN), Snow(rate=8.0, **SNOW)], ids=["rain", "snow"])
def test_the_infrared_never_gets_bright_particles(op: Operator) -> None:
    image = np.full((120, 160, 1), 0.3, np.float32)
    out = op(image, generator(0), scene_of(np.full((120, 160), 30.0), "infrared"))
    assert out.max() <= 0.3 + 1e-6
    if op.name == "rain":
        assert out.std() < 1e-6


@pytest.mark.parametrize("cls", WEATHER)
@pytest.mark.parametrize("modality", ["visible", "infrared"])
def test_the_psnr_falls_with_the_severity(cls: type[Operator], modality: Any) -> None:
    image, depth = daylight(channels=3 if modality == "visible" else 1), ramp()
    image = image + 0.1 * (ramp(120, 160) < 20)[..., None].astype(np.float32)
    curve = np.zeros(5)
    for seed in range(4):
        for k, severity in enumerate((0, 0.25, 0.5, 0.75, 1)):
            op = cls.draw(generator(seed), severity)
            curve[k] += psnr(op(image, generator(seed + 9), scene_of(depth, modality)), image)
    assert (np.diff(curve) < 0).all(), curve / 4


@pytest.mark.parametrize("cls", WEATHER)
@pytest.mark.parametrize("modality", ["visible", "infrared"])
@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 1, 1), (1, 37, 3), (41, 1, 1), (50, 64, 1), (50, 64, 3)])
def test_any_shape_is_kept_pure_and_finite(cls: type[Operator], modality: Any, shape: tuple[int, int, int]) -> None:
    for value in (0.0, 1.0, None):
        image = np.full(shape, value, np.float32) if value is not None else generator(2).random(shape, dtype=np.float32)
        kept = image.copy()
        op = cls.draw(generator(1), 1.0)
        depth = np.full(shape[:2], 30.0, np.float32)
        depth.flat[0] = np.inf
        out, again = (op(image, generator(7), scene_of(depth, modality)) for _ in range(2))
        assert out.shape == shape and out.dtype == np.float32
        assert np.isfinite(out).all() and out.min() >= 0
        assert (image == kept).all() and (out == again).all()


@pytest.mark.parametrize("cls", WEATHER)
@pytest.mark.parametrize("modality", ["visible", "infrared"])
def test_the_identity_changes_nothing(cls: type[Operator], modality: Any) -> None:
    op = cls.identity()
    assert op is not None
    image = daylight(channels=3 if modality == "visible" else 1)
    assert np.abs(op(image, generator(0), scene_of(ramp(), modality)) - image).max() < 1e-6


def test_the_drops_are_each_images_own_and_a_heavier_rain_extends_a_lighter_one() -> None:
    focal = particles.focal_length(320, 60.0)
    drawn = {"intercept": 8000.0, "smallest": 0.5, "largest": 5.0, "smallest_px": 0.3, "travel": 0.1}
    light, heavy = (
        particles.draw_field(generator(5), (240, 320), focal, slope=4.1 * rate**-0.21, **drawn)
        for rate in (10.0, 100.0)
    )
    other = particles.draw_field(generator(6), (240, 320), focal, slope=2.0, **drawn)
    places = [set(zip(field.x.tolist(), field.y.tolist(), strict=True)) for field in (light, heavy, other)]
    assert places[0] <= places[1]
    assert not places[0] & places[2]


def test_the_path_before_the_sky_is_finite() -> None:
    assert scene_of(np.array([[np.inf, 5.0]])).path().max() == SKY_PATH


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("step", [1, 4])
def test_particles_over_a_veil_are_two_veils_in_one(channels: int, step: int) -> None:
    rng = generator(5)
    image = rng.random((150, 70, channels), np.float32)
    depth = rng.random((150, 70), np.float32) * 400
    depth[0, :3] = np.inf, np.nan, 0.0
    rows = rng.random((-(-150 // step), 70), np.float32)
    # Interpolated between the centres of the rows.
    clear = cv2.resize(rows, (70, len(rows) * step), interpolation=cv2.INTER_LINEAR)[:150]
    a, glow = np.array([[0.5, 0.6, 0.7], [0.9, 0.8, 0.7]], np.float32)[:, :channels]
    behind = air.koschmieder(image, air.transmission(Scene("visible", depth).path(), 0.01), a)
    expected = air.koschmieder(behind, clear, glow)
    fall = particles.Fall(rows, step)
    a_map, glow_map = (np.broadcast_to(v, image.shape).copy() for v in (a, glow))
    for airlight, light in ((a, glow), (a_map, glow), (a, glow_map), (a_map, glow_map)):
        out = air.through_particles(image, depth, 0.01, airlight, fall, light)
        np.testing.assert_allclose(out, expected, atol=1e-6)


@pytest.mark.parametrize("extinction", [0.0, 1e-4, 0.01, 3.0])
def test_the_veil_s_exponential_is_exact(extinction: float) -> None:
    depth = np.geomspace(0.25, 10_000, 4096).reshape(64, 64).astype(np.float32)
    image, black = np.ones((64, 64, 1), np.float32), np.zeros(1, np.float32)
    out = air.through_particles(image, depth, extinction, black, particles.Fall(np.ones((64, 64), np.float32)), black)
    exact = np.exp(-extinction * depth.astype(np.float64))
    # −87 is the last exponent whose power is a normal float.
    np.testing.assert_allclose(out[..., 0][exact > 1e-37], exact[exact > 1e-37], rtol=1e-5)
    np.testing.assert_allclose(out[..., 0], exact, atol=1e-7)


def test_patches_of_haze_have_its_mean_density_and_are_the_same_for_both_frames() -> None:
    fields = np.stack([air.density_field((120, 160), 0.5, k / 50) for k in range(50)])
    assert fields.mean() == pytest.approx(1, abs=0.02)
    assert np.log(fields).std() == pytest.approx(0.5, rel=0.05)
    assert np.abs(np.diff(np.log(fields), axis=2)).max() < 0.15  # no sharp edges
    depth, image = ramp(), daylight()
    patchy = Haze(visibility=200.0, patchiness=0.5, field=0.3, **HAZE)
    first, again, other = (patchy(image, generator(seed), scene_of(depth)) for seed in (0, 1, 2))
    assert np.array_equal(first, again) and np.array_equal(first, other)
    even = Haze(visibility=200.0, **HAZE)(image, generator(0), scene_of(depth))
    assert 0.005 < np.abs(first - even).mean() < 0.1

"""The atmosphere's point spread against its limits and the conservation of light; night, lamps, and exposure."""

from __future__ import annotations

import math
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from clearfuse.synth import color
from clearfuse.synth.operators.light import estimate, glow, pair
from clearfuse.synth.operators.physics import air
from clearfuse.synth.seeds import generator


@pytest.mark.parametrize("thickness", [1.3, 2.0, 6.0])
def test_without_deflection_the_series_is_its_generating_function(thickness: float) -> None:
    # q → 1: all β_m are 0, g_m = h^(m+1) with h = 1 / T, and Σ h^m L_m(μ) = (1 − 2 h μ + h²)^(−1/2).
    mu, h = np.linspace(-1, 1, 41), 1 / thickness
    wanted = (h + h * h) / np.sqrt(1 - 2 * h * mu + h * h) - h
    np.testing.assert_allclose(glow.point_spread(thickness, 1.0, mu), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("forward", [0.8, 0.9, 0.95])
@pytest.mark.parametrize("thickness", [1.1, 2.2, 4.4, 17.6])
def test_air_absorbs_no_light(thickness: float, forward: float) -> None:
    """The mean radiance over all directions is T^−2, the inverse square, and the flux through a sphere tends to it."""
    mu, weight = np.polynomial.legendre.leggauss(400)
    radiance = glow.point_spread(thickness, forward, mu)
    assert 0.5 * (radiance * weight).sum() == pytest.approx(thickness**-2, rel=1e-9)
    flux = 1.5 * (radiance * mu * weight).sum() * thickness**2
    assert flux == pytest.approx(1 + math.exp(-2.5 * (1 - forward) * thickness) / thickness, rel=1e-9)


def test_thick_fog_has_the_diffuse_field_and_thin_fog_peaks_at_the_lamp() -> None:
    mu = np.linspace(-1, 1, 101)
    # Of the series g_1 alone is left: the least anisotropic field that carries the flux.
    np.testing.assert_allclose(glow.point_spread(400.0, 0.9, mu) * 400**2, 1 + mu, atol=1e-3)
    peaks = [glow.point_spread(t, 0.9, np.array([1.0, 0.5])) for t in glow.LEVELS]
    contrast = [float(p[0] / p[1]) for p in peaks]
    assert (np.diff(contrast) < 0).all() and contrast[0] > 5
    assert (glow.point_spread(1.1, 0.9, mu)[mu > 0] > 0).all()


def test_the_encircled_light_is_the_integral() -> None:
    angles = np.radians([0, 5, 20, 45, 90])
    mu = np.linspace(0, 1, 400_001)
    radiance = glow.point_spread(2.2, 0.85, mu)
    total = np.concatenate([[0], np.cumsum(0.5 * (radiance[1:] + radiance[:-1]))])
    wanted = [1 - np.interp(math.cos(a), mu, total) / total[-1] for a in angles]
    np.testing.assert_allclose(glow.encircled(2.2, 0.85, angles), wanted, atol=1e-5)


@pytest.mark.parametrize("level", [0, 2, 4])
def test_spreading_keeps_the_light_that_stays_in_the_frame(level: int) -> None:
    grid = np.zeros((97, 97, 3), np.float32)
    grid[48, 48] = 5.0
    out = glow.spread(grid, level, 0.9, 40.0)
    inner, outer = glow.encircled(float(glow.LEVELS[level]), 0.9, np.arctan(np.array([48.5, 48.5 * 2**0.5]) / 40))
    assert 5 * inner < out[..., 0].sum() < 5 * outer
    assert out[48, 48, 0] == out.max()
    np.testing.assert_allclose(out, out[::-1, ::-1], atol=1e-6)


def street(lamp: int = 3, value: float = 1.0) -> np.ndarray:
    """A dark wall with a square lamp."""
    image = np.full((240, 320, 3), 0.005, np.float32)
    image[100 : 100 + lamp, 150 : 150 + lamp] = value
    return image


def test_a_lamp_s_light_arrives_directly_or_as_glow_and_none_is_lost() -> None:
    depth = np.full((240, 320), 30.0, np.float32)
    estimated = estimate.estimate_light(street(), depth)
    assert estimated.night == 1 and estimated.lamps is not None
    total = estimated.lamps.radiance.sum()
    for extinction in (0.01, 0.05, 0.2):
        # A camera with a narrow view from far in front of it has most of the glow in its frame.
        veil = -math.expm1(-extinction * 30)
        halo = estimated.halo(extinction, 0.95, 4.0) * np.float32(veil)
        cells = (240 * 320) / (halo.shape[0] * halo.shape[1])
        direct = total * math.exp(-extinction * 30)
        inside = glow.encircled(max(extinction * 30, 1.1), 0.95, np.arctan(np.array([28 / 4.0])))[0]
        assert inside * total < direct + halo.sum() * cells <= total * 1.001


def test_a_nearer_thing_has_less_glowing_air_before_it() -> None:
    depth = np.full((240, 320), 60.0, np.float32)
    depth[:, 160:] = 6.0
    image = street()
    estimated = estimate.estimate_light(image, depth)
    halo = estimated.halo(0.03, 0.9, 80.0)
    veil = -np.expm1(-0.03 * estimated.far)[..., None]
    glowing = (halo * veil)[..., 0]
    column = round(160 * halo.shape[1] / 320)
    row = round(100 * halo.shape[0] / 240)
    assert glowing[row, column + 1] < 0.3 * glowing[row, column - 7]


def test_softening_moves_light_and_keeps_its_sum() -> None:
    image = np.full((60, 640, 3), 0.02, np.float32)
    image[30:33, 40:43] = 30.0
    clear = np.full((60, 640), 0.3, np.float32)
    before = air.koschmieder(image, clear, np.float32([0.1, 0.1, 0.1]))
    after = before.copy()
    air.soften_lamps(after, image, clear)
    assert after.sum() == pytest.approx(before.sum(), rel=1e-5)
    assert after[31, 45, 0] > before[31, 45, 0] and after[31, 41, 0] < before[31, 41, 0]
    plain = np.minimum(image, 1)
    out = plain.copy()
    air.soften_lamps(out, plain, clear)
    np.testing.assert_array_equal(out, plain)


def most(image: np.ndarray, depth: np.ndarray | None = None) -> float:
    lamps = estimate.find_lamps(image, depth, 1.0, (72, 96))
    return 0.0 if lamps is None else float(lamps.radiance.max())


def test_lamps_are_ten_to_fifty_times_as_bright_as_recorded_and_walls_are_not() -> None:
    assert 9 <= most(street(1)) < 18
    large = np.full((480, 640, 3), 0.01, np.float32)
    cv2.circle(large, (320, 240), 6, (1.0, 1.0, 1.0), -1)
    assert 40 < most(large) <= 49
    large[100:300, 100:400] = 1.0
    assert estimate.find_lamps(large[90:, 90:], None, 1.0, (72, 96)).radiance.max() < 0.5  # type: ignore[union-attr]
    red = street()
    red[100:103, 150:153] = 1.0, 0.1, 0.1
    assert 0.2 < most(red) / most(street()) < 0.5
    assert most(street(value=0.7)) == 0


def test_a_lamp_before_the_sky_is_as_far_as_its_foot() -> None:
    depth = np.full((240, 320), np.inf, np.float32)
    depth[180:] = 40.0
    lamps = estimate.find_lamps(street(), depth, 1.0, (72, 96))
    assert lamps is not None and (lamps.distance == 40).all()
    estimated = estimate.estimate_light(street(), depth)
    assert (estimated.path(depth)[100:103, 150:153] == 40).all()
    assert np.isinf(estimated.path(depth)[99]).all()


@pytest.mark.parametrize("ratio", [1.0, 4.0, 30.0])
def test_the_exposure_ratio_is_found_beside_clipping_and_noise(ratio: float) -> None:
    rng = generator(2)
    scene = np.exp(rng.normal(-2.5, 1.2, (200, 300, 1))).astype(np.float32) * np.ones(3, np.float32)
    dark, bright = np.minimum(0.3 * scene, 1), np.minimum(0.3 * ratio * scene, 1)
    assert pair.exposure_ratio(dark, bright) == pytest.approx(ratio, rel=1e-4)
    noisy = dark + rng.normal(0, 0.001, dark.shape).astype(np.float32)
    assert pair.exposure_ratio(np.maximum(noisy, 0), bright) == pytest.approx(ratio, rel=0.1)


def test_of_two_exposures_a_night_has_lamps_and_a_black_sky_and_a_room_with_a_window_has_not() -> None:
    rng = generator(1)
    scene = 0.02 * np.exp(rng.normal(0, 0.5, (240, 320, 1))).astype(np.float32) * np.ones(3, np.float32)
    night, room = scene.copy(), scene.copy()
    night[:80] *= 0.1
    night[120:126, 100:106] = night[130:136, 200:206] = 5.0
    room[20:150, 100:220] = 1.0
    found = [pair.darkness_of_pair(np.minimum(s, 1), np.minimum(16 * s, 1), 16.0) for s in (0.2 * night, 0.2 * room)]
    assert found == [1, 0]
    assert estimate.darkness(color.luma(np.ascontiguousarray(0.2 * room[::4, ::4]))) == 1, "by its dark frame it were"


def test_air_in_a_dark_room_scatters_the_room_s_light_and_air_before_the_window_the_day_s() -> None:
    k, room, sky = 64.0, 0.002, 0.5
    scene = np.full((240, 320, 3), room, np.float32)
    scene[:, 220:] = sky
    dark, bright = scene, np.minimum(k * scene, 1)
    share = pair.shade_of_pair(dark, bright, k, np.full(3, sky, np.float32))[..., 0]
    assert share.max() == pytest.approx(1, abs=1e-4) and (np.diff(share[36]) > -1e-6).all()
    assert share[36, 5] == pytest.approx(-np.expm1(-room / (pair.DARKEST * sky)), rel=0.01)
    light_of_bright, _ = pair.light_of_pair(bright, dark, np.full((240, 320), 8.0, np.float32))
    air = light_of_bright.air((240, 320), np.ones(3, np.float32), extinction=0.01, forward=0.9, focal=277.0)
    veil = 1 - np.exp(-0.01 * 8)
    assert air[120, 15].max() * veil < 0.25, "fog does not whiten the room in the bright frame"
    assert air[120, 300].min() * veil > 1


def test_a_grey_exposure_beside_one_in_colour_has_the_light_of_its_luminance() -> None:
    colour = generator(3).random((48, 64, 3), dtype=np.float32) * np.float32(0.2)
    for dark, bright in ((colour, 4 * color.luma(colour)[..., None]), (color.luma(colour)[..., None], 4 * colour)):
        for image, beside in ((dark, bright), (bright, dark)):
            found, full = pair.light_of_pair(image, beside, None)
            assert full.shape == image.shape and found.airlight.shape[-1] in (1, image.shape[2])
        assert pair.light_of_pair(bright, dark, None)[0].exposure == pytest.approx(4, rel=0.05)


def test_a_cover_of_clouds_changes_the_colour_and_keeps_the_level() -> None:
    image = np.full((60, 80, 3), 0.2, np.float32)
    image[:20] = 0.9, 0.6, 0.3
    depth = np.full((60, 80), np.inf, np.float32)
    depth[20:] = 20
    sunset = estimate.estimate_light(image, depth)
    grey = sunset.overcast(1.0)
    assert grey.airlight.mean() == pytest.approx(float(sunset.airlight.mean()), rel=1e-5)
    assert sunset.airlight[0] > 1.2 * sunset.airlight[2] and grey.airlight[0] < grey.airlight[2]


@pytest.mark.slow
def test_real_nights_are_nights_and_real_days_days() -> None:
    folder = (
        Path(os.environ.get("CLEARFUSE_SHARED", Path(__file__).resolve().parents[2].parent / "shared")) / "data/vif"
    )
    files = [*folder.glob("MSRS/*/vi/*.png"), *folder.glob("LLVIP/visible/*/*.jpg"), *folder.glob("M3FD/Vis/*.png")]
    if not files:
        pytest.skip(f"no pictures under {folder}")
    wrong: list[str] = []
    for file in files:
        at_night = file.stem.endswith("N") or "LLVIP" in file.parts
        linear = color.code_to_linear(cv2.imread(str(file)))
        small = cv2.resize(linear, (96, 72), interpolation=cv2.INTER_AREA)
        found = estimate.darkness(color.luma(np.ascontiguousarray(small[..., ::-1])))
        if (found > 0.5) != at_night:
            wrong.append(f"{file.name}: {found:.2f}")
    assert not wrong

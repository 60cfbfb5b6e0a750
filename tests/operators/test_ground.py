"""The ground: its plane in the depth, the optics of water on it, and snow."""

from __future__ import annotations

import math

import numpy as np
import pytest

from clearfuse.synth.operators.base import Scene
from clearfuse.synth.operators.physics import ground
from clearfuse.synth.operators.physics.particles import focal_length
from clearfuse.synth.operators.weather import Rain, Snow
from clearfuse.synth.seeds import generator


def plane_depth(height: float, pitch: float, roll: float = 0.0, size: tuple[int, int] = (120, 160)) -> np.ndarray:
    """Metres along the ray to a ground ``height`` metres below a camera that looks down by ``pitch`` degrees."""
    h, w = size
    focal = focal_length(w, 60.0)
    x, y = np.meshgrid((np.arange(w) - (w - 1) / 2) / focal, (np.arange(h) - (h - 1) / 2) / focal)
    down = np.array([math.sin(roll), math.cos(roll) * math.cos(math.radians(pitch)), math.sin(math.radians(pitch))])
    down /= np.linalg.norm(down)
    reach = x * down[0] + y * down[1] + down[2]
    with np.errstate(divide="ignore"):
        depth = np.where(reach > 0, height / reach * np.sqrt(1 + x * x + y * y), np.inf)
    return np.where(depth > 500, np.inf, depth).astype(np.float32)


@pytest.mark.parametrize(("height", "pitch", "roll"), [(1.5, 0.0, 0.0), (1.2, 8.0, 0.05), (8.0, 40.0, -0.1)])
def test_a_plane_is_found_exactly_despite_what_stands_on_it(height: float, pitch: float, roll: float) -> None:
    depth = plane_depth(height, pitch, roll)
    depth[60:110, 20:50] = 4.0
    found = ground.find_ground(Scene("visible", depth))
    assert found is not None
    assert found.height == pytest.approx(height, rel=0.02)
    tilt = math.degrees(
        math.acos(
            min(
                -found.normal
                @ [math.sin(roll), math.cos(math.radians(pitch)) * math.cos(roll), math.sin(math.radians(pitch))],
                1.0,
            )
        )
    )
    assert tilt < 1.5
    assert found.share[112:, 60:].mean() > 0.95
    assert found.share[70:100, 25:45].mean() < 0.2
    assert found.share[:20].max() < 0.05 or pitch > 20


def test_a_wall_is_no_ground() -> None:
    assert ground.find_ground(Scene("visible", np.full((60, 80), 5.0, np.float32))) is None
    assert ground.find_ground(Scene("visible", np.full((60, 80), np.inf, np.float32))) is None


def test_water_reflects_as_fresnel_says_and_darkens_what_it_covers() -> None:
    ends = ground.fresnel(np.float32([1.0, 0.0]))
    np.testing.assert_allclose(ends, [((1.33 - 1) / 2.33) ** 2, 1.0], rtol=1e-5)
    brewster = math.cos(math.atan(1.33))
    inside = math.sqrt(1 - (1 - brewster**2) / 1.33**2)
    s = (brewster - 1.33 * inside) / (brewster + 1.33 * inside)
    assert ground.fresnel(np.float32([brewster]))[0] == pytest.approx(0.5 * s * s, rel=1e-4)
    albedo = ground.wet_albedo(np.float32([1e-6, 0.1, 1.0]))
    np.testing.assert_allclose(albedo, [1e-6 / 1.7689, 0.1 / (1.7689 * 0.9 + 0.1), 1.0], rtol=1e-5)


def street(h: int = 120, w: int = 160) -> tuple[np.ndarray, Scene]:
    depth = plane_depth(1.5, 0.0, size=(h, w))
    image = np.full((h, w, 3), 0.1, np.float32)
    image[np.isinf(depth)] = 0.6
    return image, Scene("visible", depth)


def test_a_wet_road_is_darker_near_by_and_mirrors_the_sky_far_away() -> None:
    image, scene = street()
    plane = ground.find_ground(scene)
    assert plane is not None
    out = ground.wet(image, scene, plane, 1.0, 1.0, 0.4)
    even = ground.wet(np.full_like(image, 0.1), scene, plane, 1.0, 1.0, 0.4)
    assert even[-8:].mean() < 0.08
    assert out[64:68].mean() > 0.2
    np.testing.assert_array_equal(out[:40], image[:40])


def test_snow_lies_on_a_share_of_the_ground_alike_in_both_modalities() -> None:
    image, scene = street()
    plane = ground.find_ground(scene)
    assert plane is not None
    covers = [
        np.mean([ground.snow_share(image.shape[:2], plane, c, k / 12)[80:].mean() for k in range(12)])
        for c in (0.0, 0.3, 0.6, 1.0)
    ]
    np.testing.assert_allclose(covers, [0, 0.3, 0.6, 1.0], atol=0.12)
    assert (np.diff(covers) > 0).all()
    out = ground.snowy(image, plane, 0.5, 0.9, 0.2)
    share = ground.snow_share(image.shape[:2], plane, 0.5, 0.2)
    # Albedo 0.8 for 0.2.
    np.testing.assert_allclose(out[90:].mean(axis=2), 0.1 + 0.3 * share[90:], atol=0.03)
    np.testing.assert_array_equal(out[share == 0], image[share == 0])
    still = {"crowding": 2.0, "wetness": 0.5, "wind": 10.0, "exposure": 1 / 200, "ir_ratio": 1.0}
    warm = np.full((120, 160, 1), 0.5, np.float32)
    warm[:60] = 0.2
    seen = [
        Snow(rate=0.5, snow_cover=cover, field=0.2, **still)(warm, generator(1), Scene("infrared", scene.depth))
        for cover in (0.0, 0.5)
    ]
    colder = (seen[0] - seen[1])[..., 0]
    assert colder[share > 0.7].min() > 3 * max(float(np.abs(colder[share == 0]).max()), 0.01)


def test_signs_of_weather_are_off_unless_a_recipe_sets_them() -> None:
    for cls, names in ((Rain, ("cool_sky", "wet_ground")), (Snow, ("cool_sky", "snow_cover"))):
        for severity in (0.0, 1.0):
            drawn = cls.draw(generator(3), severity).params()
            assert all(drawn[name] == 0 for name in names)

"""Ghosting: objects are displaced by the drawn vector, and the background they uncover is filled."""

from __future__ import annotations

import numpy as np
import pytest

from clearfuse.synth import color
from clearfuse.synth.operators.base import Scene
from clearfuse.synth.operators.ghosting import (
    EDGE,
    Ghosting,
    best_offset,
    is_compact,
    mirrored_indices,
    near_objects,
    outlined,
    paste_patch,
    segments,
)
from clearfuse.synth.seeds import generator


def field(h: int = 240, w: int = 320) -> tuple[np.ndarray, np.ndarray]:
    """A uniform wall at 20 m with a red board at 3 m in front of it."""
    image = np.full((h, w, 3), 0.4, np.float32)
    depth = np.full((h, w), 20.0, np.float32)
    image[100:170, 120:180] = (0.8, 0.1, 0.1)
    depth[100:170, 120:180] = 3.0
    return image, depth


def red(image: np.ndarray) -> tuple[float, float, float]:
    """Mass and centre (x, y) of the red pixels."""
    mass = np.maximum(image[..., 0] - image[..., 1], 0)
    y, x = np.indices(mass.shape)
    return float(mass.sum()), float((x * mass).sum() / mass.sum()), float((y * mass).sum() / mass.sum())


@pytest.mark.parametrize("seed", range(5))
def test_a_near_object_moves_as_a_whole_and_leaves_no_rim(seed: int) -> None:
    image, depth = field()
    out = Ghosting(displacement=0.05, size=0.1, regions=2)(image, generator(seed), Scene("visible", depth))
    (mass, x, y), (moved, to_x, to_y) = red(image), red(out)
    assert moved == pytest.approx(mass, rel=0.05)
    assert 0.7 * 16 - 1 <= np.hypot(to_x - x, to_y - y) <= 1.3 * 16 + 1
    assert abs(to_x - x) > abs(to_y - y), "mostly across the frame"
    # Everything that is not red is wall: the old place is filled.
    left = round(to_x - x)
    rim = out[95:175, 115 : 120 + left - 4] if left > 0 else out[95:175, 180 + left + 4 : 185]
    np.testing.assert_allclose(rim, 0.4, atol=0.08)
    assert np.abs(rim - 0.4).mean() < 0.005


def test_severity_moves_the_same_object_farther_in_the_same_direction() -> None:
    image, depth = field()
    places = [
        red(Ghosting(displacement=d, size=0.1, regions=1)(image, generator(3), Scene("visible", depth)))[1]
        for d in (0.0, 0.02, 0.04, 0.08)
    ]
    steps = np.diff(places)
    assert (steps > 0).all() or (steps < 0).all()


def boards(h: int = 240, w: int = 320) -> np.ndarray:
    """A textured wall with four boards of different brightness, and a half of the frame that is brighter."""
    image = 0.4 + 0.02 * generator(1).random((h, w, 3), dtype=np.float32)
    for number, (top, left) in enumerate(((30, 40), (60, 220), (150, 60), (160, 230))):
        image[top : top + 36, left : left + 28] = 0.05 + 0.03 * number if number % 2 else 0.9 - 0.04 * number
    return image


@pytest.mark.parametrize("seed", range(4))
def test_without_depth_a_connected_region_moves_as_a_whole(seed: int) -> None:
    image = boards()
    out = Ghosting(displacement=0.04, size=0.08, regions=1)(image, generator(seed), Scene())
    changed = (out != image).any(axis=2)
    assert 0.005 < changed.mean() < 0.05
    bright, dark = ((luminance > 0.6).sum() + (luminance < 0.25).sum() for luminance in (image.mean(2), out.mean(2)))
    assert dark == pytest.approx(bright, rel=0.02), "as much of the boards as before: none is torn"


def test_segments_end_at_edges_all_around_and_do_not_overlap() -> None:
    guide = np.sqrt(boards()).mean(2)
    found = segments(guide, None, 3000)
    assert len(found) == 4
    assert np.add.reduce([mask.astype(int) for mask in found]).max() == 1
    for mask in found:
        assert mask.sum() == pytest.approx(36 * 28, rel=0.08) and is_compact(mask)
        assert outlined(mask, guide) > EDGE
    shifted = np.roll(found[0], 14, axis=1)
    assert outlined(shifted, guide) < EDGE, "a piece of the wall belongs to no object"
    assert segments(guide, None, 3) == []


def test_a_ring_of_spokes_is_not_compact() -> None:
    star = np.zeros((80, 80), bool)
    star[38:42] = star[:, 38:42] = True
    assert not is_compact(star)
    star[20:60, 20:60] = True
    assert is_compact(star[20:60, 20:60])


def test_where_nothing_could_move_nothing_does_and_the_step_is_not_drawn() -> None:
    ranges = Ghosting.ranges()
    noise = generator(1).random((240, 320, 3), dtype=np.float32)
    op = Ghosting(displacement=0.04, size=0.08, regions=3)
    np.testing.assert_array_equal(op(noise, generator(2), Scene()), noise)
    assert Ghosting.fit(ranges, color.to_uint8(noise), Scene()) is None
    assert Ghosting.fit(ranges, color.to_uint8(color.linear_to_srgb(boards())), Scene()) is ranges


def test_more_regions_add_to_the_first_and_consume_the_generator_alike() -> None:
    image = boards()
    left, changed = [], []
    for regions, displacement in ((1, 0.03), (2, 0.03), (3, 0.03), (3, 0.0)):
        rng = generator(7)
        out = Ghosting(displacement=displacement, size=0.08, regions=regions)(image, rng, Scene())
        left.append(rng.random())
        changed.append(float((out != image).any(axis=2).mean()))
    assert len(set(left)) == 1
    assert 0 == changed[3] < changed[0] < changed[1] < changed[2]


def test_a_constant_image_stays_constant() -> None:
    image, (_, depth) = np.full((240, 320, 3), 0.6, np.float32), field()
    for seed in range(4):
        for known in (None, depth):
            out = Ghosting(displacement=0.06, size=0.12, regions=3)(image, generator(seed), Scene("visible", known))
            np.testing.assert_allclose(out, 0.6, atol=1e-5)


def test_near_objects_are_what_stands_out_and_not_the_ground() -> None:
    rows = np.linspace(0.02, 1, 240, dtype=np.float32)
    ground = np.tile((rows / 1.6)[:, None], (1, 320))
    assert near_objects(ground) == []
    ground[80:200, 150:180] = ground[200, 0]
    (found,) = near_objects(ground)
    assert found[85:195, 152:178].all()
    assert found.sum() < 1.7 * 120 * 30


def test_a_patch_has_similar_surroundings_and_avoids_the_moving_objects() -> None:
    picture = np.zeros((100, 200, 1), np.float32)
    picture[50:] = 1.0  # two bands: similar only along them
    uncovered = np.zeros((100, 200), bool)
    uncovered[40:60, 90:96] = True
    excluded = uncovered.copy()
    excluded[40:60, 96:130] = True
    dx, dy = best_offset(picture, uncovered, excluded, 6.0)
    assert dy == 0
    assert dx < -6


def test_a_fill_meets_its_surroundings() -> None:
    under, beside = np.full((40, 40, 1), 0.36, np.float32), np.full((40, 40, 1), 0.40, np.float32)
    y, x = np.mgrid[-20:20, -20:20]
    cover = (np.hypot(y, x) < 10).astype(np.float32)
    np.testing.assert_allclose(paste_patch(under, beside, cover), 0.36, atol=1e-4)


def test_indices_are_mirrored_about_the_border_pixels() -> None:
    assert mirrored_indices(-3, 8, 5).tolist() == [3, 2, 1, 0, 1, 2, 3, 4, 3, 2, 1]
    assert mirrored_indices(-2, 2, 1).tolist() == [0, 0, 0, 0]

"""Registration against warps that are known: of built-in scenes, and of real pairs of two spectra and of two foci."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from clearfuse.synth.color import as_hwc
from clearfuse.synth.datasets.read import as_grey, read_image
from clearfuse.synth.scenes import scene_pair
from clearfuse.synth.types import BadPair, Task
from clearfuse.train.pipeline.pictures.register import Warp, covered, find_warp, size_change, warped
from conftest import Ran, save, textured


def moved(image: np.ndarray, angle: float, scale: float, right: float, down: float) -> tuple[np.ndarray, np.ndarray]:
    """A picture warped, and the matrix from the pixels of the first to those of the warped one."""
    height, width = image.shape[:2]
    matrix = np.vstack([cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), angle, scale), [0, 0, 1]])
    matrix[:2, 2] += right, down
    return as_hwc(cv2.warpPerspective(image, matrix, (width, height), flags=cv2.INTER_LINEAR)), matrix


def error(found: np.ndarray, true: np.ndarray, shape: tuple[int, ...]) -> float:
    """Mean distance in pixels over the picture."""
    height, width = shape[:2]
    points = np.array([[(x, y) for x in np.linspace(0, width - 1, 7) for y in np.linspace(0, height - 1, 7)]])
    both = [cv2.perspectiveTransform(points, matrix) for matrix in (found, true)]
    return float(np.linalg.norm(both[0] - both[1], axis=2).mean())


@pytest.mark.parametrize(("task", "most"), [("vif", 2.0), ("mef", 1.0), ("mff", 1.0)])
def test_known_warps_of_scenes(task: Task, most: float) -> None:
    """Rotation, scale and shift at once; and the pair that lies right already is left as it is, to a pixel."""
    pair = scene_pair(task, 3, (320, 240))
    second, matrix = moved(pair.b, 4, 1.06, 11, -7)
    found = find_warp(pair.a, second)
    assert error(found.matrix, matrix, pair.a.shape) < most and 10 < found.shift < 40
    back = warped(pair.a, second, found)
    inside = covered(pair.a.shape, second.shape, found) == 1
    assert back.shape == pair.b.shape and inside.mean() > 0.7
    before, after = (np.abs(x.astype(int) - pair.b)[inside].mean() for x in (second, back))
    assert after < before / 2
    assert find_warp(pair.a, pair.b).shift < 1.0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folders", "names", "most"),
    [
        (("vif/RoadScene/crop_LR_visible", "vif/RoadScene/cropinfrared"), ("FLIR_00211.jpg", "FLIR_01022.jpg"), 1.5),
        (("mff/Lytro", "mff/Lytro"), ("lytro-01-A.jpg", "lytro-02-A.jpg"), 1.5),
        (("mef/SICE_over_under/over", "mef/SICE_over_under/under"), ("001.png", "004.png"), 1.5),
    ],
    ids=["two spectra", "two foci", "two exposures"],
)
def test_known_warps_of_real_pairs(shared: Path, folders: tuple[str, str], names: tuple[str, ...], most: float) -> None:
    """Against the warp on top of what the pair, which was registered by others, itself is found to need."""
    for name in names:
        a, b = (
            read_image(str(shared / "data" / folder / other))[0]
            for folder, other in zip(folders, (name, name.replace("-A", "-B")), strict=True)
        )
        b = as_grey(b) if "infrared" in folders[1] else b
        second, matrix = moved(b, -3, 0.95, 14, 9)
        own = find_warp(a, b)
        assert error(find_warp(a, second).matrix, matrix @ own.matrix, a.shape) < most
        assert own.shift < 4


def test_sizes_that_differ() -> None:
    """A smaller picture of the same view: the warp is the change of size, to the convention of pixel centres."""
    pair = scene_pair("mff", 5, (320, 240))
    small = cv2.resize(pair.b, (160, 120), interpolation=cv2.INTER_AREA)
    found = find_warp(pair.a, small)
    assert error(found.matrix, size_change(pair.a.shape, small.shape), pair.a.shape) < 0.5
    assert np.allclose(size_change((10, 20), (5, 10)) @ [0, 0, 1], [-0.25, -0.25, 1])
    again = warped(pair.a, small, found)
    assert np.abs(again.astype(int) - pair.b).mean() < 6 and again.dtype == np.uint8


def test_where_the_second_shows_nothing_it_is_the_first() -> None:
    a, b = textured(1, 90, 60), textured(2, 90, 60, 1)
    warp = Warp(np.array([[1.0, 0, 40], [0, 1, 0], [0, 0, 1]]), 0.5, 40)
    laid = warped(a, b, warp)
    np.testing.assert_array_equal(laid[:, :34], b[:, 40:74])
    np.testing.assert_array_equal(laid[:, 52:], as_grey(a)[:, 52:])
    deep = warped(a / np.float32(255), b / np.float32(255), warp)
    assert deep.dtype == np.float32 and np.abs(deep * 255 - laid).max() < 1


def test_pictures_of_other_things_are_not_laid_over_each_other() -> None:
    with pytest.raises(BadPair, match="cannot be registered: no warp lays the edges"):
        find_warp(np.random.default_rng(1).integers(0, 255, (96, 128, 3), np.uint8), scene_pair("mff", 1, (128, 96)).a)


@pytest.mark.slow
def test_from_the_command_line(train: Callable[..., Ran], tmp_path: Path) -> None:
    """Refused by the size, said where a pair seems displaced, warped on demand; a video has one warp."""
    pair = scene_pair("mff", 3, (320, 240))
    second = moved(pair.b, 0, 1, 12, 8)[0]
    for number in "12":
        save(tmp_path / f"a/{number}.png", pair.a)
        save(tmp_path / f"b/{number}.png", second)
    small = save(tmp_path / "small.png", cv2.resize(pair.b, (200, 150), interpolation=cv2.INTER_AREA))
    one = (tmp_path / "a/1.png", small, "-o", tmp_path / "o.png", "--task", "mff")
    ran = train("fuse", *one)
    assert ran.code == 2 and "differ in size: 320x240 and 200x150; --register lays one over the other" in ran.error
    ran = train("fuse", *one, "--register")
    assert ran.code == 0 and read_image(str(tmp_path / "o.png"))[0].shape == (240, 320, 3), ran.err
    folders = (tmp_path / "a", tmp_path / "b", "-o", tmp_path / "o", "--task", "mff")
    ran = train("fuse", *folders)
    assert ran.code == 0 and "not registered, as it seems: 2, such as 1.png (by 1" in ran.err, ran.err
    ran = train("fuse", *folders, "--register", "--frames")
    assert ran.code == 0 and "registered: 2 warped, by 14." in ran.err, ran.err

"""Properties of every fuser in the table."""

from __future__ import annotations

import numpy as np
import pytest

from clearfuse.synth.fusers import FUSERS, fuser_help
from clearfuse.synth.fusers.choice import PAPER, checkpoint_of
from clearfuse.synth.fusers.weights import WEIGHTS
from clearfuse.synth.types import TASKS, Task

# Networks depend on their weights; their properties are tested in tests/fusers.
CASES = [(name, task) for name in FUSERS for task in TASKS if checkpoint_of(name, task) is None]
SIZES = [(1, 1), (1, 5), (4, 1), (2, 2), (3, 7), (17, 33), (64, 48), (101, 75)]


def picture(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Smooth shapes and some noise: neither flat nor white noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / rng.uniform(3, 9) + c) + np.cos(y / rng.uniform(3, 9)) for c in range(channels)]
    return np.clip(128 + 50 * np.stack(waves, axis=2) + rng.normal(0, 8, (height, width, channels)), 0, 255).astype(
        np.uint8
    )


def test_every_fuser_is_described() -> None:
    assert set(FUSERS) <= set(fuser_help()) and {"auto", "dataset", "paper"} <= set(fuser_help())


def test_every_checkpoint_is_of_a_fuser_and_has_weights_to_get() -> None:
    names = {checkpoint_of(name, task) for name in FUSERS for task in TASKS} - {None}
    assert names == set(WEIGHTS) and all(PAPER[task] in FUSERS for task in TASKS)


@pytest.mark.parametrize(("name", "task"), CASES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [(1, 1), (1, 3), (3, 1), (3, 3)])
def test_shape_type_and_purity(name: str, task: Task, size: tuple[int, int], channels: tuple[int, int]) -> None:
    a, b = picture(*size, channels[0], 1), picture(*size, channels[1], 2)
    kept = a.copy(), b.copy()
    fused = FUSERS[name]()(a, b, task)
    assert fused.shape == (*size, max(channels)) and fused.dtype == np.uint8
    assert np.array_equal(a, kept[0]) and np.array_equal(b, kept[1])
    assert np.array_equal(fused, FUSERS[name]()(a, b, task))


@pytest.mark.parametrize(("name", "task"), CASES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 3])
def test_two_like_images_give_that_image(name: str, task: Task, size: tuple[int, int], channels: int) -> None:
    image = picture(*size, channels, 3)
    fused = FUSERS[name]()(image, image.copy(), task)
    assert np.abs(fused.astype(int) - image).max() <= 2


@pytest.mark.parametrize(("name", "task"), CASES)
@pytest.mark.parametrize("codes", [(0, 0), (255, 255), (0, 255), (255, 0), (90, 160)])
def test_constant_images_stay_constant_and_between(name: str, task: Task, codes: tuple[int, int]) -> None:
    a, b = (np.full((40, 56, 3), code, np.uint8) for code in codes)
    fused = FUSERS[name]()(a, b, task)
    assert int(fused.max()) - int(fused.min()) <= 1
    assert min(codes) - 1 <= fused.min() and fused.max() <= max(codes) + 1


@pytest.mark.parametrize(("name", "task"), CASES)
def test_strided_inputs_are_taken(name: str, task: Task) -> None:
    a, b = picture(40, 48, 3, 1), picture(40, 48, 3, 2)
    flipped = FUSERS[name]()(a[:, ::-1, ::-1], b[:, ::-1, ::-1], task)
    copied = FUSERS[name]()(np.ascontiguousarray(a[:, ::-1, ::-1]), np.ascontiguousarray(b[:, ::-1, ::-1]), task)
    assert np.array_equal(flipped, copied)

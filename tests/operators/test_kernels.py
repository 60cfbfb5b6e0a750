"""The compiled loops agree with their Python code, and work without a writable cache folder."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clearfuse.synth.operators import kernels
from clearfuse.synth.seeds import generator

FRAME = (12, 21)


def uniform(*shape: int) -> np.ndarray:
    return generator(7).random(shape, dtype=np.float32)


def placed(*ranges: tuple[float, float]) -> np.ndarray:
    """Particles: a row per attribute, uniform between its bounds; some extend beyond the frame."""
    low, high = np.array(ranges, np.float32).T[..., None]
    return low + (high - low) * uniform(len(ranges), 25)


POSITION = ((-3.0, 24.0), (-3.0, 15.0), (1.0, 9.0))
CALLS: list[tuple[Callable[..., None], tuple[Any, ...], tuple[int, ...]]] = [
    (kernels.clamp, (uniform(*FRAME) * 9, 1.0, 8.0), FRAME),
    (kernels.unpack, (np.arange(24, dtype=np.uint16) * 2700,), (6, 4)),
    (kernels.shrink, (uniform(13, 9, 3),), (5, 2, 3)),
    (
        kernels.add_streaks,
        (uniform(24, 21) * 10, uniform(12) * 5, 2, placed(*POSITION, (2, 30), (-1, 1), (1, 12), (0, 1))),
        FRAME,
    ),
    *(
        (
            kernels.through_particles,
            (uniform(12, 63), uniform(*FRAME), 2.0, 0.1, 0.9, uniform(4, 21), 3, uniform(1, 3), uniform(n, 3 * width)),
            (12, 63),
        )
        for n, width in ((1, 1), (12, 21))
    ),
    (kernels.add_spots, (uniform(*FRAME) * 10, placed(*POSITION, (1, 4), (1, 4), (0, 1))), FRAME),
    (
        kernels.add_flakes,
        (uniform(*FRAME) * 10, uniform(3, 9, 9), 0.4, placed(*POSITION, (2, 6), (0, 4), (0, 1), (0, 1), (0, 2.9))),
        FRAME,
    ),
]  # fmt: skip


def run(function: Callable[..., None], arguments: tuple[Any, ...], shape: tuple[int, ...]) -> np.ndarray:
    """The function's result on a black output image of that shape, whose position among the arguments varies."""
    out = np.zeros(shape, np.float32)
    names = list(inspect.signature(function).parameters)
    at = names.index("total" if "total" in names else "cells" if "cells" in names else "out")
    function(*arguments[:at], out, *arguments[at:])
    return out


@pytest.mark.parametrize(
    ("kernel", "arguments", "shape"), CALLS, ids=[f"{call[0].__name__}-{k}" for k, call in enumerate(CALLS)]
)
def test_compiled_and_read_as_python_they_agree(
    kernel: Callable[..., None], arguments: tuple[Any, ...], shape: tuple[int, ...]
) -> None:
    out = run(kernel, arguments, shape)
    assert out.any()
    np.testing.assert_allclose(out, run(inspect.unwrap(kernel), arguments, shape), rtol=1e-4, atol=1e-6)


def test_uniform_draws_are_the_middles_of_their_steps() -> None:
    words, out = np.uint16([0, 1, 65535, 2, 3, 4]), np.zeros((3, 2), np.float32)
    kernels.unpack(words, out)
    np.testing.assert_array_equal(out.T.ravel() * 65536, words + np.float32(0.5))


def test_a_small_image_holds_the_means_of_its_cells() -> None:
    y, x = np.mgrid[0:96, 0:128].astype(np.float32)
    image, small = np.dstack([y / 96, x / 128]), np.zeros((12, 16, 2), np.float32)
    kernels.shrink(image, small)
    exact = image.reshape(12, 8, 16, 8, 2).mean(axis=(1, 3))
    assert np.abs(small - exact).max() < 1 / 96  # samples are up to a pixel off the centre of a cell


def test_what_is_not_a_number_is_the_lowest() -> None:
    values, out = np.float32([[np.nan, -1.0, 0.5, np.inf]]), np.zeros((1, 4), np.float32)
    kernels.clamp(values, 0.25, 2.0, out)
    assert out.tolist() == [[0.25, 0.25, 0.5, 2.0]]


@pytest.mark.slow
def test_they_work_where_nothing_can_be_written(tmp_path: Path) -> None:
    """Without any writable cache folder: compiled in each process."""
    code = "\n".join([
        "import numba.core.caching as caching",
        "for locator in caching.CacheImpl._locator_classes: locator.from_function = classmethod(lambda *a: None)",
        "import numpy as np",
        "from clearfuse.synth.operators import kernels",
        "out = np.zeros((1, 2), np.float32)",
        "kernels.clamp(np.float32([[1, 5]]), 2.0, 4.0, out)",
        "assert out.tolist() == [[2.0, 4.0]]",
    ])  # fmt: skip
    subprocess.run([sys.executable, "-c", code], check=True)

"""``--task auto``: what a pair is, by its pictures, degraded ones too."""

from __future__ import annotations

import numpy as np
import pytest

from clearfuse.synth.color import is_grey
from clearfuse.synth.samples.chain import degrade
from clearfuse.synth.scenes import scene_pair
from clearfuse.synth.types import TASKS, Task
from clearfuse.train.pipeline.task import FoundTask, find_task


@pytest.mark.parametrize("task", TASKS)
def test_built_in_pairs_are_told_apart(task: Task) -> None:
    for seed in range(3):
        scene = scene_pair(task, seed)
        found = find_task(scene.a, scene.b)
        assert (found.task, found.swapped) == (task, False)
        a = degrade(scene.a, ["gaussian_blur", "gaussian_noise"], severity=0.5, seed=1)
        assert find_task(a, scene.b).task == task
        if task != "mff":
            assert find_task(scene.b, scene.a).swapped


def test_the_reason_is_in_words() -> None:
    rng = np.random.default_rng(0)
    a = rng.integers(40, 120, (64, 64, 3), dtype=np.uint8)
    assert find_task(a, a).why == "both have the same brightness (rank correlation 1.00, 0.0 EV apart)"
    assert find_task(a[..., :1], a) == FoundTask("vif", "one picture is in colour, the other grey", True)
    assert find_task(a, 255 - a).task == "vif"
    found = find_task(a, 2 * a)
    assert found.task == "mef" and found.why.startswith("the exposures differ by 2.")


def test_grey_is_without_colour() -> None:
    grey = np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, 2)
    assert is_grey(grey) and is_grey(grey[..., :1])
    tinted = grey.copy()
    tinted[0, :8, 0] ^= 64
    assert not is_grey(tinted)

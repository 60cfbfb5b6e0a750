"""Every operator's ends on built-in scenes: severity 0 is visible, severity 1 leaves the picture recognisable."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import pytest

from clearfuse.synth import color
from clearfuse.synth.operators import OPERATORS
from clearfuse.synth.operators.base import Scene
from clearfuse.synth.samples.chain import run_chain
from clearfuse.synth.samples.structure import LOST, gradient_correlation
from clearfuse.synth.scenes import scene_pair
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.types import Modality

VISIBLE = 38.0
"""PSNR in dB at which a viewer still sees a difference side by side."""
MOVED = {"misregistration"}
"""What moves the picture keeps its structure, elsewhere: its gradients do not correlate with the clean ones."""


@lru_cache(maxsize=2)
def pictures(modality: Modality) -> list[tuple[np.ndarray, np.ndarray]]:
    """A few clean pictures with their metres, as a build with one pair a task has them."""
    if modality == "infrared":
        pairs = [scene_pair("vif", seed) for seed in (1, 2, 4)]
        return [(np.ascontiguousarray(pair.b[..., :1]), pair.depth) for pair in pairs]
    pairs = [scene_pair("vif", 1), scene_pair("mff", 2), scene_pair("vif", 4)]
    return [(pair.a, pair.depth) for pair in pairs]


def at_severity(name: str, severity: float) -> list[tuple[float, float]]:
    """PSNR and gradient correlation on each picture, with the ranges fitted to it as in a plan."""
    cls = OPERATORS[name]
    modality: Modality = "visible" if "visible" in cls.modalities else "infrared"
    found: list[tuple[float, float]] = []
    for number, (image, depth) in enumerate(pictures(modality)):
        scene = Scene(modality, depth)
        ranges = cls.fit(cls.ranges(), image, scene)
        if ranges is None:
            continue
        op = cls.draw(generator(seed_of("ends", name, number)), severity, ranges)
        out = color.to_uint8(run_chain(image, [(op, generator(number))], scene))
        found.append((cv2.PSNR(image, out), gradient_correlation(image, out)))
    assert found, f"{name} acts on none of the pictures"
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATORS)
def test_the_mild_end_is_visible(name: str) -> None:
    assert np.median([psnr for psnr, _ in at_severity(name, 0.0)]) <= VISIBLE


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OPERATORS if name not in MOVED])
def test_the_strong_end_leaves_the_structure(name: str) -> None:
    assert min(kept for _, kept in at_severity(name, 1.0)) >= LOST

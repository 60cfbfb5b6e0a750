"""Every operator's ends: severity 0 is visible, severity 1 leaves the picture recognisable.

On built-in scenes, and on real pictures where they are on this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from clearfuse.synth import color
from clearfuse.synth.depth.prior import prior
from clearfuse.synth.operators import OPERATORS
from clearfuse.synth.operators.base import Scene
from clearfuse.synth.samples.chain import run_chain
from clearfuse.synth.samples.structure import LOST, gradient_correlation
from clearfuse.synth.scenes import scene_pair
from clearfuse.synth.seeds import generator, seed_of
from clearfuse.synth.types import Modality

pytestmark = pytest.mark.slow

VISIBLE = 38.0
"""PSNR in dB at which a viewer still sees a difference side by side."""
MOVED = {"misregistration"}
"""What moves the picture keeps its structure, elsewhere: its gradients do not correlate with the clean ones."""

Pictures = Sequence[tuple[np.ndarray, np.ndarray]]
"""Clean pictures with their metres."""

# Weather is one event for a pair, whose infrared picture may see through it: the visible one decides.
CASES = [
    (name, modality)
    for name, cls in OPERATORS.items()
    for modality in sorted(cls.modalities)
    if not (cls.event and modality == "infrared")
]


@lru_cache(maxsize=2)
def scenes(modality: Modality) -> Pictures:
    """A few scenes, as a build with one pair a task has them."""
    if modality == "infrared":
        pairs = [scene_pair("vif", seed) for seed in (1, 2, 4)]
        return [(np.ascontiguousarray(pair.b[..., :1]), pair.depth) for pair in pairs]
    pairs = [scene_pair("mff", 2), *(scene_pair("vif", seed) for seed in (1, 4, 5, 6))]
    return [(pair.a, pair.depth) for pair in pairs]


@lru_cache(maxsize=2)
def photographs(shared: Path, modality: Modality) -> Pictures:
    """Twenty real pictures, by day and by night, with a guess of their depth."""
    folders = (("MSRS/*/vi", "ir", 8), ("RoadScene/crop_LR_visible", "cropinfrared", 7), ("VIFB/input/VI", "IR", 5))
    out: list[tuple[np.ndarray, np.ndarray]] = []
    for visible, infrared, count in folders:
        found = sorted((shared / "data/vif").glob(f"{visible}/*"))
        for at in np.unique(np.linspace(0, len(found) - 1, count).round().astype(int)) if found else ():
            seen = cv2.imread(str(found[at]), cv2.IMREAD_COLOR_RGB)
            thermal = cv2.imread(str(found[at].parents[1] / infrared / found[at].name), cv2.IMREAD_GRAYSCALE)
            if seen is not None and thermal is not None and seen.shape[:2] == thermal.shape:
                out.append((seen if modality == "visible" else thermal[..., None], prior(seen)))
    if not out:
        pytest.skip(f"no pictures under {shared / 'data/vif'}")
    return out


def at_severity(name: str, modality: Modality, severity: float, pictures: Pictures) -> list[tuple[float, float]]:
    """PSNR and gradient correlation on each picture, with the ranges fitted to it as in a plan."""
    cls = OPERATORS[name]
    found: list[tuple[float, float]] = []
    for number, (image, depth) in enumerate(pictures):
        scene = Scene(modality, depth)
        ranges = cls.fit(cls.ranges(), image, scene)
        if ranges is None:
            continue
        op = cls.draw(generator(seed_of("ends", name, number)), severity, ranges)
        out = color.to_uint8(run_chain(image, [(op, generator(number))], scene))
        found.append((cv2.PSNR(image, out), gradient_correlation(image, out)))
    assert found, f"{name} acts on none of the pictures"
    return found


def check_ends(name: str, modality: Modality, pictures: Pictures) -> None:
    assert np.median([psnr for psnr, _ in at_severity(name, modality, 0.0, pictures)]) <= VISIBLE
    if name not in MOVED:
        assert min(kept for _, kept in at_severity(name, modality, 1.0, pictures)) >= LOST


@pytest.mark.parametrize("name", OPERATORS)
def test_on_scenes_the_mild_end_is_visible_and_the_strong_end_leaves_the_structure(name: str) -> None:
    modality: Modality = "visible" if "visible" in OPERATORS[name].modalities else "infrared"
    check_ends(name, modality, scenes(modality))


@pytest.mark.parametrize(("name", "modality"), CASES)
def test_on_photographs_too(name: str, modality: Modality, shared: Path) -> None:
    check_ends(name, modality, photographs(shared, modality))

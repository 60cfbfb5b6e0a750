"""The small depth network that comes with the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from realmaps import SETS, real_maps

from clearfuse.synth.builder.run import build
from clearfuse.synth.depth import small
from clearfuse.synth.depth.base import DepthInput
from clearfuse.synth.depth.metres import USUAL_FAR, quantise
from clearfuse.synth.depth.network import SmallDepthNet
from clearfuse.synth.depth.prior import prior
from clearfuse.synth.depth.small import SmallDepth, guess
from clearfuse.synth.scenes import scene_pair


def estimate(image: np.ndarray, far: float = USUAL_FAR) -> np.ndarray:
    return SmallDepth.open("").estimate(DepthInput("k", image, None, far))


def picture(seed: int = 0, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    return cv2.GaussianBlur(noise, (0, 0), 3)


def test_the_weights_are_small_and_fit() -> None:
    assert small.WEIGHTS.stat().st_size <= 4_000_000
    network = small._network()
    assert all(torch.isfinite(value).all() for value in network.state_dict().values())
    assert not network.training and not any(value.requires_grad for value in network.parameters())


def test_untrained_it_says_what_is_guessed() -> None:
    """It adds to the guess, and starts from nothing."""
    torch.manual_seed(0)
    usual = torch.from_numpy(guess(np.zeros((96, 128), bool), 64, 96))[None]
    said = SmallDepthNet().eval()(torch.rand(1, 3, 64, 96), usual)
    torch.testing.assert_close(said, torch.nn.functional.avg_pool2d(usual[:, None], 2)[:, 0])


def test_the_guess_is_the_prior_in_its_unit() -> None:
    sky = np.zeros((96, 128), bool)
    sky[:30] = True
    t = guess(sky, 64, 96)
    assert (t[:18] == 0).all() and (np.diff(t[22:, 48]) >= 0).all()
    z = USUAL_FAR / small.REACH ** t[-1, 48]
    assert 2 < z < 5, "the ground at the feet"


def test_the_far_end_scales_it() -> None:
    known = [estimate(picture(), far) for far in (100.0, 200.0)]
    np.testing.assert_allclose(known[1] / known[0], 2, rtol=1e-5)


def test_the_threads_of_its_process_change_nothing() -> None:
    """The same bytes whatever the number of workers; torch's threads are given back as they were."""
    wanted, before = quantise(estimate(picture(1))), torch.get_num_threads()
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            assert np.array_equal(quantise(estimate(picture(1))), wanted)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_another_process_says_the_same(tmp_path: Path) -> None:
    np.save(tmp_path / "picture.npy", picture(2))
    code = f"""
import numpy as np
from clearfuse.synth.depth.base import DepthInput
from clearfuse.synth.depth.small import SmallDepth
image = np.load({str(tmp_path / "picture.npy")!r})
np.save({str(tmp_path / "metres.npy")!r}, SmallDepth.open("").estimate(DepthInput("k", image, None, 150.0)))
"""
    subprocess.run([sys.executable, "-c", code], check=True)
    assert np.array_equal(np.load(tmp_path / "metres.npy"), estimate(picture(2)))


@pytest.mark.slow
def test_a_build_is_the_same_bytes_whoever_makes_it(tmp_path: Path, msrs: Path) -> None:
    common = {"data": [f"msrs={msrs}"], "lean": True, "depth": "small", "shard_size": 2}
    build("vif", out=str(tmp_path / "one"), executor="serial", **common)
    build("vif", out=str(tmp_path / "two"), executor="processes", workers=2, **common)
    one, two = ([path.read_bytes() for path in sorted((tmp_path / at).glob("*.tar"))] for at in ("one", "two"))
    assert one == two and len(one) == 3


def test_two_frames_of_two_focus_distances_tell_it_the_sides() -> None:
    near = np.zeros((96, 128), bool)
    near[20:, 40:90] = True
    detail = np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.float32)
    soft = cv2.GaussianBlur(detail, (0, 0), 2.5)
    a, b = (np.where(side[..., None], detail, soft).astype(np.uint8) for side in (near, ~near))
    metres = SmallDepth.open("").estimate(DepthInput("k", detail.astype(np.uint8), None, USUAL_FAR, (a, b)))
    assert np.median(metres[50:80, 55:75]) <= 3.01 and np.median(metres[30:90, :20]) >= 7.9


def error(estimated: np.ndarray, metres: np.ndarray) -> float:
    known = np.isfinite(estimated) & np.isfinite(metres)
    return float(np.sqrt(np.mean(np.log(estimated[known] / metres[known]) ** 2)))


@pytest.mark.slow
def test_it_beats_the_prior_on_pictures_it_has_not_seen(shared: Path) -> None:
    """Over all sets by a tenth or so, and in none by far the other way: LLVIP's two places are about even."""
    found: dict[str, tuple[float, float]] = {}
    for name in SETS:
        pairs = [(error(estimate(image), m), error(prior(image), m)) for image, m in real_maps(shared, name, 8)]
        found[name] = float(np.mean([pair[0] for pair in pairs])), float(np.mean([pair[1] for pair in pairs]))
    assert np.mean([network / usual for network, usual in found.values()]) < 0.95
    assert all(network < 1.08 * usual for network, usual in found.values()), found


@pytest.mark.slow
def test_it_beats_the_prior_on_scenes_it_has_not_seen() -> None:
    found: list[tuple[float, float]] = []
    for seed in range(8):
        pair = scene_pair("vif", 910_000 + seed, (256, 192))
        found.append((error(estimate(pair.a), pair.depth), error(prior(pair.a), pair.depth)))
    network, usual = np.mean(found, axis=0)
    assert network < 0.85 * usual

"""DeFuse: official outputs, the image's means in tiles, order and colour of the inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clearfuse.synth import color
from clearfuse.synth.fusers import DeFuseFuser
from clearfuse.synth.fusers import learned as learned_module
from clearfuse.synth.fusers.defuse import DeFuse, SplitAttention, mean
from clearfuse.synth.fusers.learned import Tiling
from clearfuse.synth.types import Task
from fusers.official import entries, made, published, vectors
from fusers.test_swinfusion import codes, smooth


@pytest.fixture(scope="module")
def network() -> DeFuse:
    return made(DeFuse())


def test_names_and_shapes_are_the_official_ones(shared: Path) -> None:
    assert entries(DeFuse()) == published(shared / "conformance", "defuse")


def test_numbers_are_the_official_ones(shared: Path, network: DeFuse) -> None:
    known = vectors(shared / "conformance", "defuse")
    with torch.inference_mode():
        found = network(known["a"], known["b"])
    for name, output in zip(("common", "upper", "lower", "fused"), found, strict=True):
        assert (output - known[name]).abs().max() <= 1e-4, name


def test_the_parameters_are_as_many_as_published() -> None:
    network = DeFuse()
    assert sum(p.numel() for p in network.parameters()) == 7_874_473
    assert network.decoder_lower_layer1 is network.decoder_upper_layer1


@pytest.mark.slow
def test_the_numbers_are_the_same_where_gradients_are_kept(network: DeFuse) -> None:
    a, b = torch.rand(2, 1, 3, 40, 41).unbind()
    with torch.inference_mode():
        still = network(a, b)
    for one, other in zip(network(a, b), still, strict=True):
        assert torch.allclose(one, other, atol=1e-5) and one.shape[2:] == (40, 41)


def tiled_and_whole(network: DeFuse, height: int, width: int, tiling: Tiling) -> float:
    a, b = (smooth(height, width, 3, seed) for seed in (3, 4))
    whole = DeFuseFuser(tiling=Tiling(10**9, 0, 0)).fuse_colour(network, a, b)
    return float(np.abs(DeFuseFuser(tiling=tiling).fuse_colour(network, a, b) - whole).max())


@pytest.mark.slow
def test_tiles_give_what_the_whole_image_gives(network: DeFuse) -> None:
    # The overlap is smaller than the receptive field here: the figure is a tolerance, not rounding.
    assert tiled_and_whole(network, 203, 322, Tiling(0, 264, 128, batch=2)) <= 2e-3
    assert all(layer.pool is mean for layer in network.modules() if isinstance(layer, SplitAttention))


@pytest.mark.gpu
def test_on_a_gpu_numbers_are_the_processors_and_tiles_the_whole_at_1280_by_1024(network: DeFuse) -> None:
    a, b = torch.rand(2, 1, 3, 40, 48).unbind()
    with torch.inference_mode():
        slow = network(a, b)
        moved = network.to("cuda")
        fast = moved(a.cuda(), b.cuda())
        assert max((x - y.cpu()).abs().max() for x, y in zip(slow, fast, strict=True)) <= 1e-3
    assert tiled_and_whole(moved, 1024, 1280, Tiling(0, 768, 128)) <= 2e-3
    network.to("cpu")


@pytest.fixture
def first_comes_back(monkeypatch: pytest.MonkeyPatch) -> DeFuseFuser:
    """The fuser with a network that returns its first image."""
    monkeypatch.setattr(learned_module, "load_network", lambda name, path: None)
    monkeypatch.setattr(
        DeFuseFuser, "fuse_colour", lambda self, model, first, second: np.repeat(first, 3 // first.shape[2], axis=2)
    )
    return DeFuseFuser(checkpoint=Path("any"))


def test_order_and_colour(first_comes_back: DeFuseFuser) -> None:
    a, b = codes(0.3 + 0.3 * smooth(20, 30, 3, 1)), codes(0.3 + 0.3 * smooth(20, 30, 3, 2))
    expected: dict[Task, np.ndarray] = {"mef": b, "mff": a}
    for task, first in expected.items():
        assert np.array_equal(first_comes_back(a, b, task), first), "the over-exposed first; the near focus first"
    infrared = b[..., :1]
    fused = first_comes_back(a, infrared, "vif")
    assert np.abs(color.luma(fused.astype(np.float32)) - infrared[..., 0]).max() <= 1
    assert np.abs((fused[..., 0].astype(int) - fused[..., 2]) - (a[..., 0].astype(int) - a[..., 2])).max() <= 1
    assert first_comes_back(a[..., :1], infrared, "mff").shape == (20, 30, 1)


@pytest.mark.slow
def test_any_size_and_channels_are_fused(tmp_path: Path, network: DeFuse) -> None:
    path = tmp_path / "models.pth"
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, path)
    fuse = DeFuseFuser(path)
    for size, channels in (((1, 1), (1, 3)), ((9, 17), (1, 1)), ((20, 33), (3, 3))):
        a, b = (codes(smooth(*size, c, 1)) for c in channels)
        fused = fuse(a, b, "mef")
        assert fused.shape == (*size, max(channels)) and fused.dtype == np.uint8

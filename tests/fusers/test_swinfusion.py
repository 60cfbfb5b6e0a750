"""SwinFusion: the official numbers, tiles like the whole, and colour."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from clearfuse.synth import color
from clearfuse.synth.fusers import SwinFusionFuser
from clearfuse.synth.fusers import learned as learned_module
from clearfuse.synth.fusers.learned import Tiling, with_chroma
from clearfuse.synth.fusers.swin import BLOCKED, groups, masks, relative_index
from clearfuse.synth.fusers.swinfusion import SwinFusion, training_mask
from clearfuse.synth.fusers.tiles import RAMP, Side
from clearfuse.synth.types import TASKS, Task
from fusers.official import entries, made, published, vectors


@pytest.fixture(scope="module")
def network() -> SwinFusion:
    return made(SwinFusion())


def smooth(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """A made picture, float32 in [0, 1]."""
    small = np.random.default_rng(seed).random((height // 8 + 1, width // 8 + 1, channels), dtype=np.float32)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    return np.clip(image, 0, 1)


def test_names_and_shapes_are_the_official_ones(shared: Path) -> None:
    assert entries(SwinFusion()) == published(shared / "conformance", "swinfusion")


@pytest.mark.slow
def test_numbers_are_the_official_ones(shared: Path, network: SwinFusion) -> None:
    known = vectors(shared / "conformance", "swinfusion")
    with torch.inference_mode():
        assert (network(known["a"], known["b"]) - known["fused"]).abs().max() <= 1e-4


def test_the_parameters_are_as_many_as_published() -> None:
    assert sum(p.numel() for p in SwinFusion().parameters()) == 973_681


CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [(128, 128), (24, 40), (8, 8)])
def test_masks_are_the_regions_that_a_shift_brings_together(size: tuple[int, int]) -> None:
    height, width = size
    y, x = np.mgrid[:height, :width]
    # Which of 3 × 3 regions a token of the rolled image is from: the bulk, the last window's first and second half.
    region = sum(
        scale * ((at >= n - 8).astype(int) + (at >= n - 4)) for at, n, scale in ((y, height, 3), (x, width, 1))
    )
    numbers = np.roll(np.arange(height * width).reshape(size), (-4, -4), (0, 1))

    def windows(image: np.ndarray) -> np.ndarray:
        return image.reshape(height // 8, 8, width // 8, 8).swapaxes(1, 2).reshape(-1, 64)

    expected = np.where(windows(region)[:, :, None] != windows(region)[:, None, :], BLOCKED, 0)
    order = {int(window[0]): i for i, window in enumerate(windows(numbers))}
    four, found = masks(8, CPU).numpy(), np.full(expected.shape, np.nan)
    for kind, at in groups(height, width, 8, True, 7, CPU):
        assert len(at) <= 7
        for window in at.numpy():
            assert np.array_equal(window, windows(numbers)[order[int(window[0])]])
            found[order[int(window[0])]] = four[kind]
    assert np.array_equal(found, expected)
    if size == (128, 128):
        assert np.array_equal(training_mask(128, 8).numpy(), expected)


def test_windows_that_are_not_shifted_are_the_image_in_order() -> None:
    ((kind, at),) = groups(16, 24, 8, False, 100, CPU)
    assert kind == 0 and at.shape == (6, 64) and at[0, :9].tolist() == [*range(8), 24]
    assert torch.equal(at.flatten().sort().values, torch.arange(16 * 24))


def test_relative_index_counts_offsets() -> None:
    index = relative_index(8)
    assert index.shape == (64, 64) and index[0, 0] == 7 * 15 + 7 and index[0, 63] == 0 and index[63, 0] == 224


@pytest.mark.slow
def test_windows_at_once_and_batches_do_not_matter(network: SwinFusion, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = (torch.from_numpy(smooth(20, 26, 1, seed)).permute(2, 0, 1)[None] for seed in (1, 2))
    before = network(a, b).detach()
    assert before.shape == a.shape
    monkeypatch.setattr("clearfuse.synth.fusers.swin.AT_ONCE", {"cpu": 1})
    assert (network(a, b).detach() - before).abs().max() < 1e-5, "window by window"
    with torch.inference_mode():
        assert (network(a, b) - before).abs().max() < 1e-5, "in place"
        two = network(torch.cat((a, b)), torch.cat((b, a)))
        assert (two[:1] - before).abs().max() < 1e-5


@pytest.mark.parametrize(("n", "tile", "overlap"), [(1280, 512, 96), (1024, 512, 96), (1001, 256, 64), (700, 512, 96)])
def test_tiles_cover_a_side_once(n: int, tile: int, overlap: int) -> None:
    side = Side.of(n, tile, overlap)
    assert side.starts[0] == 0 and side.starts[-1] + side.length == n and all(s % 8 == 0 for s in side.starts)
    total, cores = np.zeros(n), np.zeros(n)
    for i, start in enumerate(side.starts):
        share = side.weights(i).numpy()
        total[start : start + side.length] += share
        low, high = side.cores()[i]
        cores[start + low : start + high] += 1
        assert np.abs(np.diff(share)).max() < 2 / RAMP
    assert np.allclose(total, 1, atol=1e-6) and (cores == 1).all() and side.length <= tile + 8
    ends = np.array(side.starts[:-1]) + side.length
    assert (ends - side.starts[1:] >= overlap - 8).all()


def tiled_and_whole(network: SwinFusion, height: int, width: int, tiling: Tiling) -> float:
    a, b = (smooth(height, width, 1, seed)[..., 0] for seed in (3, 4))
    whole = SwinFusionFuser(tiling=Tiling(10**9, 0, 0)).fuse_luma(network, a, b)
    return float(np.abs(SwinFusionFuser(tiling=tiling).fuse_luma(network, a, b) - whole).max())


@pytest.mark.slow
def test_tiles_give_what_the_whole_image_gives(network: SwinFusion) -> None:
    assert tiled_and_whole(network, 196, 331, Tiling(0, 200, 96, batch=2)) <= 1e-4


@pytest.mark.gpu
def test_on_a_gpu_numbers_are_the_processors_and_tiles_the_whole_at_1280_by_1024(network: SwinFusion) -> None:
    a, b = torch.rand(2, 1, 1, 40, 48).unbind()
    with torch.inference_mode():
        slow = network(a, b)
        moved = network.to("cuda")
        fast = moved(a.cuda(), b.cuda())
        assert max((x - y.cpu()).abs().max() for x, y in zip(slow, fast, strict=True)) <= 1e-3
    assert tiled_and_whole(moved, 1024, 1280, SwinFusionFuser().tiling) <= 2e-3
    network.to("cpu")


@pytest.fixture
def luma_of_first(monkeypatch: pytest.MonkeyPatch) -> SwinFusionFuser:
    """The fuser with a network that returns its first image."""
    monkeypatch.setattr(learned_module, "load_network", lambda name, path: None)
    monkeypatch.setattr(SwinFusionFuser, "fuse_luma", lambda self, model, first, second: first)
    return SwinFusionFuser(checkpoint=Path("any"))


def codes(image: np.ndarray) -> np.ndarray:
    return color.to_uint8(image)


def test_colour_is_the_visible_images_in_vif(luma_of_first: SwinFusionFuser) -> None:
    visible = codes(0.3 + 0.3 * smooth(20, 30, 3, 1))
    infrared = codes(0.4 + 0.1 * smooth(20, 30, 1, 2))
    fused = luma_of_first(visible, infrared, "vif").astype(float)
    assert np.abs(color.luma(fused.astype(np.float32)) - infrared[..., 0]).max() <= 1, "the first image is the infrared"
    for one, other in ((0, 1), (2, 1)):
        kept = (fused[..., one] - fused[..., other]) - (visible[..., one].astype(float) - visible[..., other])
        assert np.abs(kept).max() <= 1
    same = luma_of_first(visible, codes(color.luma(color.code_to_float(visible))[..., None]), "vif")
    assert np.abs(same.astype(int) - visible).max() <= 1


@pytest.mark.parametrize("task", ["mef", "mff"])
def test_colour_is_the_stronger_one_of_two_photographs(luma_of_first: SwinFusionFuser, task: Task) -> None:
    colour, grey = codes(0.3 + 0.3 * smooth(20, 30, 3, 1)), codes(smooth(20, 30, 1, 2))
    assert np.abs(luma_of_first(colour, grey, task).astype(int) - colour).max() <= 1
    assert np.abs(luma_of_first(colour, colour, task).astype(int) - colour).max() <= 1
    assert luma_of_first(grey, grey, task).shape == (20, 30, 1)


def test_chroma_of_two_is_weighted_by_its_strength() -> None:
    one, other = np.full((2, 2, 3), 0.5, np.float32), np.full((2, 2, 3), 0.5, np.float32)
    one[..., 0], other[..., 0] = 0.9, 0.6
    out = with_chroma(np.full((2, 2), 0.5, np.float32), (one, other), 3)
    c1, c2 = (float(x[0, 0, 0] - color.luma(x)[0, 0]) for x in (one, other))
    assert out[0, 0, 0] - 0.5 == pytest.approx((c1 * c1 + c2 * c2) / (c1 + c2), abs=1e-6)
    assert color.luma(out) == pytest.approx(0.5, abs=1e-6)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, network: SwinFusion) -> Path:
    path = tmp_path_factory.mktemp("weights") / "10000_E.pth"
    torch.save({"params": network.state_dict()}, path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_any_size_and_channels_are_fused(checkpoint: Path, task: Task) -> None:
    fuse = SwinFusionFuser(checkpoint)
    for size, channels in (((1, 1), (1, 3)), ((1, 5), (3, 1)), ((9, 17), (1, 1)), ((8, 16), (3, 3))):
        a, b = (codes(smooth(*size, c, 1)) for c in channels)
        fused = fuse(a, b, task)
        assert fused.shape == (*size, max(channels)) and fused.dtype == np.uint8
        assert np.array_equal(fused, fuse(a[:, ::-1][:, ::-1], b, task))


def test_a_pair_of_two_sizes_is_refused(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="one height and width"):
        SwinFusionFuser(checkpoint)(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8), "mff")

"""The pyramid fuser's three methods: properties on synthetic pairs, and metrics on real ones."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from clearfuse.synth import color
from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.fusers.pyramid.mef import blend_window, pyramids
from clearfuse.synth.fusers.pyramid.mff import remove_islands
from clearfuse.synth.fusers.pyramid.region import full_region
from clearfuse.synth.fusers.pyramid.vif import with_luma
from clearfuse.synth.types import Task

FUSE = PyramidFuser()


def textured(height: int = 96, width: int = 128, low: int = 60, high: int = 200) -> np.ndarray:
    rng = np.random.default_rng(5)
    coarse = rng.uniform(low, high, (height // 4, width // 4, 3)).astype(np.float32)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def psnr(x: np.ndarray, y: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, at most 60."""
    error = np.mean((x.astype(np.float64) - y) ** 2)
    return float(min(60.0, 10 * np.log10(255**2 / max(error, 1e-9))))


def test_a_pair_of_two_sizes_is_refused() -> None:
    with pytest.raises(ValueError, match="one height and width"):
        FUSE(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8), "mff")


@pytest.mark.parametrize(
    ("task", "channels"), [("vif", (3, 1)), ("vif", (1, 3)), ("mef", (3, 3)), ("mef", (1, 1)), ("mff", (3, 1))]
)
@pytest.mark.parametrize("size", [(160, 224), (157, 203), (31, 9)])
def test_a_region_is_that_of_the_whole(task: Task, channels: tuple[int, int], size: tuple[int, int]) -> None:
    """Bit for bit at any position: percentiles, small regions and coarse levels are those of the whole image."""
    height, width = size
    rng = np.random.default_rng(height)
    a = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 1.5)[..., : channels[0]].copy()
    b = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), np.uint8), (0, 0), 3)[..., : channels[1]].copy()
    b[: height // 2] //= 2
    whole = FUSE(a, b, task)
    windows = FUSE.windows(a, b, task)
    for rows in (slice(0, 5), slice(height // 3, height // 3 + 9), slice(height - 7, height)):
        for columns in (slice(0, width), slice(3, 8), slice(width - 4, width)):
            assert np.array_equal(windows((rows, columns)), whole[rows, columns])


def test_warm_targets_stay_bright_and_the_rest_stays_visible() -> None:
    visible = textured(low=20, high=90)
    visible[:24] = (200, 210, 230)
    infrared = np.full((96, 128, 1), 20, np.uint8)
    infrared[50:70, 60:70] = 240
    fused = FUSE(visible, infrared, "vif")
    assert color.luma(fused[53:67, 63:67].astype(np.float32)).mean() > 220
    away = np.ones((96, 128), bool)
    away[40:80, 50:80] = False
    assert np.abs(fused[away].astype(int) - visible[away]).mean() < 1, "no veil, no colour shift"
    ring = np.zeros((96, 128), bool)
    ring[45:75, 55:75], ring[50:70, 60:70] = True, False
    was, now = (color.luma(x.astype(np.float32))[ring] for x in (visible, fused))
    assert now.mean() >= 0.8 * was.mean() and now.mean() <= 1.2 * was.mean(), "no halo"


def test_infrared_detail_shows_where_the_visible_is_blank() -> None:
    visible = np.full((64, 64, 3), 40, np.uint8)
    infrared = np.full((64, 64, 1), 60, np.uint8)
    infrared[:, ::8] = 90
    fused = FUSE(visible, infrared, "vif")
    assert fused[..., 0].astype(float).std() > 0.5 * infrared.astype(float).std()


def test_luma_changes_keep_the_hue() -> None:
    image = np.array([[[0.8, 0.1, 0.1], [0.2, 0.4, 0.9]]], np.float32)
    old = color.luma(image)
    for new in (0.05, 0.5, 0.97):
        luma = np.full_like(old, new)
        out = with_luma(image, old, luma)
        assert out.min() >= -1e-5 and out.max() <= 1 + 1e-5
        assert np.allclose(color.luma(out), new, atol=1e-5)
        chroma, was = out - luma[..., None], image - old[..., None]
        assert np.allclose(np.cross(chroma, was), 0, atol=1e-5)


def test_blend_of_a_constant_share_is_the_mean() -> None:
    a, b = (color.code_to_float(textured(h, 50)) for h in (40, 40))
    b = b[::-1].copy()
    out = blend_window(pyramids(a - b, np.full(a.shape[:2], 0.25, np.float32)), b, full_region(a.shape))
    assert np.allclose(out, 0.25 * a + 0.75 * b, atol=1e-5)


def test_exposures_each_give_what_they_show() -> None:
    scene = textured(low=10, high=245).astype(np.float64) / 255
    scene[:, 64:] = 1 + 3 * scene[:, 64:]
    under, over = ((np.clip(scene * gain, 0, 1) * 255).astype(np.uint8) for gain in (0.22, 1.0))
    fused = FUSE(under, over, "mef").astype(float)
    assert np.corrcoef(fused[:, 80:].ravel(), under[:, 80:].ravel())[0, 1] > 0.95
    assert np.corrcoef(fused[:, :48].ravel(), over[:, :48].ravel())[0, 1] > 0.95


def test_islands_are_turned_over() -> None:
    chosen = np.zeros((50, 50), bool)
    chosen[10:40, 10:40] = True
    clean = chosen.copy()
    chosen[20, 20], chosen[3, 3] = False, True
    assert np.array_equal(remove_islands(chosen, 0.01), clean)


def test_focus_selection_is_lossless_inside_the_regions() -> None:
    sharp = textured(120, 160)
    blurred = cv2.GaussianBlur(sharp, (0, 0), 3)
    near, far = sharp.copy(), sharp.copy()
    near[:, :80], far[:, 80:] = blurred[:, :80], blurred[:, 80:]
    fused = FUSE(near, far, "mff")
    assert np.array_equal(fused[:, :64], sharp[:, :64]) and np.array_equal(fused[:, 96:], sharp[:, 96:])
    assert psnr(fused, sharp) > 35


@pytest.mark.slow
def test_real_focus_pairs_come_back_nearly_lossless(shared: Path) -> None:
    folder = shared / "data" / "mff" / "NYU-D-100"
    names = sorted(p.name for p in (folder / "source_1").glob("*.jpg"))
    assert names
    values = []
    for name in names:
        a, b, truth = (np.asarray(cv2.imread(str(folder / d / name))) for d in ("source_1", "source_2", "full_clear"))
        values.append(psnr(FUSE(a, b, "mff"), truth))
    assert np.median(values) >= 52 and min(values) >= 43

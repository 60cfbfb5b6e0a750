"""The pyramid fuser's three methods: properties on synthetic pairs, and metrics on real ones."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest

from clearfuse.synth import color
from clearfuse.synth.fusers import PyramidFuser
from clearfuse.synth.fusers.pyramid.mef import blend_window, pyramids
from clearfuse.synth.fusers.pyramid.mff import fuse_focus, remove_flat_islands, remove_islands
from clearfuse.synth.fusers.pyramid.region import full_region
from clearfuse.synth.fusers.pyramid.tone import Tone, tone_between
from clearfuse.synth.fusers.pyramid.vif import noise_of, with_luma
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


def test_raised_luma_is_neutral_light_added() -> None:
    """Exactly: the linear channels all gain the same. The chroma of code values is within a quarter of that."""
    image = np.array([[[0.30, 0.22, 0.18], [0.45, 0.50, 0.62]]], np.float32)
    added = color.linear_to_srgb(color.srgb_to_linear(image) + np.float32(0.4))
    new = color.luma(added)
    out = with_luma(image, color.luma(image), new)
    chroma, exact = out - new[..., None], added - new[..., None]
    assert np.abs(chroma - exact).max() < 0.25 * np.abs(exact).max()
    assert np.abs(exact).max() < 0.65 * np.abs(image - color.luma(image)[..., None]).max(), "it does shrink"


def test_noise_is_known_to_a_few_hundredths() -> None:
    rng = np.random.default_rng(1)
    ramp = np.linspace(0.2, 0.8, 400, dtype=np.float32) * np.ones((300, 1), np.float32)
    ramp[:, 100:150] += 0.1
    noisy = ramp + rng.normal(0, 0.01, ramp.shape).astype(np.float32)
    assert noise_of(noisy) == pytest.approx(0.01, rel=0.05)
    rows = ramp + rng.normal(0, 0.02, (300, 1)).astype(np.float32)
    assert noise_of(ramp) < 1e-6 and noise_of(rows) > 0.005, "rows with offsets of their own are noise"
    assert noise_of(np.zeros((1, 9), np.float32)) == 0


def test_the_infrareds_noise_stays_out_of_flat_areas() -> None:
    rng = np.random.default_rng(2)
    visible = np.clip(110 + rng.normal(0, 0.6, (160, 200, 1)), 0, 255).astype(np.uint8).repeat(3, axis=2)
    infrared = 60 + rng.normal(0, 3, (160, 200, 1))
    infrared[60:100, 90:110] += 40
    fused = FUSE(visible, np.clip(infrared, 0, 255).astype(np.uint8), "vif").astype(float)
    flat = np.s_[:, :70, 0]
    assert fused[flat].std() <= 1.5 * visible[flat].std()
    step = fused[65:95, 92:108, 0].mean() - fused[65:95, 60:80, 0].mean()
    edge = np.ptp(fused[80, 84:96, 0])
    assert edge >= 10 and step > -1, "the edge above the noise is there"


def test_a_white_sky_stays_white() -> None:
    visible = np.full((96, 128, 3), 252, np.uint8)
    visible[60:] = 90
    infrared = np.full((96, 128, 1), 40, np.uint8)
    infrared[:60, ::6] = 70
    infrared[60:] = 150
    fused = FUSE(visible, infrared, "vif").astype(int)
    assert np.abs(fused[:50] - 252).max() <= 1, "neither wires nor ripples"


def test_branches_before_a_bright_sky_are_not_embossed() -> None:
    """Dark in the visible and warm in the infrared: the visible's edges stay, even where those are stronger."""
    visible = np.full((96, 128, 3), 200, np.uint8)
    infrared = np.full((96, 128, 1), 20, np.uint8)
    visible[:, ::16], infrared[:, ::16] = 180, 120
    infrared[:, :2] = 255  # a warm target, so that branches are no target themselves
    fused = FUSE(visible, infrared, "vif").astype(int)
    assert np.abs(fused[20:-20, 40:] - visible[20:-20, 40:]).max() <= 2


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


TONES = [((1.0, 1.0, 1.0), (14.0, 14.0, 14.0)), ((0.85, 0.9, 0.95), (10.0, -4.0, 6.0))]


def focus_halves(gain: tuple[float, ...], offset: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A clean picture with flat ground in between, its near half sharp, and its far half sharp in another tone."""
    # Broad patches under the texture, as scenes have them.
    clean = cv2.resize(textured(24, 32), (320, 240), interpolation=cv2.INTER_CUBIC) // 2 + textured(240, 320) // 2
    clean[:, 150:230] = (120, 110, 100)
    blurred = cv2.GaussianBlur(clean, (0, 0), 3)
    near, far = clean.copy(), clean.copy()
    near[:, 200:], far[:, :200] = blurred[:, 200:], blurred[:, :200]
    return clean, near, np.clip(far * np.array(gain) + np.array(offset) + 0.5, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("gain", "offset"), TONES)
def test_frames_of_two_tones_fuse_to_the_clean_picture(gain: tuple[float, ...], offset: tuple[float, ...]) -> None:
    clean, near, far = focus_halves(gain, offset)
    fused = FUSE(near, far, "mff")
    assert np.array_equal(fused[:, :140], clean[:, :140]), "the reference to the bit"
    assert np.abs(fused[:, 240:].astype(int) - clean[:, 240:]).max() <= 2
    assert np.abs(fused[:, 154:226].astype(int) - clean[0, 190]).max() <= 1, "no seam shows on flat ground"


@pytest.mark.parametrize(("gain", "offset"), TONES)
def test_the_tone_between_two_frames(gain: tuple[float, ...], offset: tuple[float, ...]) -> None:
    _, near, far = (color.code_to_float(x) for x in focus_halves(gain, offset))
    tone = tone_between(near, far, color.luma(near), color.luma(far))
    assert tone is not None
    assert tone.gain == pytest.approx(gain, abs=0.015)
    middle = 127.5 * np.array(gain) + offset
    assert 127.5 * tone.gain + 255 * tone.offset == pytest.approx(middle, abs=0.6), "a code at mid-grey"
    back = tone.inverse().apply(tone.apply(near * np.float32(0.5) + np.float32(0.2)))
    assert np.allclose(back, near * 0.5 + 0.2, atol=1e-5)
    assert np.allclose(tone.luma(near), color.luma(tone.apply(near)), atol=1e-5)


def test_frames_of_one_tone_are_not_touched() -> None:
    _, near, far = (color.code_to_float(x) for x in focus_halves((1.0,) * 3, (0.0,) * 3))
    assert tone_between(near, far, color.luma(near), color.luma(far)) is None
    white = np.ones((64, 64, 3), np.float32)
    assert tone_between(white, white * 0.5, white[..., 0], white[..., 0] * 0.5) is None, "all clipped: nothing is known"
    grey = Tone(np.array([0.5]), np.array([0.25])).apply(white)
    assert np.all(grey == 0.75)


def test_islands_that_noise_chose_are_absorbed() -> None:
    """Half a per cent of the image: absorbed where the brightness differs more than the sharpness, else kept."""
    chosen = np.zeros((200, 200), bool)
    chosen[50:64, 50:64] = chosen[150:164, 150:164] = True
    difference, brightness = np.zeros((2, 200, 200), np.float32)
    difference[50:64, 50:64], brightness[50:64, 50:64] = 0.004, 0.02
    difference[150:164, 150:164], brightness[150:164, 150:164] = 0.03, 0.02
    out = remove_flat_islands(chosen, difference, brightness)
    assert not out[:100].any() and np.array_equal(out[100:], chosen[100:])


@pytest.mark.slow
def test_real_pairs_in_two_tones_show_no_seam(shared: Path) -> None:
    """Seam pixels where both frames are flat and differ by over 4 codes: a twentieth at most, untouched nearly all."""
    folder = shared / "data" / "mff" / "NYU-D-100"
    names = sorted(p.name for p in (folder / "source_1").glob("*.jpg"))[:12]
    assert names
    flat_seam = bad = before = 0
    values: list[float] = []
    for name in names:
        a, b, truth = (np.asarray(cv2.imread(str(folder / d / name))) for d in ("source_1", "source_2", "full_clear"))
        b, other = (np.clip(0.9 * x - 8 + 0.5, 0, 255).astype(np.uint8) for x in (b, truth))
        windows = fuse_focus(color.code_to_float(a), color.code_to_float(b))
        assert isinstance(windows, partial)
        matched_a, matched_b, chosen = windows.args
        fused = color.to_uint8(windows(full_region(a.shape)))
        values.append(max(psnr(fused, truth), psnr(fused, other)))
        seam = cv2.morphologyEx(chosen.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
        for x in (a, b):
            y = color.luma(x.astype(np.float32))
            seam &= cv2.blur(y * y, (9, 9)) - cv2.blur(y, (9, 9)) ** 2 < 16
        steps = [
            np.abs(cv2.GaussianBlur(color.luma(x) - color.luma(y), (0, 0), 2)) > 4 / 255
            for x, y in ((matched_a, matched_b), (color.code_to_float(a), color.code_to_float(b)))
        ]
        flat_seam, bad, before = flat_seam + seam.sum(), bad + (seam & steps[0]).sum(), before + (seam & steps[1]).sum()
    assert before > 0.8 * flat_seam and bad < 0.05 * flat_seam
    assert np.median(values) >= 49


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

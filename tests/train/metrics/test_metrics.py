"""Metrics against formulas, slow direct implementations and published numbers; exact error messages."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from clearfuse.synth.seeds import generator
from clearfuse.synth.types import UserError
from clearfuse.train.metrics import METRICS, PROFILES, evaluate, evaluate_each
from clearfuse.train.metrics.base import STRIP, codes, luma
from conftest import textured

SIZES = [(97, 113), (128, 160), (41, 41), (64 * 2 + 10, 64 + 41)]


def noisy(image: np.ndarray, sigma: float, seed: int = 9) -> np.ndarray:
    """The image with Gaussian noise in code values."""
    return np.clip(np.rint(image + generator(seed).normal(0, sigma, image.shape)), 0, 255).astype(np.uint8)


def window(size: int, sigma: float) -> np.ndarray:
    """A Gaussian window that sums to 1, from its formula."""
    x = np.arange(size) - size // 2
    g = np.exp(-(x**2) / (2 * sigma**2))
    return np.outer(g, g) / np.outer(g, g).sum()


def local_mean(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Weighted means of every window inside the image, window by window."""
    views = np.lib.stride_tricks.sliding_window_view(image, kernel.shape)
    return np.einsum("ijkl,kl->ij", views, kernel)


def direct_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """SSIM of one channel, directly from the equation."""
    w = window(11, 1.5)
    mx, my = local_mean(x, w), local_mean(y, w)
    vx, vy, cov = local_mean(x * x, w) - mx**2, local_mean(y * y, w) - my**2, local_mean(x * y, w) - mx * my
    c1, c2 = 2.55**2, 7.65**2
    return float(np.mean((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))))


def direct_vifp(reference: np.ndarray, image: np.ndarray) -> float:
    """VIFp of one source, step by step with the case distinctions of the original code."""
    kept = held = 0.0
    for scale, size in enumerate((17, 9, 5, 3)):
        w = window(size, size / 5)
        if scale:
            reference, image = local_mean(reference, w)[::2, ::2], local_mean(image, w)[::2, ::2]
        m1, m2 = local_mean(reference, w), local_mean(image, w)
        v1 = np.maximum(local_mean(reference**2, w) - m1**2, 0)
        v2 = np.maximum(local_mean(image**2, w) - m2**2, 0)
        cov = local_mean(reference * image, w) - m1 * m2
        g = cov / (v1 + 1e-10)
        sv = v2 - g * cov
        g, sv = np.where(v1 < 1e-10, 0, g), np.where(v1 < 1e-10, v2, sv)
        v1 = np.where(v1 < 1e-10, 0, v1)
        g, sv = np.where(v2 < 1e-10, 0, g), np.where(v2 < 1e-10, 0, sv)
        sv = np.where(g < 0, v2, sv)
        g, sv = np.maximum(g, 0), np.maximum(sv, 1e-10)
        kept += np.log10(1 + g**2 * v1 / (sv + 2)).sum()
        held += np.log10(1 + v1 / 2).sum()
    return kept / held


def direct_qabf(fused: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """Qabf pixel by pixel: Sobel by hand on the zero-padded image."""

    def edge(image: np.ndarray, i: int, j: int) -> tuple[float, float]:
        p = np.pad(image, 1)[i : i + 3, j : j + 3]
        sx = float((p[:, 2] - p[:, 0]) @ [1, 2, 1])
        sy = float((p[0] - p[2]) @ [1, 2, 1])
        return math.hypot(sx, sy), math.atan(sy / sx) if sx else math.pi / 2

    kept = held = 0.0
    for i, j in np.ndindex(fused.shape):
        gf, af = edge(fused, i, j)
        for source in (a, b):
            gs, angle = edge(source, i, j)
            ratio = min(gs, gf) / max(gs, gf) if gs or gf else 0.0
            aligned = 1 - abs(angle - af) / (math.pi / 2)
            q = 0.9994 / (1 + math.exp(-15 * (ratio - 0.5))) * 0.9879 / (1 + math.exp(-22 * (aligned - 0.8)))
            kept, held = kept + q * gs, held + gs
    return kept / held


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_psnr_is_its_formula(height: int, width: int) -> None:
    gt = textured(1, width, height)
    fused = noisy(gt, 12)
    mse = np.mean((fused.astype(float) - gt) ** 2)
    value = evaluate(fused, gt, gt, gt, ["PSNR"])["PSNR"]
    assert value == pytest.approx(10 * math.log10(255**2 / mse), abs=1e-9)


def direct_mef(fused: np.ndarray, sources: list[np.ndarray]) -> float:
    """One scale of MEF-SSIM, window by window, from the definition."""
    bell = np.outer(*[np.exp(-(np.arange(-5, 6) ** 2) / 4.5)] * 2)
    bell /= bell.sum()
    values: list[float] = []
    for i, j in np.ndindex(fused.shape[0] - 10, fused.shape[1] - 10):
        patches = [s[i : i + 11, j : j + 11] - s[i : i + 11, j : j + 11].mean() for s in sources]
        norms = [float(np.linalg.norm(p)) for p in patches]
        alike = min(float(np.linalg.norm(sum(patches))) / sum(norms), 1 - 1e-12)
        power = min(math.tan(math.pi / 2 * alike), 10)
        weights = [((n + 1e-3) / 11) ** power for n in norms]
        wanted = sum(w / sum(weights) * p / (n + 1e-3) for w, p, n in zip(weights, patches, norms, strict=True))
        wanted = wanted / np.linalg.norm(wanted) * (max(norms) + 1e-3)
        f = fused[i : i + 11, j : j + 11]
        w0, f0 = wanted - (bell * wanted).sum(), f - (bell * f).sum()
        steady = (0.03 * 255) ** 2
        above = 2 * (bell * w0 * f0).sum() + steady
        values.append(float(above / ((bell * w0**2).sum() + (bell * f0**2).sum() + steady)))
    return float(np.mean(values))


def test_mef_ssim_is_the_definition_at_three_scales() -> None:
    a, b = textured(1, 57, 46, 1)[..., 0] // 3, textured(2, 57, 46, 1)[..., 0] // 2 + 120
    fused = noisy(a // 2 + b // 2, 5)
    images = [x.astype(float) for x in (fused, a, b)]
    expected = 1.0
    for power in (0.0448, 0.2856, 0.3001):
        expected *= direct_mef(images[0], images[1:]) ** (power / 0.6305)
        images = [np.pad(x, ((0, x.shape[0] % 2), (0, x.shape[1] % 2)), "symmetric") for x in images]
        images = [x.reshape(x.shape[0] // 2, 2, -1, 2).mean(axis=(1, 3)) for x in images]
    assert evaluate(fused, a, b, metrics=["mef-ssim"])["mef-ssim"] == pytest.approx(expected, abs=1e-6)


def test_mef_ssim_wants_the_stronger_structure() -> None:
    sharp = textured(1, 80, 80, 1)[..., 0]
    flat = np.full_like(sharp, 250)
    good, mean = (evaluate(f, flat, sharp, metrics=["MEF-SSIM"])["MEF-SSIM"] for f in (sharp, sharp // 2 + flat // 2))
    assert good > 0.999 > 0.95 > mean


def test_psnr_of_one_code_value_is_the_known_number() -> None:
    zero, one = np.zeros((8, 8), np.uint8), np.ones((8, 8), np.uint8)
    assert evaluate(one, zero, zero, zero, ["PSNR"])["PSNR"] == pytest.approx(48.1308036, abs=1e-7)
    assert evaluate(zero, zero, zero, zero, ["PSNR"])["PSNR"] == math.inf
    assert evaluate(one[:1, :1], zero[:1, :1], zero[:1, :1], zero[:1, :1], ["PSNR"])["PSNR"] > 48


@pytest.mark.parametrize(("height", "width"), [(11, 11), (53, 38), (STRIP + 11, 20), (STRIP * 2 + 10, 31)])
def test_ssim_is_the_equation_window_by_window(height: int, width: int) -> None:
    gt = generator(4).integers(0, 256, (height, width, 3), dtype=np.uint8)
    fused = cv2.GaussianBlur(noisy(gt, 20), (3, 3), 0.6)
    expected = np.mean([direct_ssim(fused[..., c].astype(float), gt[..., c].astype(float)) for c in range(3)])
    assert evaluate(fused, gt, gt, gt, ["SSIM"])["SSIM"] == pytest.approx(expected, abs=1e-9)


def test_ssim_of_constants_is_the_luminance_term() -> None:
    dark, light = np.full((16, 16), 50, np.uint8), np.full((16, 16), 100, np.uint8)
    expected = (2 * 50 * 100 + 2.55**2) / (50**2 + 100**2 + 2.55**2)
    assert evaluate(dark, dark, dark, light, ["SSIM"])["SSIM"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_vif_is_the_sum_of_two_direct_ones(height: int, width: int) -> None:
    a, b = textured(1, width, height, 1)[..., 0], textured(2, width, height, 1)[..., 0]
    a[:30, :30] = 0  # flat parts: the original's case distinctions
    fused = noisy((a // 2 + b // 2), 4)
    fused[:20, :25] = 7
    expected = sum(direct_vifp(s.astype(float), fused.astype(float)) for s in (a, b))
    assert evaluate(fused, a, b, metrics=["VIF"])["VIF"] == pytest.approx(expected, rel=1e-7)


def test_qabf_is_the_equation_pixel_by_pixel() -> None:
    a, b = textured(1, 40, 32, 1)[..., 0], textured(2, 40, 32, 1)[..., 0]
    a[:12], b[20:, :9] = 31, 0
    fused = a // 2 + b // 2
    expected = direct_qabf(fused.astype(float), a.astype(float), b.astype(float))
    assert evaluate(fused, a, b, metrics=["Qabf"])["Qabf"] == pytest.approx(expected, abs=1e-6)


def test_identical_images() -> None:
    x = textured(3, 113, 97)
    values = evaluate(x, x, x, x)
    top = 0.9994 / (1 + math.exp(-7.5)) * 0.9879 / (1 + math.exp(-4.4))  # both sigmoids at 1
    assert values == {
        "PSNR": math.inf,
        "SSIM": pytest.approx(1, abs=1e-12),
        "VIF": pytest.approx(2, abs=1e-8),
        "Qabf": pytest.approx(top, abs=1e-6),
        "MEF-SSIM": pytest.approx(1, abs=1e-4),
    }


def test_contrast_enhancement_takes_vif_above_its_value_for_identical_images() -> None:
    x = (textured(3) // 2 + 40).astype(np.uint8)
    stretched = np.clip(np.rint((x.astype(float) - x.mean()) * 1.3 + x.mean()), 0, 255).astype(np.uint8)
    assert evaluate(stretched, x, x, metrics=["VIF"])["VIF"] > 2.05


@pytest.mark.parametrize("offset", [4, 8, 16, 32])
def test_a_value_does_not_depend_on_where_the_image_lies(offset: int) -> None:
    x, y = textured(1, 113, 97), noisy(textured(1, 113, 97), 9)
    expected = evaluate(y, x, x, x)
    for _ in range(3):
        moved = np.empty(y.nbytes + 64, np.uint8)[offset : offset + y.nbytes].reshape(y.shape)
        moved[...] = y
        keep = np.empty(1000 * offset + offset, np.uint8)  # moves what is allocated next
        assert evaluate(moved, x, x, x) == expected, keep.size


def test_luma_is_bt601() -> None:
    image = generator(1).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    expected = image @ np.array([0.299, 0.587, 0.114])
    assert np.abs(luma(codes(image, "x")) - expected).max() <= 0.5 / 1024 + 1e-4


def test_where_a_metric_is_undefined_it_is_not_a_number() -> None:
    flat, x = np.full((64, 64), 9, np.uint8), textured(1, 64, 64, 1)
    assert math.isnan(evaluate(x, flat, x, metrics=["VIF"])["VIF"])
    black = np.zeros((64, 64), np.uint8)
    assert math.isnan(evaluate(x, black, black, metrics=["Qabf"])["Qabf"])


def test_names_are_returned_as_asked() -> None:
    x = textured(1)
    assert list(evaluate(x, x, x, x, ["qABF", "psnr"])) == ["qABF", "psnr"]
    assert list(evaluate(x, x, x)) == ["VIF", "Qabf", "MEF-SSIM"]
    assert tuple(evaluate(x, x, x, x)) == PROFILES["strict"].usual


def test_images_scored_together_have_the_values_of_each_alone() -> None:
    """Bit for bit, a grey one among them: what is taken from the pair once is what each takes alone."""
    a, b, gt = (textured(seed, 96, 84) for seed in (1, 2, 3))
    fused = {"mean": a // 2 + b // 2, "noisy": noisy(a, 20), "grey": noisy(b, 5)[..., 0], "again": noisy(a, 20)}
    others = {"FMI", "MS-SSIM", "NIQE", "BRISQUE"}  # slow to load, or for larger images
    names = [name for name, metric in METRICS.items() if metric.takes != "colour" and name not in others]
    together = evaluate_each(fused, a, b, gt, names)
    assert {"PSNR", "SSIM", "VIF", "VIFF", "Qabf", "MEF-SSIM"} <= set(names)
    assert together == {name: evaluate(image, a, b, gt, names) for name, image in fused.items()}
    assert together["noisy"] == together["again"] != together["mean"]
    with pytest.raises(ValueError, match=r"^small: a is 96x84, fused 96x80: all images must have one size$"):
        evaluate_each(fused | {"small": a[:80]}, a, b, gt, ["PSNR"])
    assert evaluate_each({}, a, b, gt, ["PSNR"]) == {}


X = np.zeros((64, 48, 3), np.uint8)
REFUSED: list[tuple[Callable[[], object], str]] = [
    (lambda: evaluate(X, X[:, :40], X, metrics=["Qabf"]), "a is 40x64, fused 48x64: all images must have one size"),
    (lambda: evaluate(X, X, X, metrics=["ssim"]), "SSIM needs gt: it compares the fused image with a ground truth"),
    (lambda: evaluate(X[:40], X[:40], X[:40], metrics=["VIF"]), "VIF needs images of 41x41 or more, not 48x40"),
    (lambda: evaluate(X[:1, :1], X[:1, :1], X[:1, :1]), "VIF needs images of 41x41 or more, not 1x1"),
    (lambda: evaluate(X[:10], X[:10], X[:10], X[:10], ["SSIM"]), "SSIM needs images of 11x11 or more, not 48x10"),
    (lambda: evaluate(X[:2], X[:2], X[:2], metrics=["Qabf"]), "Qabf needs images of 3x3 or more, not 48x2"),
    (lambda: evaluate(X[..., :2], X, X), "fused: shape (64, 48, 2) is not (h, w), (h, w, 1) or (h, w, 3)"),
    (lambda: evaluate(X[:0], X[:0], X[:0]), "fused: shape (0, 48, 3) has no pixel"),
    (lambda: evaluate(X, X.astype(np.int64), X), "a: int64 is not taken: give uint8, or float in [0, 1]"),
    (
        lambda: evaluate(X, X, X + np.float32(255)),
        "b: float images must lie in [0, 1], found 255 to 255; give 0..255 as uint8",
    ),
    (
        lambda: evaluate(np.full((64, 64), np.nan), X, X),
        "fused: float images must lie in [0, 1], found nan to nan; give 0..255 as uint8",
    ),
]


@pytest.mark.parametrize(("call", "message"), REFUSED, ids=[message[:30] for _, message in REFUSED])
def test_images_that_cannot_be_scored_are_refused(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError) as error:
        call()
    assert str(error.value) == message


def test_unknown_names_are_refused_with_the_nearest() -> None:
    with pytest.raises(UserError) as error:
        evaluate(X, X, X, metrics=["Qabg"])
    assert (
        str(error.value)
        .lower()
        .startswith("unknown metric 'qabg': did you mean 'qabf'? allowed: ag, brisque, cc, ce, clipiqa, ei, en, fmi, ")
    )
    with pytest.raises(UserError) as error:
        evaluate(X, X, X, profile="vif")
    assert str(error.value) == "unknown profile 'vif': did you mean 'vifb'? allowed: mefb, papers, strict, tang, vifb"


def vifb(shared: Path, part: str) -> np.ndarray:
    """An image of VIFB with three channels, as the toolbox reads it."""
    with Image.open(shared / "data/vif/VIFB" / part) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.mark.parametrize(("method", "tolerance"), [("DLF", 5e-5), ("U2Fusion", 5e-5), ("CNN", 6e-4)])
def test_qabf_is_the_published_number_of_vifb(shared: Path, method: str, tolerance: float) -> None:
    """VIFB scores each RGB channel and takes the mean. CNN copies pixels: there ours takes G = 1, VIFB G = gF."""
    with (shared / "data/vif/VIFB/published_metrics.csv").open() as file:
        table = {row["image"]: float(row["Qabf"]) for row in csv.DictReader(file) if row["method"] == method}
    for name in ("carLight", "man", "walking2", "snow"):
        fused = vifb(shared, f"output/fused_images/{name}_{method}.jpg")
        a, b = vifb(shared, f"input/VI/{name}.jpg"), vifb(shared, f"input/IR/{name}.jpg")
        channels = [evaluate(fused[..., c], a[..., c], b[..., c], metrics=["Qabf"])["Qabf"] for c in range(3)]
        assert np.mean(channels) == pytest.approx(table[name], rel=tolerance)


def test_values_of_a_real_pair_that_the_field_s_formulas_give(shared: Path) -> None:
    """VIF over both sources, and Qabf of an image with itself, computed in advance: 1.0212, 0.9753."""
    a, b = vifb(shared, "input/VI/carLight.jpg"), vifb(shared, "input/IR/carLight.jpg")
    fused = vifb(shared, "output/fused_images/carLight_U2Fusion.jpg")
    assert evaluate(fused, a, b, metrics=["VIF"])["VIF"] == pytest.approx(1.0212, abs=2e-4)
    assert evaluate(a, a, a, metrics=["Qabf"])["Qabf"] == pytest.approx(0.9753, abs=6e-4)

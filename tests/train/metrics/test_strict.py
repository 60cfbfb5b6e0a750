"""The strict fusion metrics, MS-SSIM, BRISQUE: analytic cases, direct evaluation, values of other implementations."""

from __future__ import annotations

import math
import os
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from clearfuse.synth.types import UserError
from clearfuse.train.metrics import METRICS, PROFILES, evaluate, noreference
from clearfuse.train.metrics.fidelity import MS_SMALLEST
from clearfuse.train.metrics.information import gradient
from clearfuse.train.metrics.windows import mean_information
from conftest import textured

FUSION = [name for name, metric in METRICS.items() if metric.kind == "fusion"]
A, B = textured(1, 192, 176), textured(2, 192, 176)
F = (A // 2 + B // 2).astype(np.uint8)
GREY = tuple(image[..., 1] for image in (F, A, B))
FLAT = np.full((64, 64), 9, np.uint8)
TOP = 0.9994 / (1 + math.exp(-7.5)) * 0.9879 / (1 + math.exp(-4.4))


def value(name: str, *images: np.ndarray) -> float:
    return evaluate(*images, metrics=[name])[name]


def test_numbers_of_other_implementations() -> None:
    """Computed in advance: scikit-image 0.26 (SSIM with Gaussian weights, entropy), torchmetrics 1.9 (VIF),
    scikit-learn 1.9 (mutual information), scipy 1.17 (correlation), on the same images.
    """
    found = evaluate(*GREY, metrics=["VIF", "MI", "NMI", "EN", "CC", "SCD"])
    assert found["VIF"] == pytest.approx(0.18472330376622229 + 0.19327496274735428, rel=1e-7)
    assert found["MI"] == pytest.approx(1.9919302537752943 + 1.994055581376786, rel=1e-10)
    assert found["NMI"] == pytest.approx(0.2550557687395838 + 0.2554679412106777, rel=1e-10)
    assert found["EN"] == pytest.approx(7.760610771122891, rel=1e-10)
    assert found["CC"] == pytest.approx(0.8851571463257362, rel=1e-7)
    assert found["SCD"] == pytest.approx(0.9297273348796196, rel=1e-7)
    full = evaluate(F, A, B, A, ["PSNR", "SSIM"])
    assert full["PSNR"] == pytest.approx(17.031036912956207, rel=1e-9)
    assert full["SSIM"] == pytest.approx(0.6821923260033351, rel=1e-9)


def test_qabf_of_an_image_with_itself_is_what_its_sigmoids_reach() -> None:
    assert value("Qabf", A, A, A) == pytest.approx(TOP, abs=1e-5)


def test_noise_counts_as_detail() -> None:
    rng = np.random.Generator(np.random.Philox(5))
    x = cv2.GaussianBlur(A, (5, 5), 1.0)
    noise = rng.normal(0, 1, x.shape)
    images = [np.clip(np.rint(x + sigma * noise), 0, 255).astype(np.uint8) for sigma in (1, 5, 25)]
    for name in ("SF", "AG", "EI"):
        series = [value(name, image, x, x) for image in images]
        assert series == sorted(series), name
    white = np.floor(rng.random((176, 192)) * 256).astype(np.uint8)
    assert value("EN", white, A, A) > 7.98


UNDEFINED = {"VIF", "VIF-authors", "VIFF", "Qcb", "NMI", "CC", "SCD"}


def test_constant_images() -> None:
    found = evaluate(FLAT, FLAT, FLAT, metrics=FUSION)
    assert {name for name, number in found.items() if math.isnan(number)} == UNDEFINED
    for name in ("EN", "MI", "SD", "SF", "AG", "EI", "CE", "RMSE", "Qcv"):
        assert found[name] == 0, name
    assert found["FMI"] == 1 and found["SSIM-mean"] == pytest.approx(1)
    black = np.zeros((64, 64), np.uint8)
    assert math.isnan(value("Qcv", black, black, black)) and math.isnan(value("Qabf", black, black, black))
    x = GREY[0][:64, :64]
    mixed = evaluate(x, FLAT, x, metrics=FUSION)
    assert {name for name, number in mixed.items() if math.isnan(number)} == {"VIF", "VIFF", "CC", "SCD"}
    assert mixed["NMI"] == pytest.approx(1) and mixed["MI"] == pytest.approx(mixed["EN"])


def test_mef_ssim_wants_nothing_of_flat_or_opposite_sources() -> None:
    """At 255 too, where rounding leaves flat windows a variance: a flat fused image is right, a step is not."""
    black, white = (np.full((64, 64), level, np.uint8) for level in (0, 255))
    step = np.where(np.arange(64)[None] < 32, black, white)
    assert value("MEF-SSIM", white, black, white) == pytest.approx(1) == value("MEF-SSIM", black, white, white)
    assert value("MEF-SSIM", white, step, 255 - step) == pytest.approx(1)
    assert value("MEF-SSIM", step, step, 255 - step) < 0.9


def test_one_pixel() -> None:
    x, y = (np.full((1, 1), level, np.uint8) for level in (10, 30))
    found = evaluate(x, x, y, metrics=[name for name in FUSION if METRICS[name].smallest == 1])
    assert found["RMSE"] == 10 and found["EN"] == found["MI"] == found["SD"] == found["SF"] == found["EI"] == 0
    assert all(math.isnan(found[name]) for name in ("NMI", "CC", "SCD", "Qcb"))
    assert found["CE"] == pytest.approx(math.log2(3) / 129 / 2), "half a pixel on each level"


def test_formulas_on_two_levels() -> None:
    """Half 0, half 200: one bit of entropy; an edge of 200 in the middle."""
    x = np.zeros((16, 16), np.uint8)
    x[:, 8:] = 200
    y = np.full((16, 16), 100, np.uint8)
    found = evaluate(x, x, y, metrics=["EN", "MI", "SD", "RMSE", "SF", "AG", "EI", "CE"])
    assert found["EN"] == 1 and found["SD"] == 100 and found["MI"] == 1
    assert found["RMSE"] == pytest.approx((0 + 100) / 2)
    assert found["SF"] == pytest.approx(math.sqrt(16 * 200**2 / 256))
    assert found["AG"] == pytest.approx(15 * 200 / math.sqrt(2) / 15**2, rel=1e-6)
    assert found["EI"] == pytest.approx(2 * 16 * 800 / 256)
    p, q = (256 + 0.5) / 384, 0.5 / 384
    here, none = (128 + 0.5) / 384, 0.5 / 384
    expected = (p * math.log2(p / none) + 2 * q * math.log2(q / here)) / 2
    assert found["CE"] == pytest.approx(expected)


def test_difference_correlation_of_a_sum_is_two() -> None:
    a, b = A[..., 1] // 2, B[..., 1] // 2
    assert value("SCD", a + b, a, b) == pytest.approx(2, abs=1e-9)


def local(image: np.ndarray, size: int, sigma: float) -> np.ndarray:
    """Gaussian means of the windows inside the image, window by window."""
    at = np.arange(size) - size // 2
    bell = np.outer(*[np.exp(-(at**2) / (2 * sigma**2))] * 2)
    views = np.lib.stride_tricks.sliding_window_view(image, bell.shape)
    return np.einsum("ijkl,kl->ij", views, bell / bell.sum())


def test_viff_is_the_definition_scale_by_scale() -> None:
    f, a, b = (image[:88, :97].astype(float) for image in GREY)
    total = 0.0
    for scale, (size, weight) in enumerate(zip((17, 9, 5, 3), (1, 0, 0.15, 1), strict=True)):
        if scale:
            f, a, b = (local(image, size, size / 5)[::2, ::2] for image in (f, a, b))
        parts: list[tuple[np.ndarray, ...]] = []
        for s in (a, b):
            ms, mf = local(s, size, size / 5), local(f, size, size / 5)
            vs, vf = local(s * s, size, size / 5) - ms**2, local(f * f, size, size / 5) - mf**2
            shared = local(s * f, size, size / 5) - ms * mf
            g = np.maximum(shared / (vs + 1e-10), 0)
            rest = np.where(shared > 0, vf - g * shared, vf)
            noise = 0.005 * 255**2
            parts.append((g, np.log(1 + g**2 * vs / (np.maximum(rest, 0) + noise)), np.log(1 + vs / noise)))
        first = parts[0][0] < parts[1][0]
        kept, held = (np.where(first, parts[0][k], parts[1][k]).sum() for k in (1, 2))
        total += weight / 2.15 * kept / held
    assert value("VIFF", *(image[:88, :97] for image in GREY)) == pytest.approx(total, rel=1e-7)


def window_fmi(source: np.ndarray, fused: np.ndarray) -> float:
    """2 I / (H + H) of a window, from the full table of joint probabilities."""
    if (source == fused).all():
        return 1.0
    p, q = ((w - w.min()).ravel(order="F") if w.max() > w.min() else np.ones(9) for w in (source.astype(float), fused))
    p, q = p / p.sum(), q / q.sum()
    deviations = [
        math.sqrt(max(float((np.arange(9) ** 2 * s).sum() - (np.arange(9) * s).sum() ** 2), 0)) for s in (p, q)
    ]
    t, u = p - 1 / 9, q - 1 / 9
    c = float((t * u).sum()) / math.sqrt(float((t * t).sum() * (u * u).sum())) if t.any() and u.any() else 0.0
    cp, cq = np.cumsum(p)[:, None], np.cumsum(q)[None]
    bound = np.minimum(cp, cq) if c >= 0 else np.maximum(cp + cq - 1, 0)
    most = float((bound - cp * cq).sum())
    phi = min(c * deviations[0] * deviations[1] / most, 1) if c and all(deviations) else 0.0
    joint = phi * np.diff(np.diff(np.pad(bound, ((1, 0), (1, 0))), axis=0), axis=1) + (1 - phi) * np.outer(p, q)
    p_bits, q_bits, both = (-float((s[s > 1e-16] * np.log2(s[s > 1e-16])).sum()) for s in (p, q, joint))
    return 2 * (p_bits + q_bits - both) / (p_bits + q_bits) if p_bits + q_bits else 0.0


def test_fmi_is_the_definition_window_by_window() -> None:
    f, a, b = (image[:20, :26].astype(np.float32) for image in GREY)
    a[:6], f[3:9] = 7, 40
    f, a, b = (gradient(image) for image in (f, a, b))
    cuts = [np.s_[i : i + 3, j : j + 3] for i in range(18) for j in range(24)]
    expected = np.mean([[window_fmi(s[cut], f[cut]) for s in (a, b)] for cut in cuts])
    assert mean_information(f, a, b, True) == pytest.approx(expected, abs=1e-9)


def test_perception_sees_no_difference_that_the_eye_does_not() -> None:
    """A change of fine texture weighs less in Qcv than the same change spread over a coarse pattern."""
    x = GREY[1].astype(int) // 2 + 60
    fine = np.indices(x.shape).sum(0) % 2 * 8 - 4
    coarse = np.repeat(np.repeat(np.indices((11, 12)).sum(0) % 2 * 8 - 4, 16, 0), 16, 1)
    values = [value("Qcv", (x + change).astype(np.uint8), *[x.astype(np.uint8)] * 2) for change in (fine, coarse)]
    assert values[0] < values[1] / 10


def test_ms_ssim_is_the_product_over_scales() -> None:
    x, y = (image[:171, :163].astype(float) for image in GREY[:2])
    expected = 1.0
    for scale, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        mx, my = local(x, 11, 1.5), local(y, 11, 1.5)
        vx, vy = local(x * x, 11, 1.5) - mx**2, local(y * y, 11, 1.5) - my**2
        cs = (2 * (local(x * y, 11, 1.5) - mx * my) + 7.65**2) / (vx + vy + 7.65**2)
        luminance = (2 * mx * my + 2.55**2) / (mx**2 + my**2 + 2.55**2) if scale == 4 else 1.0
        expected *= float(np.mean(luminance * cs)) ** weight
        x, y = (np.pad(i, ((0, i.shape[0] % 2), (0, i.shape[1] % 2)), "symmetric") for i in (x, y))
        x, y = (i.reshape(i.shape[0] // 2, 2, -1, 2).mean((1, 3)) for i in (x, y))
    f, a = (image[:171, :163] for image in GREY[:2])
    assert evaluate(f, a, a, a, ["ms_ssim"])["ms_ssim"] == pytest.approx(expected, rel=1e-9)
    small = A[: MS_SMALLEST - 1]
    with pytest.raises(ValueError, match="MS-SSIM needs images of 161x161 or more, not 192x160"):
        evaluate(small, small, small, small, ["MS-SSIM"])
    assert evaluate(255 - A, A, A, A, ["MS-SSIM"])["MS-SSIM"] == 0, "a negative mean counts as 0"


def model_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A synthetic model in the package's format: two support vectors, ranges from −1 to 1."""
    sparse = " ".join(f"{k}:0.5" for k in range(1, 36))
    text = f"svm_type epsilon_svr\nkernel_type rbf\ngamma 0.5\nrho -3\nSV\n2 {sparse}\n-1 36:1\n"
    files = folder / "svm.txt", folder / "normalize.pickle"
    files[0].write_text(text)
    files[1].write_bytes(pickle.dumps({"min_": [-1.0] * 36, "max_": [1.0] * 36}))
    monkeypatch.setattr(noreference, "_files", lambda: files)
    noreference.regression.cache_clear()


def test_brisque_is_its_regression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_of(tmp_path, monkeypatch)
    x = noreference.features(GREY[0].astype(float))
    s = np.array([0.5] * 35 + [0.0])
    t = np.array([0.0] * 35 + [1.0])
    expected = 2 * math.exp(-0.5 * ((x - s) ** 2).sum()) - math.exp(-0.5 * ((x - t) ** 2).sum()) + 3
    assert evaluate(GREY[0], *GREY[1:], metrics=["brisque"])["brisque"] == pytest.approx(expected, rel=1e-9)
    assert math.isnan(value("BRISQUE", FLAT, FLAT, FLAT))
    noreference.regression.cache_clear()


def test_brisque_s_features_are_those_of_what_they_fit() -> None:
    """The shape of a Laplacian is 1; downsampling preserves constants and ramps."""
    rng = np.random.Generator(np.random.Philox(3))
    shape, variance = noreference._fit_symmetric(rng.laplace(0, 2, (400, 400)))
    assert shape == pytest.approx(1, abs=0.02) and variance == pytest.approx(8, rel=0.03)
    left, right = np.abs(rng.normal(0, 1, (2, 300, 300)))
    skewed = np.concatenate([-left, 3 * right])
    found = noreference.fit_asymmetric(skewed)
    assert found[0] < 2 and found[2] == pytest.approx(1, rel=0.03) and found[3] == pytest.approx(9, rel=0.03)
    half = noreference.downsample(np.full((9, 12), 7.0))
    assert half.shape == (5, 6) and half == pytest.approx(7)
    ramp = noreference.downsample(np.arange(64.0)[None].repeat(32, 0))
    assert ramp[8, 4:28] == pytest.approx(np.arange(4, 28) * 2 + 0.5)


def test_ranges_are_read_and_never_loaded(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "loaded",)

    model = "svm_type epsilon_svr\nkernel_type rbf\ngamma 1\nrho 0\nSV\n1 1:1\n"
    ranges = pickle.dumps({"trap": Trap(), "min_": [0.0] * 36, "max_": [1] * 36})
    found = noreference.read_regression(model, ranges)
    assert found.low.tolist() == [0.0] * 36 and found.high.tolist() == [1.0] * 36
    assert not (tmp_path / "loaded").exists()
    with pytest.raises(UserError, match="no RBF model of 36 features"):
        noreference.read_regression(model, pickle.dumps({"min_": [0.0]}))


def test_what_cannot_run_is_named_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noreference, "find_spec", lambda name: None)
    noreference.regression.cache_clear()
    for name, hint in {"BRISQUE": "pip install brisque", "MUSIQ": r"pip install 'clearfuse\[iqa\]'"}.items():
        with pytest.raises(UserError, match=f"^{name} needs .*: {hint}$"):
            value(name, A, A, A)
    with pytest.raises(UserError, match="LPIPS needs pyiqa"):
        evaluate(A, A, A, A, ["LPIPS"])
    assert "BRISQUE" not in PROFILES["strict"].usual


def test_pyiqa_gets_colour_on_0_1_and_tensors_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package that records its calls."""
    torch = pytest.importorskip("torch")
    said: list[Any] = []

    def create_metric(name: str, device: Any) -> Any:
        said.append((name, os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")))

        def model(*images: Any) -> Any:
            said.append([tuple(image.shape) for image in images])
            return torch.stack([image.mean() for image in images]).sum()

        model.device = torch.device("cpu")  # pyright: ignore[reportFunctionMemberAccess]
        return model

    monkeypatch.setattr(noreference, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))
    noreference.network.cache_clear()
    x = np.full((40, 50), 51, np.uint8)
    assert evaluate(x, x, x, x, ["LPIPS"])["LPIPS"] == pytest.approx(0.4)
    assert value("musiq", x, x, x) == pytest.approx(0.2)
    assert said == [("lpips", "1"), [(1, 3, 40, 50)] * 2, ("musiq", "1"), [(1, 3, 40, 50)]]
    assert value("raim", x, x, x, x) == pytest.approx(30 * 0.4 / 50 - 22.5 * 0.1 / 0.5)
    assert noreference.raim_score(50, 1, 0) == 82.5 and noreference.raim_score(0, 0.5, 0.4) == 0
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ
    noreference.network.cache_clear()

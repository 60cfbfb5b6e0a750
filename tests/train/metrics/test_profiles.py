"""The profiles ``mefb``, ``tang`` and ``papers``: published numbers, and analytic values for simple images."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clearfuse.train.evaluation.scoring import absent_metrics, choose_metrics
from clearfuse.train.metrics import PROFILES, evaluate
from clearfuse.train.metrics.toolboxes.mefb import MEFB, edges
from clearfuse.train.metrics.toolboxes.tang import TANG, dct
from conftest import textured

A, B = textured(1, 64, 48), textured(2, 64, 48)
F = (A // 2 + B // 2).astype(np.uint8)

LIU = {
    "dwt": (0.91878185, 0.82609701, 0.69007239, 0.86239143, 0.68572546, 64.65729136),
    "gff": (1.12817716, 0.83825810, 0.77691005, 0.95232574, 0.72969457, 49.92310906),
    "brw": (1.19802779, 0.84006984, 0.83228148, 0.97943099, 0.77659019, 65.76374716),
}
"""NMI, Qncie, Qp, Qy, Qcb and Qcv of g_01 in the table that Liu publishes, made by functions that MEFB took over."""


@pytest.mark.slow
def test_numbers_published_for_functions_of_mefb(shared: Path) -> None:
    root = shared / "data" / "mff" / "MFIF_Liu"
    sources = [np.asarray(Image.open(root / "sourceimages" / "grayscale" / f"g_01_{k}.tif")) for k in (1, 2)]
    names = ["NMI", "Qncie", "Qp", "Qy", "Qcb", "Qcv"]
    for method, numbers in LIU.items():
        fused = np.asarray(Image.open(root / "Results" / "grayscale" / f"g_01_{method}.tif"))
        found = evaluate(fused, *sources, metrics=names, profile="mefb")
        assert found == pytest.approx(dict(zip(names, numbers, strict=True)), rel=1e-5), method


SAME = {
    "CE": 0, "FMI": 1, "NMI": 2, "PSNR": math.inf, "Qc": 1, "Qw": 1, "Qy": 1, "MEF-SSIM": 1, "Qcb": 1, "Qcv": 0,
    "VIF": 1,
}  # fmt: skip


def test_an_image_that_is_both_sources() -> None:
    found = evaluate(A, A, A, profile="mefb")
    assert list(found) == list(MEFB)
    for name, expected in SAME.items():
        assert found[name] == pytest.approx(expected, abs=1e-4), name
    assert found["Qncie"] > 0.97 and 0.97 < found["Qp"] <= 1
    found = evaluate(A, A, A, metrics=[name for name in TANG if name != "FMI-w"], profile="tang")
    assert found["MSE"] == 0 and found["PSNR"] == math.inf and found["Nabf"] == 0
    assert found["SSIM"] == pytest.approx(1) and found["VIF"] == pytest.approx(2, abs=1e-6)
    assert found["CC"] == pytest.approx(1) and found["FMI-dct"] == found["FMI-pixel"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["mefb", "tang"])
def test_swapped_sources_constants_and_floats(profile: str) -> None:
    names = [name for name in PROFILES[profile].metrics if name != "FMI-w"]
    found = evaluate(F, A, B, metrics=names, profile=profile)
    swapped = evaluate(F, B, A, metrics=names, profile=profile) | ({"Qc": found["Qc"]} if "Qc" in found else {})
    assert found == pytest.approx(swapped, rel=1e-6), "but Qc, whose weights are cut"
    floats = [image.astype(np.float64) / 255 for image in (F, A, B)]
    assert evaluate(*floats, metrics=names, profile=profile) == pytest.approx(found, rel=1e-6)
    flat = np.full((48, 64), 9, np.uint8)
    dead = evaluate(flat, flat, flat, metrics=names, profile=profile)
    nothing = {"mefb": ["NMI", "Qncie", "TE", "Qp", "Qc", "Qy", "Qcb", "Qcv"], "tang": ["VIF", "SCD", "CC"]}[profile]
    assert [name for name in names if math.isnan(dead[name])] == [name for name in names if name in nothing]
    odd = [image[:45, :51] for image in (F, A, B)]
    assert all(math.isfinite(value) for value in evaluate(*odd, metrics=names, profile=profile).values())


def test_a_colour_image_of_two_grey_ones_counts_by_its_first_channel() -> None:
    a, b = A[..., 0], B[..., 0]
    names = [name for name in MEFB if name not in ("AG", "MEF-SSIM")]
    one = evaluate(F[..., 0], a, b, metrics=names, profile="mefb")
    assert evaluate(F, a, b, metrics=names, profile="mefb") == pytest.approx(one, rel=1e-9)


def test_faults_that_tang_keeps() -> None:
    grey = F[..., 0], A[..., 0], B[..., 0]
    found = evaluate(*grey, metrics=["PSNR", "MSE", "MI", "CC", "SF", "SD", "VIF"], profile="tang")
    strict = evaluate(*grey, metrics=["MI", "CC", "SD", "VIF"])
    mse = np.mean([np.mean((grey[0].astype(float) - s) ** 2) for s in grey[1:]])
    assert found["PSNR"] == pytest.approx(10 * math.log10(255**2 / mse) + 20 * math.log10(255), rel=1e-9)
    assert found["MSE"] == pytest.approx(mse / 255**2)
    assert {name: found[name] for name in ("VIF", "SD")} == pytest.approx(
        {name: strict[name] for name in ("VIF", "SD")}, rel=1e-6
    )
    assert found["MI"] == pytest.approx(strict["MI"], rel=1e-9), "where 255 is rare"
    top = np.array([[254, 255], [255, 254]], np.uint8).repeat(8, 0).repeat(8, 1)
    assert evaluate(top, top, top, metrics=["MI"])["MI"] == 2
    assert evaluate(top, top, top, metrics=["MI"], profile="tang")["MI"] == 4, "254 and 255 are one in the joint levels"
    assert found["CC"] == pytest.approx(strict["CC"], rel=1e-6), "F's deviations sum to 0: the fault cancels"


def test_the_cosine_transform_is_orthonormal() -> None:
    x = np.random.Generator(np.random.Philox(1)).normal(size=(7, 10))
    y = dct(x)
    assert np.sum(y * y) == pytest.approx(np.sum(x * x)) and y[0, 0] == pytest.approx(x.sum() / math.sqrt(70))
    k, n = np.arange(10)[:, None], np.arange(10)[None]
    basis = np.cos(np.pi * (2 * n + 1) * k / 20) * math.sqrt(2 / 10)
    basis[0] /= math.sqrt(2)
    assert dct(np.eye(10)[:1]) == pytest.approx(basis[:, :1].T)


def test_edges_are_thin_and_where_the_step_is() -> None:
    image = np.zeros((12, 16))
    image[:, 8:] = 200
    found = edges(image)
    assert found[1:-1].sum(1).tolist() == [1] * 10 and found[5, 7:9].any() and not found[[0, -1]].any()


def test_what_of_a_profile_cannot_run_is_said() -> None:
    absent = absent_metrics(None, "papers") | absent_metrics("all", "tang") | absent_metrics("all", "strict")
    chosen = {metric.name for name in ("papers", "tang", "strict") for metric in choose_metrics("all", name)}
    named = {name for profile in ("papers", "tang", "strict") for name in PROFILES[profile].metrics}
    assert chosen | set(absent) == named and not chosen & set(absent)
    assert all(": pip install " in reason for reason in absent.values())
    assert absent_metrics("VIF", "papers") == {} and next(iter(PROFILES["papers"].metrics)) == "VIF"


def test_vif_of_the_papers_is_both_the_usual_one_and_the_authors() -> None:
    """The authors' has the fused image as the reference, which is the usual one with the images exchanged."""
    a, b, fused = (image[..., 1] for image in (A, B, F))
    found = evaluate(fused, a, b, metrics=["VIF", "VIF-authors"], profile="papers")
    assert found["VIF"] == evaluate(fused, a, b, metrics=["VIF"])["VIF"] != found["VIF-authors"]
    exchanged = sum(evaluate(source, fused, fused, metrics=["VIF"])["VIF"] / 2 for source in (a, b))
    assert found["VIF-authors"] == pytest.approx(exchanged, rel=1e-9)
    channels = [evaluate(F[..., k], A[..., k], b, metrics=["vif_authors"])["vif_authors"] for k in range(3)]
    assert evaluate(F, A, b, metrics=["vif_authors"])["vif_authors"] == pytest.approx(np.mean(channels), rel=1e-9)


def test_vif_of_the_authors_rewards_low_contrast() -> None:
    dull = (F // 2 + 64).astype(np.uint8)
    usual, theirs = ([evaluate(x, A, B, metrics=[name])[name] for x in (F, dull)] for name in ("VIF", "VIF-authors"))
    assert usual[1] < usual[0] and theirs[1] > 1.2 * theirs[0]

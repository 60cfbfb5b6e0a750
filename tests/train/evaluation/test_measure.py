"""Metrics on a device, here the CPU's tensors: the numbers of arrays, all methods of a sample in a batch."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made import made_shards

from clearfuse.train.evaluation import measure as module
from clearfuse.train.evaluation.evaluate import evaluate_shards
from clearfuse.train.evaluation.measure import measure
from clearfuse.train.evaluation.methods.fusers import METHODS
from clearfuse.train.evaluation.parts import planned
from clearfuse.train.evaluation.samples import plan_portions
from clearfuse.train.evaluation.scoring import choose_metrics
from clearfuse.train.metrics import METRICS, PROFILES
from conftest import Ran, textured

FUSED = {
    "colour": textured(3),
    "grey": textured(4, channels=1),
    "flat": np.full((128, 160, 3), 90, np.uint8),
    "truth": textured(2),
}
SOURCES = (textured(1), textured(5, channels=1), textured(2))


def same(one: float, other: float) -> bool:
    """Within 1e-4 of each other, relative where larger than 1; both undefined, both infinite."""
    return (
        (math.isnan(one) and math.isnan(other)) or one == other or math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-4)
    )


@pytest.mark.slow
def test_the_numbers_are_those_of_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [name for name, metric in METRICS.items() if not metric.missing() and metric.smallest <= 128]
    expected = measure(FUSED, *SOURCES, names)
    asked: list[tuple[int, tuple[str, ...]]] = []
    real = module._in_batch

    def counted(images: list[np.ndarray], *rest: object) -> object:
        asked.append((len(images), tuple(rest[3])))  # type: ignore[arg-type]
        return real(images, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_in_batch", counted)
    monkeypatch.setattr(module, "LARGEST", 3 * 128 * 160)
    found = measure(FUSED, *SOURCES, names, device="cpu")
    assert [count for count, _ in asked] == [3, 1] and len(asked[0][1]) > 20
    for method, values in expected.items():
        for name, value, other in zip(names, values, found[method], strict=True):
            assert same(value, other), (method, name, value, other)
    profile = PROFILES["vifb"].metrics  # of which none has a form for tensors: arrays, on any device
    assert not any(metric.tensor for metric in profile.values())
    on_arrays = [measure(FUSED, *SOURCES, ["PSNR", "SSIM"], "vifb", device)["colour"] for device in (None, "cpu")]
    np.testing.assert_array_equal(*on_arrays)


@pytest.mark.parametrize("device", [None, "cpu"])
def test_an_image_of_another_size_is_named(device: str | None) -> None:
    fused = {"good": textured(1), "small": textured(1, 64, 64)}
    with pytest.raises(ValueError, match=r"^small: .*64x64.*all images must have one size"):
        measure(fused, *SOURCES, ["SSIM", "Qabf"], device=device)


@pytest.mark.slow
def test_an_evaluation_on_a_device_is_another_with_the_same_numbers(tmp_path: Path) -> None:
    shards = [str(made_shards(tmp_path / "made") / "vif")]
    portions, methods, metrics = plan_portions(shards), tuple(METHODS.values()), choose_metrics("PSNR,VIF,Qabf")
    digests = {planned(tmp_path, portions, methods, metrics, device=one).digest for one in (None, "cpu", "cuda:1")}
    assert len(digests) == 3
    rows: list[list[dict[str, str]]] = []
    for device in (None, "cpu"):
        out = tmp_path / str(device)
        evaluate_shards(shards, str(out), metrics="PSNR,VIF,Qabf", methods=methods, examples=1, device=device)
        with (out / "report.csv").open(newline="") as file:
            rows.append(list(csv.DictReader(file)))
    assert len(rows[0]) == len(rows[1]) == 5 * len(methods)
    for one, other in zip(*rows, strict=True):
        assert all(one[name] == other[name] for name in ("key", "method"))
        assert all(same(float(one[name]), float(other[name])) for name in ("PSNR", "VIF", "Qabf"))


def test_a_gpu_that_is_not_there_is_said_before_work(train: Callable[..., Ran], tmp_path: Path) -> None:
    import torch

    name = f"cuda:{torch.cuda.device_count()}"
    ran = train("eval", tmp_path, "--device", name, "--out", tmp_path / "r")
    assert (
        ran.code == 2
        and f"--device {name}: " in ran.error
        and len(ran.err.splitlines()) == 1
        and not (tmp_path / "r").exists()
    )

"""Metrics on tensors beside the laws of ``METRICS``: errors, models of others, losses, and a GPU that is not there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from metricmodels import made_models
from torch import Tensor

from clearfuse.synth.types import UserError
from clearfuse.train.metrics import METRICS, PROFILES, evaluate, niqe, noreference
from clearfuse.train.metrics.base import Metric
from clearfuse.train.objectives.pixels import PIXEL_LOSSES, CleanImages
from conftest import textured

A, B = textured(1, 211, 300), textured(2, 211, 300)
F = (A // 2 + B // 2).astype(np.uint8)


def tensor(*images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Synthetic models of BRISQUE and NIQE."""
    monkeypatch.setattr(noreference, "_files", noreference._files)
    monkeypatch.setattr(niqe, "_file", niqe._file)
    made_models(tmp_path)
    yield
    noreference.regression.cache_clear()
    niqe.model.cache_clear()


def test_brisque_and_niqe_have_the_same_values(models: None) -> None:
    """Of an image, of one with flat blocks, of noise, and undefined for a flat one."""
    holed, flat = F.copy(), np.full_like(F, 9)
    holed[:96, :120] = 0
    images = [F, holed, np.random.Generator(np.random.Philox(3)).integers(0, 256, F.shape, np.uint8), flat]
    names = ["BRISQUE", "NIQE"]
    found = evaluate(*[tensor(*images)] * 3, metrics=names)
    for name in names:
        expected = [evaluate(image, image, image, metrics=[name])[name] for image in images]
        assert found[name].tolist() == pytest.approx(expected, rel=1e-4, nan_ok=True)
        assert len(set(expected[:3])) == 3 and np.isnan(expected[3]) and not found[name].requires_grad


def test_pyiqa_gets_batches_on_their_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package: values of several shapes, as its metrics give them."""
    said: list[Any] = []

    def create_metric(name: str, device: Any) -> Any:
        def model(*images: Tensor) -> Tensor:
            said.append((name, str(device), [tuple(image.shape) for image in images], images[0].dtype))
            return torch.stack([image.mean((1, 2, 3)) for image in images]).sum(0)[:, None]

        return model

    monkeypatch.setattr(noreference, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))
    noreference.network.cache_clear()
    x = torch.full((2, 1, 40, 50), 0.2, requires_grad=True)
    found = evaluate(x, x, x, x, ["LPIPS", "musiq"])
    assert found["LPIPS"].tolist() == pytest.approx([0.4] * 2) and found["musiq"].tolist() == pytest.approx([0.2] * 2)
    shape = (2, 3, 40, 50)
    assert said == [("lpips", "cpu", [shape] * 2, torch.float32), ("musiq", "cpu", [shape], torch.float32)]
    assert not found["LPIPS"].requires_grad
    noreference.network.cache_clear()


GOOD = torch.zeros(2, 3, 20, 30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": np.zeros((20, 30), np.uint8)}, "a is a ndarray: give all images as arrays, or all as torch tensors"),
        ({"fused": np.zeros((20, 30), np.uint8)}, "fused is a ndarray: give all images as arrays, or all as torch"),
        ({"b": GOOD[..., :29]}, "b is 29x20, fused 30x20: all images must have one size"),
        ({"a": GOOD[:1]}, "a: 1 in the batch, fused 2: give a source for each fused image"),
        ({"fused": GOOD[:, :2]}, r"fused: shape \(2, 2, 20, 30\) is not \(n, c, h, w\) or \(c, h, w\) with c 1 or 3"),
        ({"fused": GOOD[0, 0]}, r"fused: shape \(20, 30\) is not "),
        ({"a": GOOD.long()}, r"a: torch.int64 is not taken: give uint8, or floating point in \[0, 1\]"),
        ({"fused": GOOD - 1}, r"fused: floating point must lie in \[0, 1\], found -1 to -1: clamp it"),
        ({"b": GOOD / 0}, r"b: floating point must lie in \[0, 1\], found nan to nan: clamp it"),
        ({"a": GOOD[:0], "fused": GOOD[:0]}, r"fused: shape \(0, 3, 20, 30\) has no pixel"),
        ({"a": GOOD.to("meta")}, "a is on meta, fused on cpu: all must be on one device"),
        ({"metrics": ["VIF"]}, "VIF needs images of 41x41 or more, not 30x20"),
        ({"metrics": ["PSNR"]}, "PSNR needs gt: it compares the fused image with a ground truth"),
    ],
)  # fmt: skip
def test_what_cannot_be_scored_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        evaluate(**({"fused": GOOD, "a": GOOD, "b": GOOD, "metrics": ["SD"]} | change))


def test_definitions_without_a_tensor_form_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    batch = torch.zeros(1, 3, 64, 64)
    with pytest.raises(UserError, match=r"^AG: its form of this profile takes no tensors: give NumPy arrays$"):
        evaluate(batch, batch, batch, metrics=["AG"], profile="vifb")
    own = Metric("own", lambda f, a, b: 0.0, "higher", "fusion", "a user's")
    monkeypatch.setitem(METRICS, "own", own)
    with pytest.raises(UserError, match=r"^own: its form of this profile"):
        evaluate(batch, batch, batch, metrics=["own"])
    assert all(metric.tensor for metric in PROFILES["papers"].metrics.values())


def test_values_do_not_depend_on_the_batch_nor_on_autocast() -> None:
    """Nor are sources of a batch mixed up; only the fused images have gradients."""
    names = [name for name, metric in METRICS.items() if not metric.missing() and metric.smallest <= 48]
    batches = [(tensor(*images)[..., 20:68, :56] / 255).requires_grad_() for images in ((F, A), (A, B), (B, F))]
    whole = evaluate(*batches, batches[1], names)
    with torch.autocast("cpu", torch.bfloat16):
        parts = [evaluate(*(batch[k] for batch in batches), batches[1][k], names) for k in range(2)]
    for name in names:
        torch.testing.assert_close(whole[name], torch.cat([part[name] for part in parts]), rtol=1e-6, atol=1e-6)
    torch.stack([values.nansum() for values in whole.values() if values.requires_grad]).sum().backward()
    assert batches[0].grad is not None and batches[1].grad is None and batches[2].grad is None


def test_a_loss_leaves_out_what_is_undefined_and_refuses_small_images() -> None:
    """A flat source makes VIF undefined, and equal images PSNR infinite: they count as 0."""
    a = 2 * tensor(A, B)[..., :48, :48] / 255 - 1
    fused, flat = (0.9 * a).requires_grad_(), a.clone()
    flat[1] = 0.5
    loss = PIXEL_LOSSES["metric-VIF"](fused, CleanImages(gt=a, a=a, b=flat))
    (slope,) = torch.autograd.grad(loss, fused)
    alone = PIXEL_LOSSES["metric-VIF"](fused[:1], CleanImages(gt=a[:1], a=a[:1], b=flat[:1]))
    assert loss.item() == pytest.approx(alone.item() / 2) and slope[0].any() and not slope[1].any()
    assert float(PIXEL_LOSSES["metric-PSNR"](a, CleanImages(gt=a, a=a, b=a))) == 0
    with pytest.raises(UserError, match=r"^MS-SSIM needs images of 161x161 or more, not 48x48$"):
        PIXEL_LOSSES["metric-MS-SSIM"](fused, CleanImages(gt=a, a=a, b=a))
    assert PIXEL_LOSSES["metric-VIF"].__doc__ == "−VIF, the metric: information kept of both sources, a sum, luma."


def test_arrays_are_scored_without_torch() -> None:
    """Importing it takes longer than most scores."""
    program = (
        "import sys, numpy as np; from clearfuse import evaluate; x = np.zeros((64, 64), np.uint8);"
        "evaluate(x, x, x, x); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.slow
def test_every_metric_runs_on_cuda_tensors() -> None:
    """Fake ones, see ``fakemetrics``; in a process of its own: torch is patched there."""
    script = Path(__file__).parents[1] / "fakemetrics.py"
    ran = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, f"{ran.stdout}{ran.stderr[-2000:]}"
    assert set(METRICS) - set(ran.stdout.split()) == {"LPIPS", "RAIM", "MUSIQ", "CLIPIQA"}


@pytest.mark.gpu
def test_a_gpu_has_the_values_of_the_cpu() -> None:
    names = [name for name, metric in METRICS.items() if not metric.missing()]
    batches = [tensor(*images)[..., :200, :207] for images in ((F, A), (A, B), (B, F), (B, B))]
    found = evaluate(*(batch.cuda() for batch in batches), names)
    for name, values in evaluate(*batches, names).items():
        torch.testing.assert_close(found[name].cpu(), values, rtol=1e-4, atol=1e-5)

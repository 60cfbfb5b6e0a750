"""What every metric of ``METRICS`` obeys: what the table in docs/metrics.md says of it, and what all have in common."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from clearfuse.synth.color import LUMA
from clearfuse.synth.seeds import generator
from clearfuse.train.metrics import METRICS, evaluate
from clearfuse.train.objectives.pixels import PIXEL_LOSSES, CleanImages
from conftest import ROOT, textured

SIDES = 208, 224
A, B = textured(1, *SIDES), textured(2, *SIDES)
F = (A // 2 + B // 2).astype(np.uint8)
KINDS = {"ground truth": {"full-reference"}, "both sources": {"fusion"}, "nothing": {"fusion", "no-reference"}}
"""What a metric may be of that compares with so much; one of one image alone may share parts with those of fusion."""
SMOOTH = [name for name, metric in METRICS.items() if metric.differentiable]
RUNS = [name for name, metric in METRICS.items() if not metric.missing()]


@dataclass(frozen=True)
class Row:
    """A metric's row of the table. bounds: least and largest value; equal: the value where all images are one; smooth:
    whether it has gradients.
    """

    against: str
    better: str
    bounds: tuple[float, float]
    equal: str
    undefined: str
    smallest: int
    smooth: bool


def number(text: str) -> float:
    """A number as the table writes it."""
    return float(text.replace("−", "-").replace("∞", "inf"))


def documented() -> dict[str, Row]:
    """The table of docs/metrics.md by name. A range that is only about so bounds nothing."""
    found: dict[str, Row] = {}
    text = (ROOT / "docs/metrics.md").read_text().partition("\n## The metrics\n")[2].partition("\n\n")[0]
    for line in text.splitlines()[2:]:
        name, against, better, span, equal, undefined, smallest, smooth = (c.strip() for c in line[1:-1].split("|"))
        match = re.match(r"(about )?\[(.+?), (.+?)[])]", span)
        assert match is not None, line
        bounds = (-math.inf, math.inf) if match[1] else (number(match[2]), number(match[3]))
        found[name] = Row(
            against, better.strip("*"), bounds, equal, undefined, int(smallest.partition("×")[0]), smooth == "yes"
        )
    return found


DOCUMENTED = documented()


def score(name: str, fused: np.ndarray, a: np.ndarray, b: np.ndarray) -> float:
    """The value against both sources, or with a as the ground truth."""
    return evaluate(fused, a, b, a, [name])[name]


def noisy(image: np.ndarray, sigma: float) -> np.ndarray:
    """The image with Gaussian noise in code values, the same noise at any strength."""
    return np.clip(np.rint(image + sigma * generator(9).standard_normal(image.shape)), 0, 255).astype(np.uint8)


def test_the_table_of_the_docs_is_the_table_of_the_code() -> None:
    assert DOCUMENTED.keys() == METRICS.keys()
    said = {name: (row.better, row.smallest, row.smooth) for name, row in DOCUMENTED.items()}
    assert said == {name: (one.direction, one.smallest, one.differentiable) for name, one in METRICS.items()}
    for name, metric in METRICS.items():
        assert metric.kind in KINDS[DOCUMENTED[name].against] and metric.name == name and metric.doc


FLAT, BLACK, WHITE = (np.full_like(A, level) for level in (9, 0, 255))
STATIC = generator(5).integers(0, 256, A.shape, dtype=np.uint8)
STEP = np.where(np.arange(A.shape[1])[None, :, None] < A.shape[1] // 2, BLACK, WHITE)
TRIPLES = {
    "a mean": (F, A, B), "a source": (A, A, B), "noise": (STATIC, A, B), "a negative": (255 - A, A, A),
    "nothing fused": (FLAT, A, B), "one flat source": (A, FLAT, A), "all flat": (FLAT, FLAT, FLAT),
    "all black": (BLACK, BLACK, BLACK), "black and white": (WHITE, BLACK, WHITE), "a step": (STEP, STEP, 255 - STEP),
    "one row": (F[:1], A[:1], B[:1]),
}  # fmt: skip


@pytest.mark.parametrize("triple", TRIPLES)
@pytest.mark.parametrize("name", RUNS)
def test_values_lie_in_the_documented_range(name: str, triple: str) -> None:
    """Infinite only where the range is, not a number only where the table says when."""
    images = TRIPLES[triple]
    if len(images[0]) < METRICS[name].smallest:
        pytest.skip("smaller than the metric is defined on")
    found, row = score(name, *images), DOCUMENTED[name]
    low, high = row.bounds
    assert row.undefined if math.isnan(found) else low - 1e-6 <= found <= high + 1e-6


@pytest.mark.parametrize("name", [name for name in RUNS if DOCUMENTED[name].equal])
def test_equal_images_have_the_documented_value(name: str) -> None:
    found, said = score(name, A, A, A), DOCUMENTED[name].equal
    if said == "undefined":
        assert math.isnan(found)
    elif match := re.fullmatch(r"(\d+) (\w+)", said):
        assert found == pytest.approx(int(match[1]) * score(match[2], A, A, A), rel=1e-9)
    else:
        decimals = len(said.partition(".")[2])
        assert found == pytest.approx(number(said), abs=0.5 * 10**-decimals if decimals else 1e-5)


@pytest.mark.parametrize("name", [name for name in RUNS if DOCUMENTED[name].equal not in ("", "undefined")])
def test_more_noise_in_the_image_that_both_sources_are_is_worse(name: str) -> None:
    x = cv2.GaussianBlur(A, (5, 5), 1.0)
    values = [score(name, noisy(x, sigma), x, x) for sigma in (1, 5, 25)]
    assert values == sorted(values, reverse=METRICS[name].direction == "higher") and len(set(values)) == 3


@pytest.mark.parametrize("name", [name for name in RUNS if METRICS[name].kind == "fusion"])
def test_the_order_of_the_sources_changes_nothing(name: str) -> None:
    found = score(name, F, A, B)
    assert found == pytest.approx(score(name, F, B, A), rel=1e-9)
    if DOCUMENTED[name].against == "nothing":
        assert found == pytest.approx(score(name, F, F, STATIC), rel=1e-9), "nor do the sources themselves"


@pytest.mark.parametrize("name", RUNS)
def test_uint8_and_float_are_one_image_and_grey_is_three_equal_channels(name: str) -> None:
    floats = [(image / 255).astype(np.float32) for image in (F, A, B)]
    expected = pytest.approx(score(name, F, A, B), rel=1e-6)
    assert score(name, *floats) == expected and score(name, floats[0], A, floats[2]) == expected
    grey = [image[..., 1] for image in (F, A, B)]
    three = [np.repeat(image[..., None], 3, axis=2) for image in grey]
    expected = pytest.approx(score(name, *grey), rel=1e-9)
    assert score(name, *three) == expected and score(name, grey[0], three[1], grey[2][..., None]) == expected


@pytest.mark.parametrize("name", RUNS)
def test_the_least_size_is_scored_and_no_smaller_one(name: str) -> None:
    least = METRICS[name].smallest
    before = [image[:least, : least + 2].copy() for image in (F, A, B)]
    after = [image.copy() for image in before]
    assert isinstance(score(name, *after), float)
    assert all(map(np.array_equal, before, after)), "images are not written to"
    if least > 1:
        with pytest.raises(ValueError, match=f"^{name} needs images of {least}x{least} or more, not 64x{least - 1}$"):
            score(name, *(image[: least - 1, :64] for image in (F, A, B)))


def tensor(*images: np.ndarray) -> Tensor:
    """Images of one size and number of channels as a batch."""
    return torch.from_numpy(np.stack([image.reshape(*image.shape[:2], -1).transpose(2, 0, 1) for image in images]))


BATCH = [images for images in TRIPLES.values() if images[0].shape == A.shape]


@pytest.mark.parametrize("name", RUNS)
def test_the_tensor_form_has_the_same_values(name: str) -> None:
    """In a batch, of images that leave metrics undefined too; of odd sides, of grey beside colour, of any type."""
    side = max(METRICS[name].smallest, 95)
    triples = [[image[: side + 1, : side + 9] for image in images] for images in BATCH]
    f, a, b = (tensor(*part) for part in zip(*triples, strict=True))
    found = evaluate(f, a, b, a, [name])[name]
    assert found.dtype == torch.float32 and not found.requires_grad
    expected = [score(name, *images) for images in triples]
    assert found.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5, nan_ok=True)

    least = [image[: METRICS[name].smallest, : METRICS[name].smallest] for image in (F, A, B)]
    expected = pytest.approx(score(name, *least), rel=1e-4, abs=1e-6, nan_ok=True)
    assert evaluate(*(tensor(image) for image in (*least, least[1])), [name])[name].tolist() == [expected]
    odd = [image[:side, : side + 12] for image in (F, A[..., 0], B)]
    expected = pytest.approx(score(name, *odd), rel=1e-4)
    codes = [tensor(image) for image in odd]
    floats = [(batch / 255).to(dtype) for batch, dtype in zip(codes, (torch.float32, torch.float64), strict=False)]
    for f, a, b in (codes, [batch[0] for batch in (*floats, codes[2])]):
        assert evaluate(f, a, b, a, [name])[name].tolist() == [expected]
    half = floats[0].bfloat16()
    rounded = half[0].float().numpy().transpose(1, 2, 0)
    expected = score(name, rounded, *odd[1:])
    assert evaluate(half, *codes[1:], codes[1], [name])[name].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_are_finite(name: str) -> None:
    """Of flat, black and equal images too, and 0 of what is undefined."""
    side = max(METRICS[name].smallest, 48)
    fused, a, b = ((tensor(*part) / 255)[..., :side, :side] for part in zip(*BATCH, strict=True))
    fused.requires_grad_()
    values = evaluate(fused, a, b, a, [name])[name]
    values.nansum().backward()
    assert fused.grad is not None and fused.grad.isfinite().all()
    assert not fused.grad[values.isnan()].any() and fused.grad[0].any()


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    """Along the sign of the gradient, by one step of the grid that code values are rounded to; luma shares it out."""
    side, grid = max(METRICS[name].smallest, 48), 255 * 1024
    three = [tensor(image[:side, : side + 3, :1]).double() + 0.37 for image in (F, A, B)]
    rough = 4 * torch.from_numpy(generator(3).random(three[0].shape))
    fused, a, b = ((image * 0.97 * 1024).round() / grid for image in (three[0] + rough, *three[1:]))

    def value(image: Tensor) -> Tensor:
        return evaluate(image, a, b, a, [name])[name].sum()

    (slope,) = torch.autograd.grad(value(fused.requires_grad_()), fused)
    step = slope.sign() / grid
    measured = (value(fused.detach() + step) - value(fused.detach() - step)) / 2
    assert float(measured) == pytest.approx(float((slope * step).sum()), rel=1e-3)
    if METRICS[name].kind == "fusion" and METRICS[name].takes != "colour":
        colour = fused.detach().expand(-1, 3, -1, -1).clone().requires_grad_()
        (shares,) = torch.autograd.grad(value(colour), colour)
        torch.testing.assert_close(shares, slope * torch.tensor(LUMA).double().view(3, 1, 1), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", SMOOTH)
def test_ten_steps_down_the_loss_make_the_metric_better(name: str) -> None:
    side = max(METRICS[name].smallest, 64)
    images = [image[:side, :side] for image in (noisy(F, 12), A, B)]
    fused, a, b = (2 * tensor(image).float() / 255 - 1 for image in images)
    for _ in range(10):
        loss = PIXEL_LOSSES[f"metric-{name}"](fused.requires_grad_(), CleanImages(gt=a, a=a, b=b))
        (slope,) = torch.autograd.grad(loss, fused)
        fused = (fused.detach() - 2e-3 * slope / slope.square().mean().sqrt()).clamp(-1, 1)
    after = score(name, (fused[0].permute(1, 2, 0).numpy() + 1) / 2, *images[1:])
    before, sign = score(name, *images), 1 if METRICS[name].direction == "higher" else -1
    assert sign * after > sign * before and abs(after - before) > 1e-3 * abs(before)


def test_every_metric_has_a_tensor_form_and_a_loss_if_it_has_gradients() -> None:
    assert all(metric.tensor is not None for metric in METRICS.values())
    assert {name.removeprefix("metric-") for name in PIXEL_LOSSES if name.startswith("metric-")} == set(SMOOTH)
    fused = torch.rand(1, 3, 64, 64, requires_grad=True)
    assert not evaluate(fused, fused, fused, metrics=["EN", "MI", "FMI"])["EN"].requires_grad

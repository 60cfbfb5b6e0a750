"""The compiled loops of windowed attention: each kernel by its formula, whole blocks against the library in double."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from numba import njit

from clearfuse.synth.fusers.cpu.swin import CrossBlock, SwinBlock, in_strips, masks, through
from clearfuse.synth.fusers.cpu.vectors import exponentials, gelu, normal, product4, product5, product5_spread
from clearfuse.synth.fusers.cpu.windows import fits

ROWS = np.random.default_rng(1)


def normals(*shape: int, scale: float = 1.0) -> np.ndarray:
    return ROWS.normal(0, scale, shape).astype(np.float32)


@njit
def _five(w, x, start, out, depth):
    product5(w, 2, depth, 1, x, 16, start, 32, out, 48, depth)


@njit
def _five_spread(w, x, start, out, depth):
    product5_spread(w, 0, 1, 5, x, 0, start, 3, out, 0, depth)


@njit
def _four(w, x, start, out, depth):
    product4(w, 0, depth, 1, x, 0, start, 0, out, 0, depth)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 10, 60])
def test_products_add_to_where_they_start(depth: int) -> None:
    x, start = normals(depth, 64), normals(6, 64)
    out = np.zeros((6, 64), np.float32)
    w = normals(5, depth)
    _five(np.concatenate((np.zeros(2, np.float32), w.ravel())), x.ravel(), start.ravel(), out.ravel(), depth)
    expected = np.zeros_like(out)
    expected[:5, 48:] = start[:5, 32:48] + w.astype(float) @ x[:, 16:32]
    assert np.abs(out - expected).max() < 1e-5 * math.sqrt(depth)

    out[:] = 0
    biases = normals(8)
    _five_spread(w.T.ravel().copy(), x.ravel(), biases, out.ravel(), depth)
    assert np.abs(out[:5, :16] - biases[3:, None] - w.astype(float) @ x[:, :16]).max() < 1e-5 * math.sqrt(depth)

    out[:] = 0
    _four(w[:4].ravel(), x.ravel(), start.ravel(), out.ravel(), depth)
    assert np.abs(out[:4, :16] - start[:4, :16] - w[:4].astype(float) @ x[:, :16]).max() < 1e-5 * math.sqrt(depth)
    assert not out[4:].any() and not out[:, 16:].any()


@njit
def _exponentials(s, total, rows):
    for n in range(0, 64, 16):
        exponentials(s, n, rows, total)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.0, 1.0, 60.0])
def test_exponentials_are_of_what_is_below_the_largest(scale: float) -> None:
    s, total = normals(64, 64, scale=scale), np.zeros(64, np.float32)
    found = s.copy()
    _exponentials(found.ravel(), total, 64)
    expected = np.exp2((s - s.max(0)).astype(float))
    assert np.abs(found - expected).max() < 4e-7
    assert np.abs(total / expected.sum(0) - 1).max() < 1e-6


@njit
def _normal(x, out, rows):
    normal(x, out, rows)


@pytest.mark.slow
def test_a_norm_is_the_librarys() -> None:
    x, out = normals(60, 64, scale=3.0) + np.float32(2), np.zeros((60, 64), np.float32)
    _normal(x.ravel(), out.ravel(), 60)
    expected = torch.nn.functional.layer_norm(torch.from_numpy(x).double().T, (60,)).T.numpy()
    assert np.abs(out - expected).max() < 2e-6
    constant = np.full((60, 64), 7, np.float32)
    _normal(constant.ravel(), out.ravel(), 60)
    assert np.abs(out).max() < 1e-3


@njit
def _gelu(x, rows):
    gelu(x, rows)


@pytest.mark.slow
def test_gelu_is_the_librarys_from_end_to_end() -> None:
    x = np.linspace(-20, 20, 4096, dtype=np.float32)
    found = x.copy()
    _gelu(found, 64)
    assert np.abs(found - torch.nn.functional.gelu(torch.from_numpy(x).double()).numpy()).max() < 1e-6


def weighted(block: SwinBlock | CrossBlock) -> SwinBlock | CrossBlock:
    """With weights that leave no part without effect."""
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in block.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.3 + float(name.endswith("norm1.weight")))
    return block.eval()


@pytest.mark.slow
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize(("dim", "heads", "ratio", "threads"), [(60, 6, 2.0, 1), (30, 3, 1.5, 3), (20, 4, 1.0, 2)])
@pytest.mark.parametrize("kind", [SwinBlock, CrossBlock])
def test_a_block_is_the_librarys(
    kind: type[SwinBlock] | type[CrossBlock],
    dim: int,
    heads: int,
    ratio: float,
    threads: int,
    shifted: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    block = weighted(kind(dim, heads, 8, ratio, masks(8, torch.device("cpu"))[:1] if shifted else None))
    assert fits(dim, *block.sizes())
    images = [torch.from_numpy(normals(2, 16, 24, dim)) for _ in range(1 if kind is SwinBlock else 2)]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    with torch.inference_mode():
        found = through(block, *(x.clone() for x in images))
        expected = in_strips(copy.deepcopy(block).double(), *(x.double() for x in images))
    for one, other in zip(found, expected, strict=True):
        assert (one - other).abs().max() < 2e-5 * float(other.abs().max())


@pytest.mark.slow
def test_what_does_not_fit_runs_on_strips() -> None:
    block = weighted(SwinBlock(24, 3, 8, 2.0, None))
    assert not fits(24, *block.sizes()) and not fits(60, 6, 120, 4) and not fits(60, 6, 121, 8)
    image = torch.from_numpy(normals(1, 8, 16, 24))
    with torch.inference_mode():
        (found,) = through(block, image.clone())
        (expected,) = in_strips(block, image.clone())
    assert torch.equal(found, expected)

"""Winograd's convolution against the direct one, and where it is used."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from clearfuse.train.tokenizers import winograd
from clearfuse.train.tokenizers.winograd import Winograd, convolve, filters, fits, quicken


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (32, 20), (5, 70)])
@pytest.mark.parametrize("channels", [(3, 5), (16, 8)])
@torch.no_grad()
def test_it_is_the_convolution(
    size: tuple[int, int], channels: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(2, channels[0], *size, generator=rng)
    weight = torch.randn(channels[1], channels[0], 3, 3, generator=rng) / (3 * channels[0] ** 0.5)
    bias = torch.randn(channels[1], generator=rng)
    monkeypatch.setattr(winograd, "STRIP", 1 << 9)  # several strips
    for given in (bias, None):
        expected = F.conv2d(x, weight, given, padding=1)
        found = convolve(x, filters(weight), given)
        torch.testing.assert_close(found, expected, atol=5e-5, rtol=1e-5)
        assert torch.equal(convolve(x[:1], filters(weight), given), found[:1])


def test_it_stands_before_wide_convolutions_alone() -> None:
    network = nn.Sequential(
        nn.Conv2d(128, 128, 3, padding=1), nn.Conv2d(128, 128, 3, padding=1, stride=2), nn.Conv2d(128, 128, 1),
        nn.Conv2d(128, 64, 3, padding=1), nn.Sequential(nn.Conv2d(128, 256, 3, padding=1)),
    )  # fmt: skip
    x = torch.randn(1, 128, 12, 9, generator=torch.Generator().manual_seed(0))
    assert [fits(module) for module in network] == [True, False, False, False, False]
    quicken(network)
    first, inner = network[0], network[4][0]  # type: ignore[index]
    assert isinstance(first, Winograd) and isinstance(inner, Winograd) and isinstance(network[1], nn.Conv2d)
    with torch.no_grad():
        torch.testing.assert_close(first(x), first.direct(x), atol=5e-5, rtol=1e-4)
        assert not torch.equal(first(x), first.direct(x))
        assert torch.equal(first(x[..., :5, :]), first.direct(x[..., :5, :])), "small pictures go the direct way"
        first.direct.weight.zero_()
        assert first(x).std() > 0.1, "what is transformed is kept"
        assert first.float()._filtered is None, "until the network moves"
    x.requires_grad_()
    inner(x).sum().backward()
    assert x.grad is not None and x.grad.abs().max() > 0, "gradients go the direct way"

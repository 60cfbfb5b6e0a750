"""The dense U-Net: initial output, padding, batches, sizes, FLOPs, no time in a regression."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from clearfuse.synth.files.schema import validate
from clearfuse.synth.types import UserError
from clearfuse.train.models import Inputs, UNetConfig, build_model
from clearfuse.train.models.unet import flops, layer_specs

pytestmark = pytest.mark.slow

SMALL = UNetConfig(latent_channels=3, text_width=10, width=32, levels=3, blocks=2, attend=2, heads=2)
FLOW = replace(SMALL, flow=True)
CONFIGS = [SMALL, FLOW, replace(FLOW, text_width=0), replace(SMALL, levels=1, attend=0), replace(FLOW, blocks=1)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def awake(config: UNetConfig) -> nn.Module:
    network, rng = build_model("unet", config, seeded()), seeded(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=rng))
    return network.eval()


def inputs(config: UNetConfig, b: int = 2, h: int = 8, w: int = 12, m: int = 5) -> Inputs:
    z_a, z_b, z_t = (randn(b, config.latent_channels, h, w, seed=i) for i in range(3))
    text = randn(b, m if config.text_width else 0, config.text_width, seed=4)
    given = Inputs((z_a, z_b), (text, torch.ones(text.shape[:2], dtype=torch.bool)))
    return replace(given, z_t=z_t, t=torch.linspace(0.2, 0.9, b)) if config.flow else given


def sample(given: Inputs, i: int) -> Inputs:
    pair, text = ((x[i : i + 1], y[i : i + 1]) for x, y in (given.pair, given.text))
    assert given.z_t is not None and given.t is not None
    return Inputs(pair, text, z_t=given.z_t[i : i + 1], t=given.t[i : i + 1])


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_it_starts_at_zero_and_all_its_parameters_learn(config: UNetConfig) -> None:
    assert build_model("unet", config, seeded())(inputs(config)).latent.abs().max() == 0
    network = awake(config)
    prediction = network(inputs(config))
    assert prediction.latent.shape == (2, 3, 8, 12) and prediction.load.shape[1] == 0
    prediction.latent.square().mean().backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert missing == []


@torch.no_grad()
def test_padding_batches_and_sizes() -> None:
    network, given = awake(FLOW), inputs(FLOW)
    plain = network(given).latent
    text, mask = given.text
    padded = torch.cat([text, 100 * randn(2, 4, 10, seed=9)], 1), torch.arange(9).expand(2, 9) < 5
    torch.testing.assert_close(network(replace(given, text=padded)).latent, plain)
    torch.testing.assert_close(network(replace(given, text=(text, None))).latent, plain)
    alone = torch.cat([network(sample(given, i)).latent for i in range(2)])
    torch.testing.assert_close(alone, plain, atol=1e-5, rtol=1e-4)
    assert (network(replace(given, text=(text.roll(1, 2), mask))).latent - plain).abs().max() > 1e-4
    for size in ((1, 1), (5, 7)):
        assert network(inputs(FLOW, h=size[0], w=size[1])).latent.shape == (2, 3, *size)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_flops_by_formula_are_those_counted(config: UNetConfig) -> None:
    network, given = awake(config), inputs(config, b=1)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(given)
    # The counter is blind to two kernels of torch on a CPU, so that attention's two products may be missing.
    grids = [(8 * 12 // 4**s.level, s.out_channels) for s in layer_specs(config) if s.kind == "attention"]
    products = sum(4 * grid * (grid + given.text[0].shape[1]) * c for grid, c in grids)
    expected = flops(config, 8, 12, 5)
    assert counter.get_total_flops() in (expected, expected - products)


def test_a_regression_has_no_time() -> None:
    assert not [name for name, _ in build_model("unet", SMALL, seeded()).named_parameters() if "time" in name]
    for config, other in ((SMALL, FLOW), (FLOW, SMALL)):
        with pytest.raises(ValueError, match="a flow model takes z_t and t, a regression neither"):
            build_model("unet", config, seeded())(inputs(other))
    for name, value in {"guess": randn(2, 3, 8, 12), "present": torch.ones(2, 2, dtype=torch.bool)}.items():
        with pytest.raises(ValueError, match=f"the U-Net takes no {name}"):
            build_model("unet", SMALL, seeded())(replace(inputs(SMALL), **{name: value}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 30}, "width = 30: must be a multiple of 32"),
        ({"heads": 3}, r"width 32 must be a multiple of heads \(3\)"),
        ({"levels": 0}, r"levels = 0: must be in \[1, 8\]"),
        ({"attend": 4}, "attend 4 must be 0 to 3, the number of levels"),
    ],
)
def test_a_config_that_can_not_be_built_says_why(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(UNetConfig, asdict(SMALL) | change, "x")
    with pytest.raises(ValueError):
        replace(SMALL, **change)

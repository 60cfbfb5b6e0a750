"""NAFNet: it starts as its guess, all its parameters learn, it keeps any size, heeds the prompt, and costs as told."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from clearfuse.train.models import Inputs, NAFNetConfig, build_model
from clearfuse.train.models.nafnet import flops

SMALL = NAFNetConfig(text_width=10, width=4, blocks=(1, 2, 1), middle=2)
CONFIGS = [SMALL, replace(SMALL, guess=False), replace(SMALL, text_width=0), replace(SMALL, latent_channels=5)]


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def awake(config: NAFNetConfig) -> nn.Module:
    network, rng = build_model("nafnet", config, torch.Generator()), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    return network.eval()


def inputs(config: NAFNetConfig, b: int = 2, h: int = 16, w: int = 24) -> Inputs:
    a, c, guess = (randn(b, config.latent_channels, h, w, seed=i) for i in range(3))
    text = randn(b, 5 if config.text_width else 0, config.text_width, seed=4)
    return Inputs((a, c), (text, None), guess=guess if config.guess else None)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_it_starts_as_its_guess_and_all_its_parameters_learn(config: NAFNetConfig) -> None:
    given = inputs(config)
    start = build_model("nafnet", config, torch.Generator())(given).latent
    torch.testing.assert_close(start, sum(given.pair) / 2 if given.guess is None else given.guess)
    network = awake(config)
    network(given).latent.square().mean().backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert missing == []


@torch.no_grad()
def test_padding_of_prompts_batches_and_sizes() -> None:
    network, given = awake(SMALL), inputs(SMALL)
    plain, text = network(given).latent, given.text[0]
    padded = torch.cat([text, 100 * randn(2, 4, 10, seed=9)], 1), torch.arange(9).expand(2, 9) < 5
    torch.testing.assert_close(network(replace(given, text=padded)).latent, plain)
    assert (network(replace(given, text=(text.roll(1, 0), None))).latent - plain).abs().max() > 1e-4
    a, b, guess = (x[1:] for x in (*given.pair, given.guess))  # type: ignore[misc]
    alone = network(Inputs((a, b), (text[1:], None), guess=guess)).latent
    torch.testing.assert_close(alone, plain[1:], atol=1e-5, rtol=1e-4)
    for height, width in ((1, 1), (9, 23)):
        assert network(inputs(SMALL, h=height, w=width)).latent.shape == (2, 3, height, width)
    with pytest.raises(ValueError, match="NAFNet takes no semantics"):
        network(replace(given, semantics=(text, None)))


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@torch.no_grad()
def test_flops_are_the_counted_ones(config: NAFNetConfig) -> None:
    network, given = awake(config), inputs(config, b=1, h=13, w=24)
    with FlopCounterMode(display=False) as counter:
        network(given)
    assert flops(config, 13, 24, 5) == counter.get_total_flops()

"""The restorer: it starts as a copy of its guess, keeps any size, heeds the prompt, and costs what its formula says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from clearfuse.train.models import Inputs, RestorerConfig, build_model
from clearfuse.train.models.restorer import flops

pytestmark = pytest.mark.slow

SMALL = RestorerConfig(
    text_width=10, width=8, blocks=(1, 1, 2), depth=2, heads=2, expert_width=16, shared_width=16, lora=4
)
DIALLED = replace(SMALL, dial=True)
CONFIGS = [SMALL, replace(SMALL, guess=False), replace(SMALL, text_width=0), replace(SMALL, experts=0)]


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def awake(config: RestorerConfig) -> nn.Module:
    network, rng = build_model("restorer", config, torch.Generator().manual_seed(0)), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=rng))
    return network.eval()


def inputs(config: RestorerConfig, b: int = 2, h: int = 32, w: int = 48, m: int = 5) -> Inputs:
    a, c, guess = (randn(b, 3, h, w, seed=i).clamp(-1, 1) for i in range(3))
    text = randn(b, m if config.text_width else 0, config.text_width, seed=4)
    mask = torch.ones(text.shape[:2], dtype=torch.bool)
    return Inputs((a, c), (text, mask), guess=guess if config.guess else None)


def sample(given: Inputs, i: int) -> Inputs:
    pair, text = ((x[i : i + 1], y[i : i + 1]) for x, y in (given.pair, given.text))
    return replace(given, pair=pair, text=text, guess=None if given.guess is None else given.guess[i : i + 1])


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_it_starts_as_its_last_image_and_all_its_parameters_learn(config: RestorerConfig) -> None:
    given = inputs(config)
    start = build_model("restorer", config, torch.Generator().manual_seed(0))(given).latent
    torch.testing.assert_close(start, given.guess if given.guess is not None else given.pair[1])
    network = awake(config)
    prediction = network(given)
    (prediction.latent.square().mean() + prediction.balance).backward()
    missing = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert missing == []


@torch.no_grad()
def test_padding_of_prompts_batches_and_sizes() -> None:
    network, given = awake(SMALL), inputs(SMALL)
    plain = network(given).latent
    text = torch.cat([given.text[0], 100 * randn(2, 4, 10, seed=9)], 1)
    padded = network(replace(given, text=(text, torch.arange(9).expand(2, 9) < 5))).latent
    torch.testing.assert_close(padded, plain)
    alone = torch.cat([network(sample(given, i)).latent for i in range(2)])
    torch.testing.assert_close(alone, plain, atol=1e-5, rtol=1e-4)
    other = network(replace(given, text=(given.text[0].roll(1, 2), given.text[1]))).latent
    assert (other - plain).abs().max() > 1e-4
    for size in ((1, 1), (17, 40)):
        assert network(inputs(SMALL, h=size[0], w=size[1])).latent.shape == (2, 3, *size)


def test_it_is_no_flow_and_says_whether_it_has_a_guess() -> None:
    network, given = awake(SMALL), inputs(SMALL)
    with pytest.raises(ValueError, match="takes neither z_t nor t"):
        network(replace(given, z_t=given.pair[0], t=torch.zeros(2)))
    with pytest.raises(ValueError, match="if and only if"):
        network(replace(given, guess=None))
    with pytest.raises(ValueError, match="the restorer takes no semantics"):
        network(replace(given, semantics=given.text))


def test_a_dial_goes_from_the_guess_to_what_the_network_does_without_it() -> None:
    network, given = awake(DIALLED), inputs(DIALLED)
    assert given.guess is not None
    whole = network(given).latent
    strengths = torch.tensor([0.0, 1.0])
    at_ends = network(replace(given, strength=strengths)).latent
    assert torch.equal(at_ends[0], given.guess[0])
    torch.testing.assert_close(at_ends[1], whole[1])
    half = network(replace(given, strength=torch.full((2,), 0.5))).latent
    linear = (given.guess + whole) / 2
    assert (half - linear).abs().max() > 1e-4, "what the dial has learned adds to the share"
    half.square().mean().backward()
    assert isinstance(network.dial, nn.Module)
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.dial.parameters())
    fresh = build_model("restorer", DIALLED, torch.Generator().manual_seed(0)).get_submodule("dial")
    torch.testing.assert_close(fresh(strengths), torch.zeros(2, 64))
    with pytest.raises(ValueError, match="the restorer takes no strength"):
        awake(SMALL)(replace(given, strength=strengths))


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_flops_by_formula_are_those_counted(config: RestorerConfig) -> None:
    network, given = awake(config), inputs(config, b=1)
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(given)
    counted, formula = counter.get_total_flops(), flops(config, 32, 48, 5)
    # The counter is blind to attention on a CPU, and on experts' products as they stand.
    attention = config.depth * 4 * (6 + given.text[0].shape[1]) ** 2 * 8 * config.width
    assert counted <= formula * 1.01 and formula <= (counted + attention) * 1.02

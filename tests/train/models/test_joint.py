"""The joint transformer: what each part of the sequence does, what is inert, and dual guidance."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from clearfuse.train.models import build_model
from clearfuse.train.models.base import Inputs, Prediction
from clearfuse.train.models.joint import JointConfig, flops
from clearfuse.train.objectives.base import draw_present, guide_twice
from clearfuse.train.objectives.flow import FlowMatching
from clearfuse.train.objectives.noise import Draws

TINY = JointConfig(latent_channels=4, text_width=16, depth=2, width=32, heads=4, hidden=48, lora=8)
BLENDED = replace(TINY, head="blend", compress=True)
GUESSED = replace(BLENDED, guess=True)


def network(config: JointConfig = TINY) -> torch.nn.Module:
    """A network whose zero weights are drawn too, so that everything shows in the output."""
    rng = torch.Generator().manual_seed(1)
    built = build_model("joint", config, rng)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=rng))
    return built.eval()


def given(config: JointConfig = TINY, **fields: object) -> Inputs:
    """Inputs of two samples, with a prompt of five tokens."""
    rng = torch.Generator().manual_seed(2)
    z = [torch.randn(2, 4, 6, 8, generator=rng) for _ in range(4)]
    text = torch.randn(2, 5, 16, generator=rng)
    guess = z[3] if config.guess else None
    inputs = Inputs((z[0], z[1]), (text, None), z_t=z[2], t=torch.tensor([0.2, 0.7]), guess=guess)
    return replace(inputs, **fields)  # type: ignore[arg-type]


def differs(one: Tensor, other: Tensor) -> bool:
    """Whether two outputs differ by more than rounding."""
    return float((one - other).abs().max()) > 1e-4


@pytest.mark.parametrize("config", [TINY, BLENDED, GUESSED])
@torch.no_grad()
def test_every_part_of_the_sequence_shows_in_the_output(config: JointConfig) -> None:
    net, whole = network(config), given(config)
    out = net(whole).latent
    assert out.shape == (2, 4, 6, 8)
    z_a, z_b = whole.pair
    assert differs(net(replace(whole, text=(whole.text[0][:, :0], None))).latent, out)
    assert differs(net(replace(whole, text=(whole.text[0].roll(1, 2), None))).latent, out)
    assert differs(net(replace(whole, pair=(z_a + 1, z_b))).latent, out)
    assert differs(net(replace(whole, pair=(z_a, z_b + 1))).latent, out)
    assert differs(net(replace(whole, pair=(z_b, z_a))).latent, out), "the first image is told from the second"
    assert differs(net(replace(whole, t=whole.t + 0.1)).latent, out)  # type: ignore[operator]
    for which in (0, 1):
        present = torch.ones(2, 2, dtype=torch.bool)
        present[:, which] = False
        assert differs(net(replace(whole, present=present)).latent, out)
    if whole.guess is not None:
        assert differs(net(replace(whole, guess=whole.guess + 1)).latent, out)


@pytest.mark.parametrize("config", [TINY, BLENDED, GUESSED])
@torch.no_grad()
def test_padding_and_absent_images_are_inert(config: JointConfig) -> None:
    net, whole = network(config), given(config)
    out = net(whole).latent
    text = whole.text[0]
    padded = torch.cat([text, torch.full((2, 3, 16), 9.0)], 1)
    mask = torch.arange(8)[None] < torch.tensor([[5], [5]])
    torch.testing.assert_close(net(replace(whole, text=(padded, mask))).latent, out, rtol=0, atol=1e-5)
    gone = replace(whole, present=torch.tensor([[False, True], [False, False]]))
    other = replace(gone, pair=(whole.pair[0] + 3, whole.pair[1] + torch.tensor([0.0, 3.0])[:, None, None, None]))
    if whole.guess is not None:  # which is made of both images
        other = replace(other, guess=whole.guess - 2)
    torch.testing.assert_close(net(gone).latent, net(other).latent, rtol=0, atol=1e-5)
    all_there = replace(whole, present=torch.ones(2, 2, dtype=torch.bool))
    torch.testing.assert_close(net(all_there).latent, out, rtol=0, atol=1e-5)


@pytest.mark.parametrize("config", [TINY, BLENDED, GUESSED, replace(TINY, lora=0), replace(TINY, patch=1)])
@torch.no_grad()
def test_flops_by_formula_are_those_counted(config: JointConfig) -> None:
    """For a grid that the patch divides; the counter is blind to attention's kernel on a CPU."""
    rng = torch.Generator().manual_seed(2)
    z = [torch.randn(1, 4, 6, 8, generator=rng) for _ in range(3)]
    inputs = Inputs((z[0], z[1]), (torch.randn(1, 5, 16, generator=rng), None), z_t=z[2], t=torch.tensor([0.5]))
    inputs = replace(inputs, guess=z[0] if config.guess else None)
    net, counter = network(config), FlopCounterMode(display=False)
    with counter:
        net(inputs)
    tokens = 3 * (6 // config.patch) * (8 // config.patch) + 5
    expected, attention = flops(config, 6, 8, 5), config.depth * 4 * tokens**2 * config.width
    assert counter.get_total_flops() in (expected, expected - attention)


@torch.no_grad()
def test_it_starts_as_a_copy_of_its_guess() -> None:
    """At every time, as it is initialised; and as nothing where the images are not there."""
    net, whole = build_model("joint", GUESSED, torch.Generator().manual_seed(1)), given(GUESSED)
    torch.testing.assert_close(net(whole).latent, whole.guess, rtol=0, atol=1e-6)
    gone = replace(whole, present=torch.zeros(2, 2, dtype=torch.bool))
    assert float(net(gone).latent.abs().max()) < 1e-6


@torch.no_grad()
def test_a_sample_does_not_depend_on_the_rest_of_its_batch() -> None:
    net, whole = network(), given()
    assert whole.z_t is not None and whole.t is not None
    alone = Inputs(
        (whole.pair[0][:1], whole.pair[1][:1]),
        (whole.text[0][:1], None),
        z_t=whole.z_t[:1],
        t=whole.t[:1],  # type: ignore[index]
    )
    torch.testing.assert_close(net(alone).latent, net(whole).latent[:1], rtol=0, atol=1e-5)


@torch.no_grad()
def test_any_grid_and_a_model_without_prompts() -> None:
    net = network(replace(TINY, text_width=0))
    z = [torch.randn(1, 4, 5, 7) for _ in range(3)]
    out = net(Inputs((z[0], z[1]), (torch.zeros(1, 0, 0), None), z_t=z[2], t=torch.tensor([0.5]))).latent
    assert out.shape == (1, 4, 5, 7)


def test_what_it_cannot_take_is_refused() -> None:
    for config, other in ((TINY, GUESSED), (GUESSED, TINY)):
        with pytest.raises(ValueError, match="a guess must be given if and only if the config has one"):
            network(config)(given(other))
    with pytest.raises(ValueError, match="is of a flow: it takes z_t and t"):
        network()(given(z_t=None))
    with pytest.raises(ValueError, match="width 36 must be a multiple of 4 × heads"):
        JointConfig(width=36, heads=8)


def test_conditions_are_dropped_in_the_shares_asked_for() -> None:
    """Of 4,000 samples 5 % lose their prompt alone, 10 % their images alone and 20 % both, within 1.5 points."""
    objective = FlowMatching(drop=0.05, drop_images=0.1, drop_both=0.2)
    generator = torch.Generator().manual_seed(1)
    unprompted = (torch.rand(4000, generator=generator) < 0.25).tolist()
    present = draw_present(objective, unprompted, Draws.of("x", 1, range(4000)), torch.device("cpu"))
    assert present is not None and bool((present[:, 0] == present[:, 1]).all())
    found = Counter(zip(unprompted, (~present[:, 0]).tolist(), strict=True))
    for case, share in (((True, False), 0.05), ((False, True), 0.1), ((True, True), 0.2)):
        assert found[case] / 4000 == pytest.approx(share, abs=0.015)
    assert draw_present(FlowMatching(drop=0.1), unprompted, generator, torch.device("cpu")) is None


def test_dual_guidance_is_its_formula() -> None:
    values = [torch.full((1, 1, 1, 1), v) for v in (5.0, 3.0, 1.0)]

    def constant(value: Tensor) -> Prediction:
        return Prediction(value, torch.zeros(()), torch.zeros(1, 0))

    c, i, u = ((lambda z, t, v=v: constant(v)) for v in values)
    for images, prompt in ((1.0, 1.0), (1.6, 2.0), (0.0, 0.0), (2.0, 1.0)):
        found = guide_twice(c, i, u, images, prompt)(None, None).latent
        assert float(found) == pytest.approx(1 + images * (3 - 1) + prompt * (5 - 3))
    plain, guided = FlowMatching(steps=5), FlowMatching(steps=5, drop=0.1, drop_both=0.1, guidance_images=1.6)
    assert guided.calls == 3 * plain.calls


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"guidance_images": 1.6}, "guidance_images must be 1, not 1.6: the model always had images"),
        ({"drop": 0.5, "drop_images": 0.4, "drop_both": 0.3}, "their sum is at most 1"),
    ],
)
def test_guidance_needs_what_was_dropped(fields: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlowMatching(**fields)  # type: ignore[arg-type]

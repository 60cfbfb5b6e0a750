"""MdaIF: its parts by their equations, what its prior does, sizes, batches, costs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import small_mdaif
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from clearfuse.synth.types import UserError
from clearfuse.train.designs.design import Assembly
from clearfuse.train.models import Inputs, MdaIFConfig, build_model
from clearfuse.train.models.mdaif import (
    SHARPNESS,
    Activations,
    ChannelAttention,
    CrossAttention,
    MdaIF,
    Mixture,
    SemanticPrior,
    flops,
    inactive,
    orthonormal,
    segformer_config,
)
from clearfuse.train.pipeline.initial import start_from

SMALL: MdaIFConfig = small_mdaif().config
CONFIGS = [SMALL, replace(SMALL, guess=True), replace(SMALL, semantics_width=0), replace(SMALL, prototypes=5, active=1)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def made(config: MdaIFConfig = SMALL, awake: bool = True) -> MdaIF:
    network, rng = build_model("mdaif", config, seeded()), seeded(5)
    assert isinstance(network, MdaIF)
    with torch.no_grad():
        for parameter in network.parameters() if awake else ():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    return network.eval()


def inputs(config: MdaIFConfig = SMALL, b: int = 3, h: int = 40, w: int = 48, s: int = 5) -> Inputs:
    a, c, guess = (randn(b, 3, h, w, seed=i).clamp(-1, 1) for i in range(3))
    semantics = randn(b, s, config.semantics_width, seed=4), torch.ones(b, s, dtype=torch.bool)
    return Inputs(
        (a, c), (a.new_zeros(b, 0, 0), None), guess=guess if config.guess else None,
        semantics=semantics if config.semantics_width else None,
    )  # fmt: skip


@pytest.mark.parametrize("prototypes", [1, 3, 8])
def test_prototypes_start_orthonormal(prototypes: int) -> None:
    network = made(replace(SMALL, prototypes=prototypes), awake=False)
    directions = network.activation.directions
    torch.testing.assert_close(orthonormal(directions), directions, atol=1e-6, rtol=0)
    for level in network.dcam:
        w = level.prototypes
        assert isinstance(w, Tensor)
        torch.testing.assert_close(w @ w.T, torch.eye(prototypes), atol=1e-6, rtol=0)


def test_activations_neither_saturate_nor_all_follow_what_pictures_differ_in_most() -> None:
    """Trained to rise with one direction of the prior as far as they go: two layers end with copies of it at 1."""
    layer, prior = Activations(16, 3), randn(64, 16)
    prior[:, 0] *= 20  # such as brightness
    other = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 3), nn.Sigmoid())
    wanted = (prior[:, :1] > 0).float().expand(-1, 3)
    found: list[Tensor] = []
    for seed, module in enumerate((layer, other)):
        for parameter in module.parameters():
            parameter.data = randn(*parameter.shape, seed=seed) / 4
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.02)
        for _ in range(200):
            optimizer.zero_grad()
            nn.functional.binary_cross_entropy(module(prior), wanted).backward()
            optimizer.step()
        found.append(module(prior).detach())
    rows = orthonormal(layer.directions)
    torch.testing.assert_close(rows @ rows.T, torch.eye(3), atol=1e-5, rtol=0)
    logits, (s, copies) = found[0].logit(), found
    assert (logits.square().sum(1) <= SHARPNESS**2 + 1e-3).all(), "the parts of a vector of this length"
    cosines = SHARPNESS * nn.functional.normalize(prior, dim=1) @ rows.T
    torch.testing.assert_close(logits, cosines, atol=1e-4, rtol=1e-4)
    alike = [float(torch.corrcoef(each.T)[0, 1:].abs().max()) for each in (s, copies)]
    assert alike[1] > 0.99 and ((copies - 0.5).abs() > 0.49).float().mean() > 0.9, "what it is to prevent"
    assert s.min() > 0.017 and s.max() < 0.983
    torch.testing.assert_close(layer(7 * prior), found[0], msg="of a direction, however long")


def test_channels_are_modulated_by_the_prototypes() -> None:
    """F = LN(F_in) ⊙ σ(s W) + F_in; where all weights are one, LN(F_in) + F_in, and where they are zero, F_in."""
    layer, x = ChannelAttention(6, 2), randn(2, 5, 6)
    with torch.no_grad():
        layer.prototypes.copy_(randn(2, 6, seed=2))
    s = torch.tensor([[0.2, 0.9], [0.7, 0.1]])
    weights = torch.sigmoid(s @ layer.prototypes)
    normed = nn.functional.layer_norm(x, (6,), eps=1e-6)
    torch.testing.assert_close(layer(x, s), normed * weights[:, None] + x)
    for scale, wanted in ((1e4, normed + x), (-1e4, x)):
        with torch.no_grad():
            layer.prototypes.fill_(scale)
        torch.testing.assert_close(layer(x, s), wanted)


def test_the_prior_is_attended_and_holds_two_parts() -> None:
    """Any number of tokens; those that are padding change nothing."""
    layer = SemanticPrior(12, 8).eval()
    for s in (1, 7, 70):
        tokens = randn(2, s, 12, seed=s)
        whole = layer(tokens, None)
        assert all(part.shape == (2, s, 8) for part in whole)
        more = torch.cat([tokens, 100 * randn(2, 3, 12)], 1), torch.arange(s + 3).expand(2, -1) < s
        for one, other in zip(whole, layer(*more), strict=True):
            torch.testing.assert_close(one, other[:, :s])


def test_weather_enhances_the_visible_half_alone_and_the_scene_both() -> None:
    layer = Mixture(8, SMALL).eval()
    with torch.no_grad():
        for each in (layer.weather, layer.scene):
            each.out.weight.copy_(randn(*each.out.weight.shape))
    x, prior = randn(1, 6, 16), tuple(randn(1, 4, 16, seed=i) for i in range(3))
    seen: list[Tensor] = []
    layer.scene.register_forward_hook(lambda module, args, out: seen.extend((args[0], out)))
    layer(x, 2, prior, None)
    assert torch.equal(seen[0][..., 8:], x[..., 8:]) and (seen[0][..., :8] - x[..., :8]).abs().min() > 0
    assert all((half[1] - half[0]).abs().max() > 0 for half in zip(*(part.chunk(2, -1) for part in seen), strict=True))


def test_cross_attention_is_the_identity_at_first_and_its_formula_after() -> None:
    layer, x, tokens = CrossAttention(4, 6).eval(), randn(2, 5, 4), randn(2, 3, 6, seed=2)
    nn.init.zeros_(layer.out.weight)
    nn.init.zeros_(layer.out.bias)
    assert torch.equal(layer(x, tokens, None), x)
    with torch.no_grad():
        layer.out.weight.copy_(torch.eye(4))
    k, v = layer.kv(tokens).chunk(2, -1)
    weights = (layer.q(layer.norm(x)) @ k.transpose(1, 2) / 2).softmax(-1)
    torch.testing.assert_close(layer(x, tokens, None), x + weights @ v)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_it_starts_as_one_of_its_images_and_all_its_parameters_learn(config: MdaIFConfig) -> None:
    """Every expert gets a gradient, also one that no image of the batch was sent to."""
    given = inputs(config)
    start = made(config, awake=False)(given).latent
    torch.testing.assert_close(start, given.pair[0] if given.guess is None else given.guess, atol=1e-5, rtol=1e-5)
    network = made(config)
    prediction = network(given)
    (prediction.latent.square().mean() + prediction.balance).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    still = [name for name, p in network.named_parameters() if not p.grad.abs().max() > 0]  # type: ignore[union-attr]
    idle = ("prior.qkv", "prior.out", "prior.norm") if not config.semantics_width else ()
    assert [name for name in still if ".experts." not in name and not name.startswith(idle)] == []


@torch.no_grad()
def test_the_output_is_scaled_about_the_image_where_it_starts() -> None:
    """To first order: the blend multiplies gains and weights."""
    given, start = inputs(), inputs().pair[0]
    large, small = (made(replace(SMALL, output_scale=scale))(given).latent - start for scale in (1e-3, 1e-4))
    torch.testing.assert_close(small, large / 10, atol=2e-6, rtol=2e-2)
    assert large.abs().max() > 1e-4


def test_what_it_notes_of_each_image() -> None:
    given = inputs()
    prediction = made()(given)
    prototypes, experts = prediction.notes["prototype"], prediction.notes["expert"]
    assert prototypes.shape == (3, 3) and prototypes.min() > 0 and prototypes.max() < 1
    torch.testing.assert_close(experts.sum(1), torch.ones(3))
    assert prediction.load.shape == (4, SMALL.experts)
    torch.testing.assert_close(experts.mean(0), prediction.load.mean(0))


@torch.no_grad()
def test_batches_sizes_and_the_prior() -> None:
    network, given = made(), inputs()
    plain, tokens = network(given), given.semantics[0]  # type: ignore[index]
    for i in range(3):
        pair = tuple(z[i : i + 1] for z in given.pair)
        one = network(Inputs(pair, (tokens.new_zeros(1, 0, 0), None), semantics=(tokens[i : i + 1], None)))
        torch.testing.assert_close(one.latent, plain.latent[i : i + 1], atol=1e-4, rtol=1e-4)
    other = network(replace(given, semantics=(tokens.roll(1, 0), None)))
    assert (other.latent - plain.latent).abs().max() > 1e-3
    assert (other.notes["prototype"] - plain.notes["prototype"].roll(1, 0)).abs().max() < 1e-5, "of the prior alone"
    for size in ((1, 1), (33, 65)):
        assert network(inputs(h=size[0], w=size[1])).latent.shape == (3, 3, *size)


def test_what_it_refuses() -> None:
    network, given = made(), inputs()
    for change, said in (
        ({"semantics": None}, "a semantic prior must be given if and only if"),
        ({"guess": given.pair[0]}, "a guess must be given if and only if"),
        ({"z_t": given.pair[0], "t": torch.zeros(3)}, "takes neither z_t nor t"),
        ({"present": torch.ones(3, 2, dtype=torch.bool)}, "takes no present"),
    ):
        with pytest.raises(ValueError, match=said):
            network(replace(given, **change))
    for change, said in (
        ({"prototypes": 17}, "prototypes 17 must be at most 16, to be orthonormal"),
        ({"prototypes": 13, "prior_width": 12}, "prototypes 13 must be at most 12, to be orthonormal"),
        ({"active": 5}, "active 5 must be 1 to 4"),
        ({"heads": (1, 1, 3, 2)}, "must be multiples of heads"),
    ):
        with pytest.raises(ValueError, match=said):
            replace(SMALL, **change)


@pytest.mark.parametrize("config", [*CONFIGS, replace(SMALL, reductions=(4, 2, 1, 1), blocks=2)], ids=str)
def test_flops_by_formula_are_those_counted(config: MdaIFConfig) -> None:
    """On a CPU the counter is blind to attention's products."""
    network, given, counter = made(config), inputs(config, b=1, h=64, w=96), FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        network(given)
    levels, s = [16 * 24, 8 * 12, 4 * 6, 2 * 3], 5 if config.semantics_width else 1
    attention = 2 * 2 * s * s * config.prior_width
    for n, c, r in zip(levels, config.widths, config.reductions, strict=True):
        attention += 2 * 2 * 2 * n * (n // r**2) * c + 2 * 2 * n * s * 3 * c
    counted, formula = counter.get_total_flops(), flops(config, 64, 96, 5)
    assert formula in (counted, counted + attention)


def test_both_encoders_start_from_a_folder_of_a_segformer(tmp_path: Path) -> None:
    """As it is saved by transformers, the classifier's weights left out."""
    from transformers import SegformerForImageClassification

    torch.manual_seed(0)
    published = SegformerForImageClassification(segformer_config(SMALL))
    published.save_pretrained(tmp_path)
    assembly = Assembly(small_mdaif(), seeded())
    said = start_from(assembly, str(tmp_path))
    assert f"are those of {tmp_path}; new: " in said
    for encoder in assembly.network.encoders:  # type: ignore[union-attr]
        for name, tensor in published.segformer.state_dict().items():
            assert torch.equal(encoder.state_dict()[name], tensor), name  # type: ignore[union-attr]
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"--init .*: can't be loaded"):
        start_from(assembly, str(tmp_path))


def test_an_image_skips_the_experts_it_is_not_sent_to() -> None:
    experts = sum(p.numel() for name, p in made().named_parameters() if ".experts." in name)
    assert inactive(SMALL) == experts // 2 and inactive(replace(SMALL, active=1)) == experts * 3 // 4

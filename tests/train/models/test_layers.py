"""Layers: relative positions of RoPE, value residual, experts against a dense loop, NAF against its formula."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from clearfuse.synth.types import UserError
from clearfuse.train.models.attention import attention, choose_kernel, find_kernel
from clearfuse.train.models.experts import Experts, MoE, Router, SwiGLU, dispatch, swiglu_grouped, swiglu_padded
from clearfuse.train.models.layers import (
    AdaLN,
    Attention,
    Eta,
    NAFBlock,
    Positions,
    TimeEmbedding,
    TokenLayout,
    ZeroConv2d,
    ZeroLinear,
    decayed_parameters,
    initialise,
    modulate,
    rope_angles,
    rotate,
    sine_positions,
)

M = TypeVar("M", bound=nn.Module)
PLAIN = TokenLayout(3, 4, None, None, None)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def made(module: M, seed: int = 0) -> M:
    """The module with random parameters, including those initialised to zero."""
    rng = seeded(seed)
    initialise(module, rng)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=rng))
    return module


def test_rope_scores_depend_on_the_offset_alone() -> None:
    """The score of q at p and k at p + offset does not depend on p, but on the offset."""
    angles = rope_angles(9, 11, 16, 2000.0)
    q, k = randn(16), randn(16, seed=2)
    turned_q = rotate(q.expand(1, 1, 99, 16), angles)[0, 0].view(9, 11, 16)
    turned_k = rotate(k.expand(1, 1, 99, 16), angles)[0, 0].view(9, 11, 16)
    scores = (turned_q[:6, :8] * turned_k[3:, 3:]).sum(-1)
    torch.testing.assert_close(scores, scores[:1, :1].expand_as(scores), atol=1e-5, rtol=0)
    others = (turned_q[:6, :8] * turned_k[2:8, 3:]).sum(-1)
    assert (others - scores).abs().max() > 1e-2
    torch.testing.assert_close(turned_q[0, 0], q)
    torch.testing.assert_close(turned_q.norm(dim=-1), q.norm().expand(9, 11))


def test_rope_angles_of_a_larger_grid_begin_with_those_of_a_smaller() -> None:
    small, large = (rope_angles(n, n, 16, 2000.0).view(n, n, 8) for n in (4, 7))
    assert torch.equal(large[:4, :4], small)
    assert large[2, 3].tolist() == pytest.approx([n * 2000 ** (-i / 4) for n in (2, 3) for i in range(4)])


def test_attention_is_its_formula_and_skips_masked_keys() -> None:
    q, k, v = (randn(2, 3, 5, 8, seed=i) for i in range(3))
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]])
    for used in (None, mask):
        scores = q @ k.mT / 8**0.5
        if used is not None:
            scores = scores.masked_fill(~used[:, None, None, :], -torch.inf)
        torch.testing.assert_close(attention(q, k, v, used), scores.softmax(-1) @ v)


@pytest.mark.gpu
@pytest.mark.parametrize("padding", [0, 5])
def test_attention_on_a_gpu_is_the_cpu_s(padding: int) -> None:
    q, k, v = (randn(2, 3, 37, 16, seed=i) for i in range(3))
    mask = torch.arange(37).expand(2, 37) < 37 - padding
    there = attention(*(x.cuda().bfloat16() for x in (q, k, v)), mask.cuda() if padding else None)
    torch.testing.assert_close(there.float().cpu(), attention(q, k, v, mask), atol=2e-2, rtol=2e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", ["xformers", "FLASH_ATTENTION", "EFFICIENT_ATTENTION"])
def test_attention_kernels_on_a_gpu_agree_with_the_formula(kernel: str) -> None:
    """With the paper's heads of width 48, in bf16, against softmax(q kᵀ / √k) v in fp32."""
    q, k, v = (randn(2, 12, 200, 48, seed=i) for i in range(3))
    expected = (q @ k.mT / 48**0.5).softmax(-1) @ v
    there = [x.cuda().bfloat16() for x in (q, k, v)]
    if kernel == "xformers":
        pytest.importorskip("xformers")
        found = attention(*there, None)
    else:
        with sdpa_kernel(getattr(SDPBackend, kernel)):
            found = F.scaled_dot_product_attention(*there)
    torch.testing.assert_close(found.float().cpu(), expected, atol=2e-2, rtol=2e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("keys", [37, 64])
def test_xformers_and_sdpa_agree_on_padded_prompts(keys: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """For any number of keys, although xformers needs rows aligned to 8."""
    pytest.importorskip("xformers")
    q, k, v = (randn(2, 12, keys, 48, seed=i).cuda().bfloat16() for i in range(3))
    mask = (torch.arange(keys) < torch.tensor([[keys], [keys - 9]])).cuda()
    found = attention(q, k, v, mask)
    monkeypatch.setattr("clearfuse.train.models.attention.has_xformers", lambda: False)
    torch.testing.assert_close(found.float(), attention(q, k, v, mask).float(), atol=2e-2, rtol=2e-2)


def test_value_residual_at_eta_0_is_plain_attention() -> None:
    layer, plain = Attention(24, 2, "previous"), Attention(24, 2, None)
    initialise(layer, seeded())
    plain.load_state_dict({name: value for name, value in layer.state_dict().items() if "eta" not in name})
    x, before = randn(2, 12, 24), randn(2, 2, 12, 12)
    assert torch.equal(layer(x, PLAIN, before)[0], plain(x, PLAIN, None)[0])


def test_value_residual_mixes_the_values_before() -> None:
    layer = made(Attention(24, 2, "previous"))
    x, before = randn(2, 12, 24), randn(2, 2, 12, 12)
    eta = layer.eta.value  # type: ignore[union-attr]
    _, own = layer(x, PLAIN, None)
    _, mixed = layer(x, PLAIN, before)
    torch.testing.assert_close(mixed, (1 - eta) * own + eta * before)
    layer(x, PLAIN, before)[0].square().sum().backward()
    assert eta.grad is not None and eta.grad.abs() > 0


def test_the_value_residual_from_the_first_layer_passes_its_values_on() -> None:
    """V = λ W_V X + λ' V_1, both ½ at first; what the next layer gets is V_1, whatever was mixed here."""
    layer, x, first = Attention(24, 2, "first"), randn(2, 12, 24), randn(2, 2, 12, 12)
    initialise(layer, seeded())
    weights = layer.first.value  # type: ignore[union-attr]
    assert weights.tolist() == [0.5, 0.5]
    alone, own = layer(x, PLAIN, None)
    mixed, passed_on = layer(x, PLAIN, first)
    assert passed_on is first and not torch.equal(alone, mixed)
    plain = copy.deepcopy(layer)
    plain.first = None
    with torch.no_grad():
        weights.copy_(torch.tensor([0.2, 3.0]))
        layer.qkv.weight[48:] = plain.qkv.weight[48:] / 0.2
        layer.qkv.bias[48:] = layer.qkv.bias[48:] / 0.2
    same = layer(x, PLAIN, torch.zeros_like(first))[0]
    torch.testing.assert_close(same, alone, atol=1e-5, rtol=1e-5)
    assert own.shape == first.shape
    layer(x, PLAIN, first)[0].square().sum().backward()
    assert (weights.grad.abs() > 0).all()  # type: ignore[union-attr]


def dense_loop(layer: MoE, x: Tensor) -> Tensor:
    """The definition: each token through its top experts, one by one."""
    groups, router = [list(range(layer.experts))], layer.router
    if router.grouped:
        groups = [groups[0][: layer.experts // 2], groups[0][layer.experts // 2 :]]
    out = torch.zeros_like(x)
    for index in torch.cartesian_prod(torch.arange(x.shape[0]), torch.arange(x.shape[1])).tolist():
        token = x[tuple(index)]
        probability = (router.weight @ token).softmax(0)
        group = max(groups, key=lambda group: max(float(probability[i]) for i in group))
        best = sorted(group, key=lambda i: -float(probability[i]))[: router.active]
        total = sum(probability[i] for i in best) if router.renormalise else 1.0
        for i in best:
            gate, up = (token @ layer.w_in[i]).chunk(2)
            out[tuple(index)] += probability[i] / total * ((layer.gate(gate) * up) @ layer.w_out[i])
        if layer.shared is not None:
            out[tuple(index)] += layer.shared(token)
    return out


@pytest.mark.parametrize(("experts", "active", "shared"), [(4, 2, 8), (4, 2, 0), (3, 1, 8), (2, 2, 0)])
def test_experts_equal_a_dense_loop(experts: int, active: int, shared: int) -> None:
    layer = made(MoE(Router(16, experts, active), 12, shared))
    x = randn(2, 9, 16)
    with torch.no_grad():
        torch.testing.assert_close(layer(x, None)[0], dense_loop(layer, x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "ways",
    [
        {"grouped": True},
        {"renormalise": False},
        {"gate": "gelu"},
        {"grouped": True, "renormalise": False, "gate": "gelu"},
    ],
    ids=str,
)
def test_the_authors_router_and_gate_are_their_definition(ways: dict[str, Any]) -> None:
    """With four experts in two groups a token takes one pair whole, by the larger single score."""
    gate = ways.pop("gate", "silu")
    layer, x = made(MoE(Router(16, 4, 2, **ways), 12, 8, gate)), randn(2, 9, 16)
    router = layer.router
    with torch.no_grad():
        y, routing = layer(x, None)
        torch.testing.assert_close(y, dense_loop(layer, x), atol=1e-5, rtol=1e-5)
        chosen = router(x.view(18, 16)).chosen.sort().values.tolist()
    assert float(routing.load.sum()) == pytest.approx(1)
    pairs = {(0, 1), (2, 3)}
    assert {tuple(pair) for pair in chosen} <= pairs if router.grouped else not {tuple(p) for p in chosen} <= pairs
    assert layer.gate is (F.gelu if gate == "gelu" else F.silu) and layer.shared.gate is layer.gate  # type: ignore[union-attr]


def test_the_grouped_product_is_the_loop_over_experts() -> None:
    layer = made(MoE(Router(16, 4, 2), 12, 0))
    x, counts = randn(50, 16).requires_grad_(), torch.tensor([20, 0, 25, 5])
    stacks = [x, layer.w_in, layer.w_out]
    found, wanted = swiglu_grouped(x, layer.w_in, layer.w_out, counts), layer._experts(x, counts)
    torch.testing.assert_close(found, wanted)
    slopes = [torch.autograd.grad(y.square().sum(), stacks) for y in (found, wanted)]
    for mine, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.gpu
def test_experts_on_a_gpu_are_those_of_the_cpu() -> None:
    layer, x = made(MoE(Router(64, 4, 2), 96, 32)), randn(2, 100, 64)
    wanted = layer(x, None)[0]
    with torch.autocast("cuda", torch.bfloat16):
        found = copy.deepcopy(layer).cuda()(x.cuda(), None)[0]
    assert float((found.float().cpu() - wanted).norm() / wanted.norm()) < 0.02


def test_each_layer_says_what_decays() -> None:
    layer = made(MoE(Router(16, 4, 2), 12, 8))
    assert decayed_parameters(layer) == ("w_in", "w_out")
    assert decayed_parameters(NAFBlock(8)) == () == decayed_parameters(Eta())
    assert decayed_parameters(ZeroLinear(2, 2)) == decayed_parameters(ZeroConv2d(2, 2, 1)) == ("weight",)
    assert decayed_parameters(nn.LayerNorm(3)) == decayed_parameters(nn.Embedding(2, 2)) == ()
    with pytest.raises(TypeError, match="Bilinear has parameters, and does not say by DECAYED which of them decay"):
        decayed_parameters(nn.Bilinear(1, 1, 1))


def test_gradients_reach_every_expert_and_the_router() -> None:
    layer = made(MoE(Router(16, 4, 2), 12, 8))
    y, routing = layer(randn(2, 40, 16), None)
    assert routing.load.min() > 0 and routing.load.sum() == pytest.approx(1)
    y.square().sum().backward()
    for stack in (layer.w_in, layer.w_out):
        assert stack.grad is not None and (stack.grad.flatten(1).norm(dim=1) > 0).all()
    assert layer.router.weight.grad is not None and layer.router.weight.grad.norm() > 0


def test_experts_may_be_modules_of_any_kind_and_what_is_routed_may_be_maps() -> None:
    """Each map goes through its convolutions, weighted; an expert without a map gets gradients of zero."""
    router, x = made(Router(5, 4, 2)), randn(3, 6, 7, 8)
    experts = made(Experts(nn.Conv2d(6, 2, 3, padding=1) for _ in range(4)))
    with torch.no_grad():
        router.weight[3] = 0
        router.weight[3, 0] = -1e3
    choice = router(randn(3, 5).abs())
    y = dispatch(x, choice, experts)
    weights, chosen = choice.weight.tolist(), choice.chosen.tolist()
    for i in range(3):
        wanted = sum(w * experts[e](x[i : i + 1]) for w, e in zip(weights[i], chosen[i], strict=True))
        torch.testing.assert_close(y[i : i + 1], wanted)
    y.square().sum().backward()
    assert all(one.weight.grad is not None for one in experts) and experts[3].weight.grad.abs().max() == 0  # type: ignore[union-attr]
    shares = router.routing(choice, 3, None).shares
    sent = [set(row.nonzero().flatten().tolist()) for row in shares]
    assert shares.shape == (3, 4) and sent == [set(row) for row in chosen]


def test_balance_is_1_for_an_even_router_and_more_for_a_biased_one() -> None:
    layer = MoE(Router(16, 4, 2), 12, 0)
    initialise(layer, seeded())
    x = randn(4, 500, 16)
    with torch.no_grad():
        assert float(layer(x, None)[1].balance) == pytest.approx(1, abs=0.1)
        layer.router.weight.zero_()
        layer.router.weight[:2] = 10
        biased = layer(x.abs(), None)[1]
    assert float(biased.balance) == pytest.approx(2, abs=0.01) and biased.load.tolist() == [0.5, 0.5, 0, 0]


def test_padding_stays_out_of_the_router_s_statistics() -> None:
    layer = made(MoE(Router(16, 4, 2), 12, 0))
    x = randn(2, 9, 16)
    mask = torch.arange(9).expand(2, 9) < 6
    masked, cut = layer(x, mask)[1], layer(x[:, :6], None)[1]
    torch.testing.assert_close(masked.balance, cut.balance)
    torch.testing.assert_close(masked.load, cut.load)
    torch.testing.assert_close(masked.shares, cut.shares)
    torch.testing.assert_close(masked.shares.mean(0), masked.load)


def test_swiglu_is_its_formula() -> None:
    layer, x = made(SwiGLU(6, 10)), randn(3, 6)
    gate, up = layer.w_in.weight.split(10)
    torch.testing.assert_close(layer(x), (F.silu(x @ gate.T) * (x @ up.T)) @ layer.w_out.weight.T)


@pytest.mark.parametrize("kernel", [1, 3])
def test_naf_block_is_the_published_formula(kernel: int) -> None:
    """In channels-first convolutions, as in the NAFNet paper; kernel: of the last one, 3 in the authors' code."""
    block, x = made(NAFBlock(6, kernel)), randn(2, 5, 7, 6)

    def conv(layer: nn.Module, u: Tensor) -> Tensor:
        weight: Any = layer.weight
        assert weight.shape[2:] in ((), (3, 3))
        return F.conv2d(u, weight.view(*weight.shape[:2], *weight.shape[2:] or (1, 1)), layer.bias, padding="same")  # type: ignore[arg-type]

    def norm(layer: nn.LayerNorm, u: Tensor) -> Tensor:
        mean, variance = u.mean(1, keepdim=True), u.var(1, keepdim=True, unbiased=False)
        return (u - mean) / (variance + 1e-6).sqrt() * layer.weight[:, None, None] + layer.bias[:, None, None]

    inp = x.permute(0, 3, 1, 2)
    u = F.conv2d(conv(block.conv1, norm(block.norm1, inp)), block.conv2.weight, block.conv2.bias, padding=1, groups=12)
    u = u[:, :6] * u[:, 6:]
    u = u * conv(block.sca, F.adaptive_avg_pool2d(u, 1))
    y = inp + conv(block.conv3, u) * block.beta[:, None, None]
    u = conv(block.conv4, norm(block.norm2, y))
    z = y + conv(block.conv5, u[:, :6] * u[:, 6:]) * block.gamma[:, None, None]
    torch.testing.assert_close(block(x).permute(0, 3, 1, 2), z, atol=1e-5, rtol=1e-5)


def test_what_starts_as_nothing() -> None:
    naf, positions, adaln = NAFBlock(8), Positions(8), AdaLN(8, 4, 6)
    for module in (naf, positions, adaln):
        initialise(module, seeded())
    x = randn(1, 4, 4, 8)
    assert torch.equal(naf(x), x)
    assert positions(3, 5).abs().max() == 0 and positions(3, 5).shape == (15, 8)
    assert all(part.abs().max() == 0 for part in adaln(x.flatten(1, 2)))


def test_positions_are_a_sum_over_rows_and_columns_of_any_grid() -> None:
    layer = made(Positions(8))
    small, large = layer(3, 4).view(3, 4, 8), layer(6, 9).view(6, 9, 8)
    torch.testing.assert_close(large[:3, :4], small)
    torch.testing.assert_close(large[5, 7] - large[5, 2], large[1, 7] - large[1, 2])


def test_the_time_embedding_is_smooth_and_tells_times_apart() -> None:
    """A step of 0.01 changes no sinusoid by more than 0.2; start, middle and end are far apart."""
    layer, t = made(TimeEmbedding(8)), torch.linspace(0, 1, 101)
    seen: list[Tensor] = []
    layer.mlp[0].register_forward_hook(lambda module, given, out: seen.append(given[0]))
    layer(t)
    (waves,) = seen
    assert waves.shape == (101, 256) and waves[0].tolist() == [1.0] * 128 + [0.0] * 128
    assert waves.diff(dim=0).abs().max() < 0.2 + 1e-6
    assert (waves[0] - waves[50]).norm() > 3 and (waves[50] - waves[100]).norm() > 3


def test_modulation_is_its_formula() -> None:
    x, shift, scale = (randn(2, 3, 4, seed=i) for i in range(3))
    torch.testing.assert_close(modulate(x, shift, scale), (1 + scale) * x + shift)


def test_initialise_sets_every_parameter_from_the_generator() -> None:
    def build() -> nn.Module:
        attentions = Attention(8, 2, "previous"), Attention(8, 2, "first")
        parts = nn.ModuleList([MoE(Router(8, 4, 2), 6, 6), NAFBlock(8), *attentions, Positions(8), ZeroLinear(3, 4)])
        parts.extend([AdaLN(8, 0, 2), nn.Embedding(5, 4), nn.Conv1d(4, 4, 3), nn.LayerNorm(4)])
        for parameter in parts.parameters():
            parameter.data.fill_(torch.nan)
        return parts

    first, second, third = (build() for _ in range(3))
    for module, seed in ((first, 0), (second, 0), (third, 1)):
        initialise(module, seeded(seed))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first[0].w_in, third[0].w_in)  # type: ignore[index]


def test_the_kernel_is_chosen_by_device_mask_and_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    for installed, masked, kernel in ((True, False, "sdpa"), (True, True, "xformers"), (False, True, "sdpa")):
        monkeypatch.setattr("clearfuse.train.models.attention.has_xformers", lambda there=installed: there)
        assert choose_kernel("auto", gpu, masked) == kernel and choose_kernel("auto", cpu, masked) == "sdpa"
    assert choose_kernel("xformers", gpu, False) == "xformers" and choose_kernel("sdpa", gpu, True) == "sdpa"
    with pytest.raises(UserError, match="xformers is not installed"):
        find_kernel("xformers")
    with pytest.raises(UserError, match="unknown attention kernel 'sdp': did you mean 'sdpa'"):
        find_kernel("sdp")
    q, k, v = (randn(1, 2, 3, 8, seed=i) for i in range(3))
    with pytest.raises(AssertionError, match="kernels take one"):
        attention(q.bfloat16(), k.bfloat16(), v, None)


@pytest.mark.parametrize("counts", [(3, 0, 5, 1), (0, 0, 9, 0), (2, 3, 2, 2)])
def test_padded_experts_are_the_experts_one_by_one(counts: tuple[int, ...]) -> None:
    tokens, w_in, w_out = randn(9, 8, seed=1), randn(4, 8, 12, seed=2), randn(4, 6, 8, seed=3)
    parts = tokens.split(counts)
    halves = [(part @ w_in[i]).chunk(2, -1) for i, part in enumerate(parts)]
    expected = torch.cat([(F.silu(gate) * up) @ w_out[i] for i, (gate, up) in enumerate(halves)])
    torch.testing.assert_close(swiglu_padded(tokens, w_in, w_out, torch.tensor(counts)), expected)


def test_sine_positions_are_dit_s() -> None:
    """sin and cos of 10000^(−i / F) times the column, then of the row, for any grid, without parameters."""
    found = sine_positions(3, 5, 16).view(3, 5, 16)
    omega = 10000 ** (-torch.arange(4) / 4)
    for row, column in ((0, 0), (2, 1), (1, 4)):
        parts = [column * omega, row * omega]
        wanted = torch.cat([wave(part) for part in parts for wave in (torch.sin, torch.cos)])
        torch.testing.assert_close(found[row, column], wanted)
    torch.testing.assert_close(sine_positions(7, 9, 16).view(7, 9, 16)[:3, :5], found)

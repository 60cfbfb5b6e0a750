"""The optimizer, the learning-rate schedule and the moving average against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from clearfuse.train.models import MODELS
from clearfuse.train.training.optim import (
    BETAS,
    MUON_MOMENTUM,
    build_optimizer,
    clip_gradients,
    grad_norm,
    learning_rate,
    orthogonal,
    update_ema,
)


def test_the_rate_rises_then_falls_as_a_cosine() -> None:
    rates = [learning_rate(step, peak=2.0, warmup=4, steps=12) for step in range(12)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[4] == 2.0 and rates[8] == pytest.approx(1.0)
    assert rates[11] == pytest.approx(1 + math.cos(math.pi * 7 / 8))


def test_matrices_decay_and_the_rest_does_not() -> None:
    layer = nn.Linear(3, 2)
    optimizer = build_optimizer(layer, lr=0.1, decay=0.5)
    held = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(layer.weight): 0.5, id(layer.bias): 0.0}


@pytest.mark.parametrize("name", MODELS)
def test_every_family_says_what_decays(name: str) -> None:
    family = MODELS[name]
    with torch.device("meta"):
        network = family.network(family.config())
    optimizer = build_optimizer(network, lr=0.1, decay=0.5)
    held = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    learns = [(n, p) for n, p in network.named_parameters() if p.requires_grad]
    assert len(held) == len(learns)
    vectors = ("roles.weight", "prototypes", "directions")  # rows that stand for something each, no matrices
    assert all(bool(held[id(p)]) == (p.ndim > 1 and not n.endswith(vectors)) for n, p in learns)


def trajectories(cautious: bool, gradients: list[Tensor], decay: float = 0.1) -> tuple[Tensor, Tensor]:
    """A weight after torch's AdamW and after CautiousAdamW."""
    weights = [nn.Linear(3, 4, bias=False) for _ in range(2)]
    weights[1].load_state_dict(weights[0].state_dict())
    theirs = torch.optim.AdamW(weights[0].parameters(), lr=0.01, betas=BETAS, weight_decay=decay)
    ours = build_optimizer(weights[1], lr=0.01, decay=decay, cautious=cautious)
    for gradient in gradients:
        for layer, optimizer in zip(weights, (theirs, ours), strict=True):
            layer.weight.grad = gradient.clone()
            optimizer.step()
    assert ours.updates == len(gradients)
    return weights[0].weight.detach(), weights[1].weight.detach()


def test_without_caution_it_is_torch_s_adamw() -> None:
    rng = torch.Generator().manual_seed(0)
    theirs, ours = trajectories(False, [torch.randn(4, 3, generator=rng) for _ in range(20)])
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_where_all_agree_caution_changes_nothing() -> None:
    """With gradients of one sign, momentum has the same sign and the mask is all ones."""
    rng = torch.Generator().manual_seed(0)
    theirs, ours = trajectories(True, [torch.rand(4, 3, generator=rng) + 0.1 for _ in range(20)])
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_a_cautious_step_is_its_formula() -> None:
    rng = torch.Generator().manual_seed(3)
    lr, decay, (b1, b2), eps = 0.01, 0.1, BETAS, 1e-8
    layer = nn.Linear(3, 4, bias=False)
    optimizer = build_optimizer(layer, lr=lr, decay=decay)
    w = layer.weight.detach().double().clone()
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    shares: list[float] = []
    for t in range(1, 30):
        gradient = torch.randn(4, 3, generator=rng)
        layer.weight.grad = gradient.clone()
        optimizer.step()
        g = gradient.double()
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        mask = (m * g > 0).double()
        shares.append(float(mask.mean()))
        u = (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)
        w = (1 - lr * decay) * w - lr * u * mask / max(float(mask.mean()), 1e-3)
        torch.testing.assert_close(layer.weight.detach().double(), w, rtol=1e-5, atol=1e-7)
    assert min(shares) < 0.7


def test_where_nothing_agrees_nothing_moves_but_by_decay() -> None:
    layer = nn.Linear(1, 1, bias=False)
    optimizer = build_optimizer(layer, lr=0.01, decay=0.0)
    layer.weight.grad = torch.ones(1, 1)
    optimizer.step()
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.full((1, 1), -1e-3)  # the momentum still says +
    optimizer.step()
    assert torch.equal(layer.weight.detach(), before)


@pytest.mark.parametrize("shape", [(8, 30), (30, 8), (16, 16), (3, 20, 12)])
def test_newton_schulz_comes_near_the_orthogonal_factor(shape: tuple[int, ...]) -> None:
    """Singular values of a condition up to 100 come to 0.7 to 1.2; singular vectors stay, and 0 stays 0."""
    rng = torch.Generator().manual_seed(5)
    u, s, vt = torch.linalg.svd(torch.randn(shape, generator=rng), full_matrices=False)
    s = torch.logspace(0, -2, s.shape[-1]).expand_as(s)
    found = orthogonal(3.0 * u * s[..., None, :] @ vt)
    kept = torch.einsum("...mk,...mn,...nk->...k", u, found, vt.mT)
    assert kept.min() > 0.6 and kept.max() < 1.25
    torch.testing.assert_close(found, u * kept[..., None, :] @ vt, rtol=0, atol=1e-4)
    assert not orthogonal(torch.zeros(shape)).any()


def test_muon_steps_matrices_along_their_momentum_and_the_rest_by_adamw() -> None:
    rng = torch.Generator().manual_seed(5)
    layers = [nn.ModuleList([nn.Conv2d(4, 6, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Embedding(5, 4)]) for _ in "ab"]
    layers[1].load_state_dict(layers[0].state_dict())
    kernel = layers[0][0].weight.detach().clone()
    lr, decay = 0.01, 0.1
    optimizers = [build_optimizer(layers[i], lr, decay, kind=kind) for i, kind in enumerate(("muon", "adamw"))]
    momentum = torch.zeros_like(kernel)
    for _ in range(3):
        gradients = {name: torch.randn(p.shape, generator=rng) for name, p in layers[0].named_parameters()}
        for layer, optimizer in zip(layers, optimizers, strict=True):
            for name, p in layer.named_parameters():
                p.grad = gradients[name].clone()
            optimizer.step()
        momentum = MUON_MOMENTUM * momentum + gradients["0.weight"]
        direction = orthogonal((gradients["0.weight"] + MUON_MOMENTUM * momentum).flatten(1)).view_as(kernel)
        assert (36**0.5 * direction).square().mean().sqrt() == pytest.approx(1, abs=0.3)
        kernel = kernel * (1 - lr * decay) - lr * 36**0.5 * direction
    own, other = (dict(layer.named_parameters()) for layer in layers)
    torch.testing.assert_close(own["0.weight"], kernel)
    assert torch.equal(own["0.weight"].grad, gradients["0.weight"]) and optimizers[0].updates == 3
    for name in own.keys() - {"0.weight"}:
        torch.testing.assert_close(own[name], other[name])


def test_the_average_follows_the_weights() -> None:
    weight, shadow = torch.tensor([1.0]), torch.tensor([0.0])
    update_ema([shadow], [weight], step=0, decay=0.9)
    assert shadow.item() == pytest.approx(0.9)  # d = 1 / 10
    update_ema([shadow], [weight], step=1000, decay=0.9)
    assert shadow.item() == pytest.approx(0.9 * 0.9 + 0.1)


def test_gradients_are_clipped_together() -> None:
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    norm = grad_norm(parameters)
    assert norm.item() == 5
    clip_gradients(parameters, norm, 10)
    assert grad_norm(parameters).item() == 5
    clip_gradients(parameters, norm, 1)
    assert grad_norm(parameters).item() == pytest.approx(1, abs=1e-5)

"""The optimizer's schedule and average against their formulas."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from train.optim import average, build_optimizer, clip_gradients, grad_norm, learning_rate


def test_the_rate_rises_then_falls_as_a_cosine() -> None:
    rates = [learning_rate(step, peak=2.0, warmup=4, steps=12) for step in range(12)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[4] == 2.0 and rates[8] == pytest.approx(1.0)
    assert rates[11] == pytest.approx(1 + math.cos(math.pi * 7 / 8))


def test_matrices_decay_and_the_rest_does_not() -> None:
    layer = nn.Linear(3, 2)
    optimizer = build_optimizer(dict(layer.named_parameters()), lr=0.1, decay=0.5)
    held = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(layer.weight): 0.5, id(layer.bias): 0.0}


def test_the_average_follows_the_weights() -> None:
    weight, shadow = torch.tensor([1.0]), torch.tensor([0.0])
    average([shadow], [weight], step=0, decay=0.9)
    assert shadow.item() == pytest.approx(0.9)  # d = 1 / 10
    average([shadow], [weight], step=1000, decay=0.9)
    assert shadow.item() == pytest.approx(0.9 * 0.9 + 0.1)


def test_gradients_are_clipped_together() -> None:
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    norm = grad_norm(parameters)
    assert norm.item() == 5
    clip_gradients(parameters, norm, 10)
    assert grad_norm(parameters).item() == 5
    clip_gradients(parameters, norm, 1)
    assert grad_norm(parameters).item() == pytest.approx(1)

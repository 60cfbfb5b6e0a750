"""What every objective of ``OBJECTIVES`` obeys, in each of the forms that its settings give it."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from clearfuse.synth.types import UserError
from clearfuse.train.designs.design import Design
from clearfuse.train.designs.file import read_design
from clearfuse.train.models import Prediction
from clearfuse.train.models.mmaif import MMAIFConfig
from clearfuse.train.objectives import OBJECTIVES, Objective
from clearfuse.train.objectives.base import Predict, guide
from clearfuse.train.objectives.losses import FLOOR
from clearfuse.train.objectives.noise import Draws
from clearfuse.train.objectives.samplers import SAMPLERS

SHAPE = (4, 3, 5, 6)
FORMS: dict[str, tuple[str, ...]] = {
    "predicts": ("velocity", "noise", "clean"),
    "error": ("velocity", "clean"),
    "measure": ("mse", "log"),
    "source": ("gaussian", "a", "b", "mean"),
}
"""Settings that change the loss, tried in every combination that a class takes."""
WAYS: dict[str, tuple[str, ...]] = {"times": ("uniform", "logit-normal"), "sampler": tuple(SAMPLERS)}
"""Settings that are tried one at a time."""


def takes(cls: type[Objective], names: dict[str, Any]) -> Objective | None:
    """The objective with these settings; None where it refuses them."""
    try:
        return cls(**names)
    except (UserError, ValueError):
        return None


def forms() -> dict[str, Objective]:
    """Every form of every objective; those of few steps, where there are any, so that sampling is quick."""
    found: dict[str, Objective] = {}
    for kind, cls in OBJECTIVES.items():
        fields = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        steps = {"steps": 4} if "steps" in fields else {}
        own = [name for name in FORMS if name in fields]
        tried: list[dict[str, Any]] = [{}]
        tried += [dict(zip(own, values, strict=True)) for values in itertools.product(*(FORMS[name] for name in own))]
        tried += [{name: value} for name in WAYS if name in fields for value in WAYS[name]]
        for names in tried:
            if (objective := takes(cls, names | steps)) is not None:
                found[" ".join([kind, *(f"{name}={value}" for name, value in names.items())])] = objective
    return found


ALL = forms()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=seeded(seed))


TARGET, OTHER, PAIR = randn(1), randn(2), (randn(11), randn(12))


def predicted(latent: Tensor, balance: float = 0.0) -> Prediction:
    return Prediction(latent, torch.tensor(balance), torch.zeros(1, 0))


def perfect(objective: Objective, target: Tensor = TARGET) -> Predict:
    """A network that always predicts what stands for the clean latent ``target``."""

    def predict(z_t: Tensor | None, t: Tensor | None) -> Prediction:
        zero, one = (objective.clean(torch.full_like(target, value), z_t, t) for value in (0.0, 1.0))
        return predicted((target - zero) / (one - zero))

    return predict


def constant(latent: Tensor, balance: float = 0.0) -> Predict:
    """A network that always predicts the same."""
    return lambda z_t, t: predicted(latent, balance)


def test_every_setting_is_tried() -> None:
    assert OBJECTIVES.keys() == {name.partition(" ")[0] for name in ALL}
    for name, values in (FORMS | WAYS).items():
        assert all(any(f"{name}={value}" in form.split() for form in ALL) for value in values), name


@pytest.mark.parametrize("name", ALL)
def test_the_loss_vanishes_at_its_optimum_and_nowhere_near_it(name: str) -> None:
    """There its gradient is 0 too; a mean of log(error + FLOOR) is least at log FLOOR."""
    objective, target, made = ALL[name], TARGET.double(), list[Tensor]()
    pair = (PAIR[0].double(), PAIR[1].double())
    for seed in range(10):
        values: list[float] = []
        slopes: list[float] = []
        for off in (0.0, 0.1, 0.3):

            def predict(z_t: Tensor | None, t: Tensor | None, off: float = off) -> Prediction:
                made.append((perfect(objective, target)(z_t, t).latent + off * OTHER).requires_grad_())
                return predicted(made[-1])

            loss = objective.loss(predict, target, pair, seeded(seed))
            loss.total.backward()
            gradient = made.pop().grad
            assert gradient is not None and gradient.isfinite().all()
            assert loss.each.shape == SHAPE[:1] and loss.each.isfinite().all()
            values.append(float(loss.total.detach()))
            slopes.append(float(gradient.abs().max()))
        assert min(abs(values[0]), abs(values[0] - math.log(FLOOR))) < 1e-8 and values[0] < values[1] < values[2]
        assert slopes[0] < 1e-8 < 1e-6 < slopes[1]


@pytest.mark.parametrize("name", ALL)
def test_the_total_is_the_sum_of_its_weighted_terms(name: str) -> None:
    objective = dataclasses.replace(ALL[name], balance=0.1, pixel=0.5)  # type: ignore[type-var]
    seen: list[Tensor] = []

    def pixels(clean: Tensor) -> dict[str, Tensor]:
        seen.append(clean)
        return {"sources": clean.square().mean()}

    loss = objective.loss(constant(OTHER, 1.5), TARGET, PAIR, seeded(), pixels)
    terms = loss.terms
    assert terms.keys() == {"error", "balance", "pixel"} and not any(term.requires_grad for term in terms.values())
    torch.testing.assert_close(loss.total, terms["error"] + 0.1 * terms["balance"] + 0.5 * terms["pixel"])
    torch.testing.assert_close(loss.each.mean(), terms["error"])
    assert float(terms["balance"]) == 1.5
    objective.loss(perfect(objective), TARGET, PAIR, seeded(), pixels)
    torch.testing.assert_close(seen.pop(), TARGET, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match=r"the pixel loss has weight 0.5, but no function computes it"):
        objective.loss(constant(OTHER), TARGET, PAIR, seeded())


@pytest.mark.parametrize("name", ALL)
def test_weights_of_channels_weigh_their_errors(name: str) -> None:
    objective, weight = ALL[name], torch.tensor([1.0, 0.0, 1.0]).view(3, 1, 1)

    def off(channel: int) -> Predict:
        latent = torch.zeros(SHAPE)
        latent[:, channel] = 0.5
        return lambda z_t, t: predicted(perfect(objective)(z_t, t).latent + latent)

    def error(predict: Predict, weight: Tensor | None) -> float:
        return float(objective.loss(predict, TARGET, PAIR, seeded(), weight=weight).total)

    assert error(off(0), torch.ones(3, 1, 1)) == error(off(0), None) > error(perfect(objective), None) + 1e-6
    assert error(off(1), weight) == pytest.approx(error(perfect(objective), None), abs=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_what_is_drawn_for_a_sample_depends_on_no_other(name: str) -> None:
    """A batch has the errors that its halves have; each sample has a time of its own; no global generator is used."""
    objective, before = ALL[name], torch.random.get_rng_state()

    def each(rows: slice, seed: int = 0) -> tuple[Tensor, list[Tensor | None]]:
        seen: list[Tensor | None] = []

        def predict(z_t: Tensor | None, t: Tensor | None) -> Prediction:
            seen.append(t)
            return predicted(OTHER[rows])

        pair = (PAIR[0][rows], PAIR[1][rows])
        draws = Draws.of("noise", seed, range(len(TARGET))[rows])
        return objective.loss(predict, TARGET[rows], pair, draws).each, seen

    whole, times = each(slice(None))
    torch.testing.assert_close(torch.cat([each(slice(0, 2))[0], each(slice(2, 4))[0]]), whole)
    for t, other in zip(times, each(slice(None), 1)[1], strict=True):
        assert t is None or len(t.unique()) == len(TARGET)
        assert t is None or not torch.equal(t, other)  # type: ignore[arg-type]
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("name", ALL)
def test_samples_are_drawn_from_the_generator_alone_in_as_many_calls_as_it_says(name: str) -> None:
    objective, calls, before = ALL[name], 0, torch.random.get_rng_state()

    def counted(z_t: Tensor | None, t: Tensor | None) -> Prediction:
        nonlocal calls
        calls += 1
        return perfect(objective)(z_t, t)

    first, second = (objective.sample(counted, PAIR, seeded(3)) for _ in range(2))
    assert calls == 2 * objective.calls and first.shape == SHAPE and torch.equal(first, second)
    assert torch.equal(before, torch.random.get_rng_state())
    sampler = SAMPLERS.get(getattr(objective, "sampler", ""))
    if sampler is None or sampler.path != "flow" or not sampler.stochastic:  # its score is the noise's, of any target
        torch.testing.assert_close(first, TARGET, atol=1e-4, rtol=1e-4)
    if "drop" in {field.name for field in dataclasses.fields(objective)}:  # type: ignore[arg-type]
        guided, calls = dataclasses.replace(objective, drop=0.1, guidance=2.0), 0  # type: ignore[type-var]
        guided.sample(guide(counted, counted, guided.guidance), PAIR, seeded())
        assert calls == guided.calls == 2 * objective.calls


@pytest.mark.parametrize("name", ALL)
def test_latents_may_be_in_half_precision_and_times_are_not(name: str) -> None:
    objective, seen = ALL[name], list[Tensor | None]()
    pair = (PAIR[0].bfloat16(), PAIR[1].bfloat16())

    def predict(z_t: Tensor | None, t: Tensor | None) -> Prediction:
        seen.append(t)
        return predicted(OTHER.bfloat16())

    assert objective.loss(predict, TARGET.bfloat16(), pair, seeded()).total.isfinite()
    made = objective.sample(predict, pair, seeded())
    assert made.dtype == torch.bfloat16 and made.isfinite().all()
    assert {t.dtype for t in seen if t is not None} <= {torch.float32}


def design(objective: Objective) -> Design:
    return Design("mmaif", MMAIFConfig(), "dct", "bytes", objective)


@pytest.mark.parametrize("name", ALL)
def test_a_design_keeps_it_as_json(name: str) -> None:
    made = design(ALL[name])
    written = json.loads(json.dumps(made.to_json()))
    assert written["objective"]["kind"] == name.partition(" ")[0] and read_design(written, "p.json").design() == made
    with pytest.raises((dataclasses.FrozenInstanceError, ValueError)):
        made.objective.balance = 1.0


@pytest.mark.parametrize("kind", OBJECTIVES)
@pytest.mark.parametrize(
    "changed",
    [{"blance": 0.5}, {"balance": "much"}, {"balance": None}, {"pixel": [1]}, {"kind": "regresion"}],
    ids=str,
)
def test_a_design_with_another_setting_is_refused_in_one_line(kind: str, changed: dict[str, Any]) -> None:
    written = design(OBJECTIVES[kind]()).to_json()
    written["objective"] |= changed
    with pytest.raises(UserError) as error:
        read_design(written, "p.json").design()
    name, value = next(iter(changed.items()))
    assert str(value if name == "kind" else name) in str(error.value) and "\n" not in str(error.value)

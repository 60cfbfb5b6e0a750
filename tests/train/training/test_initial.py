"""What a run starts from and what of it learns: --init, --lora, --freeze, and more steps than it was to have."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from made import made_shards
from tiny import SMALL

from clearfuse.synth.types import UserError
from clearfuse.train.designs.design import Assembly
from clearfuse.train.designs.presets import PRESETS
from clearfuse.train.models.base import Inputs
from clearfuse.train.models.lora import LoRALinear, adapt, merged
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.runs.options import RunOptions
from clearfuse.train.runs.record import read_record
from clearfuse.train.runs.settings import Settings
from clearfuse.train.training import checkpoint
from clearfuse.train.training.trainer import Fitted, fit
from clearfuse.train.weights.tensors import read_tensors


@pytest.fixture(autouse=True)
def _presets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, preset in SMALL.items():
        monkeypatch.setitem(PRESETS, name, preset)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_shards(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def first(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run, to start from."""
    PRESETS.update(SMALL)
    out = tmp_path_factory.mktemp("first") / "run"
    run(shards, out)
    return out


def run(shards: Path, out: Path, **changed: Any) -> Fitted:
    notes = changed.pop("notes", [])
    settings = Settings.of("small", **({"steps": 4, "hold_out": 1} | changed))
    options = RunOptions(validate_every=2, checkpoint_every=2)
    return fit([str(shards / "vif")], str(out), settings, run_options=options, note=notes.append)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return read_tensors(out / "model.safetensors")[0]


def trained(out: Path) -> dict[str, torch.Tensor]:
    return read_tensors(checkpoint.found(out / "checkpoints")[-1] / "rank-000.safetensors")[0]


def network() -> tuple[torch.nn.Module, Inputs]:
    rng = torch.Generator().manual_seed(1)
    built = Assembly(SMALL["small"].design, rng).network.eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=rng))
    z = [torch.randn(2, 192, 4, 4, generator=rng) for _ in range(2)]
    return built, Inputs((z[0], z[1]), (torch.randn(2, 5, 128, generator=rng), None))


@torch.no_grad()
def test_lora_starts_as_the_model_and_merges_to_what_it_became() -> None:
    net, inputs = network()
    before, names = net(inputs).latent, set(net.state_dict())
    plain = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    count = adapt(net, 4, torch.Generator().manual_seed(2))
    layers = [module for module in net.modules() if isinstance(module, LoRALinear)]
    assert count == len(layers) > 10
    assert torch.equal(net(inputs).latent, before)
    learns = {name for name, p in net.named_parameters() if p.requires_grad}
    assert learns == {name for name in net.state_dict() if name.endswith(("lora_a", "lora_b"))}
    for layer in layers:
        layer.lora_b.normal_(0, 0.02)
    after = net(inputs).latent
    assert float((after - before).abs().max()) > 1e-3
    state = merged(net, net.state_dict())
    assert set(state) == names
    other, _ = network()
    other.load_state_dict(state)
    torch.testing.assert_close(other(inputs).latent, after, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in plain.items()), "the base stays"


@pytest.mark.slow
def test_a_lora_run_learns_adapters_alone_and_resumes_to_the_same_numbers(
    shards: Path, first: Path, tmp_path: Path
) -> None:
    notes: list[str] = []
    done = run(shards, tmp_path / "one", init=str(first), lora=2, notes=notes)
    assert done.step == 4 and any(note.startswith("LoRA of rank 2 on ") for note in notes)
    held = trained(tmp_path / "one")
    named = {name for name in held if "exp_avg" not in name}
    assert named and all("lora_" in name for name in named)
    base, model = weights(first), weights(tmp_path / "one")
    assert set(model) == set(base) and any(not torch.equal(model[name], base[name]) for name in base)
    assert all(torch.equal(model[name], base[name]) for name in base if name.startswith("text."))
    FusionPipeline.from_pretrained(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    shutil.rmtree(checkpoint.found(tmp_path / "two" / "checkpoints")[-1])
    (tmp_path / "two" / "model.safetensors").unlink()
    run(shards, tmp_path / "two", init=str(first), lora=2)
    again = trained(tmp_path / "two")
    assert held.keys() == again.keys() and all(torch.equal(held[name], again[name]) for name in held)
    assert (tmp_path / "one/log.jsonl").read_bytes() == (tmp_path / "two/log.jsonl").read_bytes()


def test_a_run_from_anothers_weights_starts_at_its_validation_loss(shards: Path, first: Path, tmp_path: Path) -> None:
    """At a rate of nearly nothing the first validation is that of the model it starts from."""
    run(shards, tmp_path / "run", init=str(first), lr=1e-12, steps=2)
    losses = [
        [line["loss"] for line in lines if line["kind"] == "validation"]
        for out in (first, tmp_path / "run")
        for lines in [[json.loads(text) for text in (out / "log.jsonl").read_text().splitlines()]]
    ]
    assert losses[1][0] == pytest.approx(min(losses[0]), rel=1e-3)


def test_frozen_weights_stay_and_the_others_learn(shards: Path, first: Path, tmp_path: Path) -> None:
    run(shards, tmp_path / "run", init=str(first), freeze=["text.*", "*.naf.*"], steps=2)
    before, after = weights(first), weights(tmp_path / "run")
    frozen = {name for name in before if name.startswith("text.") or ".naf." in name}
    assert frozen and all(torch.equal(before[name], after[name]) for name in frozen)
    assert any(not torch.equal(before[name], after[name]) for name in before if name not in frozen)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lora": 4}, "--lora 4: adapts a model that is there: name it by --init"),
        ({"freeze": ["nothing*"]}, "--freeze nothing*: no weight has such a name; there are network."),
        ({"freeze": ["*"]}, "--freeze *: leaves nothing to learn"),
    ],
)
def test_what_leaves_nothing_to_learn_is_refused(
    shards: Path, tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        run(shards, tmp_path / "run", **changed)
    assert str(error.value).startswith(message)


def test_a_run_goes_on_past_its_steps_and_says_the_schedule(shards: Path, first: Path, tmp_path: Path) -> None:
    shutil.copytree(first, tmp_path / "run")
    notes: list[str] = []
    done = run(shards, tmp_path / "run", steps=6, notes=notes)
    assert done.step == done.steps == 6
    assert "the run was of 4 steps: from here its rate is that of a run of 6" in notes
    assert read_record(tmp_path / "run").settings.steps == 6
    lines = [json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(UserError, match="a run with steps 6, not 4"):
        run(shards, tmp_path / "run")

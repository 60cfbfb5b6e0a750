"""What every family of ``MODELS`` obeys: its weights, its costs, its runs and its pipelines."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from clearfuse.train.data.corpus import index
from clearfuse.train.designs.design import Assembly, Design
from clearfuse.train.designs.presets import PRESETS, Preset
from clearfuse.train.designs.schedule import Schedule
from clearfuse.train.models import (
    MODELS,
    JointConfig,
    MdaIFConfig,
    MMAIFConfig,
    NAFNetConfig,
    OmniGenConfig,
    RestorerConfig,
    UNetConfig,
    find_model,
)
from clearfuse.train.objectives.flow import FlowMatching
from clearfuse.train.objectives.regression import Regression
from clearfuse.train.pipeline.fusion import FusionPipeline
from clearfuse.train.runs.compare import read_runs, to_json
from clearfuse.train.runs.options import RunOptions
from clearfuse.train.runs.settings import Settings
from clearfuse.train.training import checkpoint
from clearfuse.train.training.cache import cache
from clearfuse.train.training.trainer import fit
from clearfuse.train.weights.tensors import read_tensors
from conftest import save, textured

_MMAIF = MMAIFConfig(
    head="blend", latent_channels=192, text_width=128, depth=2, width=32, heads=2, expert_width=16, shared_width=16,
    lora=8,
)  # fmt: skip
_RESTORER = RestorerConfig(width=8, blocks=(1, 1, 1), depth=1, heads=2, expert_width=16, shared_width=16, lora=4)
_MDAIF = MdaIFConfig(
    semantics_width=128, widths=(8, 8, 16, 16), depths=(1, 1, 1, 1), heads=(1, 1, 2, 2), prior_width=16, width=8,
    blocks=1,
)  # fmt: skip
_NAFNET = NAFNetConfig(width=4, blocks=(1, 1, 1), middle=1)
_JOINT = JointConfig(latent_channels=192, text_width=128, depth=2, width=32, heads=2, hidden=48, lora=8)
_FLOW = FlowMatching(predicts="clean", steps=2)
DESIGNS: dict[str, Design] = {
    "joint": Design("joint", _JOINT, "dct", "bytes", _FLOW),
    "mmaif": Design("mmaif", _MMAIF, "dct", "bytes", Regression()),
    "restorer": Design("restorer", _RESTORER, "pixels", "bytes", Regression(), "pyramid"),
    "unet": Design("unet", UNetConfig(latent_channels=192, text_width=128, width=32, levels=2, blocks=1, heads=2),
                   "dct", "bytes", Regression()),
    "mdaif": Design("mdaif", _MDAIF, "pixels", "none", Regression(), semantics="learned"),
    "nafnet": Design("nafnet", _NAFNET, "pixels", "bytes", Regression(), "pyramid"),
    "omnigen": Design("omnigen", OmniGenConfig(), "omnigen", "omnigen", FlowMatching(steps=2), base="omnigen"),
}  # fmt: skip
"""A small design of each family; that of a base has the small one of ``_base``."""
FIT = Schedule(crop=32, batch=2, accumulate=1, steps=4, lr=1e-3, recompute=False)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> str:
    from clearfuse.synth.builder.run import build

    root = tmp_path_factory.mktemp("made")
    for number in range(4):
        save(root / "MSRS/train/vi" / f"{number:05d}D.png", textured(number))
        save(root / "MSRS/train/ir" / f"{number:05d}D.png", textured(100 + number, channels=1))
    build("vif", data=[f"msrs={root / 'MSRS'}"], out=str(root / "vif"), n="1", executor="serial", workers=1)
    return str(root / "vif")


@pytest.fixture(scope="module", autouse=True)
def _base(tmp_path_factory: pytest.TempPathFactory) -> None:
    from omnigens import TINY, omnigen

    config = replace(TINY, width=32, hidden=48, vocabulary=32, short_factors=(), long_factors=(), rank=2)
    folder = omnigen(tmp_path_factory.mktemp("base") / "omnigen", config)
    DESIGNS["omnigen"] = replace(
        DESIGNS["omnigen"],
        config=config,
        tokenizer=f"omnigen={folder / 'vae'}",
        text=f"omnigen={folder / 'tokenizer'}",
        base=str(folder / "transformer"),
    )


@pytest.fixture(autouse=True)
def _presets(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "omnigen" in request.node.name:
        pytest.importorskip("peft", reason="needs clearfuse[lora]")
    monkeypatch.setattr("clearfuse.train.data.corpus.HELD_OUT", 0.3)
    for name, design in DESIGNS.items():
        monkeypatch.setitem(PRESETS, f"law-{name}", Preset("for tests", design, FIT))


def run(paths: list[str], out: Path, family: str, **changed: Any) -> list[dict[str, Any]]:
    options = RunOptions(validate_every=2, checkpoint_every=2, trackers=("none",))
    fit(paths, str(out), Settings.of(f"law-{family}", **changed), run_options=options)
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_every_family_has_a_design() -> None:
    assert DESIGNS.keys() == MODELS.keys()


@pytest.mark.parametrize("family", MODELS)
def test_weights_are_of_the_seed_alone(family: str) -> None:
    before = torch.random.get_rng_state()
    first, second, third = (
        Assembly(DESIGNS[family], torch.Generator().manual_seed(seed)).state_dict() for seed in (3, 3, 4)
    )
    assert torch.equal(before, torch.random.get_rng_state()), "the global generator is left alone"
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], third[name]) for name in first)


@pytest.mark.parametrize("family", MODELS)
def test_costs_are_positive_and_grow_with_the_picture(family: str) -> None:
    made, config = find_model(family), DESIGNS[family].config
    with torch.device("meta"):
        total = sum(parameter.numel() for parameter in made.network(config).parameters())
    assert 0 <= made.inactive(config) < total
    for cost in (made.flops, made.activations):
        small, large = cost(config, 64, 64, 8), cost(config, 128, 128, 8)
        assert 3 * small < large, cost
    assert config.patch >= 1 and config.latent_channels and config.text_width >= 0


@pytest.mark.slow
@pytest.mark.parametrize("family", MODELS)
def test_a_run_resumes_to_the_same_bytes_and_is_a_pipeline(family: str, shards: str, tmp_path: Path) -> None:
    """Stopped after two of four steps; then fused whole, in tiles, saved and loaded again, and compared."""
    whole = run([shards], tmp_path / "whole", family)
    cut = tmp_path / "cut"
    run([shards], cut, family)
    for path in checkpoint.found(cut / "checkpoints"):
        if path.name > "step-0000002":
            for file in path.iterdir():
                file.unlink()
            path.rmdir()
    assert run([shards], cut, family) == whole and all(math.isfinite(line["loss"]) for line in whole)
    models = [read_tensors(path / "model.safetensors")[0] for path in (tmp_path / "whole", cut)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    assert {"PSNR", "SSIM", "error/vif"} < whole[-1].keys()
    pipeline, pair = FusionPipeline.from_pretrained(cut), (textured(1), textured(2, channels=1))
    fused = pipeline(*pair, task="vif")
    assert fused.shape == pair[0].shape and fused.dtype == np.uint8
    pipeline.save_pretrained(tmp_path / "saved")
    np.testing.assert_array_equal(FusionPipeline.from_pretrained(tmp_path / "saved")(*pair, task="vif"), fused)
    for task in ("mef", "mff"):
        assert pipeline(pair[0], textured(3), task=task).shape == fused.shape
    large = [np.tile(picture, (3, 3, 1)) for picture in pair]
    assert pipeline(*large, task="vif", tile=256).shape == large[0].shape
    rows = to_json(read_runs([str(cut), str(tmp_path / "whole")]))["runs"]
    assert [(row["step"], row["steps"]) for row in rows] == [(4, 4)] * 2


@pytest.mark.slow
@pytest.mark.parametrize("family", MODELS)
def test_a_run_on_a_cache_begins_as_on_its_pictures(family: str, shards: str, tmp_path: Path) -> None:
    cache([shards], str(tmp_path / "cache"), Settings.of(f"law-{family}"), epochs=2, executor="serial")
    assert len(index([str(tmp_path / "cache")]).train) == len(index([shards]).train)
    pictures, cached = (
        run([path], tmp_path / str(i), family) for i, path in enumerate((shards, str(tmp_path / "cache")))
    )
    assert cached[0]["loss"] == pytest.approx(pictures[0]["loss"], rel=2e-3)
    assert [line.keys() for line in cached] == [line.keys() for line in pictures]


@pytest.mark.parametrize("family", MODELS)
def test_a_network_takes_one_value_and_its_notes_are_of_samples(family: str) -> None:
    """Through the design's parts: a batch of three, each of whose notes is a row and without a gradient."""
    design = DESIGNS[family]
    assembly = Assembly(design, torch.Generator().manual_seed(0))
    images = torch.rand(3, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    pair = assembly.encode(images), assembly.encode(-images)
    views = (
        None
        if assembly.semantics is None
        else torch.zeros((3, 3, 2 * assembly.semantics.view.rows, assembly.semantics.view.side), dtype=torch.uint8)
    )
    said = None if assembly.semantics is None or views is None else assembly.semantics(views, ["vif"] * 3)
    guess = None if assembly.guess is None else assembly.encode(images)
    noisy = (pair[0], torch.full((3,), 0.5)) if getattr(design.config, "flow", False) else (None, None)
    prediction = assembly.bind(pair, ["remove the haze"] * 3, guess=guess, semantics=said)(*noisy)
    assert prediction.latent.shape == pair[0].shape and prediction.latent.requires_grad
    assert all(len(notes) == 3 and not notes.requires_grad for notes in prediction.notes.values())
    assert isinstance(assembly.network, nn.Module) and replace(design) == design

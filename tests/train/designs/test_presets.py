"""The presets: the paper's parameter counts, and the output of ``train info``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from clearfuse.train import text, tokenizers
from clearfuse.train.cli import info
from clearfuse.train.designs.design import Design
from clearfuse.train.designs.presets import PRESETS, describe, find_preset
from clearfuse.train.models import MODELS, Inputs, MMAIFConfig, Prediction, attention, build_model
from clearfuse.train.objectives.regression import Regression
from conftest import Ran

Train = Callable[..., Ran]


@pytest.fixture
def train(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Train:
    """Run ``train`` in this process."""

    def run(*args: str | Path) -> Ran:
        from clearfuse.train.cli.app import main

        monkeypatch.setattr(sys, "argv", ["train", *map(str, args)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = capsys.readouterr()
        return Ran(int(exit_.value.code or 0), captured.out, captured.err)

    return run


@pytest.mark.parametrize("name", ["mmaif-reg", "mmaif-fm"])
def test_the_paper_s_models_have_its_counts(name: str) -> None:
    costs = describe(name)
    assert costs["parameters_total"] == pytest.approx(282e6, rel=0.02)
    assert costs["parameters_active"] == pytest.approx(185e6, rel=0.02)
    assert costs["flops"] == pytest.approx(2.10e12, rel=0.01)
    assert describe(name, (512, 512))["flops"] == pytest.approx(0.42e12, rel=0.02)


def counted_by_formula(c: MMAIFConfig) -> tuple[int, int]:
    """Total and active parameters of the paper's network, counted layer by layer."""
    d, patch, residuals = c.width, c.latent_channels * c.patch**2, c.depth - 1

    def linear(inward: int, outward: int) -> int:
        return inward * outward + outward

    expert = 3 * d * c.expert_width
    naf = 2 * 2 * d + linear(d, 2 * d) + linear(9, 2 * d) + 2 * linear(d, d) + linear(d, 2 * d) + 2 * d
    naf += linear(c.naf_kernel**2 * d, d)
    attention = linear(d, 3 * d) + linear(d, d) + 2 * d // c.heads
    adaln = linear(d, c.lora) + linear(c.lora, 6 * d)
    block = naf + adaln + attention + d * c.experts + c.experts * expert + 3 * d * c.shared_width
    ends = linear((1 if c.flow else 2) * patch, d) + linear(2 * patch, d) + linear(d, d)  # embedding, condition
    ends += 2 * c.text_width + linear(c.text_width, d) + 2 * (linear(1, d) + linear(d, d))  # prompt, positions
    ends += linear(d, 2 * d) + linear(d, patch) + (linear(256, d) + linear(d, d) if c.flow else 0)  # head, time
    total = c.depth * block + residuals * (2 if c.value_source == "first" else 1) + ends
    return total, total - c.depth * (c.experts - c.active) * expert


@pytest.mark.parametrize("name", ["mmaif-reg", "mmaif-fm", "mmaif-s", "mmaif-b-fm", "mmaif-authors"])
def test_the_counts_are_the_formula_s(name: str) -> None:
    costs = describe(name)
    found = costs["parameters_total"], costs["parameters_active"]
    assert found == counted_by_formula(PRESETS[name].design.config)


EXPERTS = {"config.experts", "config.expert_width"}
PARTS: list[tuple[str, str, set[str]]] = [
    ("ablation-dit", "ablation-moe", EXPERTS),
    ("ablation-moe", "ablation-rope", {"config.rope", "config.pe"}),
    ("ablation-rope", "ablation-value", {"config.value_residual"}),
    ("ablation-value", "ablation-naf", {"config.naf"}),
    ("ablation-naf", "ablation-lora", {"config.lora"}),
    ("ablation-lora", "mmaif-fm", set()),
    ("mmaif-fm", "ablation-euler25", {"objective.sampler", "objective.steps"}),
    ("mmaif-fm", "ablation-euler100", {"objective.sampler", "objective.steps"}),
    ("mmaif-fm", "ablation-z0", {"objective.source"}),
    ("mmaif-fm", "ablation-z1", {"objective.source"}),
    ("mmaif-fm", "ablation-mean", {"objective.source"}),
]


def build_meta(config: MMAIFConfig) -> torch.nn.Module:
    with torch.device("meta"):
        return MODELS["mmaif"].network(config)


def flat(name: str) -> dict[str, Any]:
    """A preset's design and schedule as a flat dict with dotted names."""
    preset = PRESETS[name]
    nested = {**preset.design.to_json(), "schedule": preset.schedule.model_dump()}
    return {
        f"{part}.{key}": value
        for part, values in nested.items()
        for key, value in (values if isinstance(values, dict) else {"": values}).items()
    }


@pytest.mark.parametrize(("before", "after", "parts"), PARTS, ids=[row[1] for row in PARTS])
def test_a_row_of_the_ablation_differs_in_its_part_alone(before: str, after: str, parts: set[str]) -> None:
    one, other = flat(before), flat(after)
    assert {name for name in one.keys() | other.keys() if one.get(name) != other.get(name)} == parts


def test_the_first_rows_have_dit_s_positions() -> None:
    found = [PRESETS[f"ablation-{name}"].design.config.pe for name in ("dit", "moe", "rope")]
    assert found == ["sine", "sine", True]


def test_the_dense_rows_and_the_bridge_differ_in_their_part_alone() -> None:
    """Another network with as many parameters within 2 %; another objective with the same common settings."""
    unet, dit, full, bridge = map(flat, ("ablation-unet", "ablation-dit", "mmaif-fm", "i2sb"))
    changed = {name for name in unet.keys() | dit.keys() if unet.get(name) != dit.get(name)}
    assert changed and all(name == "model." or name.startswith("config.") for name in changed)
    counts = [describe(name)["parameters_total"] for name in ("ablation-unet", "ablation-dit", "ablation-moe")]
    assert counts[0] == pytest.approx(counts[1], rel=0.02) and counts[1] == pytest.approx(counts[2], rel=0.02)
    changed = {name for name in full.keys() | bridge.keys() if full.get(name) != bridge.get(name)}
    names = ("kind", "predicts", "error", "source", "sampler", "steps", "g", "drop_images", "drop_both")
    names += ("guidance_images", "measure", "floor")
    assert changed == {f"objective.{name}" for name in names}
    assert bridge["objective.source"] == "mean" and bridge["objective.steps"] == 100


def twin(design: Design) -> Design:
    """The same design with every size small."""
    sizes: dict[str, Any] = {"latent_channels": 4, "text_width": 6, "width": 32, "heads": 2}
    if design.model == "unet":
        sizes |= {"levels": 2, "blocks": 1}
    else:
        sizes |= {"depth": 2, "expert_width": 16, "shared_width": 8, "lora": min(design.config.lora, 4)}
    return replace(design, config=replace(design.config, **sizes))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith(("ablation", "i2sb", "mmaif"))])
def test_a_small_twin_of_each_row_learns_and_samples(name: str) -> None:
    design, rng = twin(PRESETS[name].design), torch.Generator().manual_seed(0)
    network = build_model(design.model, design.config, rng)
    pair = (torch.randn(2, 4, 6, 6, generator=rng), torch.randn(2, 4, 6, 6, generator=rng))
    target, text = (pair[0] + pair[1]) / 2 + 0.5, torch.randn(2, 3, 6, generator=rng)

    def predict(z_t: Tensor | None, t: Tensor | None) -> Prediction:
        return network(Inputs(pair, (text, None), z_t=z_t, t=t))

    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = design.objective.loss(predict, target, pair, torch.Generator().manual_seed(1))
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        losses.append(float(loss.terms["error"]))
    assert losses[-1] < 0.95 * losses[0], losses
    quick = design.objective if isinstance(design.objective, Regression) else replace(design.objective, steps=2)
    with torch.no_grad():
        assert quick.sample(predict, pair, rng).isfinite().all()


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_as_its_row_says(name: str) -> None:
    preset = find_preset(name)
    assert preset.design.tokenizer in tokenizers.NAMES and preset.design.text in text.NAMES
    family = MODELS[preset.design.model]
    assert isinstance(preset.design.config, family.config)
    assert getattr(preset.design.config, "flow", False) != isinstance(preset.design.objective, Regression)
    costs = describe(name)
    assert costs["parameters_total"] >= costs["parameters_active"] > 0 and costs["flops"] > 0 and costs["calls"] > 0
    assert costs["memory_inference"] > 0
    assert preset.schedule.crop % 16 == 0 and preset.schedule.warmup < preset.schedule.steps


@pytest.mark.parametrize("name", ["tiny-reg", "tiny-fm", "tiny-i2sb", "ditfuse-tiny"])
def test_the_tiny_presets_need_no_download(name: str) -> None:
    from clearfuse.train.text import build_text
    from clearfuse.train.tokenizers import build_tokenizer

    preset = PRESETS[name]
    assert preset.design.config.latent_channels == build_tokenizer(preset.design.tokenizer).z
    assert preset.design.config.text_width == build_text(preset.design.text, torch.Generator()).width
    assert preset.design.config.width >= 192


COUNTED: dict[str, Any] = {"memory_training": 3 * 2**30, "training": {
    "device": "cuda", "precision": "bf16", "batch": 8, "accumulate": 3, "size": "512x512", "recompute": True,
    "pixel": False, "weights": 2**28, "ema": 2**28, "optimizer": 2**29, "frozen": 2**27, "gradients": 2**28,
    "backward": 3 * 2**30, "update": 2**31, "activations": 2**30,
}}  # fmt: skip


@pytest.fixture
def uncounted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, str]]:
    """Memory is not counted, which takes seconds: see ``training/test_live_bytes.py``. What was to be counted."""
    asked: list[tuple[Any, str]] = []

    def costs(settings: Any, device: str) -> dict[str, Any]:
        asked.append((settings, device))
        return COUNTED

    monkeypatch.setattr(info, "training_costs", costs)
    return asked


def test_info_in_lines_and_as_json(train: Train, uncounted: list[tuple[Any, str]]) -> None:
    ran = train("info", "mmaif-fm")
    assert ran.code == 0
    assert "parameters  282.02 M, active 185.14 M" in ran.out and "2.11 T a call at 1024x1024, 5 a picture" in ran.out
    assert "3.00 GiB to train on cuda: 8 crops of 512x512, bf16, recomputed" in ran.out
    assert (
        "0.50 weights and EMA, 0.50 optimizer, 0.25 gradients, 0.12 tokenizer and prompt encoder, 1.00 act" in ran.out
    )
    assert "attention   sdpa in training, sdpa for one pair" in ran.out, "xformers is not installed"
    ran = train(
        "info", "mmaif-fm", "--size", "512X256", "--json", "--batch", "2", "--crop", "256", "--device", "cpu",
        "--set", "schedule.recompute=false", "--attention", "sdpa",
    )  # fmt: skip
    small = json.loads(ran.out)
    assert small.keys() >= {"parameters_total", "parameters_active", "flops", "memory_inference", "memory_training"}
    assert small["size"] == "512x256" and small["flops"] < describe("mmaif-fm")["flops"] / 7
    assert small["attention"] == {"training": "sdpa", "fusing": "sdpa"} and small["training"]["activations"] == 2**30
    settings, device = uncounted[-1]
    assert (settings.batch, settings.crop, settings.recompute, device) == (2, 256, False, "cpu")
    ran = train("info", "mmaif-fm", "--attention", "xformers")
    assert (ran.code, "--attention xformers: xformers is not installed" in ran.error) == (2, True)


def test_info_says_the_kernel_of_padded_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "has_xformers", lambda: True)
    assert info.kernels("auto", "cuda") == {"training": "xformers", "fusing": "sdpa"}
    assert info.kernels("xformers", "cuda") == {"training": "xformers", "fusing": "xformers"}
    assert info.kernels("auto", "cpu") == {"training": "sdpa", "fusing": "sdpa"}


@pytest.mark.slow
def test_info_counts_the_memory_of_training(train: Train) -> None:
    found = json.loads(train("info", "tiny-reg", "--json", "--device", "cpu", "--batch", "2", "--crop", "64").out)
    training, weights = found["training"], 4 * found["parameters_total"]
    assert (training["device"], training["precision"], training["batch"], training["size"]) == (
        "cpu",
        "fp32",
        2,
        "64x64",
    )
    assert training["weights"] > weights, "the prompt encoder learns too"
    assert training["weights"] == training["ema"] == training["gradients"] and training["frozen"] == 0
    assert found["memory_training"] == max(training["backward"], training["update"]) > 4 * training["weights"]
    assert training["activations"] > 0


def test_presets_for_several_gpus_are_the_paper_s_with_its_24_samples_a_step() -> None:
    for name in ("mmaif-fm", "mmaif-reg"):
        for other in (f"{name}-2x24gb", f"{name}-80gb"):
            one, two = flat(name), flat(other)
            changed = {key.removeprefix("schedule.") for key in one if one[key] != two[key]}
            assert changed <= {"batch", "accumulate", "recompute"}
            assert two["schedule.batch"] * two["schedule.accumulate"] == 24
    assert all(preset.every == 2000 for preset in PRESETS.values() if preset.paper)
    papers = ("mmaif-fm", "mmaif-reg", "mmaif-authors", "ablation", "i2sb")
    assert all(preset.paper == name.startswith(papers) for name, preset in PRESETS.items())


def test_a_run_takes_the_preset_s_intervals_and_the_machine_s_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    from clearfuse.train.cli import defaults
    from clearfuse.train.cli.options import FitOptions

    monkeypatch.setattr(defaults.os, "cpu_count", lambda: 24)
    usual = defaults.run_options(FitOptions(shards=("x",)), PRESETS["mmaif-fm"])
    assert (usual.workers, usual.validate_every, usual.checkpoint_every) == (23, 2000, 2000)
    given = FitOptions(shards=("x",), workers=0, checkpoint_every=7)
    told = defaults.run_options(given, PRESETS["tiny-reg"])
    assert (told.workers, told.validate_every, told.checkpoint_every) == (0, 250, 7)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    monkeypatch.setattr(defaults.os, "cpu_count", lambda: 192)
    assert defaults.usual_workers() == 23
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    assert defaults.usual_workers() == defaults.MOST_WORKERS


@pytest.mark.slow
def test_mistakes_are_one_line(train: Train, uncounted: list[tuple[Any, str]]) -> None:
    ran = train("info", "mmaif-fm", "--json", "--tokenizer", "cosmos-ci16x16", "--text", "t5-small")
    coarse = json.loads(ran.out)
    design = PRESETS["mmaif-fm"].design
    assert (coarse["f"], coarse["latents"]) == (16, [16, 64, 64])
    config = replace(design.config, text_width=512)
    assert coarse["flops"] == MODELS["mmaif"].flops(config, 64, 64, 64)
    assert coarse["memory_inference"] == 2 * (
        coarse["parameters_total"] + MODELS["mmaif"].activations(config, 64, 64, 64)
    )
    wide = json.loads(train("info", "mmaif-fm", "--json", "--tokenizer", "dct").out)
    assert wide["latents"] == [192, 128, 128] and wide["parameters_total"] == sum(
        each.numel() for each in build_meta(replace(design.config, latent_channels=192)).parameters()
    )
    deep = json.loads(train("info", "mmaif-fm", "--json", "--set", "config.depth=32").out)
    assert deep["parameters_total"] > 1.9 * describe("mmaif-fm")["parameters_total"]
    ran = train("info", "mmaif-fm", "--set", "config.latent_channels=4")
    assert (ran.code, ran.error) == (
        2,
        "train: error: the design's tokenizer 'cosmos' makes 16 latent channels, its network's config.latent_channels "
        "is 4",
    )
    ran = train("info", "mmaif-fm", "--tokenizer", "taesd4")
    assert ran.code == 2 and "unknown tokenizer 'taesd4': did you mean 'taesd" in ran.error
    ran = train("info", "tiny-rg")
    allowed = ", ".join(sorted(PRESETS))
    assert ran.code == 2
    assert ran.error == f"train: error: unknown preset 'tiny-rg': did you mean 'tiny-reg'? allowed: {allowed}"
    for size in ("3", "0x5", "ax5", "5x"):
        ran = train("info", "tiny-reg", "--size", size)
        assert (ran.code, ran.error) == (
            2,
            f"train: error: --size {size}: must be WIDTHxHEIGHT in pixels, such as 1024x1024",
        )
